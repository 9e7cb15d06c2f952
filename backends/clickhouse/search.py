"""Searching one collection: by the index or by a scan, and BM25 in SQL.

An index finds its nearest rows whether a filter lets them through or not, and rows that were deleted are among them.
So every filtered search compares all rows that match; an unfiltered one asks the index for three times what is wanted,
and is a scan after all where fewer than that are left of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit, Where
from backends.clickhouse.connection import Database, Row
from backends.clickhouse.dialects import Dialect, Ordering
from backends.clickhouse.filters import MAX_BOUND, Params, where_sql
from backends.clickhouse.records import COLUMNS
from backends.clickhouse.schema import AUTO_INDEX_ROWS, Table
from backends.kit.json_text import decode_metadata
from backends.kit.scores import best_first, similarity
from backends.kit.widths import QUERIES, K, Width, find_width, trial_queries
from backends.plans import note_plan
from backends.text import BM25_B, BM25_K1, wanted_words

DEFAULT_EFFORT = 2 / 3
# How many are asked of the index for each hit: 0.99 of the neighbours with a fifth of the rows deleted, where as many
# as hits gave 0.81, and 12 for 10 gave 0.93. Each costs the reading of a record: of 12,000 records a search for 10 took
# 7.3 ms of processor time with these, 5.9 ms without, and chDB's own, which reads 10, 5.1 ms.
_SPARE = 3
_PLAIN_COLUMNS = 6


def candidates_of(effort: float) -> int:
    """The candidate list for an effort: 16 at 0, 256, which is ClickHouse's own, at the default, 1,024 at 1."""
    return round(16 * math.pow(64, effort))


def settings_sql(*settings: Mapping[str, object]) -> str:
    """The SETTINGS clause of a query, empty where there are none."""
    merged: dict[str, object] = {}
    for some in settings:
        merged |= some
    return " SETTINGS " + ", ".join(f"{name} = {value}" for name, value in merged.items()) if merged else ""


def search(
    database: Database,
    dialect: Dialect,
    table: Table,
    queries: NDArray[np.float32],
    k: int,
    where: Where | None,
    effort: float | None,
) -> list[list[Hit]]:
    """The k best for each query; see `Backend.search`."""
    width = max(_SPARE * (k + 2), _width(table, dialect, effort))
    by_index = table.indexed and where is None and effort != 1 and width <= dialect.most
    if effort is None and table.width is not None and not table.width.enough:
        # What the widest search tried does not find, a scan does.
        by_index = False
    found = []
    for query in queries:
        hits = _indexed(database, dialect, table, query, k, width) if by_index else []
        if len(hits) == k:
            note_plan("index", width=width, candidates=_SPARE * (k + 2), share=1.0)
        else:
            note_plan("scan")
            hits = _scan(database, dialect, table, query, k, where)
        found.append(hits)
    return found


def _width(table: Table, dialect: Dialect, effort: float | None) -> int:
    """The candidates of an effort, in proportion to what the default takes in this collection."""
    tried = table.width.width / dialect.widths[0] if table.width is not None and dialect.widths else 1.0
    return round(tried * candidates_of(effort or DEFAULT_EFFORT))


def measure(database: Database, dialect: Dialect, table: Table, rows: int) -> Width | None:
    """How wide the index has to be searched; None where that is known of so many rows, or not to be tried."""
    known = table.width is not None and table.width.fits(rows)
    if not table.indexed or not dialect.widths or known or rows < AUTO_INDEX_ROWS:
        return None
    statement = f"SELECT {table.vector} FROM {table.sql} WHERE has_vector ORDER BY cityHash64(id) LIMIT {QUERIES}"  # noqa: S608
    sample = np.array([row[0] for row in database.rows(statement, {})], np.float32)
    queries = trial_queries(sample, unit=table.spec.metric == "cosine")

    def compared(asked: NDArray[np.float32]) -> list[list[str]]:
        return [[hit.id for hit in _scan(database, dialect, table, query, K, None)] for query in asked]

    def by_graph(asked: NDArray[np.float32], width: int) -> list[list[str]]:
        return [[hit.id for hit in _indexed(database, dialect, table, query, K, width)] for query in asked]

    return find_width(rows, queries, dialect.widths, compared, by_graph)


def _indexed(
    database: Database, dialect: Dialect, table: Table, query: NDArray[np.float32], k: int, width: int
) -> list[Hit]:
    """What the index finds, at most k; fewer where deleted rows and such without a vector were among it."""
    params = Params()
    ordering = dialect.ordering(table.spec, table.vector, _bound(query, params), width)
    limit = _SPARE * (k + 2)
    statement = (
        f"SELECT {COLUMNS}, seq, {_value(table, ordering)} FROM {table.sql} "  # noqa: S608
        f"ORDER BY {_order(table, ordering)} {ordering.direction} LIMIT {limit}{settings_sql(ordering.settings)}"
    )
    rows = [row for row in database.rows(statement, params.values) if row[5]]
    return _hits(table, _newest(rows), query, exact=False)[:k]


