"""What keyword search takes for a word, and which words a record has, the same on every engine.

A text is folded first: compatibility forms (NFKC: width, ligatures) and case; accents of Latin, Greek and Cyrillic,
but й, ё, ї and ў are letters; Latin letters with strokes; the points of Hebrew and the vowel signs, hamzas and tatweel
of Arabic; digits of any script become 0 to 9. What has no width (joiners, variation selectors) is left out.

- Scripts with spaces: a word is a run of letters, their vowel signs (categories Mn, Mc), digits and underscores. Where
  the script changes, or letters meet digits, the parts are words too: ``iPhone15`` is `iphone15`, `iphone` and `15`.
- Han, kana, Hangul, and Thai, Lao, Khmer, Burmese and their like: each character, and each pair of neighbours. Of Thai
  and its like a character is a consonant with all its signs. Han and Hiragana run on together, Katakana does not; of
  kana, which spell sounds, three neighbours are a word too.
- An emoji, also one made of several, is a word.

A query is read the same way, but looks for the longest of these only, see `wanted_words`.
"""

from __future__ import annotations

import operator
import re
import unicodedata
from functools import cache
from urllib.parse import unquote, urlsplit

from backends import scripts

#: Which words a store was written with: counted up whenever `tokenize` changes, and stores then take theirs anew.
WORDS_VERSION = 2
#: What is longer is cut into pieces of this length: some engines have a limit.
MAX_WORD = 255
# Robertson and Zaragoza 2009, the values Lucene and most engines ship with.
BM25_K1, BM25_B = 1.2, 0.75

_MAX_UNIT = 16
# What changes more often between letters and digits is a hash, whose parts say nothing.
_MAX_PARTS = 8
_ASCII_WORD = re.compile(rf"\w{{1,{MAX_WORD}}}", re.ASCII)
_ASCII_PART = re.compile("[a-z]+|[0-9]+")
_DIGIT = re.compile("[0-9]")
_KANA = re.compile(f"[{scripts.KANA}]")
_HIRAGANA = re.compile(f"[{scripts.HIRAGANA}]")
# Between emoji it makes one of them; elsewhere it only says how letters are drawn.
_JOINER = re.compile(f"(?<![{scripts.EMOJI}]){scripts.ZWJ}|{scripts.ZWJ}(?![{scripts.EMOJI}])")
_PARTICLES = "がをにへとでのはもやか"
# In the kinds of a run's characters: a Han (h) between kana, on one side a particle (p) that is no part of more kana.
_LONE_HAN = re.compile("(?<!h)h(?=p(?:h|$))|(?:(?<=hp)|(?<=^p))h(?!h)")
# Single characters that a Chinese "and" or "or" joins, as in 猫和狗.
_JOINED_HAN = re.compile("[^和与與跟或及](?:[和与與跟或及][^和与與跟或及])+")
# Two kana (k) between particles, or between one and a Han or an end. What begins a run is no particle.
_LONE_PAIR = re.compile("(?:^|(?<=h))kk(?=p)|(?<=[hk]p)kk(?=[ph]|$)")
_UNSPACED = "".join(scripts.UNSPACED)
_BREAK = re.compile(f"(?<=[{_UNSPACED}]){scripts.ZWSP}(?=[{_UNSPACED}])")


def tokenize(text: str) -> list[str]:
    """All words that a text is found by, as often as they are there; see the module."""
    if text.isascii():
        lowered = text.lower()
        found = _ASCII_WORD.findall(lowered)
        if _DIGIT.search(lowered):
            found += [part for word in found if not word.isalpha() for part in _ascii_parts(word)]
        return found
    folded = fold(text)
    has_kana = _KANA.search(folded) is not None
    found = []
    for match in _runs(with_far=scripts.has_far(folded)).finditer(folded):
        run = match[0]
        if match.lastgroup == "spaced":
            for word in _pieces(run):
                found.append(word)
                found += _parts(word)
        elif match.lastgroup == "emoji":
            found.append(run)
            if scripts.ZWJ in run:
                found += run.split(scripts.ZWJ)
        else:
            units = _units(run, match.lastgroup)
            found += units
            found += map(operator.add, units, units[1:])
            if has_kana:
                found += ["".join(units[i : i + 3]) for i in _triples(units)]
    return found


