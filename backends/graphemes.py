"""Texts as the characters that people see, so that none is cut in two.

What one sees as a character may be several code points: a letter with its accents or vowel signs, a Hindi conjunct,
a syllable of Korean jamo (as macOS writes names of files), two letters that are a flag, a family of emoji with
joiners between them. These are the extended grapheme clusters of Unicode Standard Annex #29, with the conjuncts of
Indic scripts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

#: As many code points a cluster at most: what goes on longer is no writing (Annex #15 has 30 as its safe limit).
MAX_POINTS = 32
_JOINER = "\u200d"
_MARKS = frozenset({"Mn", "Mc", "Me"})
# Code points that are no marks and yet belong to what stands before them: jamo of a syllable's middle and end, joiners,
# vowel signs of Thai and Lao, sound marks of half-width kana, skin tones, tags of regional flags.
_EXTENDING = (
    (0x1160, 0x11FF),
    (0xD7B0, 0xD7FB),
    (0x200C, 0x200D),
    (0x0E33, 0x0E33),
    (0x0EB3, 0x0EB3),
    (0xFF9E, 0xFF9F),
    (0x1F3FB, 0x1F3FF),
    (0xE0020, 0xE007F),
)
# Signs that put the next consonant into one conjunct with the one before: viramas, and Khmer's sign for subscripts.
_LINKERS = frozenset("\u094d\u09cd\u0acd\u0b4d\u0c4d\u0d4d\u0dca\u1039\u17d2")


def graphemes(text: str) -> Iterator[str]:
    """The clusters of `text` from left to right; joined they are the text. Of endless ones, 32 code points each."""
    start, flag_letters = 0, 0
    for at, point in enumerate(text):
        flag_letters = flag_letters + 1 if _is_flag_letter(point) else 0
        if at == start:
            continue
        before = text[at - 1]
        joined = (
            _extends(point)
            or before == _JOINER
            or (before in _LINKERS and unicodedata.category(point) == "Lo")
            or (flag_letters > 0 and flag_letters % 2 == 0)
        )
        if not joined or at - start >= MAX_POINTS:
            yield text[start:at]
            start = at
    if text:
        yield text[start:]


def _is_flag_letter(point: str) -> bool:
    return "\U0001f1e6" <= point <= "\U0001f1ff"


@lru_cache(4096)
def _extends(point: str) -> bool:
    if point < "\u0300":
        return False
    code = ord(point)
    return unicodedata.category(point) in _MARKS or any(first <= code <= last for first, last in _EXTENDING)
