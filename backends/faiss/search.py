"""Searching one snapshot of a ``faiss://`` collection: index or scan, exact scores, hits.

A filter never reaches into the graph walk. The index is asked for as many neighbours as should hold
k that pass, and where fewer than k of them do, the passing rows are scanned instead. So a filter that
shuns the neighbourhood of the query costs a scan, never recall: a selector inside HNSW ends with
whatever it met (recall 0.20 at a 0.4% filter).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit, Where
from backends.faiss.index import IN_ORDER_COST, LoadedIndex
from backends.faiss.records import ids_of_rows, items_by_row, metadata_of
from backends.faiss.selections import Selection
from backends.faiss.snapshot import Floats, Integers, Snapshot, exact_scores, scan_scores, within_reach
from backends.kit.scores import best_first, best_rows
from backends.plans import explaining, note_plan

# Scores of a scan held at once, so that many queries over many rows stay in memory.
SCAN_CELLS = 1 << 24


@dataclass(slots=True)
class Found:
    """Positions by falling score. Rows that tie with the k-th may follow it; `exact` as in `Hit`."""

    positions: Integers
    scores: NDArray[np.float64] | Floats
    exact: bool


def nearest_positions(
    snapshot: Snapshot, queries: Floats, k: int, selection: Selection | None, effort: float | None
) -> list[Found]:
    """The best k positions among `selection` (all when `None`) for each query."""
    if selection is not None and selection.searched == len(snapshot.rows):
        # A filter that leaves all there is, as one by modality mostly does.
        selection = None
    plan = _plan(snapshot, k, selection, effort)
    found = _found(snapshot, queries, k, selection, plan)
    if explaining():
        _note(snapshot, selection, plan, found)
    return found


def _note(
    snapshot: Snapshot, selection: Selection | None, plan: tuple[LoadedIndex, int, int] | None, found: Sequence[Found]
) -> None:
    """Say how each query was answered, to who wants to know."""
    matching = len(snapshot.rows) if selection is None else selection.searched
    share = matching / max(1, snapshot.searched)
    for one in found:
        if plan is None or one.exact:
            short = "the index found fewer than wanted" if plan is not None else ""
            note_plan("scan", candidates=matching, share=share, note=short)
        else:
            index, fetch, breadth = plan
            rest = len(snapshot.rows) - index.covered
            newer = f"{rest:,} newer records were compared" if rest else ""
            note_plan("index", width=breadth or None, candidates=fetch, share=share, note=newer)


def _found(
    snapshot: Snapshot,
    queries: Floats,
    k: int,
    selection: Selection | None,
    plan: tuple[LoadedIndex, int, int] | None,
) -> list[Found]:
    if plan is None:
        return _scan(snapshot, queries, k, selection)
    index, fetch, breadth = plan
    distances, labels = index.search(queries, fetch, breadth)
    if selection is None and not index.quantized and index.covered == len(snapshot.rows) and labels.min() >= 0:
        if snapshot.spec.metric == "l2":
            distances = -np.sqrt(np.maximum(distances, 0.0))
        return [Found(*pair, False) for pair in zip(labels, distances, strict=True)]
    return [_merge(snapshot, query, k, selection, row, index) for query, row in zip(queries, labels, strict=True)]


def _plan(
    snapshot: Snapshot, k: int, selection: Selection | None, effort: float | None
) -> tuple[LoadedIndex, int, int] | None:
    """Index, how many to fetch and how broadly; `None` for a scan, where that is exact and no slower."""
    index = snapshot.index
    if index is None or effort == 1:
        return None
    left = index.covered if selection is None else selection.covered_count
    if k >= left:
        return None
    depth = k
    if selection is not None:
        # Three standard deviations above the mean, so that k pass nearly always when they are spread evenly.
        lost = 1 - left / index.covered
        depth = math.ceil((k + 3 * math.sqrt(k * lost) + 8 * lost) * index.covered / left)
    fetch = index.fetch(depth)
    breadth = index.breadth(effort, fetch)
    return None if index.cost(breadth) >= index.scan_cost(left) else (index, fetch, breadth)


def _scan(snapshot: Snapshot, queries: Floats, k: int, selection: Selection | None) -> list[Found]:
    positions = None if selection is None else selection.positions
    rows = len(snapshot.rows) if positions is None else len(positions)
    # Reading all rows one after the other is cheaper than picking most of them.
    in_order = positions is None or rows > IN_ORDER_COST * len(snapshot.rows)
    step = max(1, SCAN_CELLS // max(1, len(snapshot.rows) if in_order else rows))
    found = []
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        all_scores = scan_scores(part, snapshot.vectors, None if in_order else positions, snapshot.spec.metric)
        if in_order and positions is not None:
            all_scores = all_scores[:, positions]
        for query, scores in zip(part, all_scores, strict=True):
            near = within_reach(scores, k, query, snapshot.max_norm, snapshot.spec.metric)
            found.append(_best(snapshot, query, k, near if positions is None else positions[near], exact=True))
    return found


def _best(snapshot: Snapshot, query: Floats, k: int, candidates: Integers, *, exact: bool) -> Found:
    """The best k of the candidates and all that tie with the k-th, by exact score."""
    scores = exact_scores(query, snapshot.vectors, candidates, snapshot.spec.metric)
    order = best_rows(scores, k)
    return Found(candidates[order], scores[order], exact)


def _merge(
    snapshot: Snapshot, query: Floats, k: int, selection: Selection | None, labels: Integers, index: LoadedIndex
) -> Found:
    """What the index found, filtered, with the rows it does not cover yet; a scan where it found too few."""
    labels = labels[labels >= 0]
    if selection is not None:
        labels = labels[selection.mask[labels]]
    if len(labels) < k:
        return _scan(snapshot, query[None], k, selection)[0]
    if not index.quantized:
        labels = labels[:k]
    total = len(snapshot.rows)
    if index.covered < total:
        if selection is None:
            rest = np.arange(index.covered, total, dtype=np.int64)
        else:
            rest = selection.uncovered
        scores = scan_scores(query[None], snapshot.vectors, rest, snapshot.spec.metric)[0]
        near = within_reach(scores, k, query, snapshot.max_norm, snapshot.spec.metric)
        labels = np.concatenate([labels, rest[near]])
    return _best(snapshot, query, k, labels, exact=False)


def read_hits(
    connection: sqlite3.Connection, snapshot: Snapshot, found: list[Found], k: int, *, bounded: bool
) -> list[list[Hit]] | None:
    """The hits of what was found, ties by id; `None` when the collection is no longer at that version.

    `bounded` says that scores are cosines.
    """
    wanted: list[list[int]] = []
    for one in found:
        if len(one.positions) > k and not _break_tie(connection, snapshot, one, k):
            return None
        wanted.append(snapshot.rows_at(one.positions).tolist())
    rows = wanted[0] if len(wanted) == 1 else list({row for rows in wanted for row in rows})
    if not rows:
        current = connection.execute("SELECT version FROM state").fetchone()[0] == snapshot.version
        return [[] for _ in found] if current else None
    version, items = items_by_row(connection, rows)
    if version != snapshot.version:
        return None
    results = []
    for one, rows in zip(found, wanted, strict=True):
        hits = []
        for row, score in zip(rows, one.scores.tolist(), strict=True):
            item = items[row]
            # Rounding takes the cosine of equal unit vectors a little past 1.
            if bounded and not -1.0 <= score <= 1.0:
                score = 1.0 if score > 0 else -1.0
            hits.append(Hit(item[1], score, item[2], item[3], item[4], metadata_of(item[5]), exact=one.exact))
        results.append(best_first(hits))
    return results


def _break_tie(connection: sqlite3.Connection, snapshot: Snapshot, found: Found, k: int) -> bool:
    """Cut to k, taking the smallest ids of those that tie with the k-th; whether all ids were there."""
    better = int(np.count_nonzero(found.scores > found.scores[k - 1]))
    tied = found.positions[better:]
    rows = snapshot.rows_at(tied).tolist()
    ids = ids_of_rows(connection, rows)
    if len(ids) < len(rows):
        return False
    first = sorted(range(len(rows)), key=lambda i: ids[rows[i]])[: k - better]
    found.positions = np.concatenate([found.positions[:better], tied[first]])
    found.scores = found.scores[:k]
    return True


def known_selection(snapshot: Snapshot, where: Where | None) -> tuple[bool, Selection | None]:
    """Whether the selection is at hand without reading the database, and the selection."""
    if where is None:
        return True, snapshot.everything
    selection = snapshot.cached_selection(where)
    return selection is not None, selection
