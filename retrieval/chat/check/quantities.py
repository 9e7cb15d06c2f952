"""Numbers and what they count: "two dogs" says 2 of dogs, and supports neither "two cats" nor a bare "2" about cats.

A number of a sentence has support in a text that has the same number beside the same thing. Where nothing stands
beside it ("The answer is 2."), what the question asks for is that thing; an article ("a dog", «un chien») counts one,
but only of its own noun. Digits and words are one; number words are known in English, German, French, Spanish, Italian,
Portuguese, Dutch, Chinese and Japanese (`retrieval.chat.check.han_quantities` has the last two). A year, and what is
part of a name, a word or a time ("number 12", "D90", "10:30"), counts nothing: it must be there as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from retrieval.chat.check.claims import Claim, number_of, pieces, stem
from retrieval.chat.check.colours import DESCRIBING
from retrieval.chat.check.han_quantities import han_asked, han_quantities
from retrieval.chat.check.language import language, small_words_of
from retrieval.chat.check.lexicon import supports
from retrieval.chat.check.stopwords import STOP_WORDS

_NUMBERS = {
    "de": "null ein/eins/eine/einer/eines/einen/einem zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
    "fr": "zéro un/une deux trois quatre cinq six sept huit neuf dix onze douze",
    "es": "cero un/una/uno dos tres cuatro cinco seis siete ocho nueve diez once doce",
    "it": "zero un/una/uno due tre quattro cinque sei sette otto nove dieci undici dodici",
    "pt": "zero um/uma dois/duas três quatro cinco seis sete oito nove dez onze doze",
    "nl": "nul een/één twee drie vier vijf zes zeven acht negen tien elf twaalf",
}
_VALUES = {
    code: {word: float(value) for value, forms in enumerate(row.split()) for word in forms.split("/")}
    for code, row in _NUMBERS.items()
}
_ARTICLES = {"en": frozenset(["a", "an"])} | {
    code: frozenset(row.split()[1].split("/")) - {"eins", "één"} for code, row in _NUMBERS.items()
}
_ASKS = re.compile(
    r"\b(?:how many|number of|count of|wie viele|anzahl der|combien (?:de |d['’])?|nombre de|cu[aá]nt[oa]s|"
    r"número de|quant[ei]|quant[oa]s|hoeveel|aantal)\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
#: What may stand between a number and its thing.
_JOINING_WORDS = "of the these those his her their its my our your more other different further de des du del d"
_JOINING = frozenset(_JOINING_WORDS.split())
_TENS = frozenset(range(20, 100, 10))
_SCALES = frozenset([100.0, 1000.0, 1_000_000.0])
#: "One" behind these is no number, and before those it is a turn of phrase.
_POINTING_WORDS = "the this that no any every each which another other last first next second"
_POINTING = frozenset(_POINTING_WORDS.split())
_PHRASES = frozenset(["side", "hand", "way", "day", "time", "end", "point", "corner", "direction"])
_ORDINALS = frozenset(["first", "second", "third"])
#: A number behind these is a name.
_NAMED = frozenset(
    ["number", "no", "nr", "numéro", "número", "nummer", "route", "room", "gate", "flight", "page", "iso"]
)
# Behind a noun these describe it: what they follow is the thing.
_AFTER_NOUN = frozenset(["asleep", "alone", "alive", "awake", "afloat", "atop", "inside", "outside", "full", "ready"])
_PLURALS = frozenset(["men", "women", "children", "people", "feet", "teeth", "mice", "geese", "sheep"])
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d\Z")
_DIGITS = re.compile(r"\d+")
_MOST_WORDS = 6
_FEW = 3
_FAR = 12


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number in a text. things: words for what it counts; none where nothing stands beside it.

    written: as a number, and not as an article. label: a year, or part of a name or a time, which counts nothing.
    """

    value: float
    things: frozenset[str] = frozenset()
    written: bool = True
    label: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    """A number in a text that is a source, and the words of that text."""

    quantity: Quantity
    words: frozenset[str]


