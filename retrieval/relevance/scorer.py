"""Calibrated relevance: what a score is worth, as a number in [0, 1] that means the same everywhere.

A score has no natural zero: in a CLIP space every query finds something. `Result.relevance` says how a hit
compares with what queries find that have nothing to do with the collection. **A relevance of r means that a
share r of unrelated queries finds nothing this good in the collection.** So 0.5 is what any query gets, 0.95
one unrelated query in twenty; it is the significance of the best hit, not the probability that a person
would agree. It needs no labels and no training, and asks nothing of the encoder but that scores of related
things are higher.

Unrelated queries of the same kind as the one that is judged are scored against a stored random sample of the
collection (`retrieval.relevance.sample`), and a Gumbel distribution is fitted to their best scores, corrected for
hubness, for queries that are answered after all, and for the size of the collection (`retrieval.relevance.nulls`, which
names the papers). The kinds:

- words: 287 built-in queries about all sorts of things (background.json). Where an encoder says as which language it
  reads a text (`text_language`), those of another language are scored against 96 queries in it (background_zh.json and
  so on), since an encoder may place all texts of a language, or of the tower that reads it, alike;
- pictures, and stored items: other items of the sample, each compared with all but its own file's;
- several terms: background terms of the same kinds added up with the same weights.

**Words are answered by images and texts**, so a query of words has two chances in a collection that has both.
Whatever of it is searched, the share r is of the unrelated queries that find nothing this good in all of it:

- what is r within one modality is r^θ, where θ counts the chances (`retrieval.relevance.nulls.extremal_coefficient`);
- step-down (Holm, A simple sequentially rejective multiple test procedure, 1979): where the best of one
  modality is at R so corrected, the query is not unrelated at that level, and what is below R in the other
  counts as it does within that modality alone. The best of the collection, and with it how often nothing is found,
  does not change;
- an image is judged by the better of its own vector and its captions among the 100 texts nearest to the query
  (`retrieval.relevance.captions`). That adds no false alarm, since those texts are in the correction already.

Pictures and stored items are compared within one modality, and judged so.

Judging never reorders results: own evidence is monotone in score within a modality, and an image that only
its captions speak for keeps its place behind those that score higher.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import MODALITIES, Backend, Hit, Modality, Where, matches
from backends.kit.scores import best_first
from retrieval.encoders.base import Encoder
from retrieval.relevance.background import background_texts, background_vectors, text_language
from retrieval.relevance.captions import CONSULTED, describes, image_of, nearest
from retrieval.relevance.nulls import MIN_BACKGROUND, Null, extremal_coefficient, fit_null
from retrieval.relevance.sample import CollectionSample, Sample, SampleCache
from retrieval.relevance.similarities import Items, as_score, as_similarity
from retrieval.relevance.words import QueryWords, text_evidence
from retrieval.search.query import Stored, Term
from retrieval.search.results import Result

__all__ = ["RELEVANT", "Calibrator", "QueryKind", "RelevanceScorer", "background_texts", "query_kind"]

RELEVANT = 0.8
"""The default gate of the chat and the command line: four of five unrelated queries find nothing.

