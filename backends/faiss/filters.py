"""Filters of a ``faiss://`` collection: a `Where` tree as a boolean mask over positions.

Each comparison is one range or equality over the covering index `fields`, values always bound; the
tree is then set algebra on NumPy masks. So there is no limit on terms, and `Not` is the exact
complement within the live positions, as `backends.filters.matches` defines it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.faiss.records import CHUNK, marks
from backends.filters import ORDERINGS, And, Compare, Not, Scalar, Where, kind_of
from backends.fold import folded

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]

_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_ROWS = "SELECT group_concat(row) FROM fields WHERE key = ?"


def select(
    connection: sqlite3.Connection, where: Where, alive: Mask, positions_of: Callable[[Integers], Integers]
) -> Mask:
    """The live positions that `where` matches, as a mask of the shape of `alive`.

    `positions_of` maps row numbers to positions. All reads must be in one transaction.
    """

    def evaluate(node: Where) -> Mask:
        if isinstance(node, Compare):
            return _compare(node, leaf, alive)
        if isinstance(node, Not):
            return alive & ~evaluate(node.clause)
        if isinstance(node, And):
            mask = alive.copy()
            for clause in node.clauses:
                mask &= evaluate(clause)
            return mask
        mask = np.zeros_like(alive)
        for clause in node.clauses:
            mask |= evaluate(clause)
        return mask

    def leaf(sql: str, values: tuple[Any, ...]) -> Mask:
        mask = np.zeros_like(alive)
        # One string of numbers is three times faster to read than as many Python integers.
        text = connection.execute(_ROWS + sql, values).fetchone()[0]
        if text is not None:
            mask[positions_of(integers(text))] = True
        return mask

    return evaluate(folded(where))


def integers(text: str | int) -> Integers:
    """The numbers of a `group_concat`."""
    return np.fromstring(str(text), dtype=np.int64, sep=",")


def _compare(node: Compare, leaf: Callable[[str, tuple[Any, ...]], Mask], alive: Mask) -> Mask:
    key, op, value = node.field, node.op, node.value
    if op == "exists":
        there = leaf("", (key,))
        return there if value else alive & ~there
    if op in ORDERINGS:
        return leaf(f" AND kind = ? AND value {_SIGNS[op]} ?", (key, kind_of(value), value))
    found = _equal(key, value if op in ("in", "nin") else (value,), lists_only=op == "contains", leaf=leaf, alive=alive)
    return leaf("", (key,)) & ~found if op in ("ne", "nin") else found


def _equal(
    key: str,
    values: tuple[Scalar, ...],
    *,
    lists_only: bool,
    leaf: Callable[[str, tuple[Any, ...]], Mask],
    alive: Mask,
) -> Mask:
    mask = np.zeros_like(alive)
    by_kind: dict[str, list[Scalar]] = {}
    for value in values:
        kind = kind_of(value)
        if kind == "s":
            by_kind.setdefault("l", []).append(value)
        if not lists_only:
            by_kind.setdefault(kind, []).append(value)
    for kind, wanted in by_kind.items():
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            mask |= leaf(f" AND kind = ? AND value IN ({marks(len(chunk))})", (key, kind, *chunk))
    return mask