def states_numbers(claim: Claim) -> bool:
    """Whether a sentence has a number that must have support."""
    return bool(_stated(claim))


def counted_alike(claim: Claim, texts: Sequence[str]) -> bool:
    """Whether every number that a sentence states is in the texts, beside the same thing."""
    stated = _stated(claim)
    if not stated:
        return True
    spoken = {Claim(" / ".join(texts)).language, *_languages(claim)}
    parts = {part: Claim(part).stems for text in texts for part in text.split(" / ")}
    places = [
        _Place(quantity, words)
        for part, words in parts.items()
        for code in spoken
        for quantity in quantities(part, code)
    ]
    return all(_is_there(quantity, claim, places) for quantity in stated)


def _languages(claim: Claim) -> set[str]:
    """The languages that a sentence may be in: a word by itself, such as "dos", tells none, but its question does."""
    return {claim.language, language(claim.about)} if len(claim.tokens) <= _FEW else {claim.language}


def _stated(claim: Claim) -> list[Quantity]:
    """The numbers that a sentence answers for: of articles those of the things that the question asks the number of."""
    asked = things_asked(claim.about)
    found = {each for code in _languages(claim) for each in quantities(claim.text, code)}
    return [each for each in found if each.written or (asked and _same_thing(asked, each.things))]


def _is_there(quantity: Quantity, claim: Claim, places: Sequence[_Place]) -> bool:
    same = [place for place in places if place.quantity.value == quantity.value]
    written = [place for place in same if place.quantity.written]
    asked = things_asked(claim.about)
    if quantity.label and (asked is None or claim.content):
        return bool(written)
    things = quantity.things or asked
    if things:
        return any(_is_beside(things, place) for place in same)
    # A number that counts nothing that is said: it must be written among the words that are spoken of.
    about = claim.content.keys() | Claim(claim.about).content.keys()
    return any(not about or about & place.words for place in written)


def _is_beside(things: frozenset[str], place: _Place) -> bool:
    theirs = place.quantity
    if theirs.things:
        return _same_thing(things, theirs.things)
    # "One is black" counts what its text is about.
    return theirs.written and not theirs.label and _same_thing(things, place.words)


