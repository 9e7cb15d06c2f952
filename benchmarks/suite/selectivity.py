"""Filters of known selectivity: 50, 10, 1 and 0.1%, uncorrelated with the vectors and correlated.

Each row has two columns of buckets 0..999. ``random`` is a permutation; ``near`` is the rank along the vectors'
main direction, so that its filters cut off one side of the space, as a date or a place does to photographs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.base import Compare, Where

BUCKETS = 1_000
CAMERAS = tuple(f"model {number}" for number in range(40))
TAGS = ("dog", "cat", "beach", "street", "night", "snow", "boat", "mountain", "child", "bicycle", "market", "bridge")
_SAMPLE = 2_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Rows whose `column` is below a share of the buckets."""

    column: str
    selectivity: float

    @property
    def name(self) -> str:
        """E.g. ``random-0.1``."""
        return f"{self.column}-{self.selectivity:g}"

    @property
    def limit(self) -> int:
        """Buckets below this one match."""
        return round(self.selectivity * BUCKETS)

    @property
    def where(self) -> Where:
        """The filter as a backend takes it."""
        return Compare(self.column, "lt", self.limit)


def buckets(vectors: NDArray[np.float32], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The columns ``random`` and ``near`` of (n, d) vectors: two (n,) arrays of 0..999."""
    n = len(vectors)
    rng = np.random.default_rng(seed + 3)
    random = rng.permutation(n) * BUCKETS // n
    sample = vectors[rng.permutation(n)[:_SAMPLE]]
    direction = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][0]
    near = np.empty(n, np.int64)
    near[np.argsort(vectors @ direction, kind="stable")] = np.arange(n) * BUCKETS // n
    return random.astype(np.int64), near


def mask_of(columns: dict[str, NDArray[np.int64]], chosen: Filter | None) -> NDArray[np.bool_]:
    """Which rows match: (n,) bool."""
    if chosen is None:
        return np.ones(len(next(iter(columns.values()))), np.bool_)
    matching: NDArray[np.bool_] = columns[chosen.column] < chosen.limit
    return matching
