"""Results that differ from each other: maximal marginal relevance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def maximal_marginal_relevance(
    values: NDArray[np.float64], vectors: NDArray[np.float32], diversity: float
) -> list[int]:
    """The order in which each item is relevant and unlike those before it.

    values: (n,) sorted, best first; vectors: (n, d) of unit length. Each step takes the item with the
    largest ``(1 - diversity) * relevance - diversity * s``, s being its greatest cosine with an item
    taken already (0 for the first); ties go to the better-ranked. Relevance is `values` stretched over
    [0, 1], because cosines of words with pictures, BM25 and fused ranks all span another range than
    cosines between items. (Carbonell and Goldstein, SIGIR 1998, with lambda = 1 - diversity.)
    """
    count = len(values)
    if not count:
        return []
    spread = float(values.max() - values.min())
    relevance = (values - values.min()) / spread if spread > 0 else np.ones(count)
    closest = np.zeros(count)
    left = np.ones(count, dtype=bool)
    order: list[int] = []
    for _ in range(count):
        gain = np.where(left, (1 - diversity) * relevance - diversity * closest, -np.inf)
        best = int(np.argmax(gain))
        cosines = (vectors @ vectors[best]).astype(np.float64)
        closest = np.maximum(closest, cosines) if order else cosines
        left[best] = False
        order.append(best)
    return order
