"""Items that are nearly the same, folded into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backends.base import Modality


def leaders(modalities: Sequence[Modality], vectors: NDArray[np.float32], threshold: float) -> dict[int, list[int]]:
    """The positions that stand for themselves, in order, each with the later ones folded into it.

    vectors: (n, d) of unit length, in ranking order. An item joins the first leader of its modality whose
    cosine with it is `threshold` or more, else it becomes a leader; so what comes first never depends on
    what follows, and a group is what is close to its best-ranked member, not a chain.
    (Leader clustering: Hartigan, Clustering Algorithms, 1975, chapter 3.)
    """
    groups: dict[int, list[int]] = {}
    for position, modality in enumerate(modalities):
        first = list(groups)
        close = vectors[first] @ vectors[position] >= threshold if first else np.empty(0, dtype=bool)
        home = next((i for i in np.flatnonzero(close) if modalities[first[i]] == modality), None)
        if home is None:
            groups[position] = []
        else:
            groups[first[home]].append(position)
    return groups
