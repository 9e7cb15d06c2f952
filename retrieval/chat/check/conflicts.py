"""Specific conflicts: where a source says something else in the place of what a sentence says.

That a caption does not mention what a sentence says proves nothing, since a photo shows more than its caption. So only
these count, each with the words of the source that conflict:

- another number of the same things ("three dogs", "two dogs"), or another value of a metadata field that is named;
- another colour of the same thing, of two colours that nobody confuses;
- another name where the question asks for one, another year of a photo, another inscription on the same thing;
- "no X" where most captions name X; "no" to a question of which a caption says yes.

Words are compared in English only. In other languages numbers, quoted strings and names of the same script count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retrieval.chat.check.claims import Claim, number_of, stem, strip_citations
from retrieval.chat.check.colours import DESCRIBING, HUES, clash, coloured, several
from retrieval.chat.check.lexicon import supports
from retrieval.chat.check.quantities import quantities
from retrieval.chat.check.stopwords import STOP_WORDS

_YEAR = re.compile(r"(?<![\d.,])(1[89]\d\d|20\d\d)(?![\d]|[.,]\d)")
_DATED = re.compile(r"\b(?:year|date|day|taken|created|time)\b", re.IGNORECASE)
_TAKEN = re.compile(
    r"\b(?:taken|photographed|shot|captured|made|created|dates? from|dated|aufgenommen|fotografiert|prise?|"
    r"photographiée?|tomada|fotografiada|scattata|tirada|genomen)\b|拍摄|拍攝|摄于|拍于|撮影|撮られ|촬영|снят|сделан",
    re.IGNORECASE,
)
_PHOTO = (
    r"\b(?:photo(?:graph)?s?|images?|pictures?|it|this|both|these|they|fotos?|bild(?:er)?|aufnahmen?)\b[^.,;:]{0,20}?"
)
_WHEN = r"(?:jan\w*|feb\w*|mar\w*|apr\w*|may|june?|july?|aug\w*|sep\w*|oct\w*|nov\w*|dec\w*|\d{1,2}(?:st|nd|rd|th)?,?|"
_WHEN += r"the|early|late|spring|summer|autumn|fall|winter|year|of|about|around)"
# What was taken is the photo: "a car made in 1957" tells nothing of its date.
_TAKEN_IN = re.compile(
    rf"{_PHOTO}\b(?:taken|photographed|shot|captured|dates?|dated|is|was)(?: back)?(?: (?:to|from|in|on|around))"
    rf"(?: {_WHEN}){{0,4}} (?:1[89]\d\d|20\d\d)(?![\w]|[.,]\d)|"
    rf"{_PHOTO}(?:1[89]\d\d|20\d\d)(?: \w+)? (?:aufgenommen|fotografiert)"
    r"|(?:拍摄于|拍攝於|攝於|摄于|拍于)\s*(?:1[89]\d\d|20\d\d)",
    re.IGNORECASE,
)
_ASKS_WHO = re.compile(r"^\W*(?:who|whom|whose|wer|wen|wem|wessen|qui|quién|chi|quem|wie)\b", re.IGNORECASE)
_ASKS_COUNT = re.compile(r"\bhow many\b", re.IGNORECASE)
_POLAR = re.compile(r"^\W*(?:is|are|was|were|does|do|did|has|have|can)\b", re.IGNORECASE)
_NO = re.compile(r"^\W*no\s*[,.;:–—-]", re.IGNORECASE)
_WHOLE = re.compile(r"\b(?:there (?:is|are|was|were)|exactly|only|just|altogether|in total|in all)\b", re.IGNORECASE)
_INSCRIBED = re.compile(
    r"\b(\w+)(?:\s+(?:that|which|clearly|also))?\s+(?:says?|saying|reads?|reading|(?:is\s+)?(?:labell?ed|marked))\s+"
    r"(?:the\s+words?\s+)?[\"“„«']([^\"”“»]{1,60}?)[\"”“»']",
    re.IGNORECASE,
)
_MEASURED = re.compile(
    r"([一二两兩三四五六七八九十]|\d+)\s*(?:只|隻|个|個|头|頭|条|匹|辆|輛|台|位|名|张|朵|棵|把|艘|架|人の|羽の|匹の|頭の|台の)"
    r"([\u3400-\u9fff]{1,2})"
)
_HAN_NUMBERS = {sign: value for value, sign in enumerate("一二三四五六七八九十", start=1)} | {"两": 2, "兩": 2}
_PLURALS = frozenset(["men", "women", "children", "people", "feet", "teeth", "mice", "geese", "sheep"])
_MAX_WORDS = 160
_LINKS = frozenset(["is", "was", "are", "were", "the", "a", "an", "by", "named", "called"])
_CLAUSE = re.compile(r"[,;:.!?()–—]|\b(?:and|but|only|just)\b", re.IGNORECASE)
_PERSON_WORDS = """
man men woman person people boy girl child player surfer skier rider lady guy
"""
#: One caption's "a man" says nothing of how many there are.
_PERSON = frozenset(map(stem, _PERSON_WORDS.split()))


@dataclass(frozen=True, slots=True)
class Told:
    """What a source tells in words.

    parts: its captions, or its text. fields: names and values of its metadata. captions: whether `parts` each tell of
    the whole picture, as a text's do not.
    """

    number: int
    parts: tuple[str, ...]
    fields: tuple[tuple[str, str], ...] = ()
    captions: bool = True


@dataclass(frozen=True, slots=True)
class Conflict:
    """A source that says something else, and its words."""

    source: int
    words: str


def conflict(sentence: str, question: str, sources: Sequence[Told]) -> Conflict | None:
    """The first specific conflict of a sentence with the sources that it cites, if all of them disagree.

    A sentence over several sources is compared with metadata only: what it says of one need not hold of another.
    """
    text = strip_citations(sentence)
    claim = Claim(text)
    found = [_in_metadata(claim, text, source) for source in sources]
    if found and all(found):
        return found[0]
    if len(sources) != 1 or not sources[0].parts:
        return None
    source = sources[0]
    rules = [_name(claim, question, source.parts), _inscription(text, source.parts), _han_count(text, source.parts)]
    if claim.language == "en" and source.captions:
        rules += [
            _count(text, question, source.parts),
            _colour(text, source.parts),
            _denied(text, question, source.parts),
        ]
    words = next(filter(None, rules), None)
    return Conflict(source.number, words[:_MAX_WORDS]) if words else None


def _in_metadata(claim: Claim, text: str, source: Told) -> Conflict | None:
    for name, value in source.fields:
        if _year_differs(text, name, value, source) or _field_differs(claim, name, value):
            return Conflict(source.number, f"{name}: {value}"[:_MAX_WORDS])
    return None


def _year_differs(text: str, name: str, value: str, source: Told) -> bool:
    """Whether a sentence tells when a photo was taken, and its date is of another year."""
    if not _DATED.search(name) or not _TAKEN.search(text):
        return False
    ours = {year for m in _TAKEN_IN.finditer(text) for year in _YEAR.findall(m[0])}
    theirs = set(_YEAR.findall(value))
    told = {year for part in (*source.parts, *(each for _, each in source.fields)) for year in _YEAR.findall(part)}
    return bool(ours and theirs) and not ours & told


def _field_differs(claim: Claim, name: str, value: str) -> bool:
    """Whether a sentence names a field, as "the year is", and gives it another number or another name."""
    named = Claim(name)
    field = {stem(token.lower()) for token in named.tokens}
    if claim.language != "en" or not field or not field <= claim.stems:
        return False
    told = Claim(f"x {value}")
    if told.numbers and not told.content.keys() - {"x"}:
        digits = {number_of(token) for token in claim.tokens if token[:1].isdigit()}
        return bool(digits) and not digits & told.numbers and len(digits) == 1 and _adjoins(claim, field, digits)
    names = claim.names - field
    return bool(names and told.names) and not names & told.stems and _adjoins(claim, field, names)


def _adjoins(claim: Claim, field: set[str], values: set[float | None] | frozenset[str] | set[str]) -> bool:
    """Whether a value stands right behind the field's name, with at most "is", "was", "by" and the like between."""
    stems = [stem(token.lower()) for token in claim.tokens]
    last = max(place for place, each in enumerate(stems) if each in field)
    for token, each in list(zip(claim.tokens, stems, strict=True))[last + 1 :]:
        if each in values or number_of(token) in values:
            return True
        if token.lower() not in _LINKS:
            return False
    return False


