"""Scripts, as far as `backends.text` must tell them apart: their letters, marks, digits, and what is folded."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

# Of no width, and no part of a word: joiners, marks of direction, variation selectors, soft hyphens, tags. Tatweel
# only makes an Arabic word longer.
IGNORED = (
    "\u00ad\u034f\u0640\u061c\u180b-\u180f\u200c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef"
)
ZWJ, ZWSP = "\u200d", "\u200b"
# Marks that stand on letters of Latin, Greek and Cyrillic, the points of Hebrew and the vowel signs and hamzas of
# Arabic: with or without them it is the same word.
DROPPED_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
)
# й, ё, ї and ў are letters of their own, not accented ones.
KEPT = "\u0439\u0451\u0457\u045e"
# Where letters stand that are folded: Latin, Greek, Cyrillic, and Arabic's letters with hamza.
FOLDED_BLOCKS = ((0xC0, 0x250), (0x370, 0x530), (0x622, 0x6D4), (0x1E00, 0x2000))
# Latin letters that Unicode does not take apart: those with strokes and hooks, and the pairs.
STROKED = (
    "øđħıłŧƀƃƈƌƒƙƚƞƥƫƭƴƶǥȡȥȴȵȶȼȿɀɇɉɋɍɏɓɕɖɗɠɦɨɫɬɭɱɲɳɼɽɾʂʈʋʐʑʝʠⱡⱥⱦⱨⱪⱬ",
    "odhiltbbcdfklnpttyzgdzlntcszejqrybcddghilllmnnrrrstvzzjqlathkz",
)
LIGATURES = {"æ": "ae", "œ": "oe", "ß": "ss", "þ": "th", "ð": "d", "ŋ": "n", "ĸ": "k"}

HAN = "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
BOPOMOFO = "\u3105-\u312f\u31a0-\u31bf"
HIRAGANA = "\u3041-\u3096\u309d-\u309f\U0001b001-\U0001b11f\U0001b132\U0001b150-\U0001b152"
KATAKANA = "\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff\U0001b000\U0001b120-\U0001b122\U0001b155\U0001b164-\U0001b167"
PROLONGED, SOUND_MARKS = "\u30fc", "\u3099\u309a"
KANA = HIRAGANA + KATAKANA + PROLONGED
HANGUL = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb"
# Scripts that set no spaces between words, each without its punctuation: Thai, Lao, Burmese, Khmer, Tai Le, New Tai
# Lue, Tai Tham, Balinese, Javanese and Tai Viet.
UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e",
    "\u0e81-\u0ece\u0edc-\u0edf",
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaa7f",
    "\u1780-\u17d3\u17d7\u17dc\u17dd",
    "\u1950-\u1974",
    "\u1980-\u19c9",
    "\u1a20-\u1a7c",
    "\u1b00-\u1b4c",
    "\ua980-\ua9c0",
    "\uaa80-\uaadd",
)
# In those: vowels that stand before their consonant, vowels that are letters but belong to the consonant before,
# and the sign that puts the next consonant under this one.
LEADING = "\u0e40-\u0e44\u0ec0-\u0ec4\uaab5\uaab6\uaab9\uaabb\uaabc"
FOLLOWING = "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3\uaab1\uaaba\uaabd"
STACKING = "\u1039\u17d2\u1a60\u1b44\ua9c0"
PAIRED = HAN + BOPOMOFO + KANA + SOUND_MARKS + HANGUL + "".join(UNSPACED)
# Alphabets of spaced scripts, each with its marks: a word that changes from one to another has parts.
SPACED = (
    "a-z\u00aa-\u024f\u0250-\u02ff\u1d00-\u1dbf\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff\uab30-\uab6f",
    "\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f",
    "\u0370-\u03ff\u1f00-\u1fff",
    "\u0600-\u06ff\u0750-\u077f\u0870-\u08ff",
    "\u0590-\u05ff",
    *(f"{chr(start)}-{chr(start + 0x7F)}" for start in range(0x900, 0xE00, 0x80)),
    "\u0530-\u058f",
    "\u10a0-\u10ff\u1c90-\u1cbf\u2d00-\u2d2f",
    "\u1200-\u139f\u2d80-\u2ddf",
)
EMOJI = "\u231a-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f0ff\U0001f200-\U0001faff"
SKIN_TONES, REGIONAL = "\U0001f3fb-\U0001f3ff", "\U0001f1e6-\U0001f1ff"


BMP_END, ASTRAL = "\uffff", "\U00010000-\U0010ffff"


def near(chars: str) -> str:
    """The part of a character class up to U+FFFF."""
    return "".join(f"{a}-{b or a}" for a, b in re.findall("(.)(?:-(.))?", chars, re.DOTALL) if a <= BMP_END)


def far(chars: str) -> str:
    """The part of a character class beyond U+FFFF."""
    return "".join(f"{a}-{b or a}" for a, b in re.findall("(.)(?:-(.))?", chars, re.DOTALL) if a > BMP_END)


def has_far(text: str) -> bool:
    """Whether a text has characters beyond U+FFFF, which make each pattern slower."""
    return _FAR.search(text) is not None


_FAR = re.compile(f"[{ASTRAL}]")


def one_of(chars: str, *, with_far: bool) -> str:
    """A pattern for one character of a class; those beyond U+FFFF are looked for among such only, or not at all.

    Python finds the others in a bitmap, but these one range after another, which every letter would wait for.
    """
    beyond = far(chars) if with_far else ""
    return f"(?:[{near(chars)}]|[{ASTRAL}](?<=[{beyond}]))" if beyond else f"[{near(chars)}]"


@cache
def folding(*, with_far: bool) -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern for what becomes something else, or nothing, in a text of NFKC in small letters; and what becomes."""
    bare = dict(zip(*STROKED, strict=True)) | LIGATURES
    accented = {chr(cp): _unaccented(chr(cp)) for block in FOLDED_BLOCKS for cp in range(*block)}
    table = bare | {c: bare.get(plain, plain) for c, plain in accented.items()}
    table = {c: plain for c, plain in table.items() if plain != c and c not in KEPT}
    table |= {c: str(unicodedata.decimal(c)) for c in map(chr, range(0x80, 0x20000)) if c.isdecimal()}
    return re.compile(one_of("".join(table) + IGNORED + DROPPED_MARKS + SKIN_TONES, with_far=with_far)), table


def _unaccented(letter: str) -> str:
    """A letter without its accents."""
    return re.sub(f"[{DROPPED_MARKS}]", "", unicodedata.normalize("NFD", letter)) or letter


@cache
def marks() -> str:
    """All marks that belong to the letter before (categories Mn and Mc), as ranges for a character class."""
    found: list[list[int]] = []
    for cp in [*range(0x300, 0x3000), *range(0xA000, 0xAC00), *range(0xFB00, 0x20000)]:
        if cp <= sys.maxunicode and unicodedata.category(chr(cp)) in ("Mn", "Mc"):
            if found and found[-1][1] == cp - 1:
                found[-1][1] = cp
            else:
                found.append([cp, cp])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in found)
