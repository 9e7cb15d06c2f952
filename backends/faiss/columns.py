"""Facets of a ``faiss://`` collection: the values of a field as a column of codes, counted under a mask.

A column is read from the covering index `fields` once, and carried from version to version like a selection: rows
never change, those that die are outside every mask, and only rows that came since are read.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backends.facets import Facet
from backends.faiss.filters import integers
from backends.faiss.records import Entry, field_entries, rows_since
from backends.filters import Scalar

if TYPE_CHECKING:
    from backends.faiss.snapshot import Snapshot

Integers = NDArray[np.int64]
Codes = NDArray[np.int32]
Mask = NDArray[np.bool_]
Key = tuple[str, Scalar]

KEPT = 16
#: A field of more values, such as a name, would take more memory than it is worth: it is read anew each time.
MOST_VALUES = 65_536
#: More new rows than this share are read with the rest.
APPENDED_SHARE = 0.04
APPENDED_ROWS = 500
_VALUES = "SELECT kind, value, group_concat(row) FROM fields WHERE key = ? GROUP BY kind, value"


@dataclass(frozen=True, eq=False)
class Column:
    """One field: entry i says that the record at `positions[i]` has the value `values[codes[i]]`, -1 an empty list.

    values: (type, value), sorted. first: for each entry whether it is its record's first; None where all are.
    version, next_row: of the collection when it was read.
    """

    values: list[Key]
    positions: Integers
    codes: Codes
    first: Mask | None
    version: int
    next_row: int

    def counted(self, field: str, mask: Mask, items: int, top: int) -> Facet:
        """The facet of the records in the mask, `items` in number."""
        there = mask[self.positions]
        having = np.count_nonzero(there if self.first is None else there & self.first)
        codes = self.codes[there]
        counts = np.bincount(codes[codes >= 0], minlength=len(self.values))
        found = np.flatnonzero(counts)
        best = found[np.argsort(-counts[found], kind="stable")][:top].tolist()
        return Facet(
            field,
            tuple((self.values[code][1], int(counts[code])) for code in best),
            more=max(0, len(found) - top),
            missing=items - int(having),
            items=items,
        )


class Columns:
    """The columns that were asked for last, of whichever version; shared by the snapshots of one generation."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Column] = OrderedDict()
        self._mutex = threading.Lock()

    def get(self, field: str) -> Column | None:
        """The newest one known of this field."""
        with self._mutex:
            found = self._kept.get(field)
            if found is not None:
                self._kept.move_to_end(field)
            return found

    def put(self, field: str, column: Column) -> None:
        """Keep one, unless it is too large or one of a later version is there."""
        if len(column.values) > MOST_VALUES:
            return
        with self._mutex:
            known = self._kept.get(field)
            if known is None or known.version <= column.version:
                self._kept[field] = column
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def facets_of(
    connection: sqlite3.Connection, snapshot: Snapshot, fields: Sequence[str], mask: Mask, top: int
) -> dict[str, Facet]:
    """Facets of the records in the mask; the transaction is of the snapshot's version."""
    items = int(np.count_nonzero(mask))
    return {field: _column(connection, snapshot, field).counted(field, mask, items, top) for field in fields}


def _column(connection: sqlite3.Connection, snapshot: Snapshot, field: str) -> Column:
    known = snapshot.columns.get(field)
    if known is not None and known.version == snapshot.version:
        return known
    if known is not None and known.version < snapshot.version and _is_near(known, snapshot):
        found = _carried(connection, snapshot, field, known)
    else:
        found = _read(connection, snapshot, field)
    snapshot.columns.put(field, found)
    return found


def _is_near(known: Column, snapshot: Snapshot) -> bool:
    return snapshot.next_row - known.next_row <= max(APPENDED_ROWS, APPENDED_SHARE * snapshot.live)


def _read(connection: sqlite3.Connection, snapshot: Snapshot, field: str) -> Column:
    keys: list[Key | None] = []
    rows = [np.empty(0, np.int64)]
    for kind, value, text in connection.execute(_VALUES, (field,)):
        keys.append(_key(kind, value))
        rows.append(integers(text))
    numbers = np.repeat(np.arange(len(keys)), [len(each) for each in rows[1:]])
    positions = snapshot.positions_of(np.concatenate(rows))
    return _column_of(snapshot, keys, numbers, positions, _firsts(positions))


def _carried(connection: sqlite3.Connection, snapshot: Snapshot, field: str, known: Column) -> Column:
    new = [
        (_key(kind, value), row)
        for item in rows_since(connection, known.next_row)
        for _, kind, value, row in _entries(field, *item)
    ]
    if not new:
        return replace(known, version=snapshot.version, next_row=snapshot.next_row)
    # Code -1, an empty list, is the last of the keys that are known.
    keys = [*known.values, None, *(key for key, _ in new)]
    old = np.where(known.codes < 0, len(known.values), known.codes)
    numbers = np.concatenate([old, np.arange(len(new)) + len(known.values) + 1])
    added = snapshot.positions_of(np.array([row for _, row in new], dtype=np.int64))
    first, also = known.first, _firsts(added)
    if first is not None or also is not None:
        # No record is old and new.
        first = np.concatenate([_all_if_none(first, len(old)), _all_if_none(also, len(added))])
    return _column_of(snapshot, keys, numbers, np.concatenate([known.positions, added]), first)


def _column_of(
    snapshot: Snapshot, keys: Sequence[Key | None], numbers: Integers, positions: Integers, first: Mask | None
) -> Column:
    """A column of entries whose values are ``keys[numbers[i]]``."""
    values = sorted({key for key in keys if key is not None})
    code_of: dict[Key | None, int] = {key: code for code, key in enumerate(values)}
    code_of[None] = -1
    codes = np.array([code_of[key] for key in keys], dtype=np.int32)[numbers]
    return Column(values, positions, codes, first, version=snapshot.version, next_row=snapshot.next_row)


def _all_if_none(first: Mask | None, count: int) -> Mask:
    return np.ones(count, np.bool_) if first is None else first


def _firsts(positions: Integers) -> Mask | None:
    _, where = np.unique(positions, return_index=True)
    if len(where) == len(positions):
        return None
    first = np.zeros(len(positions), dtype=np.bool_)
    first[where] = True
    return first


def _entries(field: str, row: int, metadata: dict[str, Any], modality: str) -> Iterable[Entry]:
    return (entry for entry in field_entries(row, modality, metadata) if entry[0] == field)


def _key(kind: str, value: Scalar) -> Key | None:
    """Type and value as `count_facets` tells them apart: an element of a list is a string; None for an empty list."""
    if kind == "e":
        return None
    if kind == "b":
        return kind, bool(value)
    return ("s" if kind == "l" else kind), value
