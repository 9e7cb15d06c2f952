"""What a sentence claims, in words: its content words, numbers, names, negations, and citations."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from backends.text import folded_words
from retrieval.chat.check.language import language
from retrieval.chat.check.stopwords import NEGATORS, STOP_WORDS

_WORD = re.compile(r"\d+(?:[.,:]\d+)+(?![^\W_])|[^\W_]+(?:['’][^\W_]+)*")
_BRACKETS = r"[\[【［]"
CITATION = re.compile(
    rf"{_BRACKETS}\s*\^?(?:(?:source|image|photo|picture|item|evidence|passage|text|ref|bild|foto)s?\s*|"
    rf"quellen?\s*|(?:图片?|照片|来源)\s*)?#?\d{{1,6}}"
    r"(?:\s*(?:,|;|、|，|；|&|and|-|–|—|~|～)\s*(?:(?:source|image|photo|item)\s*)?#?\d{1,6})*\s*[\]】］]",
    re.IGNORECASE,
)
#: What cites the picture that came with the question.
IMAGE_CITATION = "[image]"
_IMAGE_CITATION = re.compile(
    rf"{_BRACKETS}\s*(?:(?:the |your )?(?:attached )?(?:image|picture|photo)|图片|图像|照片)\s*[\]】］]", re.IGNORECASE
)
_RANGE = re.compile(r"(\d+)\s*[-–—~～]\s*#?(\d+)")
ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Jr|Sr|vs|etc|e\.g|i\.e|No|Fig|approx|ca|Inc|Ltd|U\.S)|\b[A-Z])\.\Z"
)
_CITED = rf"(?:\s*(?:{CITATION.pattern}))*"
_END = re.compile(rf"[.!?]+[\"'”’)]*{_CITED}(?=\s|\Z|[^\x00-\x7f])|[。！？]{_CITED}", re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•–]|\d{1,3}[.)])\s+|^\s*#+\s+")
_DIGITS = re.compile(r"\d+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")

_NUMBERS = {
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "dozen": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
    "hundred": 100,
    "thousand": 1000,
    "million": 1_000_000,
    "couple": 2,
    "pair": 2,
    "both": 2,
    "twice": 2,
    "single": 1,
    "first": 1,
    "second": 2,
    "third": 3,
}
_SCOPE_ENDS = frozenset(["and", "but", "with", "while", "which", "who", "that", "in", "on", "at", "near", "by", "as"])


@dataclass(frozen=True)
class Claim:
    """A text taken apart once: what `retrieval.chat.check.grounding` compares.

    about: the question that it answers, which says what a bare number counts.
    """

    text: str
    about: str = ""

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Words and numbers as written, apostrophes kept, without citations."""
        return tuple(_WORD.findall(strip_citations(unicodedata.normalize("NFKC", self.text))))

    @cached_property
    def content(self) -> dict[str, str]:
        """Stems of the words that carry meaning, each with the word it stands for; numbers are apart."""
        found: dict[str, str] = {}
        for token in self.tokens:
            for word in pieces(token):
                if word not in STOP_WORDS and number_of(word) is None:
                    found.setdefault(stem(word), word)
        return found

    @cached_property
    def numbers(self) -> frozenset[float]:
        """The numbers in digits or words; "one", and ordinals, only where they cannot be a pronoun's turn of phrase."""
        plain = (token for token in self.tokens if token.lower() not in ("one", "first", "second", "third"))
        return frozenset(value for token in plain for value in _values(token))

    @cached_property
    def all_numbers(self) -> frozenset[float]:
        """As `numbers`, with "one" and ordinals: what may stand behind another's number."""
        return frozenset(value for token in self.tokens for value in _values(token))

    @cached_property
    def names(self) -> frozenset[str]:
        """Words with a capital inside the sentence, folded: people, places, brands, and words quoted from signs."""
        found: set[str] = set()
        for position, token in enumerate(self.tokens):
            inside = position > 0 or (len(token) > 1 and token.isupper())
            if inside and token[0].isupper() and token not in ("I",) and token.lower() not in STOP_WORDS:
                found |= {stem(word) for word in folded_words(token)} if self._is_name(position) else set()
        return frozenset(found)

    def _is_name(self, position: int) -> bool:
        """German writes every noun with a capital: there only capitals side by side, or throughout, make a name."""
        if self.language != "de":
            return True
        beside = self.tokens[max(1, position - 1) : position + 2]
        return self.tokens[position].isupper() or sum(token[0].isupper() for token in beside) > 1

    @cached_property
    def language(self) -> str:
        """Of `retrieval.chat.check.language`: rules that are English are for English claims only."""
        return language(self.text)

    @cached_property
    def negated(self) -> frozenset[str]:
        """Stems of the content words that a negation reaches: the three after it."""
        found: set[str] = set()
        reach = 0
        for token in self.tokens:
            word = token.lower().replace("'", "").replace("’", "")
            if word in NEGATORS or (word.endswith("nt") and word[:-2] in STOP_WORDS):
                reach = 3
            elif reach and word in _SCOPE_ENDS and reach < 3:
                reach = 0
            elif reach:
                stems = {stem(piece) for piece in pieces(token) if piece not in STOP_WORDS}
                found |= stems
                reach -= bool(stems)
        return frozenset(found)

    @cached_property
    def stems(self) -> frozenset[str]:
        """Stems of all words, stop words and numbers included."""
        return frozenset(stem(word) for token in self.tokens for word in pieces(token))


