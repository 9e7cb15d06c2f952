"""Searching one collection: index or exact scan, the filtered-k promise, and BM25 in SQL.

A filtered HNSW scan gets slower and less certain the fewer rows match, an exact scan faster. So the matches are counted
first, only up to the number at which the index starts to win, and below it the scan is exact. Above it the graph is
searched the wider, the fewer match. An index scan that ends short of k (pgvector's ``iterative_scan`` gives up after
``max_scan_tuples``) is followed by an exact one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit, Metric, Where
from backends.kit.scores import best_first
from backends.kit.widths import QUERIES, K, find_width, trial_queries
from backends.pgvector.connection import Connection
from backends.pgvector.dialect import DEFAULT_EFFORT, MAX_EF, WIDTHS, Layout, ef_search
from backends.pgvector.filters import Clause, named, ordered_fields, where_sql
from backends.pgvector.index import AUTO_INDEX_ROWS, StoredCollection, index_field, keep_width
from backends.plans import note_answers, note_plan
from backends.text import BM25_B, BM25_K1, wanted_words

Row: TypeAlias = tuple[Any, ...]

COLUMNS = "id, modality, text, uri, metadata"
_MIN_EXACT_MATCHES = 1_000
# Candidates beyond k: under a filter the last few of an index scan are the least certain ones, and a
# quantized index orders roughly.
_FILTERED_FACTOR = 3
_EXTRA = {"none": 0, "half": 1, "binary": 20}
_PIPELINED = 64
_SELECTIVITY_LIFE_S = 30.0
_SELECTIVITY_ENTRIES = 256
_SAMPLED_ROWS = 4_000
_MAX_FIELDS = 32
# Measured costs: about 1 us a row matched and scanned, about 4 us a row visited in the graph.
_VISIT_COST = 4


@dataclass(frozen=True, slots=True)
class _Reach:
    """How the index is to be searched: among how much of the collection, and how many candidates."""

    share: float
    width: int


class Searcher:
    """Searches over connections it is given; remembers for seconds which filters match enough for an index."""

    def __init__(self, *, iterative: bool) -> None:
        self._iterative = iterative
        self._shares: dict[tuple[int, bytes], tuple[float, float | None]] = {}
        self._fields: dict[int, set[str]] = {}

    def search(
        self,
        connection: Connection,
        collection: StoredCollection,
        queries: NDArray[np.float32],
        k: int,
        where: Where | None,
        effort: float | None,
    ) -> list[list[Hit]]:
        """The k best for each query; see `Backend.search`."""
        if not len(queries):
            return []
        self._index_fields(connection, collection, where)
        reach = self._reach(connection, collection, k, where, effort)
        if reach is None:
            note_plan("scan", queries=len(queries))
            return self._scan(connection, collection, queries, k, where)
        hits = self._indexed(connection, collection, queries, k, where, effort, reach)
        short = [row for row, some in enumerate(hits) if len(some) < k]
        if short:
            for row, full in zip(short, self._scan(connection, collection, queries[short], k, where), strict=True):
                hits[row] = full
        # Where it was not found out, who asks for plans counts.
        known = where is None or collection.dialect.tunes
        note_answers(hits, width=reach.width, share=reach.share if known else None)
        return hits

    def _reach(
        self, connection: Connection, collection: StoredCollection, k: int, where: Where | None, effort: float | None
    ) -> _Reach | None:
        """How to search the index; None where a scan answers."""
        rows = max(collection.rows, 0)
        layout, most = collection.layout, collection.dialect.max_candidates
        if not collection.indexed or layout is None or effort == 1 or k * 10 > rows:
            return None
        if most is not None and _candidates(layout, k, where) > most:
            return None
        width = _width(collection, effort)
        if not self._iterative:
            # Before pgvector 0.8 a scan ends after ef_search candidates, filtered or not.
            return _Reach(1.0, width) if where is None and k <= width <= MAX_EF else None
        tried = collection.width if effort is None else None
        # What the widest search tried does not find, a scan does.
        if tried is not None and not (tried.enough and (tried.width == WIDTHS[0] or rows > _VISIT_COST * width)):
            return None
        if where is None:
            return _Reach(1.0, width)
        limit = max(_MIN_EXACT_MATCHES, math.isqrt(_VISIT_COST * rows * max(k, width)))
        share = self._share_over(connection, collection, where, limit)
        if share is None:
            return None
        return _Reach(share, math.ceil(width / share) if collection.dialect.tunes else width)

    def _share_over(
        self, connection: Connection, collection: StoredCollection, where: Where, limit: int
    ) -> float | None:
        """About which share of the rows match; None where no more than `limit` do."""
        text, params = _searchable(where)
        # A digest, as a filter may be megabytes.
        key = (collection.number, blake2b(f"{limit} {text} {params!r}".encode(), digest_size=16).digest())
        known = self._shares.get(key)
        now = time.monotonic()
        if known is not None and now - known[0] < _SELECTIVITY_LIFE_S:
            return known[1]
        statement = f"SELECT count(*) FROM (SELECT FROM {collection.table} WHERE {text} LIMIT {limit + 1}) s"  # noqa: S608
        row = connection.execute(statement.encode(), params).fetchone()
        share = self._sampled(connection, collection, where, limit) if row is not None and row[0] > limit else None
        while len(self._shares) >= _SELECTIVITY_ENTRIES:
            self._shares.pop(next(iter(self._shares)), None)
        self._shares[key] = (now, share)
        return share

    def _sampled(self, connection: Connection, collection: StoredCollection, where: Where, limit: int) -> float:
        """The share that matches, of which is known that it is more than `limit` rows: from a sample of pages."""
        if not collection.dialect.tunes:
            return 1.0
        text, params = _searchable(where)
        percent = min(100.0, 100 * _SAMPLED_ROWS / collection.rows)
        statement = (
            f"SELECT count(*) FILTER (WHERE {text}), count(*) FROM {collection.table} TABLESAMPLE SYSTEM ({percent:g})"  # noqa: S608
        )
        row = connection.execute(statement.encode(), params).fetchone()
        sampled = row[0] / row[1] if row is not None and row[1] else 1.0
        return min(1.0, max(sampled, limit / collection.rows))

    def _index_fields(self, connection: Connection, collection: StoredCollection, where: Where | None) -> None:
        """Give each field whose numbers a filter orders an index, from the first such filter on.

        Without one PostgreSQL reads every row for such a filter: 100,000 of 512 dimensions took 0.25 s.
        """
        if where is None or not collection.dialect.tunes or collection.rows < AUTO_INDEX_ROWS:
            return
        known = self._fields.setdefault(collection.number, set())
        for field in sorted(ordered_fields(where) - known):
            # Whoever may search may name any field, as often as they like. Without an index the answer is the same.
            if len(known) >= _MAX_FIELDS:
                return
            known.add(field)
            index_field(connection, collection, field)

    def measure(self, connection: Connection, collection: StoredCollection, rows: int) -> None:
        """Find out how wide the graph has to be searched, where that is not known of so many rows."""
        layout = collection.layout
        if not collection.indexed or layout is None or layout.method != "hnsw" or not collection.dialect.tunes:
            return
        if not self._iterative or rows < AUTO_INDEX_ROWS or (collection.width and collection.width.fits(rows)):
            return
        statement = f"SELECT vector FROM {collection.table} WHERE vector IS NOT NULL ORDER BY md5(id) LIMIT {QUERIES}"  # noqa: S608
        sample = np.stack([row[0] for row in connection.cursor(binary=True).execute(statement.encode()).fetchall()])
        queries = trial_queries(sample, unit=collection.spec.metric == "cosine")

        def compared(asked: NDArray[np.float32]) -> list[list[str]]:
            return _ids(self._scan(connection, collection, asked, K, None))

        def by_graph(asked: NDArray[np.float32], width: int) -> list[list[str]]:
            return _ids(self._indexed(connection, collection, asked, K, None, None, _Reach(1.0, width)))

        keep_width(connection, collection, find_width(rows, queries, WIDTHS, compared, by_graph))

    def _indexed(
        self,
        connection: Connection,
        collection: StoredCollection,
        queries: NDArray[np.float32],
        k: int,
        where: Where | None,
        effort: float | None,
        reach: _Reach,
    ) -> list[list[Hit]]:
        """What the vector index finds, scored again with the stored vectors."""
        layout = collection.layout
        if layout is None:
            raise AssertionError("an indexed collection has a layout")
        text, filtering = named(_searchable(where))
        candidates = _candidates(layout, k, where)
        if reach.width > MAX_EF and layout.method == "hnsw" and collection.dialect.tunes:
            # The scan goes on until it has as many, which a candidate list of pgvector's cannot hold.
            candidates = max(candidates, math.ceil(reach.width * reach.share))
        ordering, distance = layout.ordering(collection.spec), f"vector {collection.distance} %(query)s"
        value = _value(collection, distance)
        if candidates == k:
            statement = f"SELECT {COLUMNS}, {value} FROM {collection.table} WHERE {text} ORDER BY {ordering} LIMIT {k}"  # noqa: S608
        else:
            statement = (
                f"SELECT {COLUMNS}, {value} FROM (SELECT {COLUMNS}, vector FROM {collection.table} WHERE {text} "  # noqa: S608
                f"ORDER BY {ordering} LIMIT {candidates}) s ORDER BY {distance} LIMIT {k}"
            )
        settings = collection.dialect.search_settings(layout, effort, collection.lists, candidates, reach.width)
        params = [{**filtering, "query": query} for query in queries]
        found = _fetch(connection, statement, params, settings=settings)
        return [_hits(rows, q, collection.spec.metric, exact=False) for rows, q in zip(found, queries, strict=True)]

    def _scan(
        self,
        connection: Connection,
        collection: StoredCollection,
        queries: NDArray[np.float32],
        k: int,
        where: Where | None,
    ) -> list[list[Hit]]:
        """Every matching row compared. Adding 0 makes the expression one that no index can answer."""
        text, filtering = named(_searchable(where))
        distance = f"(vector {collection.distance} %(query)s) + 0"
        value = _value(collection, distance)
        ordering = "value" if collection.spec.metric == "cosine" else distance
        statement = f"SELECT {COLUMNS}, {value} FROM {collection.table} WHERE {text} ORDER BY {ordering}, id LIMIT {k}"  # noqa: S608
        params = [{**filtering, "query": query} for query in queries]
        found = _fetch(connection, statement, params, settings={})
        return [_hits(rows, q, collection.spec.metric, exact=True) for rows, q in zip(found, queries, strict=True)]


def _candidates(layout: Layout, k: int, where: Where | None) -> int:
    """How many rows an index scan is asked for."""
    return k * (1 if where is None else _FILTERED_FACTOR) + _EXTRA[layout.quantization] * (k + 8)


def _width(collection: StoredCollection, effort: float | None) -> int:
    """The candidates of an effort, in proportion to what the default takes in this collection."""
    tried = collection.width.width / WIDTHS[0] if collection.width is not None else 1.0
    return round(tried * (ef_search(DEFAULT_EFFORT) if effort is None else ef_search(effort)))


def _ids(answers: Sequence[Sequence[Hit]]) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in answers]


def _searchable(where: Where | None) -> Clause:
    """The records that match and have a vector; the others' distance is NULL, which PostgreSQL sorts behind all."""
    text, params = where_sql(where)
    return f"{text} AND vector IS NOT NULL", params


