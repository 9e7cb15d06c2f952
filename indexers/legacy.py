"""Guessing which older encoding a text is in."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

SAMPLE_BYTES = 64 * 1024
#: A reading of which less is usual cannot be what was meant.
LEAST_USUAL = 0.7


def likely_encodings(data: bytes) -> list[str]:
    """The older encodings that these bytes may well be text of, the likeliest first, by the names that `iconv` knows.

    Every reading without an error is looked at for how much of it, but ASCII, is what most texts of its language are
    made of: the standards put frequent characters first.
    """
    sample = data[:SAMPLE_BYTES]
    scores = {name: _usual(sample, name, usual) for name, usual in _USUAL.items()}
    likely = [name for name, score in scores.items() if score >= LEAST_USUAL]
    return sorted(likely, key=lambda name: -scores[name])


def guessed_encodings(data: bytes) -> list[str]:
    """The encodings to read a text in that is not UTF-8, the likeliest first.

    What most texts of a language are made of tells more of a short one than statistics do; those come second.
    """
    from charset_normalizer import from_bytes

    best = from_bytes(data[:SAMPLE_BYTES]).best()
    found = likely_encodings(data) + ([best.encoding] if best is not None else [])
    return list(dict.fromkeys(found))


def _usual(sample: bytes, encoding: str, is_usual: Callable[[str, bytes], bool]) -> float:
    """The share of usual characters among those that are not ASCII; 0 for what does not decode."""
    try:
        # A character that the sample's end cuts is no error.
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return 0.0
    others = [char for char in text if not char.isascii()]
    if encoding in _OF_OWN_LETTERS and 2 * len(_AMONG_LATIN.findall(text)) > len(others):
        return 0.0
    return sum(is_usual(char, char.encode(encoding)) for char in others) / max(1, len(others))


def _lead(first: int, last: int) -> Callable[[str, bytes], bool]:
    """Whether a character is of two bytes, the first of them of the rows that hold the frequent ones."""
    return lambda char, code: len(code) == 2 and first <= code[0] <= last


_USUAL: dict[str, Callable[[str, bytes], bool]] = {
    # Before the Chinese ones, to which all of it may look like text as well.
    "EUC-KR": _lead(0xB0, 0xC8),
    "GB18030": lambda char, code: _lead(0xA1, 0xD7)(char, code) and code[1] >= 0xA1 and not 0xA4 <= code[0] <= 0xAF,
    "BIG5": lambda char, code: _lead(0xA4, 0xC6)(char, code) or char in "，。、：；？！「」（）",
    "SHIFT_JIS": lambda char, code: _lead(0x81, 0x97)(char, code) and code[0] != 0x85,
    "EUC-JP": lambda char, code: "\u3041" <= char <= "\u30fe" or _lead(0xB0, 0xCF)(char, code),
    "CP1252": lambda char, code: char in "äöüßÄÖÜéèêëàâçîïôûùœáíóúñãõåøæÉÇÀÁÊÎÔÑÓÅØÆ¿¡’‘“”„–—…€°«»",
    "CP1251": lambda char, code: "\u0410" <= char <= "\u044f" or char in "ёЁ«»—–№",
}
#: Encodings of letters that make whole words of their own: beside a Latin letter one is another encoding's.
_OF_OWN_LETTERS = frozenset({"CP1251"})
_AMONG_LATIN = re.compile("[A-Za-z][^\\x00-\\x7f]|[^\\x00-\\x7f][A-Za-z]")
