"""What keyword search takes for a word, the same on every engine that lets us say it."""

from __future__ import annotations

import re
import unicodedata

WORD = re.compile(r"\w+")
# Robertson and Zaragoza 2009, the values Lucene and most engines ship with.
BM25_K1, BM25_B = 1.2, 0.75


def words(text: str) -> list[str]:
    """The words keyword search sees: runs of letters and digits, case and accents folded."""
    if text.isascii():
        return WORD.findall(text.lower())
    plain = unicodedata.normalize("NFKD", text.casefold())
    return WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))
