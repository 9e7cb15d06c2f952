"""What the vector store for LangChain asks an engine, and how it orders what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.base import And, Compare, Hit, Metric, Modality, Not, Or, Where, parse_where
from retrieval.search.diversity import marginal_order
from retrieval.search.retriever import Filter, reciprocal_rank_fusion


def maximal_marginal_relevance(query: ArrayLike, vectors: NDArray[np.float32], k: int, lambda_mult: float) -> list[int]:
    """The rows of `vectors`, (n, d), by maximal marginal relevance to `query`, (d,): at most k, best first.

    Each is the one of greatest ``lambda_mult * cos(row, query) - (1 - lambda_mult) * max cos(row, chosen)``,
    the first of equals. (Carbonell and Goldstein, SIGIR 1998.)
    """
    unit = _unit_rows(vectors)
    relevance = unit @ _unit_rows(np.atleast_2d(np.asarray(query)))[0]
    return marginal_order(relevance, unit, lambda_mult, k)


def _unit_rows(rows: NDArray[Any]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


#: Maps scores to [0, 1], monotonically: LangChain's scale, without calibration.
RELEVANCE: dict[Metric, Callable[[float], float]] = {
    "cosine": lambda score: min(1.0, max(0.0, (1.0 + score) / 2.0)),
    "l2": lambda score: 1.0 / (1.0 - min(score, 0.0)),
    "dot": lambda score: (1.0 + math.tanh(score / 2.0)) / 2.0,
}


def fused(rankings: list[list[Hit]], k: int) -> list[Hit]:
    """The first k of the one ranking as it is, or of several merged by rank."""
    return (rankings[0] if len(rankings) == 1 else reciprocal_rank_fusion(rankings))[:k]


def where_of(filter: Filter) -> Where | None:
    """The filter as a tree. Raises ValueError for a malformed one, TypeError for what is no filter."""
    if isinstance(filter, Mapping):
        return parse_where(filter)
    if filter is not None and not isinstance(filter, Compare | And | Or | Not):
        raise TypeError(f"filter must be a Where or its JSON form, {{'year': {{'$gte': 1990}}}}, not {filter!r}")
    return filter


def with_modality(where: Where | None, modality: Modality | None) -> Where | None:
    """The filter, and of this modality where one is given."""
    if modality is None:
        return where
    clause = Compare("modality", "eq", modality)
    return clause if where is None else And((where, clause))