def not_spaced(word: str) -> bool:
    """Whether a word is of a script that sets no spaces, so that its characters are words or parts of some."""
    return bool(_CJK.search(word))


def pieces(token: str) -> list[str]:
    """The folded words of a token; of scripts that set no spaces, the pairs of neighbouring characters."""
    found: list[str] = []
    for word in folded_words(token.replace("’", "'").split("'")[0] or token):
        if _CJK.search(word) and len(word) > 2:
            found += [word[start : start + 2] for start in range(len(word) - 1)]
        else:
            found.append(word)
    return found


def stem(word: str) -> str:
    """A word without English inflection: plural, -ing, -ed, -ly; enough to match "dogs running" with "a dog runs"."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 3 or not word.isascii():
        return word
    for suffix, least, put in (
        ("ies", 3, "y"),
        ("sses", 2, "ss"),
        ("shes", 2, "sh"),
        ("ches", 2, "ch"),
        ("xes", 2, "x"),
    ):
        if word.endswith(suffix) and len(word) - len(suffix) >= least - 1:
            return word[: -len(suffix)] + put
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        root = word[: -len(suffix)]
        if word.endswith(suffix) and len(root) >= 3 and re.search("[aeiouy]", root):
            word = root[:-1] if root[-1] == root[-2] and root[-1] not in "lsz" else root
            break
    if word.endswith("ly") and len(word) > 5:
        word = word[:-2]
    return word.removesuffix("e") if len(word) > 3 else word


_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "persons": "person",
    "feet": "foot",
    "teeth": "tooth",
    "mice": "mouse",
    "geese": "goos",
    "sat": "sit",
    "sitting": "sit",
    "sits": "sit",
    "stood": "stand",
    "ran": "run",
    "running": "run",
    "lying": "lie",
    "lies": "lie",
    "lay": "lie",
    "laying": "lie",
    "laid": "lie",
    "held": "hold",
    "rode": "rid",
    "riding": "rid",
    "ate": "eat",
    "wore": "wear",
    "worn": "wear",
    "flew": "fly",
    "flies": "fly",
    "knives": "knif",
    "leaves": "leaf",
    "shelves": "shelf",
    "wolves": "wolf",
    "sheep": "sheep",
    "gray": "grey",
    "color": "colour",
    "kids": "kid",
    "taken": "tak",
    "took": "tak",
    "made": "mak",
    "built": "build",
}


def number_of(word: str) -> float | None:
    """The value of a number in digits or in English words; None for any other word."""
    lowered = word.lower()
    if lowered in _NUMBERS:
        return float(_NUMBERS[lowered])
    digits = lowered.replace(",", "")
    try:
        return float(digits) if digits[:1].isdigit() else None
    except ValueError:
        return None


def _values(token: str) -> list[float]:
    """The number that a token is, or those in it: 3 of 有3只狗, 20 of 20th."""
    value = number_of(token)
    if value is not None:
        return [value]
    # A time is none.
    return [] if re.search(r"\d[.,:]\d", token) else [float(digits[:15]) for digits in _DIGITS.findall(token)]


def citations(text: str) -> list[int]:
    """The numbers cited in a text, in order, each once: [2], [1, 3], [1][2], [1-3], 【4】, [image 2]."""
    found: list[int] = []
    for match in CITATION.finditer(text):
        spelled = match[0]
        for start, end in _RANGE.findall(spelled):
            if int(start) < int(end) <= int(start) + 20:
                found += range(int(start), int(end) + 1)
        found += map(int, re.findall(r"\d+", spelled))
    return list(dict.fromkeys(found))


def strip_citations(text: str) -> str:
    """A text without its citations and the space before them."""
    return re.sub(rf"\s*(?:{CITATION.pattern}|{_IMAGE_CITATION.pattern})", "", text, flags=re.IGNORECASE)


def cites_attached(text: str) -> bool:
    """Whether a text cites the picture that came with the question: [image]."""
    return bool(_IMAGE_CITATION.search(text))


def sentences(text: str) -> list[str]:
    """The sentences of an answer, each with the citations that stand before or right behind its end.

    Lines and list items end sentences too; the marks of lists and headings are dropped. Abbreviations,
    initials and decimals do not end one.
    """
    found: list[str] = []
    for line in text.splitlines():
        rest = _BULLET.sub("", line).replace("**", "").replace("__", "").strip()
        start = 0
        for match in _END.finditer(rest):
            if match[0][0] == "." and ABBREVIATION.search(rest[start : match.start() + 1]) and match.end() < len(rest):
                continue
            found.append(rest[start : match.end()].strip())
            start = match.end()
        found.append(rest[start:].strip())
    merged: list[str] = []
    for sentence in filter(None, found):
        # A citation on its own, as on a line below, belongs to what it follows.
        if merged and not strip_citations(sentence).strip(" .,;:-–—()*"):
            merged[-1] += " " + sentence
        else:
            merged.append(sentence)
    return merged
