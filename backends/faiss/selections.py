"""Which records a filter leaves, kept from one version of a ``faiss://`` collection to the next.

A stored record never changes: an upsert buries the old row and appends a new one. So what a filter selected at an
earlier version holds for every row of that version that still lives, and only rows that came since are judged.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backends.faiss.filters import select
from backends.faiss.records import rows_since
from backends.filters import Where, matches

if TYPE_CHECKING:
    from backends.faiss.snapshot import Snapshot

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

KEPT = 16
#: Judging one row costs as much as twenty to thirty of those that SQL selects.
JUDGED_ROWS, JUDGED_SHARE = 500, 0.04


class Selection:
    """The live records that a call may return, as a mask like `Snapshot.alive`, and how many they are."""

    def __init__(self, snapshot: Snapshot, mask: Mask) -> None:
        self.mask = mask
        self.version = snapshot.version
        self.next_row = snapshot.next_row
        self.total = len(snapshot.rows)
        self.count = int(np.count_nonzero(mask))
        #: How many of them have a vector.
        self.searched = int(np.count_nonzero(mask[: self.total]))
        self.covered_count = int(np.count_nonzero(mask[: snapshot.covered]))
        self._covered = snapshot.covered
        self._positions: Integers | None = None

    @property
    def positions(self) -> Integers:
        """The sorted positions that have a vector; made when first asked for."""
        if self._positions is None:
            self._positions = np.flatnonzero(self.mask[: self.total]).astype(np.int64, copy=False)
        return self._positions

    @property
    def uncovered(self) -> Integers:
        """Those of the positions that the index does not cover."""
        found: Integers = np.flatnonzero(self.mask[self._covered : self.total]).astype(np.int64, copy=False)
        found += self._covered
        return found


class Selections:
    """The selections that were asked for last, of whichever version; shared by the snapshots of one generation."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Selection] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, where: Where) -> Selection | None:
        """The newest one known of this filter."""
        # repr, unlike equality, tells True from 1.
        key = repr(where)
        with self._mutex:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, where: Where, selection: Selection) -> None:
        """Keep one, unless one of a later version is there."""
        key = repr(where)
        with self._mutex:
            known = self._kept.get(key)
            if known is None or known.version <= selection.version:
                self._kept[key] = selection
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def selected(connection: sqlite3.Connection, snapshot: Snapshot, where: Where) -> Selection:
    """What `where` leaves of a snapshot; the transaction is of its version."""
    known = snapshot.selections.get(where)
    if known is not None and known.version == snapshot.version:
        return known
    if known is not None and _is_near(known, snapshot):
        found = Selection(snapshot, _carried(connection, snapshot, where, known))
    else:
        found = Selection(snapshot, select(connection, where, snapshot.alive, snapshot.positions_of))
    snapshot.selections.put(where, found)
    return found


def _is_near(known: Selection, snapshot: Snapshot) -> bool:
    if known.version > snapshot.version:
        return False
    return snapshot.next_row - known.next_row <= max(JUDGED_ROWS, JUDGED_SHARE * snapshot.live)


def _carried(connection: sqlite3.Connection, snapshot: Snapshot, where: Where, known: Selection) -> Mask:
    """The mask of an earlier version, at this one."""
    mask = np.zeros_like(snapshot.alive)
    mask[: known.total] = known.mask[: known.total]
    bare = len(known.mask) - known.total
    mask[len(mask) - bare :] = known.mask[known.total :]
    mask &= snapshot.alive
    new = rows_since(connection, known.next_row)
    passing = [row for row, metadata, modality in new if matches(where, metadata, modality)]
    if passing:
        mask[snapshot.positions_of(np.array(passing, dtype=np.int64))] = True
    return mask
