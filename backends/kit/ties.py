"""Looking far enough to break ties by id: what ties with the k-th hit counts, though it is not among the first k."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

GROWTH = 4


def search_with_ties(
    ask: Callable[[list[int], int], Iterable[Sequence[T]]],
    queries: int,
    k: int,
    tied: Callable[[T, T], bool],
    *,
    most: int | None = None,
    keep: Callable[[Sequence[T]], Sequence[T]] = lambda answer: answer,
) -> list[Sequence[T]]:
    """For each query the k best and all that tie with the k-th, best first, so that the caller can take the lowest ids.

    Args:
        ask: `ask(rows, limit)` gives the best `limit` of each of these queries, all that there are if fewer.
        queries: how many queries there are; `ask` is given their numbers, from 0.
        k: how many hits are wanted.
        tied: whether the k-th and the last one found have the same score.
        most: the largest limit that the engine takes. Ties beyond it are not seen.
        keep: what of an answer is given back; where many tie, the rest need not be held until all are there.

    One more than k is asked for, and only where that one ties, more and more. An answer of fewer is whole.
    """
    found: list[Sequence[T]] = [()] * queries
    rows, limit = list(range(queries)), k + 1
    while rows:
        limit = limit if most is None else min(limit, most)
        still = []
        for row, answer in zip(rows, ask(rows, limit), strict=True):
            found[row] = keep(answer)
            if limit != most and len(answer) >= limit and tied(answer[k - 1], answer[-1]):
                still.append(row)
        rows, limit = still, GROWTH * limit
    return found
