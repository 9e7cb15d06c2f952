"""Search: text to image, image to text, image to image, over any backend and any encoder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.base import And, Backend, Compare, Hit, Modality, Record, Where, parse_where
from retrieval.encoders.base import Encoder
from retrieval.query import Query, SearchError, Term, as_terms, query_vector
from retrieval.relevance import Calibrator, Judge, Make, make_of
from retrieval.results import Result

__all__ = ["EncoderMismatch", "ItemNotFound", "Query", "Retriever", "SearchError", "Term", "reciprocal_rank_fusion"]

_Gate: TypeAlias = tuple[Judge | None, float | None]
Filter: TypeAlias = Where | Mapping[str, Any] | None
AnyHit = TypeVar("AnyHit", bound=Hit)

RRF_CONSTANT = 60
MAX_DEPTH = 10_000
DESCRIBE_EVERY_S = 5.0


class EncoderMismatch(SearchError):
    """The collection was indexed with another encoder than the one that would search it."""


class ItemNotFound(SearchError):
    """No item of that id is in the collection."""


def reciprocal_rank_fusion(rankings: list[list[AnyHit]]) -> list[AnyHit]:
    """Merge rankings by rank: each hit scores the sum of ``1 / (60 + rank)`` over the lists it is in.

    Scores of different modalities cannot be compared in a CLIP space, ranks can. The hits keep their
    own scores, so the merged list is not sorted by them. Ties by id. (Cormack, Clarke and Buettcher,
    SIGIR 2009.)
    """
    fused: dict[str, float] = {}
    hits: dict[str, AnyHit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            fused[hit.id] = fused.get(hit.id, 0.0) + 1.0 / (RRF_CONSTANT + rank)
            hits.setdefault(hit.id, hit)
    return [hits[i] for i in sorted(fused, key=lambda i: (-fused[i], i))]


class Retriever:
    """Searches one collection of one backend with the encoder that filled it.

    Thread-safe when backend and encoder are. Raises `CollectionNotFound` and `EncoderMismatch` at
    construction; the collection is looked at again every 5 seconds of use, so that one which was
    dropped and filled anew by another encoder is noticed.

    Results carry their calibrated relevance (`retrieval.relevance`). It is judged by a random sample of the
    collection, taken at the first search and kept in the folder `samples`, one folder a store, or in memory;
    `calibrate` False leaves it out.
    """

    def __init__(
        self,
        backend: Backend,
        encoder: Encoder,
        collection: str,
        *,
        samples: Path | None = None,
        calibrate: bool = True,
    ) -> None:
        self.backend = backend
        self.encoder = encoder
        self.collection = collection
        self.calibrator = Calibrator(backend, encoder, collection, samples) if calibrate else None
        self._checked_at = -DESCRIBE_EVERY_S
        self._check()

    def _check(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < DESCRIBE_EVERY_S:
            return
        stored = self.backend.describe(self.collection).encoder
        if stored != self.encoder.fingerprint:
            raise EncoderMismatch(
                f"collection {self.collection!r} was indexed with encoder {stored!r}, but the search would use "
                f"{self.encoder.fingerprint!r}: choose that encoder, or index into another collection"
            )
        self._checked_at = now

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        where: Filter = None,
        modality: Modality | None = None,
        offset: int = 0,
        effort: float | None = None,
        min_relevance: float | None = None,
    ) -> list[Result]:
        """The hits of ranks ``offset + 1`` to ``offset + k`` for words, an image, or weighted terms of both.

        A str is text; a Path, bytes or PIL image is an image. With `modality` the hits are ordered by
        score; without, images and texts are searched apart and merged by `reciprocal_rank_fusion`.
        `where` is a `Where` or its JSON form. Pages of one k fit together without gap or repetition
        while the collection does not change. `min_relevance` in [0, 1] leaves out what is less relevant, before
        paging; `RELEVANT` is the recommended one. Raises SearchError, `ImageError` or `BackendError`.
        """
        check_page(k, offset)
        self._check()
        vector = query_vector(query, self.encoder)
        gate = self._gate(vector, make_of(as_terms(query)), min_relevance)
        return self._prefix(vector, k, offset + k, _as_where(where), modality, effort, gate)[offset : offset + k]

    def similar(
        self,
        item_id: str,
        k: int = 10,
        *,
        where: Filter = None,
        modality: Modality | None = None,
        offset: int = 0,
        effort: float | None = None,
        min_relevance: float | None = None,
    ) -> list[Result]:
        """The items nearest to a stored one, itself left out; of its own modality unless said otherwise.

        Raises `ItemNotFound`, and what `search` raises.
        """
        check_page(k, offset)
        self._check()
        item = self.get(item_id, with_vector=True)
        assert item.vector is not None
        # One more than asked, because the item itself is in every list that reaches it.
        gate = self._gate(item.vector, ((item.modality, 1.0),), min_relevance)
        kind = modality or item.modality
        found = self._prefix(item.vector, k, offset + k + 1, _as_where(where), kind, effort, gate)
        return [hit for hit in found if hit.id != item_id][offset : offset + k]

    def lookup(
        self,
        image: Path | bytes | Image.Image,
        k: int = 10,
        *,
        where: Filter = None,
        offset: int = 0,
        effort: float | None = None,
        min_relevance: float | None = None,
    ) -> list[Result]:
        """The texts (captions, passages) that describe an image best."""
        return self.search(
            image, k, where=where, modality="text", offset=offset, effort=effort, min_relevance=min_relevance
        )

    def get(self, item_id: str, *, with_vector: bool = False) -> Record:
        """The stored item of this id. Raises `ItemNotFound`."""
        found = self.backend.get(self.collection, [item_id], with_vectors=with_vector)
        if not found:
            raise ItemNotFound(f"no item {item_id!r} in collection {self.collection!r}")
        return found[0]

    def _prefix(
        self,
        vector: NDArray[np.float32],
        k: int,
        length: int,
        where: Where | None,
        modality: Modality | None,
        effort: float | None,
        gate: _Gate,
    ) -> list[Result]:
        """At least the first `length` hits (all, where there are fewer) of a list that only grows at its end.

        An approximate index may find more when it looks deeper. So the list for depth 2k is the list
        for depth k, then what the deeper search adds: earlier pages stay as they were.
        """
        wanted: list[Modality] = [modality] if modality else ["image", "text"]
        listed: dict[str, Result] = {}
        depth = k
        while True:
            rankings = [self._ranking(vector, depth, where, m, effort, gate) for m in wanted]
            merged = reciprocal_rank_fusion(rankings) if len(rankings) > 1 else rankings[0]
            exhausted = all(len(ranking) < depth for ranking in rankings)
            for hit in merged if exhausted else merged[:depth]:
                listed.setdefault(hit.id, hit)
            if exhausted or depth >= length:
                return list(listed.values())
            depth *= 2

    def _ranking(
        self,
        vector: NDArray[np.float32],
        depth: int,
        where: Where | None,
        modality: Modality,
        effort: float | None,
        gate: _Gate,
    ) -> list[Result]:
        only = Compare("modality", "eq", modality)
        clause: Where = only if where is None else And((where, only))
        hits = self.backend.search(self.collection, vector[None, :], depth, where=clause, effort=effort)[0]
        judge, least = gate
        return [Result.of(hit) for hit in hits] if judge is None else judge.judge(hits, least)

    def _gate(self, vector: NDArray[np.float32], make: Make, min_relevance: float | None) -> _Gate:
        """What judges this query's hits, and the relevance below which they are left out."""
        if min_relevance is not None and not 0 <= min_relevance <= 1:
            raise SearchError(f"min_relevance must be from 0 to 1, not {min_relevance!r}")
        if self.calibrator is None:
            if min_relevance is not None:
                raise SearchError("min_relevance needs calibration, which this retriever was made without")
            return None, None
        return self.calibrator.judge(vector, make), min_relevance


def check_page(k: int, offset: int) -> None:
    """Raise SearchError for a page that starts before 0, is empty, or ends beyond rank 10,000."""
    for name, value, least in (("k", k, 1), ("offset", offset, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SearchError(f"{name} must be an integer of at least {least}, not {value!r}")
    if offset + k > MAX_DEPTH:
        raise SearchError(f"offset + k is {offset + k}; paging ends at rank {MAX_DEPTH}: narrow the search with where")


def _as_where(where: Filter) -> Where | None:
    if where is None or isinstance(where, Mapping):
        try:
            return None if where is None else parse_where(where)
        except ValueError as error:
            raise SearchError(f"the filter is not usable: {error}") from None
    return where