def wanted_words(text: str) -> list[str]:
    """The words that a query looks for, each once: a text that has one of them is found.

    Of what `tokenize` gives only the longest: ``iphone15`` and not its parts; of characters side by side their pairs,
    or of kana their threes, and a single character only where it stands alone. So 飞机 does not find every text
    with 机, nor カラス one with ガラス. A lone Hiragana that is joined to another word, mostly a particle, is left
    out; a single Han or two kana beside a particle are looked for too, as both in 犬と猫, 猫和狗 and いぬとねこ.
    """
    if text.isascii():
        return list(dict.fromkeys(_ASCII_WORD.findall(text.lower())))
    folded = fold(text)
    found: list[str] = []
    matches = list(_runs(with_far=scripts.has_far(folded)).finditer(folded))
    ends = {match.end() for match in matches}
    starts = {match.start() for match in matches}
    for match in matches:
        run = match[0]
        if match.lastgroup == "spaced":
            found += _pieces(run)
        elif match.lastgroup == "emoji":
            found.append(run)
        else:
            units = _units(run, match.lastgroup)
            is_joined = match.start() in ends or match.end() in starts
            if len(units) > 1 or not (is_joined and _HIRAGANA.match(run)):
                found += _longest(units)
    return list(dict.fromkeys(found))


def shared_words(query: str, text: str) -> list[str]:
    """The words of a query that a text has, in the query's order; those that overlap in both, as pairs do, as one."""
    folded, there = fold(text), set(tokenize(text))
    found: list[str] = []
    for word in wanted_words(query):
        if word not in there:
            continue
        joined = _joined(found[-1], word) if found else ""
        if joined and joined in folded:
            found[-1] = joined
        else:
            found.append(word)
    return list(dict.fromkeys(found))


def _joined(first: str, second: str) -> str:
    """Two words that overlap as one, ``""`` where they do not, or are of a script with spaces."""
    if _paired().match(first) and _paired().match(second):
        for length in range(min(len(first), len(second)) - 1, 0, -1):
            if first.endswith(second[:length]):
                return first + second[length:]
    return ""


def folded_words(text: str) -> list[str]:
    """The runs of letters, marks and digits of a text, folded but not taken apart: a sentence of Chinese is one."""
    return _folded_word().findall(fold(text))


def fold(text: str) -> str:
    """A text in which letters that count as the same are the same; see the module."""
    if text.isascii():
        return text.lower()
    # A sound mark that stands for itself belongs to the kana before it.
    text = text.replace("\u309b", "\u3099").replace("\u309c", "\u309a")
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    changed, table = scripts.folding(with_far=scripts.has_far(text))
    text = changed.sub(lambda match: table.get(match[0], ""), text)
    if scripts.ZWJ in text:
        text = _JOINER.sub("", text)
    return _BREAK.sub("", text) if scripts.ZWSP in text else text


@cache
def _paired() -> re.Pattern[str]:
    return re.compile(scripts.one_of(scripts.PAIRED, with_far=True))


@cache
def _folded_word() -> re.Pattern[str]:
    return re.compile(rf"(?:\w++{scripts.one_of(scripts.marks(), with_far=True)}*+)++")


@cache
def _runs(*, with_far: bool) -> re.Pattern[str]:
    """What a folded text consists of: runs of spaced scripts, of Han with Hiragana, of each other script, and emoji."""

    def one_of(chars: str) -> str:
        return scripts.one_of(chars, with_far=with_far)

    s = scripts
    letters = rf"[^\W{s.near(s.PAIRED + s.EMOJI)}{s.ASTRAL}]++"
    if with_far:
        letters = rf"(?:{letters}|(?=[{s.ASTRAL}])[^\W{s.far(s.PAIRED + s.EMOJI)}])++"
    first = one_of(s.HAN + s.BOPOMOFO + s.HIRAGANA)
    east = one_of(s.HAN + s.BOPOMOFO + s.HIRAGANA + s.SOUND_MARKS)
    unspaced = "|".join(f"{one_of(script)}+" for script in s.UNSPACED)
    emoji = one_of(s.EMOJI)
    return re.compile(
        rf"(?P<spaced>(?:{letters}{one_of(s.marks())}*+)++)"
        rf"|(?P<east>{first}(?:{east}++|(?<=[{s.HIRAGANA}{s.PROLONGED}]){s.PROLONGED})*+)"
        rf"|(?P<katakana>{one_of(s.KATAKANA + s.PROLONGED)}{one_of(s.KATAKANA + s.PROLONGED + s.SOUND_MARKS)}*+)"
        rf"|(?P<hangul>[{s.HANGUL}]+)"
        rf"|(?P<clusters>{unspaced})"
        rf"|(?P<emoji>[{s.REGIONAL}]{{2}}|{emoji}(?:{s.ZWJ}{emoji}){{0,7}})"
    )