def _scan(
    database: Database, dialect: Dialect, table: Table, query: NDArray[np.float32], k: int, where: Where | None
) -> list[Hit]:
    """Every matching row compared."""
    params = Params()
    ordering = dialect.exact(table.spec, table.vector, _bound(query, params))
    condition = where_sql(where, params)

    def ask(limit: int) -> Sequence[Row]:
        statement = (
            f"SELECT {COLUMNS}, seq, {_value(table, ordering)} FROM {table.sql} "  # noqa: S608
            f"WHERE has_vector AND {condition} ORDER BY {_order(table, ordering)} {ordering.direction}, id "
            f"LIMIT {limit}{settings_sql(ordering.settings, params.settings)}"
        )
        return database.rows(statement, params.values)

    return _hits(table, _distinct(ask, k), query, exact=True)[:k]


def _distinct(ask: Callable[[int], Sequence[Row]], k: int) -> list[Row]:
    """The first k rows of different ids: while an upsert is under way there are two of those that it replaces."""
    limit = k
    while True:
        rows = ask(limit)
        newest = _newest(rows)
        if len(newest) >= k or len(rows) < limit:
            return newest
        limit = 2 * limit + 1


def _newest(rows: Sequence[Row]) -> list[Row]:
    kept: dict[str, Row] = {}
    for row in rows:
        if row[0] not in kept or kept[row[0]][_PLAIN_COLUMNS] < row[_PLAIN_COLUMNS]:
            kept[row[0]] = row
    return list(kept.values())


def _order(table: Table, ordering: Ordering) -> str:
    return "distance" if table.spec.metric == "cosine" else ordering.distance


def _value(table: Table, ordering: Ordering) -> str:
    """The column that scores are made of: the distance, or the vector itself.

    Distances are sums of float32. Of unit vectors they are right to about 1e-6; of others they may be far off, so
    those are fetched and scored here.
    """
    return f"{ordering.distance} AS distance" if table.spec.metric == "cosine" else table.vector


def _bound(query: NDArray[np.float32], params: Params) -> str:
    """The query, bound in pieces that a server takes."""
    texts = [repr(number) for number in query.tolist()]
    size = MAX_BOUND // 25
    parts = [f"[{','.join(texts[i : i + size])}]" for i in range(0, len(texts), size)]
    bound = [params.add(part, "Array(Float32)") for part in parts]
    return bound[0] if len(bound) == 1 else f"arrayConcat({', '.join(bound)})"


def _hits(table: Table, rows: Sequence[Row], query: NDArray[np.float32], *, exact: bool) -> list[Hit]:
    """Rows as hits, best first, ties by id; the last column is what `_value` says."""
    if not rows:
        return []
    scores: list[float]
    if table.spec.metric == "cosine":
        scores = [min(1.0, max(-1.0, 1.0 - row[-1])) for row in rows]
    else:
        vectors = np.array([row[-1] for row in rows], dtype=np.float32)
        scores = similarity(query[None], vectors, table.spec.metric)[0].tolist()
    return best_first(
        Hit(row[0], score, row[1], row[2], row[3], decode_metadata(row[4]), exact=exact)
        for row, score in zip(rows, scores, strict=True)
    )


def search_text(database: Database, table: Table, query: str, k: int, where: Where | None) -> list[Hit]:
    """BM25 as in Lucene (Robertson and Zaragoza 2009), its statistics taken at query time over the whole collection."""
    wanted = sorted(wanted_words(query))
    if not wanted:
        return []
    params = Params()
    words = params.arrays(wanted)
    given = words[0] if len(words) == 1 else f"arrayConcat({', '.join(words)})"
    counts = f"arrayMap(word -> terms[word], {given})"
    there = f"arrayExists(word -> mapContains(terms, word), {given})"
    statement = (
        "SELECT count(), avg(length), sumForEach(arrayMap(n -> toUInt64(n > 0), counts)) "  # noqa: S608
        f"FROM (SELECT length, {counts} AS counts FROM {table.sql} WHERE id != '')"
    )
    ((total, mean, having),) = database.rows(statement, params.values)
    if not having or not any(having):
        return []
    weights = [math.log(1 + (total - n + 0.5) / (n + 0.5)) for n in having]
    norm = f"{BM25_K1} * (1 - {BM25_B} + {BM25_B} * length / {max(mean, 1e-9)!r})"
    score = f"arraySum((n, weight) -> weight * n * {BM25_K1 + 1} / (n + {norm}), {counts}, {weights!r})"
    condition = where_sql(where, params)

    def ask(limit: int) -> Sequence[Row]:
        ranked = (
            f"SELECT {COLUMNS}, seq, {score} AS score FROM {table.sql} WHERE {there} AND {condition} "  # noqa: S608
            f"ORDER BY score DESC, id LIMIT {limit}{settings_sql(params.settings)}"
        )
        return database.rows(ranked, params.values)

    rows = _distinct(ask, k)
    return best_first(
        (Hit(row[0], row[-1], row[1], row[2], row[3], decode_metadata(row[4]), exact=True) for row in rows), k
    )
