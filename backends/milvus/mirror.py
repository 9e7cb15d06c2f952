"""A copy of what Milvus Lite holds, in memory: searches by vector compare all that match, in NumPy.

Lite goes through every row in Python, whatever it is asked: 1 us a row without a filter, and 10 to 20 us where a filter
looks at metadata, which it reads as JSON once for counting and once for searching. So 100,000 rows of 512 dimensions
took 2 to 4 s under any filter. Compared here they take 20 ms, and nothing is missed. One process at a time has a folder
of Lite, and all of its writes come by here, so the copy is always what Lite has.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit, Metric, Where
from backends.filters import matches
from backends.kit.scores import best_first
from backends.milvus.records import STORED, hit_of, is_bare, record_of, scores_of

Floats = NDArray[np.float32]
Row = Mapping[str, Any]
# Beyond this there is no copy, and Lite searches by itself.
MAX_BYTES = 2 << 30
_SELECTIONS = 64
# Sums of float32 are at most about so far off, in products of the lengths; what is closer is compared again in float64.
_SLACK = 1e-5
_COMPARED_CELLS = 1 << 24


class Mirror:
    """The rows of one collection that have a vector. Thread-safe; a row's place never holds another row."""

    def __init__(self, dim: int) -> None:
        self._lock = threading.Lock()
        self._vectors = np.empty((0, dim), np.float32)
        self._alive = np.empty(0, np.bool_)
        self._rows: list[Row] = []
        self._place: dict[str, int] = {}
        self._longest = 0.0
        # For each filter which of the first rows match; new ones are judged when it is next used.
        self._selections: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()

    @property
    def too_large(self) -> bool:
        """Whether it takes more memory than it may."""
        return self._vectors.nbytes > MAX_BYTES

    def put(self, rows: Sequence[Row]) -> None:
        """Take up rows as Lite is given them; later ones win over earlier ones of their id."""
        with self._lock:
            start = len(self._rows)
            self._grow(start + len(rows))
            for row in rows:
                self._forget(row["id"])
                if is_bare(row):
                    continue
                place = len(self._rows)
                self._vectors[place] = row["vector"]
                self._alive[place] = True
                self._rows.append({name: row[name] for name in ("id", *STORED)})
                self._place[row["id"]] = place
            added = self._vectors[start : len(self._rows)]
            if len(added):
                self._longest = max(self._longest, float(np.sqrt(np.einsum("ij,ij->i", added, added).max())))
            if len(self._rows) > 1_000 and len(self._place) < len(self._rows) // 2:
                self._compact()

    def remove(self, ids: Iterable[str]) -> None:
        """Forget these."""
        with self._lock:
            for record_id in ids:
                self._forget(record_id)

    def _forget(self, record_id: str) -> None:
        place = self._place.pop(record_id, None)
        if place is not None:
            # Readers have the array as it was.
            self._alive[place] = False

    def _grow(self, rows: int) -> None:
        if rows <= len(self._vectors):
            return
        room = max(1_024, rows, len(self._vectors) * 3 // 2)
        for name, shape in (("_vectors", (room, self._vectors.shape[1])), ("_alive", (room,))):
            old = getattr(self, name)
            new = np.zeros(shape, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def _compact(self) -> None:
        places = np.flatnonzero(self._alive[: len(self._rows)])
        self._vectors, self._alive = self._vectors[places], np.ones(len(places), np.bool_)
        self._rows = [self._rows[place] for place in places.tolist()]
        self._place = {row["id"]: place for place, row in enumerate(self._rows)}
        self._selections.clear()

    def search(self, queries: Floats, k: int, where: Where | None, metric: Metric) -> tuple[list[list[Hit]], int]:
        """The k best of each query among all that match, and how many these are."""
        with self._lock:
            rows, vectors, longest = self._rows, self._vectors, self._longest
            places = np.flatnonzero(self._selected(where) & self._alive[: len(rows)])
        if not len(places):
            return [[] for _ in queries], 0
        # Nearly all of them are quicker compared where they lie than copied together.
        whole = 2 * len(places) > len(vectors)
        candidates = vectors if whole else vectors[places]
        step = max(1, _COMPARED_CELLS // len(candidates))
        found = []
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            rough = _rough(block, candidates, metric)
            for query, scores in zip(block, rough[:, places] if whole else rough, strict=True):
                chosen = places[_nearly_best(scores, k, _slack(query, longest, metric))]
                exact = scores_of(query, vectors[chosen], metric)
                pairs = zip((rows[place] for place in chosen.tolist()), exact, strict=True)
                found.append(best_first((hit_of(row["id"], row, score, exact=True) for row, score in pairs), k))
        return found, len(places)

    def _selected(self, where: Where | None) -> NDArray[np.bool_]:
        if where is None:
            return np.ones(len(self._rows), np.bool_)
        key = repr(where)
        known = self._selections.pop(key, np.empty(0, np.bool_))
        if len(known) < len(self._rows):
            records = map(record_of, self._rows[len(known) :])
            judged = [matches(where, record.metadata, record.modality) for record in records]
            known = np.concatenate([known, np.array(judged, np.bool_)])
        self._selections[key] = known
        while len(self._selections) > _SELECTIONS:
            self._selections.popitem(last=False)
        return known


def _rough(queries: Floats, vectors: Floats, metric: Metric) -> Floats:
    """Scores by sums of float32, in their order at least: of l2 the product less half the square of the length."""
    products: Floats = queries @ vectors.T
    if metric == "l2":
        products -= np.einsum("ij,ij->i", vectors, vectors) / 2
    return products


def _slack(query: Floats, longest: float, metric: Metric) -> float:
    """How far `_rough` may be off."""
    length = float(np.linalg.norm(query))
    return _SLACK * (length * longest + (longest * longest if metric == "l2" else 0.0))


def _nearly_best(scores: Floats, k: int, slack: float) -> NDArray[np.intp]:
    """The rows that may be among the k best."""
    if k >= len(scores):
        return np.arange(len(scores))
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= kth - 2 * slack)


def fill(dim: int, pages: Callable[[], Iterable[Sequence[Row]]]) -> Mirror | None:
    """A mirror of all rows, None where that takes too much memory."""
    mirror = Mirror(dim)
    for page in pages():
        mirror.put(page)
        if mirror.too_large:
            return None
    return mirror
