"""Results that differ from each other: maximal marginal relevance."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = TypeVar("Float", np.float32, np.float64)


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
    if not len(values):
        return []
    spread = float(values.max() - values.min())
    relevance = (values - values.min()) / spread if spread > 0 else np.ones(len(values))
    return marginal_order(relevance, vectors, weight=1 - diversity, k=len(values))


def diverse_neighbours(query: ArrayLike, vectors: NDArray[np.float32], *, k: int, lambda_mult: float) -> list[int]:
    """The rows of `vectors`, (n, d), near to `query`, (d,), and unlike each other: at most k, in the order taken.

    Each is the one of greatest ``lambda_mult * cos(row, query) - (1 - lambda_mult) * max cos(row, taken)``,
    the first of equals: cosines as they are, as LangChain has it.
    """
    unit = unit_rows(vectors.astype(np.float64))
    relevance = unit @ unit_rows(np.atleast_2d(np.asarray(query, dtype=np.float64)))[0]
    return marginal_order(relevance, unit, weight=lambda_mult, k=k)


def unit_rows(rows: NDArray[Float]) -> NDArray[Float]:
    """(n, d) rows at unit length; a row of zeros stays as it is."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[Float] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def marginal_order(
    relevance: NDArray[np.float64], unit: NDArray[np.floating[Any]], *, weight: float, k: int
) -> list[int]:
    """The rows of `unit`, (n, d) at unit length, as maximal marginal relevance takes them; at most k.

    First the most relevant one, then each time that of greatest ``weight * relevance - (1 - weight) * s``, s
    being its greatest cosine with one taken already; the first of equals.
    """
    closest = np.zeros(len(unit))
    left = np.ones(len(unit), dtype=bool)
    order: list[int] = []
    while len(order) < min(k, len(unit)):
        gain = weight * relevance - (1 - weight) * closest if order else relevance
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        cosines = (unit @ unit[best]).astype(np.float64)
        closest = np.maximum(closest, cosines) if order else cosines
        left[best] = False
        order.append(best)
    return order