def _name(claim: Claim, question: str, parts: Sequence[str]) -> str | None:
    """Where the question asks who, another full name in a caption that shares a word with the sentence."""
    ours = _full_names(claim)
    if not ours or not _ASKS_WHO.search(question):
        return None
    asked = set(Claim(question).content) | set(claim.content)
    told = [(part, _full_names(Claim(part))) for part in parts]
    known = {word for part in parts for word in Claim(part).stems}
    if any(word in known for name in ours for word in name):
        return None
    for part, names in told:
        if names and (claim.language != "en" or asked & set(Claim(part).content)):
            return part
    return None


def _full_names(claim: Claim) -> set[tuple[str, ...]]:
    """Two or three capitalised words side by side, as stems; the sentence's first word is none of them."""
    found: set[tuple[str, ...]] = set()
    run: list[str] = []
    for token in (*claim.tokens[1:], "."):
        bare = token.replace("’", "'").removesuffix("'s")
        if bare[:1].isupper() and bare.lower() not in STOP_WORDS and len(bare) > 1:
            run.append(stem(bare.lower()))
            continue
        if 2 <= len(run) <= 3:
            found.add(tuple(run))
        run = []
    return found


def _inscription(text: str, parts: Sequence[str]) -> str | None:
    told = [(part, stem(noun.lower()), _plain(words)) for part in parts for noun, words in _INSCRIBED.findall(part)]
    ours = [(stem(noun.lower()), _plain(words)) for noun, words in _INSCRIBED.findall(text)]
    for noun, words in ours:
        same = [(part, theirs) for part, other, theirs in told if other == noun]
        if len(ours) == 1 and same and not any(words in theirs or theirs in words for _, theirs in same):
            return same[0][0]
    return None


