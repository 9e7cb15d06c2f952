"""Which language a text is in, as far as check and our own sentences must know: by script, then by small words."""

from __future__ import annotations

import re
from collections import Counter

#: What no rule of ours tells: a language without a script of its own and without words of the lists.
UNKNOWN = "other"
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("zh", re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")),
    ("ko", re.compile(r"[\u1100-\u11ff\uac00-\ud7af]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
)
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
# Letters that none of the Latin languages of the lists has, but for ligatures.
_ELSEWHERE = re.compile(r"[\u0100-\u0131\u0134-\u0151\u0154-\u024f\u1e00-\u1e9d\u1e9f-\u1eff]")
#: A language of another script is quoted with Latin names in it; one that is written in Latin has few such letters.
_LEAST_SHARE = 0.2
_WORDS = {
    "en": "the a an is are was were of in on and to what which how many who where when does do did there it this that "
    "with for his her its their not no yes you i can any from at has have show me",
    "de": "der die das ein eine einen einem einer ist sind und auf dem den des mit nicht kein keine wie viele was "
    "welche welches welcher wer wo im in zu von es er sie auch gibt ich nein ja sich vor neben danke",
    "fr": "le la les un une des est sont et sur dans avec ne pas quel quelle quels combien qui où que il elle ce cette "
    "du au aux de merci oui non y a",
    "es": "el la los las un una es son está están y en con no qué cuál cuántos cuántas quién dónde que se del al de "
    "gracias sí hay",
    "it": "il lo la gli un una è sono e su con non che quale quanti quante chi dove di della nel nella grazie sì ci",
    "pt": "o a os as um uma é são está e em com não que qual quantos quantas quem onde do da no na obrigado sim há",
    "nl": "de het een is zijn en op met niet wat welke hoeveel wie waar van er in bedankt ja nee",
}
_OF = {code: frozenset(words.split()) for code, words in _WORDS.items()}


def language(text: str) -> str:
    """The code of a text's language (en, zh, ja, de, ...), English for what has no letter, else `UNKNOWN`.

    Latin script goes by small words: English where no other language has more of them and all letters are ASCII.
    """
    latin = len(_LATIN.findall(text))
    foreign = {code: len(script.findall(text)) for code, script in _SCRIPTS}
    total = latin + sum(foreign.values())
    if sum(foreign.values()) > _LEAST_SHARE * total:
        if foreign["ja"]:
            return "ja"
        return max(foreign, key=lambda code: foreign[code])
    ascii_only = all(word.isascii() for word in _words(text))
    votes = small_words(text)
    if _ELSEWHERE.search(text):
        return UNKNOWN
    best, most = max(votes.items(), key=lambda vote: (vote[1], vote[0] == "en"))
    if not most:
        return "en" if ascii_only else UNKNOWN
    # "in", "is" and "no" are words of several languages.
    return "en" if ascii_only and votes["en"] == most else best


def small_words(text: str) -> Counter[str]:
    """How many small words of each language with Latin letters a text has."""
    words = _words(text)
    return Counter({code: sum(word in known for word in words) for code, known in _OF.items()})


def small_words_of(code: str) -> frozenset[str]:
    """The small words of a language that are known, none of most."""
    return _OF.get(code, frozenset())


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())
