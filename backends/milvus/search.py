"""Vector search in Milvus: when its index is trusted, when all that match are compared, and how ties are cut."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.base import MODALITIES, Hit, Metric
from backends.kit.scores import best_first
from backends.kit.ties import search_with_ties
from backends.kit.widths import QUERIES, K, Width, find_width, trial_queries
from backends.milvus.collections import CollectionHandle
from backends.milvus.filters import all_of, modality_in
from backends.milvus.records import STORED, hit_of, is_bare, scores_of
from backends.milvus.schema import DEFAULT_NLIST, Index
from backends.plans import note_plan

MAX_LIMIT = 16_384
# Hits a request may bring: the proxy sends at most 64 MB, and a row may have 200 KB.
HITS_PER_REQUEST = 16_384
# Under a filter that keeps no more than this, all that match are compared here: 8 MiB are read in about
# 100 ms. Milvus's own recall on HNSW fell to 0.77 under a filter that kept 10% on the far side of the query.
SCAN_BYTES = 8 << 20
DEFAULT_EF, MAX_EF = 200, 8_192
# What is tried at `flush` on a server, the default first.
WIDTHS = (DEFAULT_EF, 400, 800, 1_600, 3_200)
MAX_LITE_EF = 65_536
LEAST_EF, EF_RANGE = 8, 512
OVERFETCH = 4
# Milvus's scores are float32 sums; records closer than this are ties, whichever kernel compared them.
TIE = 2e-6

Floats = NDArray[np.float32]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One search: what to look for, among what, and on which index."""

    opened: CollectionHandle
    metric: Metric
    index: Index
    queries: Floats
    k: int
    expression: str
    effort: float | None
    lite: bool


class Reader(Protocol):
    """What the search needs of the store."""

    def nearest(
        self, ask: SearchRequest, queries: Floats, limit: int, params: dict[str, int], fields: list[str]
    ) -> list[Any]:
        """Milvus's hits for each query."""
        ...

    def pages(self, opened: CollectionHandle, expression: str, fields: list[str]) -> Iterator[list[Row]]:
        """All rows that match, in the order of their ids."""
        ...

    def rows(self, opened: CollectionHandle, ids: list[str], fields: list[str]) -> list[Row]:
        """The rows of these ids."""
        ...

    def count_matching(self, opened: CollectionHandle, expression: str) -> int:
        """How many rows match."""
        ...


class _FoundBare(Exception):
    """Among what was found is a record without a vector, which has no place there."""


def search(reader: Reader, ask: SearchRequest) -> list[list[Hit]]:
    """The hits of every query; see `Backend.search`.

    A filter on every search would cost those collections that have no record without a vector, and nobody can know
    that none is being written. So such records are left out by the filter once there are any: once this handle has
    stored one, or a search has met one. A search that met none found what it would have found with the filter.
    """
    # Where there is no full comparison, a filter makes counts or a scan of every search: worth it only if one was met.
    if not (ask.opened.has_bare and ask.index.exact):
        try:
            return _search(reader, ask)
        except _FoundBare:
            ask.opened.has_bare = True
    searched = all_of([part for part in (ask.expression, modality_in(MODALITIES)) if part])
    return _search(reader, replace(ask, expression=searched))


def _search(reader: Reader, ask: SearchRequest) -> list[list[Hit]]:
    if ask.index.exact:
        return _exact(reader, ask)
    matching = None
    if ask.expression:
        matching = reader.count_matching(ask.opened, ask.expression)
        if matching == 0:
            return [[] for _ in ask.queries]
        if matching * ask.queries.shape[1] * 4 <= SCAN_BYTES:
            return _scan(reader, ask)
    total = 1 if matching is None else max(matching, reader.count_matching(ask.opened, ""))
    params = search_params(ask, 1.0 if matching is None else matching / total, total)
    limit = min(MAX_LIMIT, ask.k * OVERFETCH if ask.index.quantized else ask.k)
    answers = [
        _hits(ask, q, found, exact=False) for q, found in _nearest(reader, ask, ask.queries, limit, params=params)
    ]
    whole = all(len(hits) >= ask.k for hits in answers)
    if not whole:
        expected = min(ask.k, reader.count_matching(ask.opened, ask.expression))
        whole = all(len(hits) >= expected for hits in answers)
    if not whole:
        return _scan(reader, ask)
    note_plan("index", queries=len(answers), width=params.get("ef") or params.get("nprobe"))
    return [hits[: ask.k] for hits in answers]