def _plain(words: str) -> str:
    return " ".join(re.findall(r"\w+", words.casefold()))


def _count(text: str, question: str, parts: Sequence[str]) -> str | None:
    """More of a thing than any caption counts; or fewer, where the sentence tells how many there are in all."""
    whole = bool(_WHOLE.search(text) or _ASKS_COUNT.search(question))
    theirs = [(part, noun, number) for part in parts for noun, number in _counted(part)]
    for noun, number in (*_counted(text), *_further(text)):
        single = None if noun in _PERSON else _single(noun, parts)
        if single is not None:
            return single
        same = [(part, each) for part, other, each in theirs if _same(noun, other)]
        numbers = {each for _, each in same}
        if not same or number in numbers:
            continue
        agreed = len(numbers) == 1 and len(same) * 2 > len(parts) and whole
        most = 2 * len(same) > len(parts) or whole
        if (number > max(numbers) and most and len(Claim(text).numbers) == 1) or (number < min(numbers) and agreed):
            return same[0][0]
    return None


def _counted(text: str) -> list[tuple[str, float]]:
    """Numbers with the plural noun that they count, as a stem; "two of them" counts nothing."""
    tokens = Claim(text).tokens
    found = []
    for place, token in enumerate(tokens):
        number = number_of(token)
        ordinal = token.lower() in ("first", "second", "third", "both", "single", "one", "couple", "pair")
        if number is None or ordinal or not 2 <= number < 100 or number != int(number):
            continue
        for word in tokens[place + 1 : place + 4]:
            lowered = word.lower()
            if lowered in STOP_WORDS or number_of(word) is not None:
                break
            if lowered in _PLURALS or (lowered.endswith("s") and not lowered.endswith(("ss", "us", "is"))):
                found.append((stem(lowered), number))
                break
    return found


_ORDINALS = {"second": 2, "third": 3, "fourth": 4, "fifth": 5}


def _further(text: str) -> list[tuple[str, float]]:
    """What "a second, black cat" says: that there are at least so many cats."""
    tokens = [token.lower() for token in Claim(text).tokens]
    found: list[tuple[str, float]] = []
    for place in range(1, len(tokens) - 1):
        number = _ORDINALS.get(tokens[place])
        if number is None or tokens[place - 1] != "a":
            continue
        noun = next((word for word in tokens[place + 1 : place + 4] if word not in DESCRIBING), "")
        if noun and noun not in STOP_WORDS:
            found.append((stem(noun), float(number)))
    return found


