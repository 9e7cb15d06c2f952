"""How wide an index must be searched for the recall that is promised: measured on the collection itself.

Graphs and lists of one size and one breadth find 0.99 of the neighbours in one collection and 0.7 in another: where
clusters are crowded, and where queries come from beside them, as words do to pictures. So `flush` asks an index it has
just built for neighbours that it knows, and keeps with it how many times wider than usual it has to look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import faiss
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from backends.faiss.index import LoadedIndex

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

#: For so many neighbours it is measured: a filter is served by looking deeper, and deeper is not equally hard.
DEPTHS = (10, 40, 160)
#: Of `backends.conformance.oracle.RECALL`, 0.95, with room for what a sample misses.
TARGET = 0.97
PROBES = 96
#: Probes that are moved aside the same way, as a query of one kind is: from one direction alone, it may be an easy one.
TOGETHER = 12
#: How far beside the stored ones probes lie, all in one direction and each in one of its own, in units of how far
#: apart the stored ones lie: texts and images of one CLIP space are 0.8 apart (Liang et al., Mind the Gap, 2022).
GAP, OWN_GAP = 0.8, 0.4
MOST = 64.0
STEPS = 2
SPREAD_ROWS = 2_000
#: Collections that have grown by less are taken to be as hard as they were.
GROWN = 1.25


def measure_widths(index: LoadedIndex, vectors: Floats, metric: str) -> tuple[float, ...]:
    """For each of `DEPTHS`, how many times wider than usual the index must be searched; at least 1.

    vectors: (n, d), those the index is of. Where a scan costs no more than looking wider, nothing wider is tried.
    """
    probes = make_probes(vectors, metric)
    faiss_metric = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    best, _ = faiss.knn(probes, vectors, min(DEPTHS[-1], len(vectors)), metric=faiss_metric)
    widths = []
    least = 1.0
    for depth in DEPTHS:
        if depth > best.shape[1]:
            break
        least = _least_width(index, vectors, probes, best[:, depth - 1], depth, metric)
        widths.append(least)
    return tuple(widths)


def make_probes(vectors: Floats, metric: str) -> Floats:
    """Queries from beside the stored vectors, the same each time: (q, d)."""
    rng = np.random.default_rng(len(vectors))
    dim = vectors.shape[1]
    some = vectors[np.sort(rng.choice(len(vectors), min(len(vectors), SPREAD_ROWS), replace=False))]
    spread = np.sqrt(np.mean(np.sum((some - some.mean(axis=0)) ** 2, axis=1)))
    chosen = some[rng.permutation(len(some))[:PROBES]]

    def directions(count: int) -> Floats:
        drawn: Floats = rng.standard_normal((count, dim), dtype=np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return drawn

    common = np.repeat(directions(-(-len(chosen) // TOGETHER)), TOGETHER, axis=0)[: len(chosen)]
    probes = chosen + np.float32(spread) * (np.float32(GAP) * common + np.float32(OWN_GAP) * directions(len(chosen)))
    if metric == "cosine":
        probes /= np.maximum(np.linalg.norm(probes, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(probes, np.float32)


def _least_width(index: LoadedIndex, vectors: Floats, probes: Floats, kth: Floats, depth: int, metric: str) -> float:
    def suffices(width: float) -> bool:
        breadth = index.breadth(None, index.fetch(depth), width)
        if index.cost(breadth) >= index.scan_cost(index.covered):
            return True
        _, labels = index.search(probes, index.fetch(depth), breadth)
        return _recall(vectors, probes, labels, kth, depth, metric) >= TARGET

    width = 1.0
    while width < MOST and not suffices(width):
        width *= 2
    low = width / 2
    for _ in range(STEPS if width > 1 else 0):
        between = float(np.sqrt(low * width))
        low, width = (low, between) if suffices(between) else (between, width)
    return round(width, 3)


def _recall(vectors: Floats, probes: Floats, labels: Integers, kth: Floats, depth: int, metric: str) -> float:
    """The share of the `depth` nearest that is among the labels. By score, as equal rows are as good as each other."""
    found = 0
    for probe, row, worst in zip(probes, labels, kth.tolist(), strict=True):
        near = vectors[row[row >= 0]]
        if metric == "l2":
            within = np.sum((near - probe) ** 2, axis=1) <= worst + 1e-5 * abs(worst)
        else:
            within = near @ probe >= worst - 1e-5 * abs(worst)
        found += min(depth, int(np.count_nonzero(within)))
    return found / (depth * len(probes))
