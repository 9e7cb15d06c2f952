"""Texts as CLIP's tokenizers want them: open_clip's cleaning, with the standard library alone."""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Sequence

# A longer text is cut before it is tokenised: byte-pair encoding takes quadratic time on one long word. A
# token of the context then stands for 32 characters, many times what any language needs.
_CHARACTERS_PER_TOKEN = 32

_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[\d;]*[a-zA-Z]")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _replacements() -> dict[int, str | None]:
    """What is written otherwise, character by character, where people mean the plain one."""
    made: dict[int, str | None] = {}
    # Ligatures and digraphs of Latin letters; full and half width; curly quotation marks.
    for code in (*range(0x132, 0x134), *range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4), *range(0xFB00, 0xFB07)):
        made[code] = unicodedata.normalize("NFC", unicodedata.normalize("NFKD", chr(code)))
    made[0x149] = "'n"
    made[0xFB05] = "\u017ft"
    for code in range(0xFF01, 0xFFF0):
        made[code] = unicodedata.normalize("NFKC", chr(code))
    made[0x3000] = " "
    made |= dict.fromkeys((0x2BC, *range(0x2018, 0x201C)), "'")
    made |= dict.fromkeys(range(0x201C, 0x2020), '"')
    # Control characters: those of Windows-1252 that were read as Latin-1, ends of lines, and what is invisible.
    for code in range(0x80, 0xA0):
        made[code] = bytes([code]).decode("cp1252", "ignore").translate(made) or chr(code)
    made |= dict.fromkeys((0x2028, 0x2029), "\n")
    made |= dict.fromkeys((*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070)), None)
    made |= dict.fromkeys((0xFEFF, *range(0xFFF9, 0xFFFD)), None)
    return made


_REPLACEMENTS = _replacements()


def bounded(texts: Sequence[str], context_length: int) -> list[str]:
    """The texts as UTF-8 can hold them, without a length that no tokenizer bears."""
    limit = context_length * _CHARACTERS_PER_TOKEN
    # White space is collapsed by the tokenizers too. Lone surrogates cannot be written as UTF-8.
    cut = (text if len(text) <= limit else " ".join(text.split())[:limit] for text in texts)
    return [text.encode("utf-8", "replace").decode("utf-8") for text in cut]


def clean(text: str, how: str) -> str:
    """The text as open_clip hands it to its tokenizer; how: ``lower``, ``whitespace`` or ``canonicalize``.

    One difference is left: text that was read in a wrong encoding ("cafÃ©") stays as it is, where open_clip
    repairs it with the package ftfy.
    """
    text = html.unescape(html.unescape(_plain(text)))
    if how == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION).lower()
    text = " ".join(text.split())
    return text.lower() if how == "lower" else text


def _plain(text: str) -> str:
    """Characters that only look otherwise made plain, as ftfy's ``fix_text`` makes them, again until none is left."""
    if text.isascii() and "&" not in text and text.isprintable():
        return text
    while True:
        before = text
        # What holds a "<" may be HTML, in which entities have a meaning.
        if "<" not in text:
            text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
        text = _ESCAPE_SEQUENCE.sub("", text).translate(_REPLACEMENTS)
        text = unicodedata.normalize("NFC", text)
        if text == before:
            return text
