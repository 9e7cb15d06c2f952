"""What a score is, computed exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from backends.base import Metric


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