Of the round values it errs least on coco100's photographs alone with `compact`, counting false alarms and false
empties alike; where photographs have captions, 0.9 costs next to nothing. docs/relevance.md has the curves. Being a
share of unrelated queries, it needs no tuning by encoder.
"""

CHECK_EVERY_S = 5.0
_BANK_SEED = 5
# A background query whose terms cancel each other out points nowhere.
_CANCELLED = 1e-6

_WORDS = "words"

Kind: TypeAlias = str
QueryKind: TypeAlias = tuple[tuple[Kind, float], ...]
"""What a query is made of: for each term its kind and weight. ``words`` are a text that was typed, in English or in
whatever language where the encoder makes no difference, ``words:zh`` one in Chinese, and so on; ``image`` and ``text``
are compared as the items of that modality in the collection are."""


def query_kind(terms: Sequence[Term], encoder: Encoder | None = None) -> QueryKind:
    """What a query of these terms is made of; `encoder` says which languages they are in, where it knows."""
    return tuple((_kind(term, encoder), float(term.weight)) for term in terms)


def _kind(term: Term, encoder: Encoder | None) -> Kind:
    if isinstance(term.value, Stored):
        return term.value.modality
    if not isinstance(term.value, str):
        return "image"
    language = "en" if encoder is None else text_language(encoder, term.value)
    return _WORDS if language == "en" else f"{_WORDS}:{language}"


def _is_words(kind: Kind) -> bool:
    return kind.partition(":")[0] == _WORDS


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
    checked against the backend every 5 seconds of use (`retrieval.relevance.sample.is_current`) and taken anew when
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
    _words: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _nulls: dict[tuple[QueryKind, Modality], Null | None] = field(default_factory=dict)
    _ready: dict[Modality, Items] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _checking: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._cache = SampleCache(self.backend, self.collection, self.folder)

    def judge(self, vector: NDArray[np.float32], kind: QueryKind) -> RelevanceScorer:
        """A judge of what the query of this vector finds. Raises `BackendError`, `EncoderError`."""
        return RelevanceScorer(self, self.sample(), np.asarray(vector, np.float32), kind)

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
        """Bring sample, background queries and nulls of words up to date now, so that no search has to wait for it.

        Loads the encoder's text side unless its background vectors are in the folder. Raises `BackendError`,
        `EncoderError`.
        """
        self._checked_at = -1e9
        sample = self.sample()
        for modality in MODALITIES:
            self.null(sample, ((_WORDS, 1.0),), modality)

    def null(self, sample: CollectionSample, kind: QueryKind, modality: Modality) -> Null | None:
        """The null of queries of this kind over the items of a modality; None where it cannot be known."""
        with self._lock:
            # Only a positive scale distinguishes single terms, and unit vectors have none.
            key = (((kind[0][0], 1.0),) if len(kind) == 1 and kind[0][1] > 0 else kind, modality)
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

    def _fit(self, sample: CollectionSample, kind: QueryKind, modality: Modality) -> Null | None:
        target = sample.samples[modality]
        bank = self._composed(sample, kind)
        if bank is None or not target.ids or bank.vectors.shape[1] != sample.spec.dim:
            return None
        # A background query that the encoder cannot read is as near to one item as to another.
        read = bank.vectors.any(axis=1)
        if read.sum() < MIN_BACKGROUND:
            return None
        scores = self.items(sample, modality).similarities(bank.vectors[read])
        return fit_null(scores, target.searchable, bank.related(target)[read] if bank.groups.size else None)

    def _composed(self, sample: CollectionSample, kind: QueryKind) -> _Bank | None:
        """Background queries of one kind: as many as there are of each kind, terms drawn and added up."""
        banks = {term: self._bank(sample, term) for term, _ in kind}
        size = min(len(bank.vectors) for bank in banks.values())
        if size < MIN_BACKGROUND:
            return None
        if len(kind) == 1 and kind[0][1] > 0:
            return banks[kind[0][0]]
        random = np.random.default_rng(_BANK_SEED)
        total, groups = np.zeros((size, sample.spec.dim)), []
        for term, weight in kind:
            drawn = random.permutation(len(banks[term].vectors))[:size]
            total += weight * banks[term].vectors[drawn].astype(np.float64)
            groups.append(banks[term].groups[drawn])
        lengths = np.linalg.norm(total, axis=1, keepdims=True)
        usable = lengths[:, 0] > _CANCELLED
        return _Bank((total[usable] / lengths[usable]).astype(np.float32), np.hstack(groups)[usable])

    def _bank(self, sample: CollectionSample, kind: Kind) -> _Bank:
        if _is_words(kind):
            words = self._background(kind.partition(":")[2] or "en")
            return _Bank(words, np.empty((len(words), 0), dtype=np.int64))
        members, count = sample.samples["text" if kind == "text" else "image"], len(background_texts())
        return _Bank(members.vectors[:count], members.groups[:count, None])

    def _background(self, language: str) -> NDArray[np.float32]:
        """The background texts' vectors in a language, from the folder where they are there."""
        if language not in self._words:
            self._words[language] = background_vectors(self.encoder, self.folder, language)
        return self._words[language]


