"""Batches of one call beside each other on an encoder's threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future

import numpy as np
from numpy.typing import NDArray

from retrieval.images.decode import available_cores

# Batches of one call that run or wait: one more than there are cores keeps all of them busy.
_SUBMITTED = available_cores() + 1


def run_batches(
    pool: Executor,
    batches: Iterable[list[int]],
    forward: Callable[[list[int]], NDArray[np.float32]],
    vectors: NDArray[np.float32],
) -> None:
    """Write what `forward` makes of each batch of rows into these rows of `vectors`."""
    waiting: deque[tuple[list[int], Future[NDArray[np.float32]]]] = deque()
    for rows in batches:
        # Few at a time, so that another caller's query waits for a batch or two and not for all of these.
        if len(waiting) == _SUBMITTED:
            first, output = waiting.popleft()
            vectors[first] = output.result()
        waiting.append((rows, pool.submit(forward, rows)))
    for rows, output in waiting:
        vectors[rows] = output.result()
