"""The text side of `compact`: two towers, and for each text the one that reads it.

English goes through MiniLM, as ever; what is in another of the sixteen languages goes through the tower of many
languages and is turned into the same space (`compact_map`); what neither reads has no vector. Which one, decides
`compact_languages` by the text, and where that is not enough the towers themselves: see `Route`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from importlib.resources import files
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.compact_graph import Network
from retrieval.encoders.compact_languages import ENGLISH, Route, route_of
from retrieval.encoders.compact_map import TextMap, load_map, map_graph
from retrieval.encoders.compact_multilingual import MAX_TOKENS, PIECES, WEIGHTS, MultilingualEncoder
from retrieval.encoders.compact_text import DIM, SentenceEncoder

#: Changes with every rule that decides which vector a text has.
VERSION = 2
# Texts whose towers were compared and are remembered: a search asks for the language of what it has just encoded.
_REMEMBERED = 1024

Rows = NDArray[np.float32]
T = TypeVar("T")


@lru_cache(maxsize=1)
def texts_fingerprint() -> str:
    """``texts:VERSION:`` and a short hash of all that decides which vector a text has, beside MiniLM and the space."""
    folder = files("retrieval.encoders")
    digests = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _DECIDING)
    parts = (WEIGHTS.sha256, PIECES.sha256, MAX_TOKENS, *digests)
    return f"texts:{VERSION}:{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"


_DECIDING = ("compact_map.npz", "compact_words.json")


class CompactTexts:
    """Gives each text the vector of the tower that reads it. Thread-safe; loads a tower when a text first needs it.

    Args:
        load_english: gives MiniLM; called once, when first needed.
        load_placer: gives the network that puts MiniLM's vectors into the space; called once.
        pool: threads for the other tower.
    """

    def __init__(
        self, load_english: Callable[[], SentenceEncoder], load_placer: Callable[[], Network], pool: Executor
    ) -> None:
        self._english = _Once(load_english)
        self._placer = _Once(load_placer)
        self._multilingual = _Once(lambda: MultilingualEncoder(pool))
        self._map: _Once[TextMap] = _Once(load_map)
        self._turner = _Once(lambda: Network(map_graph(self._map.get())))
        self._decided: dict[str, bool] = {}

    def encode(self, texts: Sequence[str]) -> Rows:
        """(n, 384) float32 rows of unit length, in the order given; zeros for a text that no tower reads."""
        routes = [self._route(text) for text in texts]
        english, multilingual, either = (
            [row for row, route in enumerate(routes) if route.tower == tower]
            for tower in ("english", "multilingual", "either")
        )
        vectors = np.zeros((len(texts), DIM), np.float32)
        if either or multilingual:
            rows = multilingual + either
            vectors[rows] = self._encode_multilingual([texts[row] for row in rows])
        if either or english:
            own = self._encode_english([texts[row] for row in english + either])
            vectors[english] = own[: len(english)]
            for row, vector in zip(either, own[len(english) :], strict=True):
                if self._is_english(texts[row], routes[row], vector, vectors[row]):
                    vectors[row] = vector
        return vectors

    def language(self, text: str) -> str:
        """The language as which a text is read, one of `compact_languages.LANGUAGES`, or ``und``."""
        route = self._route(text)
        if route.tower != "either":
            return route.language
        decided = self._decided.get(text)
        if decided is None:
            (own,), (other,) = self._encode_english([text]), self._encode_multilingual([text])
            decided = self._is_english(text, route, own, other)
        return ENGLISH.language if decided else route.language

    def _is_english(self, text: str, route: Route, own: Rows, other: Rows) -> bool:
        """Whether MiniLM's vector of a text that either tower may read is the right one; remembered."""
        decided = float(own @ other) >= route.nearness
        if len(self._decided) >= _REMEMBERED:
            self._decided.clear()
        self._decided[text] = decided
        return decided

    def _route(self, text: str) -> Route:
        if not isinstance(text, str):
            raise TypeError(f"a text must be a str, not {type(text).__name__}")
        # Both are loaded only where there is a word in Latin letters to ask for.
        return route_of(
            text, lambda word: self._english.get().knows(word), lambda word: word in self._map.get().english
        )

    def _encode_english(self, texts: Sequence[str]) -> Rows:
        sentences = self._english.get().encode(texts)
        return self._place(sentences, known=sentences)

    def _encode_multilingual(self, texts: Sequence[str]) -> Rows:
        vectors = self._multilingual.get().encode(texts)
        (sentences,) = self._turner.get().run(vectors=vectors)
        return self._place(sentences, known=vectors)

    def _place(self, sentences: Rows, known: Rows) -> Rows:
        """Sentence vectors in the space; zeros where `known` is zeros, for which the space has a place, too."""
        (vectors,) = self._placer.get().run(sentences=sentences)
        vectors[~np.asarray(known.any(axis=1))] = 0
        return vectors


class _Once(Generic[T]):
    """Something that is loaded when it is first needed, once, whoever needs it at the same time."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._loaded: list[T] = []
        self._lock = threading.Lock()

    def get(self) -> T:
        """What was loaded. Raises what loading raises, and tries again the next time."""
        if not self._loaded:
            with self._lock:
                if not self._loaded:
                    self._loaded.append(self._load())
        return self._loaded[0]
