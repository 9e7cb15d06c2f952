"""Calibrated relevance: what a score is worth, as a number in [0, 1] that means the same everywhere.

A score has no natural zero: in a CLIP space every query finds something. `Result.relevance` says how a hit
compares with what queries find that have nothing to do with the collection. **A relevance of r means that a
share r of unrelated queries finds nothing this good in the collection.** So 0.5 is what any query gets, 0.95
one unrelated query in twenty; it is the significance of the best hit, not the probability that a person
would agree. It needs no labels and no training, and asks nothing of the encoder but that scores of related
things are higher.

Unrelated queries of the same kind as the one that is judged are scored against a stored random sample of the
collection (`retrieval.sample`), and a Gumbel distribution is fitted to their best scores, corrected for
hubness, for queries that are answered after all, and for the size of the collection (`retrieval.nulls`, which
names the papers). The kinds:

- words: 287 built-in queries about all sorts of things (background.json);
- pictures, and stored items: other items of the sample, each compared with all but its own file's;
- several terms: background terms of the same kinds added up with the same weights.

Relevance is monotone in score within a modality, so judging never reorders results, and what is below a
threshold is the end of a ranking.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import Backend, Hit, Metric, Modality
from retrieval.encoders.base import Encoder
from retrieval.nulls import MIN_BACKGROUND, Null, fit_null
from retrieval.query import Stored, Term
from retrieval.results import Result
from retrieval.sample import CollectionSample, Sample, SampleCache, write_whole

__all__ = ["RELEVANT", "Calibrator", "Judge", "Make", "background_texts", "make_of"]

RELEVANT = 0.8
"""The default gate of the chat and the command line: four of five unrelated queries find nothing.

