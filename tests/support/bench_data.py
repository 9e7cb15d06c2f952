"""A small data set for tests of the benchmark."""

from __future__ import annotations

from pathlib import Path

from benchmarks.suite.datasets import DataSet, open_dataset


def clustered_set(n: int, dim: int, queries: int = 20) -> DataSet:
    """The suite's own clustered vectors."""
    return open_dataset(f"clustered:{n}x{dim}", queries=queries, cache=Path("unused"))
