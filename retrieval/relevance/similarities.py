"""Similarities and engines' scores: one number under every metric, linear in the cosine of unit vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from backends.base import Metric

__all__ = ["Items", "as_score", "as_similarity"]


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """(n, d) vectors to be scored under a metric; of unit length where it is the cosine.

    Similarities are linear in the cosine for unit vectors, whatever the metric: Euclidean distances d become
    -d²/2, which for unit vectors is the cosine less 1, so that relevance is the same number under every metric.
    """

    vectors: NDArray[np.float32]
    half_squares: NDArray[np.float64]
    metric: Metric

    @classmethod
    def of(cls, vectors: NDArray[np.float32], metric: Metric) -> Self:
        """The items of these vectors."""
        ready = _unit(vectors) if metric == "cosine" else np.asarray(vectors, dtype=np.float32)
        return cls(ready, _half_squares(ready), metric)

    def similarities(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """(m, n) similarities of m queries."""
        left = _unit(queries) if self.metric == "cosine" else queries
        products = (left @ self.vectors.T).astype(np.float64)
        if self.metric == "l2":
            products -= _half_squares(left)[:, None] + self.half_squares[None, :]
        return products


def _half_squares(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64) / 2)


def as_similarity(scores: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """Similarities from scores as engines give them."""
    # The engine's score is minus the distance; rounding may leave it a little above 0.
    return -(np.minimum(scores, 0.0) ** 2) / 2 if metric == "l2" else scores


def as_score(similarity: float, metric: Metric) -> float:
    """The score that an engine would give for a similarity."""
    return -float(np.sqrt(max(-2 * similarity, 0.0))) if metric == "l2" else float(similarity)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