Of the round values it errs least on coco100 with `compact`, counting false alarms and false empties alike;
docs/relevance.md has the curve. Being a share of unrelated queries, it needs no tuning by encoder.
"""

CHECK_EVERY_S = 5.0
_BANK_SEED = 5
# A background query whose terms cancel each other out points nowhere.
_CANCELLED = 1e-6

Kind: TypeAlias = Literal["words", "image", "text"]
Make: TypeAlias = tuple[tuple[Kind, float], ...]
"""What a query is made of: for each term its kind and weight. ``words`` are a text that was typed; ``image``
and ``text`` are compared as the items of that modality in the collection are."""

_log = logging.getLogger(__name__)


def make_of(terms: Sequence[Term]) -> Make:
    """What a query of these terms is made of."""
    return tuple((_kind(term), float(term.weight)) for term in terms)


def _kind(term: Term) -> Kind:
    if isinstance(term.value, Stored):
        return term.value.modality
    return "words" if isinstance(term.value, str) else "image"


def background_texts() -> list[str]:
    """The built-in background queries, in order."""
    texts: list[str] = json.loads((files("retrieval") / "background.json").read_text(encoding="utf-8"))
    return texts


@dataclass(frozen=True, slots=True, eq=False)
class _Bank:
    """(m, d) vectors of background queries, and for those made of items the (m, p) groups that each is from."""

    vectors: NDArray[np.float32]
    groups: NDArray[np.int64]

    def related(self, items: Sample) -> NDArray[np.bool_]:
        """(m, n): which items are of the same files as what the background query is made of."""
        related = np.zeros((len(self.vectors), len(items.ids)), dtype=bool)
        for column in self.groups.T:
            related |= column[:, None] == items.groups[None, :]
        return related


@dataclass
class Calibrator:
    """Judges the queries of one collection; holds its sample and the background queries' vectors.

    folder: where both are kept between runs, one folder a store; None keeps them in memory. The sample is
    checked against the backend every 5 seconds of use (`retrieval.sample.is_current`) and taken anew when
    the collection changed. Taking it reads every id once and up to 2,048 vectors of each modality, for which
    one search waits; others of that time are judged by the sample before. Thread-safe.
    """

    backend: Backend
    encoder: Encoder
    collection: str
    folder: Path | None = None
    check_every_s: float = CHECK_EVERY_S
    _cache: SampleCache = field(init=False)
    _sample: CollectionSample | None = None
    _checked_at: float = -1e9
    _words: NDArray[np.float32] | None = None
    _nulls: dict[tuple[Make, Modality], Null | None] = field(default_factory=dict)
    _ready: dict[Modality, Items] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _checking: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._cache = SampleCache(self.backend, self.collection, self.folder)

    def judge(self, vector: NDArray[np.float32], make: Make) -> Judge:
        """A judge of what the query of this vector finds. Raises `BackendError`, `EncoderError`."""
        return Judge(self, self.sample(), np.asarray(vector, np.float32), make)

    def sample(self) -> CollectionSample:
        """The collection's sample, of 5 seconds ago or as it was when a check began. Raises `BackendError`."""
        known = self._sample
        if known is not None and time.monotonic() - self._checked_at < self.check_every_s:
            return known
        # Only who finds none has to wait for another's check; a backend that is slow or away would hold up all.
        if not self._checking.acquire(blocking=known is None):
            assert known is not None
            return known
        try:
            if self._sample is None or time.monotonic() - self._checked_at >= self.check_every_s:
                current = self._cache.current()
                with self._lock:
                    if current is not self._sample:
                        self._sample, self._nulls, self._ready = current, {}, {}
                    self._checked_at = time.monotonic()
            return self._sample
        finally:
            self._checking.release()

    def prepare(self) -> None:
        """Bring the sample and the background queries up to date now, so that no search has to wait for it."""
        self._checked_at = -1e9
        self.sample()
        with self._lock:
            self._background()

    def null(self, sample: CollectionSample, make: Make, modality: Modality) -> Null | None:
        """The null of queries of this make over the items of a modality; None where it cannot be known."""
        with self._lock:
            # Only a positive scale distinguishes single terms, and unit vectors have none.
            key = (((make[0][0], 1.0),) if len(make) == 1 and make[0][1] > 0 else make, modality)
            if sample is not self._sample:
                return self._fit(sample, *key)
            if key not in self._nulls:
                if len(self._nulls) >= 64:
                    self._nulls.clear()
                self._nulls[key] = self._fit(sample, *key)
            return self._nulls[key]

    def items(self, sample: CollectionSample, modality: Modality) -> Items:
        """The sampled items of a modality, ready to be scored."""
        with self._lock:
            if sample is not self._sample:
                return Items.of(sample.samples[modality].vectors, sample.spec.metric)
            if modality not in self._ready:
                self._ready[modality] = Items.of(sample.samples[modality].vectors, sample.spec.metric)
            return self._ready[modality]

    def _fit(self, sample: CollectionSample, make: Make, modality: Modality) -> Null | None:
        target = sample.samples[modality]
        bank = self._composed(sample, make)
        if bank is None or not target.ids or bank.vectors.shape[1] != sample.spec.dim:
            return None
        scores = self.items(sample, modality).similarities(bank.vectors)
        return fit_null(scores, target.population, bank.related(target) if bank.groups.size else None)

    def _composed(self, sample: CollectionSample, make: Make) -> _Bank | None:
        """Background queries of one make: as many as there are of each kind, terms drawn and added up."""
        banks = {kind: self._bank(sample, kind) for kind, _ in make}
        size = min(len(bank.vectors) for bank in banks.values())
        if size < MIN_BACKGROUND:
            return None
        if len(make) == 1 and make[0][1] > 0:
            return banks[make[0][0]]
        random = np.random.default_rng(_BANK_SEED)
        total, groups = np.zeros((size, sample.spec.dim)), []
        for kind, weight in make:
            drawn = random.permutation(len(banks[kind].vectors))[:size]
            total += weight * banks[kind].vectors[drawn].astype(np.float64)
            groups.append(banks[kind].groups[drawn])
        lengths = np.linalg.norm(total, axis=1, keepdims=True)
        usable = lengths[:, 0] > _CANCELLED
        return _Bank((total[usable] / lengths[usable]).astype(np.float32), np.hstack(groups)[usable])

    def _bank(self, sample: CollectionSample, kind: Kind) -> _Bank:
        if kind == "words":
            words = self._background()
            return _Bank(words, np.empty((len(words), 0), dtype=np.int64))
        members, count = sample.samples[kind], len(background_texts())
        return _Bank(members.vectors[:count], members.groups[:count, None])

    def _background(self) -> NDArray[np.float32]:
        """The background texts' vectors, from the folder where they are there."""
        if self._words is None:
            texts = background_texts()
            name = hashlib.sha256(json.dumps([self.encoder.fingerprint, texts]).encode()).hexdigest()[:32]
            path = None if self.folder is None else self.folder / f"background-{name}.npz"
            self._words = _read_vectors(path, (len(texts), self.encoder.dim))
            if self._words is None:
                self._words = np.asarray(self.encoder.encode_texts(texts), np.float32)
                _write_vectors(path, self._words)
        return self._words


