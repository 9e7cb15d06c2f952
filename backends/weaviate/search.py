"""Searching a collection on Weaviate: how far to look, what is exact, and ties.

Weaviate has no knob per query, but the size of its candidate list (ef) is eight times the number of hits
asked for and at least 256, so a high `effort` asks for more hits and keeps the best k; a low one cannot
make it look less far. What a filter leaves below 40,000 records
it scans in full; small collections are searched that way without a filter too, through one that selects
everything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit
from backends.kit.scores import best_first
from backends.kit.ties import search_with_ties
from backends.kit.widths import QUERIES, K, Width, find_width, trial_queries
from backends.plans import note_answers
from backends.text import wanted_words
from backends.weaviate import repair as mend
from backends.weaviate.connection import WeaviateServer
from backends.weaviate.filters import bare, both, everything, not_bare
from backends.weaviate.records import hit_of, vector_of
from backends.weaviate.requests import count_request, having_words, near, search_request
from backends.weaviate.schema import EF_FACTOR, EF_MAX, EF_MIN, FLAT_CUTOFF, Stored

Floats = NDArray[np.float32]
MAX_K = 10_000
# Up to here scanning everything is quicker than, or as quick as, walking the graph.
SCAN_BYTES = 2 << 20
# A count this old is still good to say that a collection is small: others cannot add FLAT_CUTOFF / 2 in that time.
COUNT_AGE_S = 2.0
BINARY_EF = 1024
# What is tried at `flush`, the default first.
WIDTHS = (EF_MIN, 512, 1_024, 2_048, EF_MAX)
FILTERED_WIDENING = 4
LEAST_EF, EFFORT_RANGE = 16, 256
ATTEMPTS = 4
PAUSE_S = 0.1


class Searcher:
    """Vector and keyword search, and counting, over one connection."""

    def __init__(self, server: WeaviateServer) -> None:
        self._server = server
        self._counts: dict[str, tuple[float, int]] = {}

    def written(self, name: str) -> None:
        """Forget the size of a collection that is about to change."""
        self._counts.pop(name, None)

    def count(self, stored: Stored, condition: Any) -> int:
        """How many records match, exactly."""
        return int(self._server.call("Aggregate", count_request(stored, condition)).single_result.objects_count)

    def _size(self, stored: Stored) -> int:
        now = time.monotonic()
        since, size = self._counts.get(stored.spec.name, (-math.inf, 0))
        if now - since > COUNT_AGE_S:
            size = self.count(stored, True)
            self._counts[stored.spec.name] = (now, size)
        return size

    def search(self, stored: Stored, queries: Floats, k: int, condition: Any, effort: float | None) -> list[list[Hit]]:
        """The k best for each query."""
        spec = stored.spec
        plain = spec.index.quantization == "none"
        if spec.index.kind == "flat":
            exact = plain
        else:
            size = self._size(stored)
            if condition is True and size * spec.dim * 4 <= SCAN_BYTES:
                condition = everything()
            # Half, so that what is being written meanwhile does not cross the line.
            exact = plain and condition is not True and size <= FLAT_CUTOFF // 2
        limit = min(MAX_K, k + 1 if exact else max(k, self._limit(stored, effort, is_filtered=condition is not True)))

        def ask(rows: Sequence[int], limit: int) -> list[Any]:
            requests = [self._near(stored, queries[row], limit, condition) for row in rows]
            # A future costs a lone query a tenth of a millisecond.
            if len(requests) == 1:
                return [self._server.call("Search", requests[0]).results]
            return [reply.results for reply in self._server.calls("Search", requests)]

        if exact:
            answers = search_with_ties(ask, len(queries), k, _same_distance, most=MAX_K)
        else:
            answers = ask(range(len(queries)), limit)
        hits = [
            self._fewer(stored, query, k, limit, condition, exact=exact)
            if len(found) < limit
            else _hits(stored, found if exact else found[:k], k, exact=exact)
            for query, found in zip(queries, answers, strict=True)
        ]
        note_answers(hits, width=min(EF_MAX, max(EF_MIN, limit * EF_FACTOR)))
        return hits

    def measure(self, stored: Stored) -> Width | None:
        """How wide the graph has to be searched; None where that is known of so many records, or there is none.

        The truth is taken to be what the widest search finds, so that no vectors but a sample are read.
        """
        size = self.count(stored, not_bare())
        known = stored.width is not None and stored.width.fits(size)
        if known or stored.spec.index.kind == "flat" or size * stored.spec.dim * 4 <= SCAN_BYTES:
            return None
        request = search_request(stored, vectors=True, condition=not_bare(), limit=QUERIES)
        sample = np.array([vector_of(result) for result in self._server.call("Search", request).results], np.float32)
        queries = trial_queries(sample, unit=stored.spec.metric == "cosine")

        def by_graph(asked: Floats, width: int) -> list[list[str]]:
            limit = max(K, width // EF_FACTOR)
            requests = [search_request(stored, records=False, limit=limit, **near(stored, query)) for query in asked]
            return [[r.metadata.id for r in reply.results[:K]] for reply in self._server.calls("Search", requests)]

        return find_width(size, queries, WIDTHS, lambda asked: by_graph(asked, 2 * EF_MAX), by_graph)

    def _limit(self, stored: Stored, effort: float | None, *, is_filtered: bool) -> int:
        tried = EF_MIN if stored.width is None else stored.width.width
        if effort is not None:
            ef = round(LEAST_EF * EFFORT_RANGE**effort * tried / EF_MIN)
        else:
            # Of 100,000 crowded records of which half matched, the graph gave 0.90 at its least width.
            ef = FILTERED_WIDENING * tried if is_filtered else tried
        ef = min(EF_MAX, ef)
        if stored.spec.index.quantization == "binary":
            ef = max(ef, BINARY_EF)
        return math.ceil(ef / EF_FACTOR) if ef > EF_MIN else 0

    def _near(self, stored: Stored, query: Floats, limit: int, condition: Any, *, vectors: bool = False) -> Any:
        return search_request(stored, vectors=vectors, condition=condition, limit=limit, **near(stored, query))

    def _fewer(self, stored: Stored, query: Floats, k: int, limit: int, condition: Any, *, exact: bool) -> list[Hit]:
        """The k best where fewer were found than asked for.

        Either there are no more; or a graph has lost its way; or some were deleted or replaced while
        Weaviate searched: it leaves those out but not their distances, which then stand beside the wrong
        objects. So the scores are computed here.
        """
        asked, missing = condition, set[str]()
        for attempt in range(ATTEMPTS):
            found = self._server.call("Search", self._near(stored, query, limit, condition, vectors=True)).results
            n = self.count(stored, asked)
            wanted = limit if exact else k
            if len(found) < min(wanted, n) and self.count(stored, both(asked, bare())):
                asked = both(asked, not_bare())
                n = self.count(stored, asked)
            if len(found) >= min(wanted, n):
                break
            limit = MAX_K
            if condition is True and n < FLAT_CUTOFF // 2:
                condition = everything()
            before, missing = missing, mend.ids(self._server, stored, asked, MAX_K)
            missing.difference_update(result.metadata.id for result in found)
            if missing and missing == before and n <= MAX_K:
                # Not in passing: a crash has left them out of the index.
                mend.reindex(self._server, stored, missing)
            time.sleep(PAUSE_S * attempt)
        scores = [_similarity(stored.spec.metric, query, vector_of(result)) for result in found]
        return _best(found, scores, k, exact=exact and len(found) >= min(limit, n))

    def search_text(self, stored: Stored, query: str, k: int, condition: Any) -> list[Hit]:
        """The k best by BM25; those with at least one word of the query."""
        wanted = " ".join(wanted_words(query))
        if not wanted:
            return []

        def ask(_: Sequence[int], limit: int) -> list[Any]:
            request = search_request(stored, condition=condition, limit=limit, **having_words(wanted))
            return [self._server.call("Search", request).results]

        (found,) = search_with_ties(
            ask, 1, k, lambda one, other: one.metadata.score == other.metadata.score, most=MAX_K
        )
        return _best(found, [result.metadata.score for result in found], k, exact=True)


def _same_distance(one: Any, other: Any) -> bool:
    return bool(one.metadata.distance == other.metadata.distance)


def _hits(stored: Stored, found: Any, k: int, *, exact: bool) -> list[Hit]:
    """The k best of what the server found, by its own distances."""
    scores = [_score(stored.spec.metric, result.metadata.distance) for result in found]
    return _best(found, scores, k, exact=exact)


def _best(found: Any, scores: list[float], k: int, *, exact: bool) -> list[Hit]:
    return best_first((hit_of(result, score, exact=exact) for result, score in zip(found, scores, strict=True)), k)


def _score(metric: str, distance: float) -> float:
    if metric == "cosine":
        return min(1.0, max(-1.0, 1.0 - distance))
    return -distance if metric == "dot" else 0.0 - math.sqrt(max(0.0, distance))


def _similarity(metric: str, query: Floats, vector: Floats) -> float:
    if metric == "l2":
        return 0.0 - float(np.linalg.norm(query.astype(np.float64) - vector))
    product = float(query.astype(np.float64) @ vector)
    return product if metric == "dot" else min(1.0, max(-1.0, product))
