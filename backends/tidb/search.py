"""Searching one collection: by the vector index where a cluster has one, else by comparing every row; BM25 in SQL.

TiDB's index answers a search without a filter only: with one, and for inner products, every matching row is compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit, Metric, Where
from backends.kit.json_text import decode_metadata, encode
from backends.kit.scores import best_first
from backends.text import BM25_B, BM25_K1, wanted_words
from backends.tidb.connection import Connection, Row, rows, transaction
from backends.tidb.filters import Params, balanced, where_sql
from backends.tidb.index import DISTANCES
from backends.tidb.records import COLUMNS, vector_of, vector_text
from backends.tidb.schema import StoredCollection

# What an exact scan orders by. Cosine collections hold unit vectors: their inner product is the cosine, and costs less.
_COMPARED = {"cosine": "VEC_NEGATIVE_INNER_PRODUCT", "dot": "VEC_NEGATIVE_INNER_PRODUCT", "l2": "VEC_L2_DISTANCE"}
# How often a word is in a record: NULL where it is not.
_TIMES = "JSON_EXTRACT(terms, %s)"
# Of a long query so many words are looked for in one statement.
_MAX_WORDS = 500


def search(
    connection: Connection, collection: StoredCollection, queries: NDArray[np.float32], k: int, where: Where | None
) -> list[list[Hit]]:
    """The k best for each query; see `Backend.search`."""
    clause = where_sql(where)
    answers = []
    for query in queries:
        hits = _indexed(connection, collection, query, k) if collection.indexed and where is None else []
        answers.append(hits if len(hits) == k else _scan(connection, collection, query, k, clause))
    return answers


def _value(metric: Metric, cosine: str) -> str:
    """The column that scores are made of: the cosine, else the vector itself.

    TiDB sums in float32. Of unit vectors that is right to about 1e-6; of others it may be far off, so those are
    fetched and scored here.
    """
    return cosine if metric == "cosine" else "vector"


def _scan(
    connection: Connection, collection: StoredCollection, query: NDArray[np.float32], k: int, clause: tuple[str, Params]
) -> list[Hit]:
    """Every matching row compared. No index can answer this expression.

    Rows without a vector come last, since NULL does in falling order: leaving them out there costs a third more.
    """
    text, params = clause
    metric = collection.spec.metric
    closeness = f"0 - {_COMPARED[metric]}(vector, %s)"
    ordered = "value" if metric == "cosine" else closeness
    statement = (
        f"SELECT {COLUMNS}, {_value(metric, closeness)} AS value FROM {collection.table} "  # noqa: S608
        f"WHERE {text} ORDER BY {ordered} DESC, id LIMIT {int(k)}"
    )
    asked = vector_text(query)
    before, after = ([asked], []) if metric == "cosine" else ([], [asked])
    found = [row for row in rows(connection, statement, [*before, *params, *after]) if row[5] is not None]
    return _hits(found, query, metric, exact=True)


def _indexed(connection: Connection, collection: StoredCollection, query: NDArray[np.float32], k: int) -> list[Hit]:
    """What the vector index finds. Rows without a vector may be among the first k: then fewer come back."""
    metric = collection.spec.metric
    distance = f"{DISTANCES[metric]}(vector, %s)"
    statement = (
        f"SELECT {COLUMNS}, {_value(metric, '1 - value')} AS value FROM "  # noqa: S608
        f"(SELECT {COLUMNS}, vector, {distance} AS value FROM {collection.table} ORDER BY value LIMIT {int(k)}) found "
        "WHERE value IS NOT NULL"
    )
    found = rows(connection, statement, [vector_text(query)])
    return _hits(found, query, metric, exact=False)


def _hits(found: Sequence[Row], query: NDArray[np.float32], metric: Metric, *, exact: bool) -> list[Hit]:
    """Rows as hits, best first, ties by id; the last column is what `_value` says."""
    scores: list[float] = []
    if metric == "cosine":
        scores = [min(1.0, max(-1.0, row[5])) for row in found]
    elif found:
        wide = np.stack([vector_of(row[5]) for row in found]).astype(np.float64)
        scores = (-np.sqrt(((wide - query) ** 2).sum(axis=1)) if metric == "l2" else wide @ query).tolist()
    return best_first(_hit(row, score, exact=exact) for row, score in zip(found, scores, strict=True))


def _hit(row: Row, score: float, *, exact: bool) -> Hit:
    return Hit(row[0].decode(), score, row[1], row[2], row[3], decode_metadata(row[4]), exact=exact)


def search_text(
    connection: Connection, collection: StoredCollection, query: str, k: int, where: Where | None
) -> list[Hit]:
    """BM25 as in Lucene (Robertson and Zaragoza 2009), its statistics taken at query time over the whole collection.

    Two statements on one snapshot: how many records have each word, then the best of those that have one.
    """
    words = sorted(wanted_words(query))
    if not words:
        return []
    paths = [f"$.{encode(word)}" for word in words]
    with transaction(connection):
        weights = _weights(connection, collection.table, paths)
        if not weights.words:
            return []
        found = _best(connection, collection.table, weights, k, where)
    return best_first(_hit(row, float(row[5]), exact=True) for row in found)


@dataclass(frozen=True, slots=True)
class _Weights:
    """What BM25 knows of a collection: the mean length of its records, and of each word that is there its weight."""

    mean: float
    words: list[tuple[str, float]]


def _weights(connection: Connection, table: str, paths: Sequence[str]) -> _Weights:
    """The weights of the words at these paths of `terms`."""
    counts: list[int] = []
    total, mean = 0, 0.0
    for start in range(0, len(paths), _MAX_WORDS):
        part = paths[start : start + _MAX_WORDS]
        # Without names of their own the columns would be called by the words, cut in the middle of a character.
        columns = "".join(f", COUNT({_TIMES}) AS w{number}" for number in range(len(part)))
        ((total, length, *some),) = rows(connection, f"SELECT COUNT(*), SUM(length){columns} FROM {table}", part)  # noqa: S608
        mean = max(float(length or 0) / max(total, 1), 1e-9)
        counts += some
    words = [
        (path, math.log(1 + (total - count + 0.5) / (count + 0.5)))
        for path, count in zip(paths, counts, strict=True)
        if count
    ]
    return _Weights(mean, words)


def _best(connection: Connection, table: str, weights: _Weights, k: int, where: Where | None) -> list[Row]:
    """The rows of the best, with their scores. Each word's part of a score is 0 where the word is not."""
    text, params = where_sql(where)
    k1, b = BM25_K1, BM25_B
    part = f"IFNULL(%s * {_TIMES} / ({_TIMES} + norm), 0)"
    score = balanced([part] * len(weights.words), " + ")
    scored = [value for path, weight in weights.words for value in (weight * (k1 + 1), path, path)]
    statement = (
        f"SELECT {COLUMNS}, {score} AS score FROM "  # noqa: S608
        f"(SELECT {COLUMNS}, fields, terms, %s * (%s + %s * length / %s) AS norm FROM {table} WHERE {text}) found "
        f"HAVING score > 0 ORDER BY score DESC, id LIMIT {int(k)}"
    )
    return rows(connection, statement, [*scored, k1, 1 - b, b, weights.mean, *params])