def _value(collection: StoredCollection, distance: str) -> str:
    """The column that scores are made of: the distance, or the vector itself.

    pgvector sums in float32. Of unit vectors that is right to about 1e-6; of others it may be far off,
    so those are fetched and scored here.
    """
    return f"{distance} AS value" if collection.spec.metric == "cosine" else "vector AS value"


def _fetch(
    connection: Connection, statement: str, batches: Sequence[Mapping[str, object]], *, settings: Mapping[str, str]
) -> list[list[Row]]:
    """The rows of one statement for each set of parameters, many statements to a round trip."""
    query = statement.encode()
    if len(batches) == 1 and not settings:
        return [connection.cursor(binary=True).execute(query, batches[0]).fetchall()]
    found: list[list[Row]] = []
    for start in range(0, len(batches), _PIPELINED):
        # Settings last as long as the transaction; without any there is nothing to keep together.
        with connection.pipeline(), connection.transaction() if settings else nullcontext():
            if settings:
                names = ", ".join(["set_config(%s, %s, true)"] * len(settings))
                connection.execute(f"SELECT {names}".encode(), [part for item in settings.items() for part in item])
            cursors = [
                connection.cursor(binary=True).execute(query, params) for params in batches[start : start + _PIPELINED]
            ]
            found += [cursor.fetchall() for cursor in cursors]
    return found


