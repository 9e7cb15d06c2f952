"""Exact neighbours by brute force in blocks, kept on disk under a hash of the data and of what was asked."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.base import Metric
from benchmarks.suite.datasets import DataSet
from benchmarks.suite.selectivity import Filter, mask_of

BLOCK_BYTES = 256 << 20
DEPTH = 100
# Scores are compared in float32, whose sums over a few hundred products differ by this much between kernels.
TIE = 2e-6

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Truth:
    """The nearest rows of each query under a filter, best first.

    rows: (q, depth) int64, -1 beyond the last match; scores: (q, depth) float32, higher better; matching: how
    many rows match the filter.
    """

    rows: NDArray[np.int64]
    scores: Floats
    matching: int

    def kth(self, k: int) -> Floats:
        """The score of the last row among the k best, for each query: (q,); -inf where nothing matches."""
        least = min(k, self.matching)
        return self.scores[:, least - 1] if least else np.full(len(self.scores), -np.inf, np.float32)


def scores_of(queries: Floats, vectors: Floats, metric: Metric) -> Floats:
    """Scores of every pair, higher better: (q, n) float32; of l2, minus the Euclidean distance."""
    products = queries @ vectors.T
    if metric != "l2":
        return products
    squares = (vectors.astype(np.float64) ** 2).sum(axis=1) + (queries.astype(np.float64) ** 2).sum(axis=1)[:, None]
    distances: Floats = -np.sqrt(np.maximum(squares - 2.0 * products, 0)).astype(np.float32)
    return distances


def true_scores(data_vectors: Floats, queries: Floats, rows: NDArray[np.int64], metric: Metric) -> Floats:
    """The score of each returned row: rows (q, k), -1 and -2 give NaN; returns (q, k)."""
    known = rows >= 0
    picked = data_vectors[np.where(known, rows, 0)]
    if metric == "l2":
        scores = -np.sqrt(((picked.astype(np.float64) - queries[:, None]) ** 2).sum(axis=2))
    else:
        scores = np.einsum("qkd,qd->qk", picked, queries, dtype=np.float64)
    result: Floats = np.where(known, scores, np.nan).astype(np.float32)
    return result


def brute_force(data: DataSet, chosen: Filter | None, depth: int = DEPTH, block_bytes: int = BLOCK_BYTES) -> Truth:
    """Compare every query with every matching row, a block of rows at a time; ties by row."""
    rows = np.flatnonzero(mask_of({"random": data.random, "near": data.near}, chosen))
    count = len(data.queries)
    best_rows = np.full((count, depth), -1, np.int64)
    best = np.full((count, depth), -np.inf, np.float32)
    step = max(1, block_bytes // (4 * max(count, data.dim)))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        scores = scores_of(data.queries, data.vectors[block], data.metric)
        if scores.shape[1] > depth:
            top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
            scores, labels = np.take_along_axis(scores, top, axis=1), block[top]
        else:
            labels = np.broadcast_to(block, scores.shape)
        scores, labels = np.hstack([best, scores]), np.hstack([best_rows, labels])
        order = np.lexsort((labels, -scores), axis=1)[:, :depth]
        best, best_rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(labels, order, axis=1)
    return Truth(best_rows, best, len(rows))


def truth_of(data: DataSet, chosen: Filter | None, cache: Path, depth: int = DEPTH) -> Truth:
    """`brute_force`, from the folder `cache` where it was computed before."""
    asked = f"1 {data.digest()} {chosen.name if chosen else 'all'} {depth}"
    path = cache / f"truth-{hashlib.blake2b(asked.encode(), digest_size=12).hexdigest()}.npz"
    try:
        with np.load(path) as kept:
            return Truth(kept["rows"], kept["scores"], int(kept["matching"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    found = brute_force(data, chosen, depth)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        np.savez(stream, rows=found.rows, scores=found.scores, matching=np.int64(found.matching))
    temporary.replace(path)
    return found