def _pieces(run: str) -> list[str]:
    if len(run) <= MAX_WORD:
        return [run]
    return [run[start : start + MAX_WORD] for start in range(0, len(run), MAX_WORD)]


def _ascii_parts(word: str) -> list[str]:
    if word.isdigit() or word.isalpha() or "_" in word:
        return []
    parts = _ASCII_PART.findall(word)
    return parts if len(parts) <= _MAX_PARTS else []


@cache
def _scripts() -> re.Pattern[str]:
    known = "".join(scripts.SPACED)
    return re.compile("|".join(f"[{script}]+" for script in scripts.SPACED) + f"|[0-9]+|[^0-9{known}]+")


def _parts(word: str) -> list[str]:
    """The parts of a word of several scripts, or of letters and digits; none of one that is all of a kind."""
    if word.isascii():
        return _ascii_parts(word)
    if "_" in word:
        return []
    parts = _scripts().findall(word)
    return parts if 1 < len(parts) <= _MAX_PARTS else []


@cache
def _cluster() -> re.Pattern[str]:
    """A consonant of Thai and its like with all its signs; of the others a character with its marks."""
    signs = scripts.marks() + scripts.FOLLOWING
    letter = f"[^{scripts.LEADING}{signs}]"
    return re.compile(f"[{scripts.LEADING}]{{0,4}}{letter}(?:[{scripts.STACKING}]{letter}|[{signs}])*|.", re.DOTALL)


def _units(run: str, kind: str | None) -> list[str]:
    """The characters of a run, each with its signs."""
    if kind == "clusters" or "\u3099" in run or "\u309a" in run:
        return [unit[:_MAX_UNIT] for unit in _cluster().findall(run)]
    return list(run)


def _triples(units: list[str]) -> list[int]:
    """Where three kana stand side by side."""
    kana = [_KANA.match(unit) is not None for unit in units]
    return [i for i in range(len(units) - 2) if kana[i] and kana[i + 1] and kana[i + 2]]


def _longest(units: list[str]) -> list[str]:
    """The pairs of a run, and threes of kana in the place of the pairs within them; a unit that is alone."""
    if len(units) == 1:
        return units
    triples = _triples(units)
    within = {i + offset for i in triples for offset in (0, 1)}
    spans = [(i, 3) for i in triples] + [(i, 2) for i in range(len(units) - 1) if i not in within]
    return ["".join(units[i : i + length]) for i, length in sorted(spans)] + _beside_particles(units)


def _beside_particles(units: list[str]) -> list[str]:
    """What stands alone beside a particle or an "and" is a word in spite of its neighbours: a Han, as in 犬と猫 or
    猫和狗, or two kana, as in いぬとねこ."""
    kinds = "".join("h" if not _KANA.match(unit) else "p" if unit in _PARTICLES else "k" for unit in units)
    han = [units[match.start()] for match in _LONE_HAN.finditer(kinds)]
    if _JOINED_HAN.fullmatch("".join(units)):
        han = units[::2]
    return han + ["".join(units[slice(*match.span())]) for match in _LONE_PAIR.finditer(kinds)]


# An address with a path, in which nothing is to be decoded or left out.
_PLAIN_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#%\[\]\\\s\x00-\x1f]*/[^?#%\s\x00-\x1f]*[^/?#%\s\x00-\x1f]")


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
    if _PLAIN_URI.fullmatch(uri):
        # What follows would give the same in ten times the time, which every record pays that is written.
        return uri.rstrip("/").rpartition("/")[2]
    try:
        path = unquote(urlsplit(uri).path) if "://" in uri else uri.replace("\\", "/")
    except ValueError:
        path = uri
    return path.rstrip("/").rpartition("/")[2]
