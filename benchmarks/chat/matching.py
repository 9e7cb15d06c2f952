"""Whether a text says what an answer key holds, in any script; and whether it is in a language, or repeats a question.

A term is found as whole words, in any case and width; a `*` stands for the rest of a word ("orange*", "*korb").
Chinese, Japanese and Thai have no spaces: there a term is found anywhere. A term that is denied in its clause ("not
red", "没有狗", "犬ではありません") is not said.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from backends.text import tokenize
from retrieval.chat.check.claims import strip_citations
from retrieval.chat.check.language import UNKNOWN, language, small_words

_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\W{_UNSPACED}]"
_CLAUSE = re.compile(r"[,.;:!?，。；：！？、\n]|\b(?:and|but|und|sondern|aber)\b")
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:no|not|never|neither|nor|without|isn't|aren't|wasn't|weren't|don't|doesn't|kein\w*|nicht|ohne|weder|pas|sans|sin)"
    r"(?:\s+[\w'-]+){0,3}\s+|(?:没有|沒有|不是|并非|並非|没|沒|不)[^，。]{0,4})\Z"
)
_DENIED_AFTER = re.compile(
    r"[^、。，]{0,6}?(?:では(?:ない|なく|ありません)|じゃない|は(?:いません|ありません|いない|ない)|が(?:いません|ありません))"
)
_SCRIPTS = {
    "zh": "[\u3400-\u9fff]",
    "ja": "[\u3040-\u30ff\u3400-\u9fff]",
    "ko": "[\uac00-\ud7af]",
    "ru": "[\u0400-\u04ff]",
    "ar": "[\u0600-\u06ff]",
    "he": "[\u0590-\u05ff]",
    "el": "[\u0370-\u03ff]",
    "th": "[\u0e00-\u0e7f]",
    "hi": "[\u0900-\u097f]",
}
#: Names have no language, such as "Gladys, Detroit"; more words than this are a sentence.
_NAMES = 3
#: With at least so many of its small words, a text is surely in a language.
_SURE = 2


def normalised(text: str) -> str:
    """A text as keys are compared with it: without citations, in one case and width, with plain quotes."""
    plain = unicodedata.normalize("NFKC", strip_citations(text)).casefold()
    return " ".join(re.sub("[’‘]", "'", plain).split())


def says(text: str, term: str) -> bool:
    """Whether a normalised text says a term, and does not deny it."""
    for match in _pattern(term).finditer(text):
        before = _CLAUSE.split(text[: match.start()])[-1]
        after = _CLAUSE.split(text[match.end() :])[0]
        if not _DENIED_BEFORE.search(before) and not _DENIED_AFTER.match(after):
            return True
    return False


def parts_said(text: str, parts: Sequence[Sequence[str]]) -> int:
    """How many parts of a key a normalised text says, each by one of its terms."""
    return sum(any(says(text, term) for term in terms) for terms in parts)


@lru_cache(maxsize=4096)
def _pattern(term: str) -> re.Pattern[str]:
    plain = normalised(term)
    inner = re.escape(plain.strip("*")).replace(r"\ ", r"\s+")
    if re.search(f"[{_UNSPACED}]", plain):
        return re.compile(inner)
    begin = f"{_LETTER}*" if plain.startswith("*") else f"(?<!{_LETTER})"
    end = f"{_LETTER}*" if plain.endswith("*") else f"(?!{_LETTER})"
    return re.compile(begin + inner + end)


def speaks(text: str, wanted: str) -> bool:
    """Whether a text may be in a language: what is surely in another one is not.

    Small words tell languages with Latin letters, letters the others; a few names alone may be in any language.
    """
    plain = strip_citations(text)
    found, counts = language(plain), small_words(plain)
    if found == wanted:
        return True
    own = _SCRIPTS.get(wanted)
    if own is None:
        return found not in _SCRIPTS and (found == UNKNOWN or counts[found] - counts[wanted] < _SURE)
    if re.search(own, plain):
        return max(counts.values()) < _SURE and found not in (_SCRIPTS.keys() - {"zh"} if wanted == "ja" else _SCRIPTS)
    return not any(counts.values()) and found not in _SCRIPTS and len(plain.split()) <= _NAMES


def repeats(text: str, question: str) -> bool:
    """Whether an answer has hardly a word that the question has not: it says nothing."""
    said, asked = set(tokenize(strip_citations(text))), set(tokenize(question))
    # Of two words both may be in the question by chance, as in "the left one".
    return len(said) > _SURE and len(said - asked) <= len(said) // 16
