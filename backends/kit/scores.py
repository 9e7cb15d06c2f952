"""What a score is, computed exactly, and the order that scores give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from backends.base import Metric


class Scored(Protocol):
    """What has an id and a score, higher better: a `Hit`, for one."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def score(self) -> float:
        """Its score."""
        ...


S = TypeVar("S", bound=Scored)


def best_first(hits: Iterable[S], k: int | None = None) -> list[S]:
    """The `k` best, all where it is None: by falling score, ties by id."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


def best_rows(scores: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """The rows of the `k` best scores and of all that tie with the last of them, by falling score, ties by row.

    scores: (n,).
    """
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    rows = np.flatnonzero(scores >= kth)
    return rows[np.argsort(-scores[rows], kind="stable")]


def similarity(queries: NDArray[np.float32], vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """Scores of every pair, higher better: cosine of unit rows, dot product, or minus the distance.

    queries: (q, d), vectors: (n, d); returns (q, n) float64. Distances are computed from the
    differences, not from ``|a|^2 - 2ab + |b|^2``, which loses all digits for near neighbours.
    """
    wide = vectors.astype(np.float64)
    if metric != "l2":
        scores: NDArray[np.float64] = queries.astype(np.float64) @ wide.T
        return scores
    rows = [-np.sqrt(((wide - query) ** 2).sum(axis=1)) for query in queries.astype(np.float64)]
    return np.stack(rows) if rows else np.empty((0, len(vectors)))
