"""Vector search in Chroma: its graph, looked at as wide as it takes, and a comparison of all that match."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.base import Hit, Metric
from backends.chroma.filters import Condition, both, lacks
from backends.chroma.records import BARE, Floats, hit_of, is_bare
from backends.chroma.schema import Handle
from backends.kit.scores import best_first, similarity

if TYPE_CHECKING:
    from backends.chroma.backend import ChromaStore

# Hits of one call: a server's answer of 10,000 records is some 10 MB.
HITS_PER_CALL = 10_000
# More than this is asked for only where so much is there: Chroma makes room for it first.
MANY = 1_000
GROWTH = 4


def search(reader: ChromaStore, at: Handle, queries: Floats, k: int, where: Condition | None) -> list[list[Hit]]:
    """The hits of every query.

    Fewer than k from the graph are right only if no more match, which a comparison of all that match says. So they
    are compared under a filter on dot products of vectors of any length, where the graph's recall fell to 0.42.
    """
    if k > MANY:
        k = min(k, reader.count_all(at))
    lost = at.spec.metric == "dot" and where is not None
    found = None if lost else _nearest(reader, at, queries, k, where) if k else []
    if found is None:
        return compare(reader, at, queries, k, reader.ids(at, both(where, lacks(BARE))))
    return found or [[] for _ in queries]


def _nearest(
    reader: ChromaStore, at: Handle, queries: Floats, k: int, where: Condition | None
) -> list[list[Hit]] | None:
    """The graph's k best of every query, or None where it has not so many.

    Records without a vector are among what it finds; where they are, more is asked for.
    """
    found: list[list[Hit]] = [[] for _ in queries]
    waiting, limit = list(range(len(queries))), k
    while waiting:
        still = []
        for row, answer in zip(waiting, reader.query(at, queries[waiting], limit, where), strict=True):
            # Without metadata is what was deleted while Chroma looked for it.
            real = [one for one in answer if one[2] is not None and not is_bare(one[2])]
            if len(real) >= k:
                found[row] = _hits(real, at.spec.metric, k)
            elif len(answer) < limit:
                return None
            else:
                still.append(row)
        waiting, limit = still, limit * GROWTH
    return found


def _hits(found: Sequence[Any], metric: Metric, k: int) -> list[Hit]:
    return best_first(
        (hit_of(record_id, row, _score(distance, metric), exact=False) for record_id, distance, row in found), k
    )


def _score(distance: float, metric: Metric) -> float:
    if metric == "l2":
        return 0.0 - math.sqrt(max(distance, 0.0))
    score = 1.0 - distance
    return min(1.0, max(-1.0, score)) if metric == "cosine" else score


def compare(reader: ChromaStore, at: Handle, queries: Floats, k: int, ids: Sequence[str]) -> list[list[Hit]]:
    """The k best among these ids by comparing all of them; they must have vectors."""
    best: list[list[tuple[float, str]]] = [[] for _ in queries]
    for page, vectors in reader.vectors(at, ids):
        scores = similarity(queries, vectors, at.spec.metric)
        if at.spec.metric == "cosine":
            scores = np.clip(scores, -1.0, 1.0)
        # Equal vectors may differ in the last bits of their sums; as float32 they tie again.
        worth = (-scores.astype(np.float32)).astype(np.float64) + 0.0
        for row, negated in enumerate(worth.tolist()):
            best[row] = heapq.nsmallest(k, [*best[row], *zip(negated, page, strict=True)])
    rows = reader.rows(at, list({record_id for found in best for _, record_id in found}))
    # What was deleted meanwhile is not there any more.
    return [[hit_of(i, rows[i], 0.0 - negated, exact=True) for negated, i in found if i in rows] for found in best]