@dataclass
class RelevanceScorer:
    """Judges what one query finds, from its vector and what it is made of; see the module."""

    calibrator: Calibrator
    sample: CollectionSample
    vector: NDArray[np.float32]
    kind: QueryKind
    _known: dict[Modality, tuple[Null, float] | None] = field(default_factory=dict)
    _coefficient: float | None = None
    _reached: dict[Modality, float] = field(default_factory=dict)
    _texts: list[Hit] | None = None
    _captions: dict[str, list[tuple[str, float]]] | None = None
    _scores: dict[str, float | None] = field(default_factory=dict)

    def relevance(self, scores: Sequence[float], modality: Modality) -> list[float | None]:
        """The relevance of vector scores (as the engine gives them) of items of one modality, by themselves.

        None where it cannot be known: no items of that modality when the sample was taken, or, for a query by
        picture or item, fewer than 16 to compare with.
        """
        alone = self._alone(scores, modality)
        if alone is None:
            return [None] * len(scores)
        theta = self._extremal_coefficient()
        if theta > 1:
            other: Modality = "image" if modality == "text" else "text"
            alone = np.maximum(alone**theta, np.minimum(alone, self._best(other) ** theta))
        return [float(value) for value in alone]

    def judge(self, hits: Sequence[Hit], min_relevance: float | None = None, *, whole: bool = False) -> list[Result]:
        """Hits of a vector search as results with their relevance, without those below `min_relevance`.

        What cannot be judged is kept: it is not known to be below. whole: the first hit is the best of all items
        of its modality, which then need not be searched for it. Raises `BackendError`.
        """
        if whole and hits and (best := self._alone([hits[0].score], hits[0].modality)) is not None:
            self._reached.setdefault(hits[0].modality, float(best[0]))
        scores: dict[Modality, list[float]] = {}
        for hit in hits:
            self._scores[hit.id] = hit.score
            scores.setdefault(hit.modality, []).append(hit.score)
        values = {modality: iter(self.relevance(found, modality)) for modality, found in scores.items()}
        return _kept([(hit, self._with_captions(hit, next(values[hit.modality]))) for hit in hits], min_relevance)

    def score_by_stored_vectors(self, hits: Sequence[Hit], min_relevance: float | None = None) -> list[Result]:
        """As `judge`, for hits whose scores are of another kind (keywords, reranking): by their stored vectors.

        The hits keep their scores and their order. One `get` for those that no vector search gave. Raises
        `BackendError`.
        """
        self._score_stored([hit.id for hit in hits if hit.id not in self._scores])
        values: dict[str, float | None] = {}
        for hit in hits:
            score = self._scores[hit.id]
            if score is not None:
                (own,) = self.relevance([score], hit.modality)
                values[hit.id] = self._with_captions(hit, own)
        return _kept([(hit, values.get(hit.id)) for hit in hits], min_relevance)

    def worth(self, hits: Iterable[Hit], words: str) -> dict[str, float] | None:
        """Of each hit by id the log-odds that the query's vector and words give it; see `retrieval.relevance.words`.

        All hits were judged before. Of the vector it is how improbable it is that an unrelated query finds anything
        as good among the items of that modality. What is not known (no vector, no text) speaks neither for an item
        nor against it. words: ``""`` looks at the vectors alone. None where vectors cannot be judged.
        """
        sampled = [(sample.words, sample.population) for sample in self.sample.samples.values()]
        asked = QueryWords(words, sampled) if words else None
        found: dict[str, float] = {}
        for hit in hits:
            score, worth = self._scores.get(hit.id), 0.0
            if score is not None:
                known = self._null(hit.modality)
                if known is None:
                    return None
                null, baseline = known
                similarity = as_similarity(np.array([score], np.float64), self.sample.spec.metric)
                worth = float(null.improbability(similarity, baseline)[0])
            if asked is not None:
                worth += text_evidence(asked.improbability(hit.text, hit.uri), has_text=bool(hit.text))
            found[hit.id] = worth
        return found

    def captioned(self, min_relevance: float, where: Where | None, ranked: Sequence[Hit]) -> list[Result]:
        """Images beyond a ranking that match a filter and are relevant by their captions, the best score first.

        ranked: the images that were searched, from the best on; not empty. One `get`, none where no caption is
        relevant. Raises `BackendError`.
        """
        known, metric, hits = {hit.id for hit in ranked}, self.sample.spec.metric, []
        wanted = [
            image
            for image, captions in self._consulted().items()
            if image not in known and any(value >= min_relevance for _, value in captions)
        ]
        collection = self.calibrator.collection
        for record in self.calibrator.backend.get(collection, wanted, with_vectors=True) if wanted else ():
            # Not None, says the checker of types, for which `has_vector` is not enough.
            vector = record.vector if record.has_vector and record.modality == "image" else None
            if vector is not None and matches(where, record.metadata, "image"):
                (similarity,) = Items.of(vector[None], metric).similarities(self.vector[None])[0]
                # Rounding must not lift it above what the engine ranked before it.
                score = min(as_score(similarity, metric), ranked[-1].score)
                hits.append(
                    Hit(record.id, score, "image", record.text, record.uri, record.metadata, exact=ranked[-1].exact)
                )
        return self.judge(best_first(hits), min_relevance)

    def _alone(self, scores: Sequence[float], modality: Modality) -> NDArray[np.float64] | None:
        """Relevance within one modality."""
        known = self._null(modality)
        if known is None:
            return None
        null, baseline = known
        return null.relevance(as_similarity(np.array(scores, np.float64), self.sample.spec.metric), baseline)

    def _null(self, modality: Modality) -> tuple[Null, float] | None:
        """What unrelated queries reach in a modality, and this one's baseline."""
        if modality not in self._known:
            self._known[modality] = self._calibrate(modality)
        return self._known[modality]

    def _score_stored(self, ids: Sequence[str]) -> None:
        """Take the scores of these items from their stored vectors; None for one that has none."""
        calibrator, metric = self.calibrator, self.sample.spec.metric
        self._scores.update(dict.fromkeys(ids))
        records = calibrator.backend.get(calibrator.collection, ids, with_vectors=True) if ids else []
        for record in records:
            if record.has_vector and record.vector is not None:
                (similarity,) = Items.of(record.vector[None], metric).similarities(self.vector[None])[0]
                self._scores[record.id] = as_score(similarity, metric)

    def _extremal_coefficient(self) -> float:
        """How many chances the query has over all modalities; 1 where it is judged within one."""
        if self._coefficient is None:
            nulls = [self.calibrator.null(self.sample, self.kind, m) for m in MODALITIES] if self._of_words() else []
            both = [null for null in nulls if null is not None]
            self._coefficient = extremal_coefficient(*both) if len(both) == len(MODALITIES) else 1.0
        return self._coefficient

    def _best(self, modality: Modality) -> float:
        """What the best item of a modality reaches within it, whatever is searched."""
        if modality not in self._reached:
            calibrator = self.calibrator
            found = (
                self._nearest_texts()
                if modality == "text"
                else nearest(calibrator.backend, calibrator.collection, self.vector, modality, count=1)
            )
            best = self._alone([hit.score for hit in found[:1]], modality)
            self._reached[modality] = float(best[0]) if best is not None and len(best) else 0.0
        return self._reached[modality]

    def _nearest_texts(self) -> list[Hit]:
        if self._texts is None:
            calibrator = self.calibrator
            self._texts = nearest(calibrator.backend, calibrator.collection, self.vector, "text", count=CONSULTED)
        return self._texts

    def _of_words(self) -> bool:
        return all(_is_words(term) for term, _ in self.kind)

    def _with_captions(self, hit: Hit, own: float | None) -> float | None:
        if own is None or hit.modality != "image" or not hit.text:
            return own
        return max([own, *(value for text, value in self._consulted().get(hit.id, ()) if describes(text, hit))])

    def _consulted(self) -> dict[str, list[tuple[str, float]]]:
        """Of each image the captions that were consulted, with their relevance."""
        if self._captions is None:
            self._captions = {}
            if self._of_words() and self.sample.samples["text"].ids:
                found = [(image, hit) for hit in self._nearest_texts() if (image := image_of(hit)) is not None]
                values = self.relevance([hit.score for _, hit in found], "text")
                for (image, hit), value in zip(found, values, strict=True):
                    if value is not None and hit.text:
                        self._captions.setdefault(image, []).append((hit.text, value))
        return self._captions

    def _calibrate(self, modality: Modality) -> tuple[Null, float] | None:
        null = self.calibrator.null(self.sample, self.kind, modality)
        if null is None or len(self.vector) != self.sample.spec.dim:
            return None
        (scores,) = self.calibrator.items(self.sample, modality).similarities(self.vector[None])
        return null, null.query_baseline(scores)


def _kept(judged: Sequence[tuple[Hit, float | None]], least: float | None) -> list[Result]:
    return [
        Result.of(hit, relevance=value) for hit, value in judged if least is None or value is None or value >= least
    ]
