"""Colours of things in English sentences, and which of them nobody takes for each other."""

from __future__ import annotations

import re

from retrieval.chat.check.claims import Claim, number_of, stem
from retrieval.chat.check.stopwords import STOP_WORDS

HUES = {
    "red": "red",
    "scarlet": "red",
    "crimson": "red",
    "orange": "orange",
    "ginger": "orange",
    "yellow": "yellow",
    "golden": "yellow",
    "green": "green",
    "blue": "blue",
    "navy": "blue",
    "purple": "purple",
    "violet": "purple",
    "pink": "pink",
    "brown": "brown",
    "black": "black",
    "white": "white",
    "grey": "grey",
    "gray": "grey",
}
# Neighbours on the colour circle, and light or dark shades beside white, black and grey, are named now so, now so.
_CLASHING = """
red-blue red-green red-yellow red-black red-white red-grey orange-blue orange-green orange-black orange-white
orange-purple orange-grey yellow-blue yellow-black yellow-purple yellow-grey yellow-pink green-pink green-purple
green-white green-black blue-white blue-pink blue-brown black-white black-pink white-brown white-purple brown-green
brown-purple
"""
_CLASHES = frozenset(frozenset(pair.split("-")) for pair in _CLASHING.split())
_LOOKS = """
small large big little tiny huge old new plaid striped checked leather wooden metal bright dark light pale knitted long
short plastic woollen cotton shiny
"""
_ADJECTIVES = frozenset(_LOOKS.split())
#: What may stand between an article or a number and its noun.
DESCRIBING = _ADJECTIVES | HUES.keys() | {"and"}
_SHADES = frozenset(["light", "dark", "bright", "pale", "deep", "mostly", "entirely", "all", "completely"])
_VERBS = """
wear wears wearing hold holds holding carry carries carrying ride rides riding drive drives driving in
"""
_HAVING = frozenset(_VERBS.split())
_IS = frozenset(["is", "are", "was", "were"])
_OWNED = frozenset(["the", "his", "her", "its", "their", "this", "that"])
_SEVERAL = re.compile(
    r"\b(?:second|third|fourth|other|others|another|next|each|every|different|various|both|two|three|four|five|six|seven|"
    r"eight|nine|ten|people|men|women|children|kids|boys|girls|group|crowd|several|many|some|couple|pair|one of)\b",
    re.IGNORECASE,
)


def several(text: str) -> bool:
    """Whether a sentence may be about more than one thing of a kind, so that both colours may be right."""
    return bool(_SEVERAL.search(text))


def clash(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    """Whether no colour of the one can be taken for a colour of the other."""
    return all(frozenset((one, other)) in _CLASHES for one in ours for other in theirs)


def coloured(text: str, *, caption: bool = False) -> list[tuple[str, frozenset[str]]]:
    """Things, as stems, with their colours: "the red and white train", "the bicycle is blue", "wears a green hat".

    In a sentence "a" counts only before what somebody wears, holds, carries, rides or drives: "a red car" may be one
    beside another. In a caption every colour before a noun counts.
    """
    tokens = [token.lower() for token in Claim(text).tokens]
    found = []
    place = 0
    while place < len(tokens):
        hues, end = _run(tokens, place)
        if not hues:
            place += 1
            continue
        thing = _before(tokens, place) or _behind(tokens, place, end, caption=caption)
        if thing:
            found.append((thing, hues))
        place = end
    return found


def _run(tokens: list[str], place: int) -> tuple[frozenset[str], int]:
    """The colours that stand side by side from `place`, with "and" between, and where they end."""
    hues = set()
    end = place
    while end < len(tokens):
        if tokens[end] in HUES:
            hues.add(HUES[tokens[end]])
            end += 1
        elif hues and tokens[end] in ("and", "or") and end + 1 < len(tokens) and tokens[end + 1] in HUES:
            end += 1
        else:
            break
    return frozenset(hues), end


def _before(tokens: list[str], place: int) -> str | None:
    """The subject of "the bicycle is blue", where it is all that stands before."""
    verb = place - 1
    while verb > 0 and tokens[verb] in _SHADES:
        verb -= 1
    subject = [token for token in tokens[: max(verb, 0)] if token not in _ADJECTIVES]
    if verb < 1 or tokens[verb] not in _IS or len(subject) != 2 or subject[0] not in _OWNED:
        return None
    return stem(subject[1])


def _behind(tokens: list[str], place: int, end: int, *, caption: bool) -> str | None:
    """The noun behind colours and adjectives, where it is one that is known or had."""
    start = place
    while start > 0 and tokens[start - 1] in _ADJECTIVES | _SHADES:
        start -= 1
    article = tokens[start - 1] if start else "the"
    had = article in ("a", "an") and start > 1 and tokens[start - 2] in _HAVING
    if not caption and article not in _OWNED and not had:
        return None
    while end < len(tokens) and tokens[end] in _ADJECTIVES:
        end += 1
    if end == len(tokens) or tokens[end] in STOP_WORDS or number_of(tokens[end]) is not None:
        return None
    # Of "fire hydrant" or "stop sign" the last word is the thing.
    noun = end
    while noun + 1 < len(tokens) and tokens[noun + 1] not in STOP_WORDS and _is_noun_pair(tokens[noun]):
        noun += 1
    return stem(tokens[noun])


def _is_noun_pair(word: str) -> bool:
    return word in (
        "fire",
        "stop",
        "traffic",
        "street",
        "pick",
        "pickup",
        "tennis",
        "baseball",
        "stuffed",
        "teddy",
        "sheet",
    )
