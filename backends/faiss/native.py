"""FAISS itself with one SQLite lookup of the hits' columns: the raw side of ``faiss://``, see `benchmarks.embedded`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.embedded import RawSide
from benchmarks.suite.datasets import row_id


class RawFaiss:
    """The adapter's own graph, searched with the same efSearch."""

    def __init__(self, folder: Path, name: str, vectors: NDArray[np.float32], k: int) -> None:
        self._side = RawSide(folder / name, vectors, k)

    def search(self, query: NDArray[np.float32], k: int) -> list[str]:
        """One query; query: (d,)."""
        return [row_id(label) for label in self._side.search(query[None])[:k] if label >= 0]

    def close(self) -> None:
        """Let go of the rows."""
        self._side.rows.close()
