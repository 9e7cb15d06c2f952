"""What keyword search takes for a word, and which words a record has, the same on every engine."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote, urlsplit

WORD = re.compile(r"\w+")
# Robertson and Zaragoza 2009, the values Lucene and most engines ship with.
BM25_K1, BM25_B = 1.2, 0.75


def tokenize(text: str) -> list[str]:
    """The words keyword search sees: runs of letters and digits, case and accents folded."""
    if text.isascii():
        return WORD.findall(text.lower())
    plain = unicodedata.normalize("NFKD", text.casefold())
    return WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))


def searched_text(text: str | None, uri: str | None) -> str:
    """What keyword search reads of a record: its text, then the name of its file.

    ``beach_sunset-2.jpg`` is found by `beach_sunset`, `beach`, `sunset`, `2` and `jpg`: an underscore is
    part of a word in a text, but in a name it stands for a space. Folders and hosts are not read.
    """
    if not uri:
        return text or ""
    name = file_name(uri)
    if "_" in name:
        name += " " + name.replace("_", " ")
    return f"{text}\n{name}" if text else name


def file_name(uri: str) -> str:
    """The last part of a path or address, its percent signs decoded."""
    try:
        path = unquote(urlsplit(uri).path) if "://" in uri else uri.replace("\\", "/")
    except ValueError:
        path = uri
    return path.rstrip("/").rpartition("/")[2]