@dataclass
class Judge:
    """Judges what one query finds, from its vector and what it is made of; see the module."""

    calibrator: Calibrator
    sample: CollectionSample
    vector: NDArray[np.float32]
    make: Make
    _known: dict[Modality, tuple[Null, float] | None] = field(default_factory=dict)

    def relevance(self, scores: Sequence[float], modality: Modality) -> list[float | None]:
        """The relevance of vector scores (as the engine gives them) of items of one modality.

        None where it cannot be known: no items of that modality when the sample was taken, or, for a query by
        picture or item, fewer than 16 to compare with.
        """
        if modality not in self._known:
            self._known[modality] = self._calibrate(modality)
        known = self._known[modality]
        if known is None:
            return [None] * len(scores)
        null, level = known
        values = null.relevance(_as_similarity(np.array(scores, np.float64), self.sample.spec.metric), level)
        return [float(value) for value in values]

    def judge(self, hits: Sequence[Hit], min_relevance: float | None = None) -> list[Result]:
        """Hits of a vector search as results with their relevance, without those below `min_relevance`.

        What cannot be judged is kept: it is not known to be below.
        """
        scores: dict[Modality, list[float]] = {}
        for hit in hits:
            scores.setdefault(hit.modality, []).append(hit.score)
        values = {modality: iter(self.relevance(found, modality)) for modality, found in scores.items()}
        return _kept([(hit, next(values[hit.modality])) for hit in hits], min_relevance)

    def judge_found(self, hits: Sequence[Hit], min_relevance: float | None = None) -> list[Result]:
        """As `judge`, for hits whose scores are of another kind (keywords, reranking): by their stored vectors.

        The hits keep their scores and their order. One `get` for all. Raises `BackendError`.
        """
        collection = self.calibrator.collection
        records = self.calibrator.backend.get(collection, [hit.id for hit in hits], with_vectors=True)
        vectors = {record.id: record.vector for record in records if record.vector is not None}
        metric = self.sample.spec.metric
        values: dict[str, float | None] = {}
        for hit in hits:
            stored = vectors.get(hit.id)
            if stored is not None:
                (similarity,) = Items.of(stored[None], metric).similarities(self.vector[None])[0]
                (values[hit.id],) = self.relevance([_as_score(similarity, metric)], hit.modality)
        return _kept([(hit, values.get(hit.id)) for hit in hits], min_relevance)

    def _calibrate(self, modality: Modality) -> tuple[Null, float] | None:
        null = self.calibrator.null(self.sample, self.make, modality)
        if null is None or len(self.vector) != self.sample.spec.dim:
            return None
        (scores,) = self.calibrator.items(self.sample, modality).similarities(self.vector[None])
        return null, null.level(scores)


def _kept(judged: Sequence[tuple[Hit, float | None]], least: float | None) -> list[Result]:
    return [
        replace(Result.of(hit), relevance=value)
        for hit, value in judged
        if least is None or value is None or value >= least
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """(n, d) vectors to be scored under a metric; of unit length where it is the cosine.

    Similarities are linear in the cosine for unit vectors, whatever the metric: Euclidean distances d become
    -d²/2, which for unit vectors is the cosine less 1, so that relevance is the same number under every metric.
    """

    vectors: NDArray[np.float32]
    half_squares: NDArray[np.float64]
    metric: Metric

    @classmethod
    def of(cls, vectors: NDArray[np.float32], metric: Metric) -> Self:
        """The items of these vectors."""
        ready = _unit(vectors) if metric == "cosine" else np.asarray(vectors, dtype=np.float32)
        return cls(ready, _half_squares(ready), metric)

    def similarities(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """(m, n) similarities of m queries."""
        left = _unit(queries) if self.metric == "cosine" else queries
        products = (left @ self.vectors.T).astype(np.float64)
        if self.metric == "l2":
            products -= _half_squares(left)[:, None] + self.half_squares[None, :]
        return products


def _half_squares(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64) / 2)


def _as_similarity(scores: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    # The engine's score is minus the distance; rounding may leave it a little above 0.
    return -(np.minimum(scores, 0.0) ** 2) / 2 if metric == "l2" else scores


def _as_score(similarity: float, metric: Metric) -> float:
    return -float(np.sqrt(max(-2 * similarity, 0.0))) if metric == "l2" else float(similarity)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def _read_vectors(path: Path | None, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    if path is None:
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            vectors: NDArray[np.float32] = arrays["vectors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    usable = vectors.shape == shape and vectors.dtype == np.float32 and bool(np.isfinite(vectors).all())
    return vectors if usable else None


def _write_vectors(path: Path | None, vectors: NDArray[np.float32]) -> None:
    if path is None:
        return
    stream = io.BytesIO()
    np.savez(stream, vectors=vectors)
    try:
        write_whole(path, stream.getvalue())
    except OSError as error:
        _log.warning("the background queries' vectors cannot be kept in %s: %s", path.parent, error)
