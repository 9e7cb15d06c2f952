"""Items that are nearly the same, folded into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backends.base import Modality

#: Items that are compared with what came before in one multiplication.
BLOCK = 256


def group_near_duplicates(
    modalities: Sequence[Modality], vectors: NDArray[np.float32], threshold: float
) -> dict[int, list[int]]:
    """The positions that stand for themselves, in order, each with the later ones folded into it.

    vectors: (n, d) of unit length, in ranking order. An item joins the first leader of its modality whose
    cosine with it is `threshold` or more, else it becomes a leader; so what comes first never depends on
    what follows, and a group is what is close to its best-ranked member, not a chain.
    (Leader clustering: Hartigan, Clustering Algorithms, 1975, chapter 3.)
    """
    groups: dict[int, list[int]] = {}
    chosen = np.empty_like(vectors)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        known = len(groups)
        before, among = block @ chosen[:known].T >= threshold, block @ block.T >= threshold
        first = np.fromiter(groups, dtype=np.int64, count=known)
        for row in range(len(block)):
            position = start + row
            close = [*first[before[row]].tolist(), *(start + np.flatnonzero(among[row, :row])).tolist()]
            home = next((i for i in close if i in groups and modalities[i] == modalities[position]), None)
            if home is None:
                chosen[len(groups)] = block[row]
                groups[position] = []
            else:
                groups[home].append(position)
    return groups
