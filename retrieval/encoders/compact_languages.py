"""Which of `compact`'s text towers reads a text, and in which language: the rules, on text alone.

**By script.** The tower of many languages has learnt the letters of its sixteen languages. What is in other scripts
(Hindi, Georgian) or has letters that none of the sixteen uses (Vietnamese ơ, Czech ř, Ukrainian і, Persian گ) would be
read in pieces of one letter, which mean nothing: a text of which less than half is in known scripts is not read, nor
one of which a third of the words has such letters, unless more are English (a name: hotel in Tromsø). A
text in several scripts goes where most of it can be read: to MiniLM only where nearly all of it is in Latin letters.

**Latin letters.** English must hardly ever leave MiniLM, and most searches are English, so the rules are made to say so
at once and without the other tower (words: compact_words.json):

1. Words that English does not have (articles, prepositions, common nouns of eight languages, and words with accents)
   are evidence for another language, and those that only English has are evidence against it. Words that names bring
   into English (la, van, del) and those that English shares with others (in, an, a) count half. One of the former
   beside words that English has is English (white van), and so is a noun or verb of English that stands alone (dove).
2. Without any such evidence a text is English, unless it is short and half its words are unknown in English.
3. Where there is evidence for another language, or nothing is known, the two towers are compared: where the cosine of
   what they make of the text is below `Route.nearness` they disagree, and the tower of many languages is right.

``python -m benchmarks.languages`` measures all of it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Literal, TypeAlias

Tower: TypeAlias = Literal["english", "multilingual", "either", "none"]

#: The languages that `compact` reads.
LANGUAGES = ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh", "zh-TW")
#: What a text is said to be in where its language cannot be told.
UNDETERMINED = "und"
# Below it the towers disagree about a text. English queries lie at 0.68 (median; 0.47 is their lowest twentieth), of
# short ones in another language four of five lie below.
_NEARNESS = 0.45
# The same for a text without evidence for any language. English queries lie above 0.28, but of rare
# names of animals and things a few in a thousand below 0.2.
_NEARNESS_WITHOUT_EVIDENCE = 0.2
# As much of a text must be in another script for it to leave MiniLM for that alone.
_OTHER_SCRIPT_SHARE = 0.2
_KNOWN_SHARE = 0.5
# What a word that English has says against another language, which may have it too.
_KNOWN_WORD = 0.2
_BEYOND_SHARE = 1 / 3
# A longer text in another language has at least one of its articles or prepositions.
_SHORT_WORDS = 4
# Characters of a text that are looked at: enough to tell its language, whatever its length.
_LOOKED_AT = 2000

_LETTERS = re.compile(r"(?:[^\W\d_]|[^\x00-\x7f\w\s])+")
_ASCII_WORDS = re.compile(r"[a-z]+")
# First and last letter of the scripts that are known beside Latin.
_SCRIPTS = (
    ("cyrillic", "\u0400", "\u052f"),
    ("arabic", "\u0600", "\u06ff"),
    ("thai", "\u0e00", "\u0e7f"),
    ("hangul", "\u1100", "\u11ff"),
    ("kana", "\u3040", "\u30ff"),
    ("hangul", "\u3130", "\u318f"),
    ("kana", "\u31f0", "\u31ff"),
    ("han", "\u3005", "\u3007"),
    ("han", "\u3400", "\u4dbf"),
    ("han", "\u4e00", "\u9fff"),
    ("hangul", "\uac00", "\ud7af"),
    ("han", "\uf900", "\ufaff"),
    ("han", "\U00020000", "\U0003ffff"),
)
# In these two characters are about a word.
_UNSPACED = frozenset({"han", "kana", "thai"})
_ALPHABETS: Mapping[str, frozenset[str]] = {
    # A word in Latin letters may also be a name.
    "latin": frozenset("abcdefghijklmnopqrstuvwxyzßàáâãäçèéêëìíîïñòóôõöùúûüÿąćęğıłńœśşźżĳªº"),
    "cyrillic": frozenset("абвгдеёжзийклмнопрстуфхцчшщъыьэюя"),
    "arabic": frozenset("ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىيـ"),
}
# Not even in names, and of nearly every word's accents in Vietnamese.
_VIETNAMESE = frozenset("ơưăđ") | frozenset(map(chr, range(0x1EA0, 0x1EFA)))
_LANGUAGE_OF = {"kana": "ja", "hangul": "ko", "thai": "th", "cyrillic": "ru", "arabic": "ar"}


@dataclass(frozen=True)
class Route:
    """Who reads a text, and its language.

    tower: ``either`` is MiniLM, unless the cosine of what the two towers make of the text is below `nearness`.
    """

    tower: Tower
    language: str
    nearness: float = _NEARNESS


ENGLISH = Route("english", "en")
UNREADABLE = Route("none", UNDETERMINED)


Knows: TypeAlias = Callable[[str], bool]


def route_of(text: str, knows: Knows, knows_rare: Knows = lambda _: False) -> Route:
    """Which tower reads a text.

    Args:
        knows: says whether MiniLM has a word, in small letters, in its vocabulary.
        knows_rare: says whether a word that it has not is English; asked where the rest of the rules does not know it.
    """
    looked_at = text[:_LOOKED_AT]
    if looked_at.isascii():
        words = _ASCII_WORDS.findall(looked_at.lower())
        return _latin(words, knows, knows_rare) if words else _without_letters(looked_at)
    counts = _count(looked_at)
    if not counts.total:
        return _without_letters(looked_at)
    others = sum(counts.others.values())
    if others + len(counts.latin) < _KNOWN_SHARE * counts.total or counts.beyond >= _BEYOND_SHARE * counts.total:
        return UNREADABLE
    if others >= _OTHER_SCRIPT_SHARE * counts.total:
        return Route("multilingual", _language_of_scripts(counts.others, looked_at))
    return _latin(counts.latin, knows, knows_rare)


def script_of(character: str) -> str:
    """The script of a letter: latin, cyrillic, arabic, thai, hangul, kana, han, or other; mark for what joins one."""
    if unicodedata.category(character)[0] not in "LM":
        return "none"
    for script, first, last in _SCRIPTS:
        if first <= character <= last:
            return script
    if unicodedata.combining(character):
        return "mark"
    return "latin" if unicodedata.name(character, "").startswith("LATIN") else "other"


def _without_letters(text: str) -> Route:
    return ENGLISH if any(character.isdecimal() for character in text) else UNREADABLE


@dataclass
class _Counts:
    """What a text is made of, in words: those in Latin letters, how many are in other known scripts, and all.

    beyond: how many have letters of a known script that none of the languages uses.
    """

    latin: list[str] = field(default_factory=list)
    others: dict[str, float] = field(default_factory=dict)
    beyond: int = 0
    total: float = 0


def _count(text: str) -> _Counts:
    counts = _Counts()
    for run in _LETTERS.findall(unicodedata.normalize("NFKC", text).lower()):
        letters: dict[str, list[str]] = {}
        for character in run:
            script = script_of(character)
            if script == "none":
                # A mark of punctuation, as in l’herbe.
                _count_words(letters, counts)
                letters = {}
            elif script != "mark":
                letters.setdefault(script, []).append(character)
        _count_words(letters, counts)
    return counts


def _count_words(letters: Mapping[str, list[str]], counts: _Counts) -> None:
    for script in letters:
        _count_word(script, letters[script], counts)


def _count_word(script: str, letters: list[str], counts: _Counts) -> None:
    weight = len(letters) / 2 if script in _UNSPACED else 1
    counts.total += weight
    if script == "latin":
        counts.latin.append("".join(letters))
        return
    if script != "other":
        counts.others[script] = counts.others.get(script, 0) + weight
    alphabet = _ALPHABETS.get(script)
    # Arabic's vowel signs are letters of the script here, and in none of its words needed.
    plain = {letter for letter in letters if not unicodedata.combining(letter)}
    counts.beyond += alphabet is not None and not alphabet.issuperset(plain)


def _language_of_scripts(others: Mapping[str, float], text: str) -> str:
    script = max(others, key=lambda name: others[name])
    if script != "han":
        return _LANGUAGE_OF[script]
    if "kana" in others:
        return "ja"
    characters = "".join(character for character in text if script_of(character) == "han")
    return "zh-TW" if _encodes(characters, "big5") and not _encodes(characters, "gb2312") else "zh"


def _encodes(text: str, codec: str) -> bool:
    """Whether a text is in the characters of Taiwan (big5) or of the mainland (gb2312)."""
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class _Lists:
    """The words and letters by which languages written in Latin letters are told apart."""

    languages: Mapping[str, frozenset[str]]
    accents: Mapping[str, frozenset[str]]
    foreign: frozenset[str]
    weak: frozenset[str]
    english: frozenset[str]
    english_weak: frozenset[str]
    alone: frozenset[str]
    beyond: frozenset[str]


@lru_cache(maxsize=1)
def _lists() -> _Lists:
    data = json.loads((files("retrieval.encoders") / "compact_words.json").read_text(encoding="utf-8"))
    languages = {language: frozenset(words.split()) for language, words in data["languages"].items()}
    return _Lists(
        languages=languages,
        accents={language: frozenset(letters) for language, letters in data["accents"].items()},
        foreign=frozenset().union(*languages.values()),
        weak=frozenset(data["weak"].split()),
        english=frozenset(data["english"].split()),
        english_weak=frozenset(data["english_weak"].split()),
        alone=frozenset(data["alone"].split()),
        beyond=frozenset(data["beyond"].split()),
    )


def _latin(words: list[str], knows: Knows, knows_rare: Knows) -> Route:
    """The route of a text by its words in Latin letters."""
    lists = _lists()
    evidence, beyond, unknown, known, english = 0.0, 0, 0, 0, False
    for word in words:
        if word in lists.english or word in lists.english_weak:
            evidence -= 1 if word in lists.english else 0.5
            english |= word in lists.english
            known += 1
        elif word in lists.foreign:
            evidence += 0.5 if word in lists.weak else 1
        elif word in lists.beyond or not _VIETNAMESE.isdisjoint(word):
            beyond += 1
        elif word.isascii():
            is_known = _is_english(word, knows) or knows_rare(word)
            evidence -= _KNOWN_WORD if is_known else 0
            unknown += not is_known
            known += is_known
        elif knows(_without_accents(word)):
            # Words and names that English has taken over: café, Dvořák.
            evidence += 0.5 if _ALPHABETS["latin"].issuperset(word) else 0
        elif _ALPHABETS["latin"].issuperset(word):
            evidence += 1
        else:
            beyond += 1
    if beyond >= _BEYOND_SHARE * len(words) and known <= beyond and not english:
        return UNREADABLE
    if known == len(words) - 1 and _is_borrowed(words):
        return ENGLISH
    if evidence > 0:
        # Two words that English does not have, and none of its own: the towers need not be asked.
        certain = evidence >= 2 and not english
        return Route("multilingual" if certain else "either", _latin_language(words))
    if english or not unknown or len(words) > _SHORT_WORDS or 2 * unknown < len(words):
        return ENGLISH
    return Route("either", _latin_language(words), _NEARNESS_WITHOUT_EVIDENCE)


def _is_borrowed(words: list[str]) -> bool:
    """Whether the only word of another language among these is one that English has, too: white van, dove."""
    lists = _lists()
    foreign = [word for word in words if word in lists.foreign]
    return len(foreign) == 1 and foreign[0] in (lists.weak if len(words) > 1 else lists.alone)


def _without_accents(word: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFD", word) if letter.isascii())


def _is_english(word: str, knows: Knows) -> bool:
    """Whether a word is in MiniLM's vocabulary, as it is, without an English ending, or as two words joined."""
    if knows(word) or any(word.endswith(ending) and knows(word[: -len(ending)]) for ending in _ENDINGS):
        return True
    singular = word.removesuffix("s")
    return any(knows(singular[:at]) and knows(singular[at:]) for at in range(3, len(singular) - 2))


_ENDINGS = ("s", "es", "ed", "ing", "er", "ers", "less", "ness", "ly")


def _latin_language(words: list[str]) -> str:
    """The likeliest language in Latin letters other than English; `UNDETERMINED` without any sign of one."""
    lists, signs = _lists(), Counter[str]()
    for language, own in lists.languages.items():
        signs[language] = sum(2 * (word in own) + (not lists.accents[language].isdisjoint(word)) for word in words)
    (language, best), (_, second), *_ = signs.most_common(2)
    return language if best > second else UNDETERMINED