def _same_thing(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    return any(_same(one, other) for one in ours for other in theirs)


def _same(one: str, other: str) -> bool:
    ours, theirs = stem(one), stem(other)
    if ours == theirs or supports(ours, theirs) is True:
        return True
    if not one.isascii() or not other.isascii():
        return one.endswith(other) or other.endswith(one) or _inflected(one, other)
    return _inflected(one, other)


def _inflected(one: str, other: str) -> bool:
    """Whether two words differ in at most two letters at their ends, as singular and plural do."""
    short, long = sorted((one, other), key=len)
    return len(short) >= 4 and len(long) - len(short) <= 2 and long.startswith(short[: max(4, len(short) - 1)])


def _heads(words: Sequence[str], value: float, spoken: str) -> frozenset[str]:
    """The words behind a number that may name what it counts: "players" of "two baseball players swing"."""
    words = [word for word in words if word not in DESCRIBING]
    if spoken != "en" or not words:
        return frozenset(words)
    if value != 1:
        plural = next(filter(_is_plural, words), "")
        return frozenset([plural] if plural else words)
    for place, word in enumerate(words[1:], start=1):
        if word in _AFTER_NOUN or word.endswith(("ing", "ed")) or _is_plural(word):
            words = words[:place]
            break
    return frozenset(words[-1:])


def _is_plural(word: str) -> bool:
    return word in _PLURALS or (word.endswith("s") and not word.endswith(("ss", "us", "is")))


def things_asked(question: str) -> frozenset[str] | None:
    """Words for what a question asks the number of, none where it does not say; None where it asks for no number."""
    if not question:
        return None
    if (han := han_asked(question)) is not None:
        return frozenset([han] if han else [])
    match = _ASKS.search(question)
    if match is None:
        return None
    spoken = language(question)
    return _heads(_run(_words(match["rest"]), 0, _stops(spoken)), 2.0, spoken)


@lru_cache(maxsize=4096)
def quantities(text: str, spoken: str) -> tuple[Quantity, ...]:
    """The numbers of a text in the language `spoken`, articles among them."""
    found = [
        Quantity(value, frozenset([thing] if thing else []), label=label)
        for value, thing, label in han_quantities(text)
    ]
    tokens = _words(text)
    place = 0
    while place < len(tokens):
        value, after = _number(tokens, place, spoken)
        if value is None:
            found += _within(tokens[place])
        elif (quantity := _quantity(tokens, place, after, value=value, spoken=spoken)) is not None:
            found.append(quantity)
        place = after
    return tuple(found)


def _words(text: str) -> list[str]:
    return [token.lower() for token in Claim(text).tokens]


def _number(tokens: Sequence[str], place: int, spoken: str) -> tuple[float | None, int]:
    """The number that begins at a place, and where it ends: "twenty two" and "two hundred" are one."""
    word = tokens[place]
    value = _VALUES.get(spoken, {}).get(word)
    if value is None and (spoken == "en" or word[:1].isdigit()):
        value = 1.0 if spoken == "en" and word in _ARTICLES["en"] else number_of(word)
    if value is None or word in _ORDINALS or place + 1 >= len(tokens) or word[:1].isdigit():
        return (None if word in _ORDINALS else value), place + 1
    following = number_of(tokens[place + 1])
    if following is not None and value in _TENS and following < 10:
        return value + following, place + 2
    if following in _SCALES:
        return value * following, place + 2
    return value, place + 1


def _quantity(tokens: Sequence[str], place: int, after: int, *, value: float, spoken: str) -> Quantity | None:
    word = tokens[place]
    behind = _run(tokens, after, _stops(spoken))
    things = _heads(behind, value, spoken)
    # "Un." by itself is a number.
    if word in _ARTICLES.get(spoken, ()) and (after < len(tokens) or spoken == "en"):
        return Quantity(value, things, written=False) if things else None
    if word == "one":
        return _one(tokens, place, behind, things)
    named = bool(place) and tokens[place - 1] in _NAMED
    if (_YEAR.match(word) and not any(map(_is_plural, behind))) or (named and not things):
        return Quantity(value, label=True)
    return Quantity(value, things)


def _one(tokens: Sequence[str], place: int, behind: Sequence[str], things: frozenset[str]) -> Quantity | None:
    """ "One" where it is a number: before a noun, or where a sentence ends with it."""
    before = tokens[place - 1] if place else ""
    following = tokens[place + 1] if place + 1 < len(tokens) else ""
    if following == "of" or following in _PHRASES or before in _POINTING:
        return None
    ends = not following and (before in STOP_WORDS or not before)
    return Quantity(1.0, things) if behind or ends else None


def _within(token: str) -> Iterable[Quantity]:
    """The digits of a word or a time: "D90", "10:30", "1990s"."""
    return [Quantity(float(digits), label=True) for digits in _DIGITS.findall(token) if len(digits) < 16]


def _run(tokens: Sequence[str], place: int, stops: frozenset[str]) -> tuple[str, ...]:
    """The words behind a number up to one that carries no meaning; those of "640 x 480 pixels" are both numbers'."""
    words: list[str] = []
    for token in tokens[place : place + _FAR]:
        before, _, behind = token.replace("’", "'").partition("'")
        word = behind if len(before) <= 2 and behind else token
        if not words and (word in _JOINING or word == "x" or word[:1].isdigit()):
            continue
        if word in stops or number_of(word) is not None or len(words) == _MOST_WORDS:
            break
        words += pieces(word)[:1]
    return tuple(words)


def _stops(spoken: str) -> frozenset[str]:
    return STOP_WORDS if spoken == "en" else small_words_of(spoken)