def _hits(rows: Sequence[Row], query: NDArray[np.float32], metric: Metric, *, exact: bool) -> list[Hit]:
    """Rows as hits, best first, ties by id; the last column is what `_value` says."""
    scores: list[float]
    if metric == "cosine":
        scores = [min(1.0, max(-1.0, -row[5])) for row in rows]
    elif rows:
        wide = np.stack([row[5] for row in rows]).astype(np.float64)
        scores = (-np.sqrt(((wide - query) ** 2).sum(axis=1)) if metric == "l2" else wide @ query).tolist()
    else:
        scores = []
    return best_first(
        Hit(row[0], score, row[1], row[2], row[3], row[4], exact=exact) for row, score in zip(rows, scores, strict=True)
    )


def search_text(
    connection: Connection, collection: StoredCollection, query: str, k: int, where: Where | None
) -> list[Hit]:
    """BM25 as in Lucene (Robertson and Zaragoza 2009), its statistics taken at query time over the whole collection.

    The GIN index on words finds the documents of each query word, whose number is its document
    frequency; documents and their mean length are counted in an index of lengths alone.
    """
    wanted = sorted(wanted_words(query))
    if not wanted:
        return []
    text, filtering = where_sql(where)
    table = collection.table
    statement = f"""
        WITH totals AS (SELECT count(*)::float8 AS n, greatest(avg(length)::float8, 1e-9) AS mean FROM {table}),
        found {collection.dialect.materialized} (
            SELECT t.id, t.length, q.word, (t.terms ->> q.word)::float8 AS tf, {text} AS wanted
            FROM unnest(%s::text[]) q(word) JOIN {table} t ON t.terms ? q.word),
        weights AS (
            SELECT word, ln(1 + (n - count(*) + 0.5) / (count(*) + 0.5)) AS idf FROM found, totals GROUP BY word, n),
        best AS (
            SELECT id, sum(idf * tf * %s / (tf + %s * (1 - %s + %s * length / mean))) AS score
            FROM found JOIN weights USING (word), totals WHERE wanted GROUP BY id ORDER BY score DESC, id LIMIT {k})
        SELECT {COLUMNS}, score FROM best JOIN {table} USING (id) ORDER BY score DESC, id
    """  # noqa: S608
    constants = [BM25_K1 + 1, BM25_K1, BM25_B, BM25_B]
    cursor = connection.cursor(binary=True).execute(statement.encode(), [*filtering, wanted, *constants])
    return [Hit(row[0], row[5], row[1], row[2], row[3], row[4], exact=True) for row in cursor.fetchall()]