def measure(reader: Reader, opened: CollectionHandle, index: Index, rows: int) -> Width | None:
    """How wide a server's graph has to be searched; None where that is known of so many rows, or there is none."""
    known = opened.width is not None and opened.width.fits(rows)
    if known or not index.type.startswith("HNSW") or rows * opened.spec.dim * 4 <= SCAN_BYTES // 2:
        return None
    page = next(iter(reader.pages(opened, modality_in(MODALITIES), ["id", "vector"])), [])
    sample = np.array([row["vector"] for row in page[:: max(1, len(page) // QUERIES)][:QUERIES]], np.float32)
    if not len(sample):
        # None of them has a vector.
        return None
    queries = trial_queries(sample, unit=opened.spec.metric == "cosine")
    ask = SearchRequest(
        opened=opened,
        metric=opened.spec.metric,
        index=index,
        queries=queries,
        k=K,
        expression=modality_in(MODALITIES),
        effort=None,
        lite=False,
    )

    def compared(asked: Floats) -> list[list[str]]:
        return [[hit.id for hit in hits] for hits in _scan(reader, replace(ask, queries=asked))]

    def by_graph(asked: Floats, width: int) -> list[list[str]]:
        found = reader.nearest(replace(ask, expression=""), asked, K, {"ef": width}, [])
        return [[hit["id"] for hit in hits] for hits in found]

    return find_width(rows, queries, WIDTHS, compared, by_graph)


def search_params(ask: SearchRequest, share: float, total: int) -> dict[str, int]:
    """``ef`` or ``nprobe`` of an effort, raised as the share of the rows that the filter keeps falls."""
    if ask.index.type.startswith("HNSW"):
        if ask.lite and ask.expression:
            # Lite's graph does not pass through rows that the filter excludes: recall was 0.70 with ef 1,600.
            return {"ef": max(ask.k, min(total, MAX_LITE_EF))}
        tried = DEFAULT_EF if ask.opened.width is None else ask.opened.width.width
        ef = tried if ask.effort is None else LEAST_EF * EF_RANGE**ask.effort * tried / DEFAULT_EF
        return {"ef": max(ask.k * (OVERFETCH if ask.index.quantized else 1), min(MAX_EF, math.ceil(ef / share)))}
    nlist = int(ask.index.params.get("nlist", DEFAULT_NLIST))
    probes = max(16, nlist / 4) if ask.effort is None else ask.effort * nlist
    return {"nprobe": max(1, min(nlist, math.ceil(probes / share)))}


def _nearest(
    reader: Reader, ask: SearchRequest, queries: Floats, limit: int, *, params: dict[str, int]
) -> Iterator[tuple[Floats, Any]]:
    fields = [*STORED, "vector"] if ask.metric != "cosine" or ask.index.quantized else STORED
    step = max(1, HITS_PER_REQUEST // limit)
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        yield from zip(block, reader.nearest(ask, block, limit, params, fields), strict=True)


def _hits(ask: SearchRequest, query: Floats, found: Any, *, exact: bool) -> list[Hit]:
    rows = [(hit["id"], hit["entity"], hit["distance"]) for hit in found]
    if not rows:
        return []
    if any(is_bare(entity) for _, entity, _ in rows):
        raise _FoundBare
    if ask.metric == "cosine" and not ask.index.quantized:
        # Rounded to where kernels agree, so that equal vectors tie.
        scores = [min(1.0, max(-1.0, round(distance, 6))) + 0.0 for _, _, distance in rows]
    else:
        # Milvus computes distances as |a|^2 - 2ab + |b|^2, which loses all digits for near neighbours.
        scores = scores_of(query, np.array([entity["vector"] for _, entity, _ in rows], np.float32), ask.metric)
    return best_first(hit_of(i, entity, score, exact=exact) for (i, entity, _), score in zip(rows, scores, strict=True))


def _exact(reader: Reader, ask: SearchRequest) -> list[list[Hit]]:
    """On a FLAT index: the k best, and among those that tie at the cut the lowest ids."""

    def nearest(rows: Sequence[int], limit: int) -> Iterator[list[Hit]]:
        for query, found in _nearest(reader, ask, ask.queries[rows], limit, params={}):
            yield _hits(ask, query, found, exact=True)

    def tied(kth: Hit, last: Hit) -> bool:
        return kth.score - last.score <= TIE * max(1.0, abs(kth.score))

    found = search_with_ties(nearest, len(ask.queries), ask.k, tied, most=MAX_LIMIT, keep=lambda hits: hits[: ask.k])
    return [list(hits) for hits in found]


def _scan(reader: Reader, ask: SearchRequest) -> list[list[Hit]]:
    """Compare everything that matches, read page by page."""
    best: list[list[tuple[float, str]]] = [[] for _ in ask.queries]
    for page in reader.pages(ask.opened, ask.expression, ["id", "vector"]):
        vectors = np.array([row["vector"] for row in page], np.float32)
        for q, query in enumerate(ask.queries):
            scored = zip([-s for s in scores_of(query, vectors, ask.metric)], (row["id"] for row in page), strict=True)
            best[q] = heapq.nsmallest(ask.k, [*best[q], *scored])
    wanted = list({record_id for found in best for _, record_id in found})
    rows = {row["id"]: row for row in reader.rows(ask.opened, wanted, ["id", *STORED])}
    if any(map(is_bare, rows.values())):
        raise _FoundBare
    # What was deleted meanwhile is not there any more.
    return [[hit_of(i, rows[i], 0.0 - negative, exact=True) for negative, i in found if i in rows] for found in best]
