"""Searching an index: how far to look, what is exact, and ties.

Lucene keeps a graph for each segment. Under a filter it walks the graph and keeps what passes, and where no more
records pass than candidates are wanted, it compares all of those instead: so up to `MAX_K` records are
compared exactly by asking for as many candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit, Unsupported, similarity
from backends.kit.scores import best_first
from backends.kit.ties import search_with_ties
from backends.kit.widths import QUERIES, K, Width, find_width, trial_queries
from backends.opensearch.connection import LuceneServer
from backends.opensearch.dialect import Dialect
from backends.opensearch.filters import terms
from backends.opensearch.records import BYTES, WITH_VECTOR, WORDS, hit_of, vector_of
from backends.opensearch.schema import Stored
from backends.plans import note_answers
from backends.text import wanted_words

Floats = NDArray[np.float32]
# The servers' own limits of hits and candidates (index.max_result_window), unless changed.
MAX_K = 10_000
# Candidates in each segment; an effort of 0.5 asks for 256 too.
LEAST_WIDTH, EFFORT_RANGE, WIDTH, FILTERED_WIDTH = 16, 256, 256, 1_000
# What is tried at `flush`, the default first.
WIDTHS = (WIDTH, 512, 1_024, 2_048, 4_096, 8_192)
# A quantized index is asked for so many more, which are then compared by the vectors themselves.
OVERSAMPLING, LEAST_SAMPLE = 4, 100
MAX_WORDS = 900
HAS_VECTOR = terms([WITH_VECTOR]).query


class Searcher:
    """Vector and keyword search, and counting, over one connection."""

    def __init__(self, server: LuceneServer, dialect: Dialect) -> None:
        self._server, self._dialect = server, dialect

    def count(self, stored: Stored, condition: dict[str, Any] | bool) -> int:
        """How many records match, exactly."""
        query = {"match_all": {}} if condition is True else {"bool": {"filter": [condition]}}
        (answer,) = self._server.searches(stored.alias, [{"query": query, "size": 0, "track_total_hits": True}])
        return int(answer["hits"]["total"]["value"])

    def search(
        self, stored: Stored, queries: Floats, k: int, condition: dict[str, Any] | bool, effort: float | None
    ) -> list[list[Hit]]:
        """The k best for each query."""
        spec = stored.spec
        if not len(queries):
            return []
        is_filtered = condition is not True
        allowed = {"bool": {"filter": [condition, HAS_VECTOR]}} if is_filtered else HAS_VECTOR
        if spec.index.kind == "flat":
            return self._compared(stored, queries, k, allowed, MAX_K)
        if is_filtered and (n := self.count(stored, allowed)) <= MAX_K:
            return self._compared(stored, queries, k, allowed, n) if n else [[] for _ in queries]
        width = _width(stored, effort, is_filtered=is_filtered)
        found = self._near(stored, queries, k, width, allowed if is_filtered else None)
        if not all(len(hits) == k for hits in found):
            n = self.count(stored, allowed)
            if short := [row for row, hits in enumerate(found) if len(hits) < min(k, n)]:
                again = self._fewer(stored, queries[short], k, allowed, n)
                for row, hits in zip(short, again, strict=True):
                    found[row] = hits
        note_answers(found, width=max(k, width), note="in each segment")
        return found

    def measure(self, stored: Stored) -> Width | None:
        """How wide the graphs have to be searched; None where that is known of so many records, or there are none.

        The truth is taken to be what the widest search finds, so that nothing but the server's answers is read.
        """
        n = self.count(stored, HAS_VECTOR)
        known = stored.width is not None and stored.width.fits(n)
        if known or stored.spec.index.kind == "flat" or n <= MAX_K:
            return None
        some = {"function_score": {"query": HAS_VECTOR, "random_score": {"seed": 1, "field": "_seq_no"}}}
        (answer,) = self._server.searches(stored.alias, [{"query": some, "size": QUERIES}])
        sample = np.stack([vector_of(hit["_source"]) for hit in answer["hits"]["hits"]])
        queries = trial_queries(sample, unit=stored.spec.metric == "cosine")

        def by_graph(asked: Floats, width: int) -> list[list[str]]:
            return [[hit.id for hit in hits] for hits in self._near(stored, asked, K, width, None)]

        return find_width(n, queries, WIDTHS, lambda asked: by_graph(asked, MAX_K), by_graph)

    def _fewer(self, stored: Stored, queries: Floats, k: int, allowed: dict[str, Any], n: int) -> list[list[Hit]]:
        """The k best of n where a graph has lost its way."""
        if n <= MAX_K:
            return self._compared(stored, queries, k, allowed, n)
        return self._near(stored, queries, k, MAX_K, allowed)

    def _near(
        self, stored: Stored, queries: Floats, k: int, width: int, allowed: dict[str, Any] | None
    ) -> list[list[Hit]]:
        """The k best by the graph."""
        limit = k
        if stored.spec.index.quantization != "none":
            limit = min(MAX_K, max(OVERSAMPLING * k, LEAST_SAMPLE))
        width = min(MAX_K, max(width, limit))
        bodies = [
            {**self._dialect.near(query, limit, width, allowed), **self._fields(stored, limit)}
            for query in queries.tolist()
        ]
        answers = self._server.searches(stored.alias, bodies)
        return [
            self._hits(stored, query, answer["hits"]["hits"], k, exact=False)
            for query, answer in zip(queries, answers, strict=True)
        ]

    def _compared(self, stored: Stored, queries: Floats, k: int, allowed: dict[str, Any], n: int) -> list[list[Hit]]:
        """The k best of up to n that are allowed, all of which are compared."""
        # What is written meanwhile is compared too.
        width = min(MAX_K, 2 * n + 100)
        exact = stored.spec.index.quantization == "none"
        is_flat = stored.spec.index.kind == "flat"

        def ask(rows: Sequence[int], limit: int) -> list[Any]:
            if is_flat:
                asked = [self._dialect.scanned(stored.spec, queries[row].tolist(), limit, allowed) for row in rows]
            else:
                asked = [self._dialect.near(queries[row].tolist(), limit, max(limit, width), allowed) for row in rows]
            bodies = [{**body, **self._fields(stored, limit)} for body in asked]
            return [answer["hits"]["hits"] for answer in self._server.searches(stored.alias, bodies)]

        first = k if exact else min(MAX_K, max(OVERSAMPLING * k, LEAST_SAMPLE))
        found = search_with_ties(ask, len(queries), first, _tied, most=MAX_K)
        return [self._hits(stored, query, hits, k, exact=exact) for query, hits in zip(queries, found, strict=True)]

    def _fields(self, stored: Stored, limit: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"size": limit, "track_total_hits": False}
        if not _by_vectors(stored):
            fields["_source"] = {"excludes": [BYTES]}
        return fields

    def _hits(self, stored: Stored, query: Floats, found: Sequence[Any], k: int, *, exact: bool) -> list[Hit]:
        metric = stored.spec.metric
        if not found:
            return []
        if _by_vectors(stored):
            rows = np.stack([vector_of(hit["_source"]) for hit in found])
            scores = similarity(query[None], rows, metric)[0].tolist()
        else:
            scores = [_score(metric, hit["_score"]) for hit in found]
        return best_first(
            (hit_of(hit["_source"], score, exact=exact) for hit, score in zip(found, scores, strict=True)), k
        )

    def search_text(self, stored: Stored, query: str, k: int, condition: dict[str, Any] | bool) -> list[Hit]:
        """The k best by BM25; those with at least one word of the query."""
        wanted = wanted_words(query)
        if not wanted:
            return []
        if len(wanted) > MAX_WORDS:
            raise Unsupported(f"{self._server.product.name} takes {MAX_WORDS} different words, not {len(wanted):,}")
        match = {"match": {WORDS: {"query": " ".join(wanted)}}}
        asked = match if condition is True else {"bool": {"must": [match], "filter": [condition]}}
        # Words are as rare as they are in all shards together.
        params = {"search_type": "dfs_query_then_fetch"} if stored.shards > 1 else {}

        def ask(_: Sequence[int], limit: int) -> list[Any]:
            body = {"query": asked, "size": limit, "track_total_hits": False, "_source": {"excludes": [BYTES]}}
            return [answer["hits"]["hits"] for answer in self._server.searches(stored.alias, [body], **params)]

        (found,) = search_with_ties(ask, 1, k, _tied, most=MAX_K)
        return best_first((hit_of(hit["_source"], hit["_score"], exact=True) for hit in found), k)


def _width(stored: Stored, effort: float | None, *, is_filtered: bool) -> int:
    """The candidates of an effort in each segment, in proportion to what the default takes in this collection."""
    tried = stored.width.width if stored.width is not None else WIDTH
    if effort is not None:
        width: int = min(MAX_K, round(LEAST_WIDTH * EFFORT_RANGE**effort * tried / WIDTH))
        return width
    return max(FILTERED_WIDTH, tried) if is_filtered else tried


def _by_vectors(stored: Stored) -> bool:
    """Whether scores are computed here: a quantized index has others, near distances lose their digits in them."""
    index = stored.spec.index
    return stored.spec.metric == "l2" or index.quantization != "none" or index.kind == "flat"


def _tied(one: Any, other: Any) -> bool:
    return bool(one["_score"] == other["_score"])


def _score(metric: str, score: float) -> float:
    """What Lucene's score, which is never negative, says of the vectors."""
    if metric == "cosine":
        return min(1.0, max(-1.0, 2.0 * score - 1.0))
    return score - 1.0 if score >= 1.0 else 1.0 - 1.0 / score
