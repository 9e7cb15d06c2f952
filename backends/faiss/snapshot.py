"""One committed version of a ``faiss://`` collection, as searches see it: immutable, shared by threads.

A write makes a new version; the next search of each process builds its snapshot from the previous
one and the few rows that changed. Files a snapshot has mapped stay readable after they are unlinked.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field

import faiss
import numpy as np
from numpy.typing import NDArray

from backends.base import CollectionNotFound, CollectionSpec, Where
from backends.errors import Corrupt
from backends.faiss.columns import Columns
from backends.faiss.files import VectorFiles
from backends.faiss.index import LoadedIndex, load_index, one_thread
from backends.faiss.records import bare_rows
from backends.faiss.selections import Selection, Selections, selected

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(eq=False)
class Snapshot:
    """A collection at one version. Position p holds `vectors[p]` of SQLite row `rows[p]` while `alive[p]`.

    Rows without a vector have the positions from -1 downwards: `bare[i]` is that of -1 - i. `alive` has them at its
    end, where Python's negative indices find them, so that a mask of its shape speaks of all records.
    """

    spec: CollectionSpec
    version: int
    generation: int
    live: int
    next_row: int
    max_norm: float
    vectors: Floats
    rows: Integers
    bare: Integers
    alive: Mask
    dead_seen: int
    index: LoadedIndex | None
    index_text: str | None
    selections: Selections = field(default_factory=Selections)
    columns: Columns = field(default_factory=Columns)

    def __post_init__(self) -> None:
        self.covered = self.index.covered if self.index is not None else 0
        #: How many live records have a vector.
        self.searched = self.live - int(np.count_nonzero(self.alive[len(self.rows) :]))
        self.everything: Selection | None = None
        if self.searched < len(self.rows):
            self.everything = Selection(self, self.alive)
        span = len(self.rows) and int(self.rows[-1] - self.rows[0]) + 1
        self._first_row = int(self.rows[0]) if span and span == len(self.rows) else None

    def positions_of(self, rows: Integers) -> Integers:
        """Positions of live row numbers."""
        if self._first_row is not None and not len(self.bare):
            return rows - self._first_row
        positions = np.searchsorted(self.rows, rows)
        if len(self.bare):
            bare = np.searchsorted(self.bare, rows)
            is_bare = self.bare[np.minimum(bare, len(self.bare) - 1)] == rows
            positions[is_bare] = -1 - bare[is_bare]
        return positions

    def rows_at(self, positions: Integers) -> Integers:
        """The row numbers at these positions."""
        if not len(self.bare):
            return self.rows[positions]
        found = np.empty(len(positions), np.int64)
        is_bare = positions < 0
        found[~is_bare] = self.rows[positions[~is_bare]]
        found[is_bare] = self.bare[-1 - positions[is_bare]]
        return found

    def rows_in(self, mask: Mask, *, bare_only: bool = False) -> Integers:
        """The row numbers where a mask is true, of rows without a vector alone if asked."""
        bare = self.bare[mask[len(self.rows) :][::-1]]
        return bare if bare_only else np.concatenate([self.rows[mask[: len(self.rows)]], bare])

    def selection(self, connection: sqlite3.Connection, where: Where | None) -> Selection | None:
        """What `where` leaves; `None` when that is every record. Read in a transaction of this version."""
        return self.everything if where is None else selected(connection, self, where)

    def cached_selection(self, where: Where) -> Selection | None:
        """The selection of `where` when it is known already."""
        found = self.selections.get(where)
        return found if found is not None and found.version == self.version else None


def read_snapshot(
    connection: sqlite3.Connection, files: VectorFiles, spec: CollectionSpec, previous: Snapshot | None
) -> Snapshot:
    """The snapshot of the version that the open transaction sees.

    Raises FileNotFoundError when the writer has just compacted the vector files away: begin a new
    transaction and try again. Raises `Corrupt` naming the file, `CollectionNotFound` once dropped.
    """
    state = connection.execute(
        "SELECT version, generation, positions, live, next_row, max_norm, index_file, dropped FROM state"
    ).fetchone()
    if state is None:
        raise Corrupt(f"{files.folder} has no state row: restore it from a backup")
    version, generation, positions, live, next_row, max_norm, index_text, dropped = state
    if dropped:
        raise CollectionNotFound(f"collection {spec.name!r} in {files.folder.parent} was dropped")
    if previous is not None and previous.version == version:
        return previous
    if previous is not None and previous.generation != generation:
        previous = None
    vectors, rows = files.map(generation, positions)
    bare, alive, seen = _grown(connection, previous, positions)
    dead = connection.execute("SELECT seq, position FROM dead WHERE seq > ? ORDER BY seq", (seen,)).fetchall()
    if dead:
        alive[[position for _, position in dead]] = False
        seen = dead[-1][0]
    index = None
    if index_text is not None:
        if previous is not None and previous.index_text == index_text:
            index = previous.index
        else:
            # Derived data: while the file is gone, scans of the originals answer.
            with suppress(FileNotFoundError):
                index = load_index(spec, index_text, files.folder, vectors)
    return Snapshot(
        spec=spec,
        version=version,
        generation=generation,
        live=live,
        next_row=next_row,
        max_norm=max_norm,
        vectors=vectors,
        rows=rows,
        bare=bare,
        alive=alive,
        dead_seen=seen,
        index=index,
        index_text=index_text,
        selections=previous.selections if previous is not None else Selections(),
        columns=previous.columns if previous is not None else Columns(),
    )


def _grown(connection: sqlite3.Connection, previous: Snapshot | None, positions: int) -> tuple[Integers, Mask, int]:
    """The rows without a vector, who was alive at the previous version, and the last death that it knows of."""
    known = previous.bare if previous is not None else np.empty(0, np.int64)
    new = bare_rows(connection, int(known[-1]) if len(known) else 0)
    bare = np.concatenate([known, np.array(new, np.int64)]) if new else known
    alive = np.ones(positions + len(bare), dtype=np.bool_)
    if previous is None:
        return bare, alive, 0
    before = len(previous.rows)
    alive[:before] = previous.alive[:before]
    alive[len(alive) - len(known) :] = previous.alive[before:]
    return bare, alive, previous.dead_seen


def scan_scores(queries: Floats, vectors: Floats, positions: Integers | None, metric: str) -> Floats:
    """float32 scores of each query with the rows at `positions` (all when `None`): (q, n).

    Dot products, or minus the *squared* distance, from the differences.
    """
    dim = queries.shape[1]
    rows = len(vectors) if positions is None else len(positions)
    scores = np.empty((len(queries), rows), dtype=np.float32)
    if rows == 0:
        return scores
    if metric != "l2" and len(queries) >= 4:
        for start in range(0, rows, 8192):
            part = slice(start, min(rows, start + 8192))
            chosen = vectors[part] if positions is None else vectors[positions[part]]
            scores[:, part] = queries @ chosen.T
        return scores
    data = faiss.swig_ptr(vectors)
    if positions is None:
        # Of all rows FAISS does this in the calling thread anyway.
        scan = faiss.fvec_L2sqr_ny if metric == "l2" else faiss.fvec_inner_products_ny
        for query, out in zip(queries, scores, strict=True):
            scan(faiss.swig_ptr(out), faiss.swig_ptr(query), data, dim, rows)
    else:
        scan = faiss.fvec_L2sqr_by_idx if metric == "l2" else faiss.fvec_inner_products_by_idx
        with one_thread():
            for query, out in zip(queries, scores, strict=True):
                scan(faiss.swig_ptr(out), faiss.swig_ptr(query), data, faiss.swig_ptr(positions), dim, 1, rows)
    return np.negative(scores, out=scores) if metric == "l2" else scores


def exact_scores(query: Floats, vectors: Floats, positions: Integers, metric: str) -> NDArray[np.float64]:
    """float64 scores of one query with the rows at `positions`; equal rows get bit-equal scores."""
    wide = query.astype(np.float64)
    scores = np.empty(len(positions))
    for start in range(0, len(positions), 4096):
        part = vectors[positions[start : start + 4096]].astype(np.float64)
        # Row sums, not a matrix product, whose last bits depend on where a row stands.
        if metric == "l2":
            part -= wide
            part *= part
            scores[start : start + 4096] = -np.sqrt(part.sum(axis=1))
        else:
            part *= wide
            scores[start : start + 4096] = part.sum(axis=1)
    return scores


def within_reach(scores: Floats, k: int, query: Floats, max_norm: float, metric: str) -> Integers:
    """Offsets of every score that rounding could have kept out of the best k.

    The bound is that of float32 summation in eight lanes or more (Higham 2002, section 3.1), doubled
    for the two scores compared. Where float32 could have overflowed, all are within reach.
    """
    count = len(scores)
    norm = float(np.linalg.norm(query.astype(np.float64)))
    largest = (norm + max_norm) ** 2 if metric == "l2" else norm * max_norm
    if count <= k or not largest < 1e37:
        return np.arange(count)
    kth = float(np.partition(scores, count - k)[count - k])
    if not math.isfinite(kth):
        return np.flatnonzero(scores > -np.inf)
    relative = 2 * (len(query) / 8 + 16) * 2.0**-24
    slack = relative * (abs(kth) if metric == "l2" else largest)
    return np.flatnonzero(scores >= kth - slack - 1e-35)