def _single(noun: str, parts: Sequence[str]) -> str | None:
    """A caption that tells of one such thing, where most do, three at least, and none tells of more."""
    plural = {word for part in parts for word in _plurals(part)}
    if any(_same(noun, stem(word)) for word in plural):
        return None
    one = [part for part in parts if any(_same(noun, each) for each in _singulars(part))]
    return one[0] if len(one) >= 3 and 2 * len(one) > len(parts) else None


def _plurals(part: str) -> list[str]:
    words = [token.lower() for token in Claim(part).tokens]
    return [
        word for word in words if word in _PLURALS or (word.endswith("s") and not word.endswith(("ss", "us", "is")))
    ]


def _singulars(part: str) -> list[str]:
    """Stems of the things behind "a" or "an", or one: "a large orange cat", but no "dog" in "a dog house"."""
    return [stem(word) for each in quantities(part, "en") if each.value == 1 for word in each.things]


def _same(ours: str, theirs: str) -> bool:
    return ours == theirs or (supports(ours, theirs) is True and supports(theirs, ours) is True)


def _colour(text: str, parts: Sequence[str]) -> str | None:
    if several(text):
        return None
    for thing, colours in coloured(text):
        told = [
            (part, theirs)
            for part in parts
            for other, theirs in coloured(part, caption=True)
            if _same(thing, other) and not several(part)
        ]
        if told and all(clash(colours, theirs) for _, theirs in told):
            return told[0][0]
    return None


def _denied(text: str, question: str, parts: Sequence[str]) -> str | None:
    asked = Claim(question)
    if _NO.match(text) and _POLAR.match(question) and not asked.negated and len(asked.content) > 1:
        for part in parts:
            if not Claim(part).negated and _together(part, asked.content):
                return part
    denied = {word for word in _absent(text) if not _doubtful(word)}
    for word in sorted(denied):
        naming = [part for part in parts if _has(part, word) and word not in Claim(part).negated]
        if 2 * len(naming) > len(parts):
            return naming[0]
    return None


def _together(part: str, words: Iterable[str]) -> bool:
    """Whether a caption has all the words; a colour among them must stand beside the next one."""
    if not all(_has(part, word) for word in words):
        return False
    if not any(word in HUES for word in words):
        return True
    stems = [stem(token.lower()) for token in Claim(part).tokens if token.lower() not in STOP_WORDS]
    at = [next((n for n, each in enumerate(stems) if each == word or supports(word, each)), None) for word in words]
    places = [place for place in at if place is not None]
    return len(places) == len(at) and max(places) - min(places) < len(places)


def _has(part: str, word: str) -> bool:
    claim = Claim(part)
    return word in claim.stems or any(supports(word, other) for other in claim.content)


def _absent(text: str) -> set[str]:
    """Stems of the things of which a sentence says that there is none: a noun that "no" or "without" has to itself."""
    found = set()
    for clause in _CLAUSE.split(text):
        tokens = [token.lower() for token in Claim(clause).tokens]
        for place, token in enumerate(tokens):
            if token not in ("no", "without"):
                continue
            rest = [word for word in tokens[place + 1 :] if word not in STOP_WORDS]
            # "No street signs", "no cars on the left" deny less than the thing itself.
            if len(rest) == 1 and tokens[place + 1] in (rest[0], "a", "an", "any") and number_of(rest[0]) is None:
                found.add(stem(rest[0]))
    return found


def _doubtful(word: str) -> bool:
    return len(word) < 3


def _han_count(text: str, parts: Sequence[str]) -> str | None:
    """As `_count`, for Chinese and Japanese: a number, a measure word and the same thing."""
    theirs = [(part, thing, _han_number(number)) for part in parts for number, thing in _MEASURED.findall(part)]
    mine = _MEASURED.findall(text)
    # "Two boys in front and three behind" counts a part each time.
    if len(mine) != 1:
        return None
    sign, thing = mine[0]
    same = [(part, number) for part, other, number in theirs if other[0] == thing[0]]
    return same[0][0] if same and _han_number(sign) > max(number for _, number in same) else None


def _han_number(sign: str) -> int:
    return _HAN_NUMBERS.get(sign) or int(sign)
