"""How wide a graph has to be searched in one collection: found out at `flush` by trying, and kept with the collection.

The same list of candidates gives recall 0.99 where clusters lie apart and 0.7 where they crowd, and nothing that is
known beforehand tells which. So a few queries are made from what is stored, half of them moved aside as words lie
beside pictures, answered by a full comparison, and then by the graph at one width after another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

QUERIES, K = 32, 10
# More than the 0.95 that is promised: of 320 neighbours the share found is known to about 0.01.
TARGET = 0.97
# A graph that has grown by more than this is tried again: the width it takes grows slowly with its size.
GROWTH = 1.5
# How far queries of another kind lie from what is stored (Liang et al., Mind the Gap, NeurIPS 2022): along one
# direction, and each along one of its own, in lengths of the vectors.
GAP = 0.8


@dataclass(frozen=True, slots=True)
class Width:
    """The width that a collection of so many rows takes; the widest, and `reached` less, where none was enough."""

    rows: int
    width: int
    reached: float

    def to_json(self) -> str:
        """As text, to be kept with the collection."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> Self | None:
        """What `to_json` gave; None for anything else."""
        try:
            given = json.loads(text or "")
            return cls(int(given["rows"]), int(given["width"]), float(given["reached"]))
        except (ValueError, TypeError, KeyError):
            return None

    @property
    def enough(self) -> bool:
        """Whether the graph finds what is promised at this width."""
        return self.reached >= TARGET

    def fits(self, rows: int) -> bool:
        """Whether it still speaks of a collection of so many rows."""
        return rows <= GROWTH * self.rows and self.rows <= GROWTH * rows


def trial_queries(stored: Floats, *, unit: bool, seed: int = 11) -> Floats:
    """Queries like those that people may ask, made from (n, d) stored vectors: (n, d), half among them, half beside."""
    rng = np.random.default_rng(seed)
    lengths = np.linalg.norm(stored, axis=1, keepdims=True)

    def directions(n: int) -> Floats:
        rows = rng.standard_normal((n, stored.shape[1]))
        scaled: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return scaled

    common = np.where(np.arange(len(stored))[:, None] % 2, GAP, 0.0)
    moved = stored + lengths * (common * directions(1) + GAP / 2 * directions(len(stored)))
    if unit:
        moved = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-30)
    return np.ascontiguousarray(moved, np.float32)


def find_width(
    rows: int,
    queries: Floats,
    widths: Sequence[int],
    compared: Callable[[Floats], Sequence[Sequence[str]]],
    by_graph: Callable[[Floats, int], Sequence[Sequence[str]]],
) -> Width:
    """The first of the rising `widths` at which the graph finds what a comparison of everything does.

    compared: the ids of the `K` best of each query by comparing all; by_graph: by the graph at a width.
    """
    truth = [set(ids) for ids in compared(queries)]
    wanted = sum(map(len, truth))
    width, reached = widths[0], 1.0
    for width in widths:
        found = sum(len(known & set(ids)) for known, ids in zip(truth, by_graph(queries, width), strict=True))
        reached = found / wanted if wanted else 1.0
        if reached >= TARGET:
            break
    return Width(rows, width, round(reached, 4))
