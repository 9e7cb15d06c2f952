"""How each operation of ``faiss://`` grows with its collection, beside FAISS itself.

    python -m benchmarks.growth --sizes 10000,100000,1000000 --dim 256 --out growth.json
    python -m benchmarks.growth --draw growth.json docs/growth.svg

A collection of each size is made first; then the operations are measured in turns, each of them on every size within
the same few seconds, so that a slow moment of the machine meets all sizes. The median of the rounds counts. Needs the
extras ``[bench]``; docs/scale.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from backends import connect
from backends.base import Backend, CollectionSpec, Compare, IndexSpec, Record, Where
from backends.faiss.native import NativeFaiss
from benchmarks.suite.datasets import DataSet, open_dataset
from benchmarks.suite.machine import machine, versions
from retrieval.encoders.base import Encoder
from retrieval.relevance.sample import take_sample
from retrieval.search.retriever import Retriever

NAME, K, QUERIES = "growth", 10, 100
#: What the operations are timed by: the wall, or the processor's time of this process, which leaves out what a busy
#: machine gives to others, and waiting for the disk.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
BATCH = 5_000
SHARES = ((50, "random", 500), (10, "random", 100), (1, "random", 10), (0.1, "random", 1))
Times = dict[str, list[float]]


class _NoEncoder:
    """Stands for the encoder of a retriever that is only ever given vectors."""

    name = fingerprint = "growth"
    image_space = ""


@dataclass
class Store:
    """One collection of one size, opened, and the seconds of each operation on it."""

    data: DataSet
    backend: Backend
    retriever: Retriever
    times: Times = field(default_factory=dict)
    once: dict[str, float] = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.perf_counter
    turn: int = 0

    def seconds(self, call: Callable[[], object]) -> float:
        """How long a call took."""
        begun = self.clock()
        call()
        return self.clock() - begun

    def query(self) -> NDArray[np.float32]:
        """The next query: (1, d)."""
        self.turn += 1
        chosen: NDArray[np.float32] = self.data.queries[self.turn % len(self.data.queries)][None]
        return chosen

    def extra(self) -> Record:
        """One record more, of an id that is there once."""
        self.turn += 1
        vector = self.data.queries[self.turn % len(self.data.queries)]
        return Record("extra", vector, "image", "an extra one", metadata={"random": 999, "near": 1, "year": 2030})


def filter_of(share: float, column: str, below: int) -> tuple[str, Where]:
    """The name of an operation, and its filter."""
    return f"search, {share:g}% filter", Compare(column, "lt", below)


def fill(folder: Path, spec: str, index: IndexSpec, clock: Callable[[], float]) -> Store:
    """A collection of this data in `folder`, loaded, indexed, closed and opened again."""
    data = open_dataset(spec, queries=QUERIES, cache=folder)
    url = f"faiss://{folder.resolve().as_posix()}/{len(data.vectors)}"
    once: dict[str, float] = {}
    with connect(url) as backend:
        backend.create(CollectionSpec(NAME, data.dim, encoder=_NoEncoder.fingerprint, index=index))
        begun = clock()
        for start in range(0, len(data.vectors), BATCH):
            backend.upsert(NAME, list(data.records(start, start + BATCH)))
        once["load, rows/s"] = len(data.vectors) / (clock() - begun)
        begun = clock()
        backend.flush(NAME)
        once["build, s"] = clock() - begun
    begun = clock()
    backend = connect(url)
    backend.search(NAME, data.queries[:1], K)
    once["open and first search, s"] = clock() - begun
    once["disk, bytes/row"] = _disk_bytes(folder / str(len(data.vectors))) / len(data.vectors)
    retriever = Retriever(backend, cast(Encoder, _NoEncoder()), NAME, calibrate=False)
    return Store(data, backend, retriever, once=once, clock=clock)


def _disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def operations(store: Store) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is measured, in order; a step named "" prepares the next one, outside the clock."""
    backend, images = store.backend, Compare("modality", "eq", "image")
    yield "search", lambda: backend.search(NAME, store.query(), K)
    for share in SHARES:
        name, where = filter_of(*share)
        yield name, lambda where=where: backend.search(NAME, store.query(), K, where=where)  # type: ignore[misc]
    yield "keyword search", lambda: backend.search_text(NAME, store.data.texts[store.turn], K)
    yield "count, 10% filter", lambda: backend.count(NAME, filter_of(*SHARES[1])[1])
    yield "upsert of one", lambda: backend.upsert(NAME, [store.extra()])
    yield "search after one write", lambda: backend.search(NAME, store.query(), K, where=images)
    yield "facets after one write", lambda: backend.facets(NAME, ["camera", "year"], where=images)
    yield "facets", lambda: backend.facets(NAME, ["camera", "year"], where=images)
    yield "flush after one write", lambda: backend.flush(NAME)
    yield "delete of one", lambda: backend.delete(NAME, ids=["extra"])
    yield "", lambda: backend.search(NAME, store.query(), K)
    yield "page at 5,000", lambda: store.retriever.search("a", K, offset=5_000, vector=store.query()[0])


def costly(store: Store) -> Iterator[tuple[str, Callable[[], object]]]:
    """What reads the whole collection, and is measured twice."""
    yield "sample", lambda: take_sample(store.backend, NAME)
    yield "scan", lambda: sum(len(page.records) for page in store.backend.scan(NAME))
    yield (
        "scan without vectors",
        lambda: sum(len(page.records) for page in store.backend.scan(NAME, with_vectors=False)),
    )


def measure(stores: Sequence[Store], rounds: int) -> None:
    """Every operation on every store in turns, `rounds` times; the first round warms up."""
    for round_ in range(rounds + 1):
        for steps in zip(*(operations(store) for store in stores), strict=True):
            for store, (name, call) in zip(stores, steps, strict=True):
                seconds = store.seconds(call)
                if round_ and name:
                    store.times.setdefault(name, []).append(seconds)
                elif name:
                    store.once[f"first {name}, s"] = seconds
    for _ in range(2):
        for steps in zip(*(costly(store) for store in stores), strict=True):
            for store, (name, call) in zip(stores, steps, strict=True):
                store.times.setdefault(name, []).append(store.seconds(call))


def measure_recall(store: Store) -> None:
    """Recall@10 of each search that the index may answer, against the exact one."""
    for name, where in [("search", None), *(filter_of(*share) for share in SHARES)]:
        truth = store.backend.search(NAME, store.data.queries, K, where=where, effort=1)
        found = store.backend.search(NAME, store.data.queries, K, where=where)
        kept = [len({h.id for h in a} & {h.id for h in b}) / max(1, len(b)) for a, b in zip(found, truth, strict=True)]
        store.recall[name] = statistics.mean(kept)


def measure_raw(store: Store, rounds: int) -> None:
    """FAISS itself over the same graph, as wide as this collection is searched, in turns with the adapter."""
    snapshot = store.backend._find(NAME)._snapshot  # type: ignore[attr-defined]
    if snapshot is None or snapshot.index is None or snapshot.index.description.kind != "hnsw":
        return
    native = NativeFaiss(store.backend, CollectionSpec(NAME, store.data.dim))
    native.load(list(store.data.records()))
    for _ in range(rounds):
        store.times.setdefault("search, FAISS itself", []).append(
            store.seconds(lambda: native.search(store.query()[0], K))
        )
    native.close()


def report(stores: Sequence[Store]) -> dict[str, Any]:
    """All figures: medians in seconds by operation and size, what was measured once, recall."""
    return {
        "machine": machine() | {"versions": versions()},
        "dim": stores[0].data.dim,
        "sizes": [len(store.data.vectors) for store in stores],
        "seconds": {
            name: [statistics.median(store.times.get(name, [float("nan")])) for store in stores]
            for name in stores[0].times
        },
        "once": {name: [store.once.get(name) for store in stores] for name in stores[0].once},
        "recall": {name: [store.recall[name] for store in stores] for name in stores[0].recall},
        "peak memory, bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def table(found: dict[str, Any]) -> str:
    """The medians as a table of Markdown, in milliseconds, with the growth from the smallest to the largest."""
    sizes = found["sizes"]
    lines = [
        "| ms | " + " | ".join(f"{size:,}" for size in sizes) + " | growth |",
        "|---|" + "---:|" * (len(sizes) + 1),
    ]
    for name, values in found["seconds"].items():
        cells = " | ".join(f"{1e3 * value:,.2f}" for value in values)
        lines.append(f"| {name} | {cells} | {values[-1] / values[0]:.1f} |")
    for name, values in found["once"].items():
        lines.append(f"| {name} | " + " | ".join(f"{value:,.3g}" for value in values) + " | |")
    for name, values in found["recall"].items():
        lines.append(f"| recall@10, {name} | " + " | ".join(f"{value:.3f}" for value in values) + " | |")
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """The growth picture: seconds against size, both logarithmic, with a line as steep as the data."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = found["sizes"]
    figure, axes = pyplot.subplots(figsize=(9, 6.5))
    for number, (name, values) in enumerate(found["seconds"].items()):
        axes.plot(sizes, values, marker="o", markersize=4, linestyle=("-", "--", ":")[number // 10 % 3], label=name)
    first = min(values[0] for values in found["seconds"].values())
    axes.plot(sizes, [first * size / sizes[0] for size in sizes], color="0.7", label="as its data")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"items of {found['dim']} dimensions",
        ylabel=f"seconds by the {found['clock']} (median)",
    )
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=7, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.1))
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="10000,100000", help="numbers of items, smallest first")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--kind", default="clustered", help="clustered, uniform or blobs")
    parser.add_argument("--index", default="auto", choices=("auto", "flat", "hnsw", "ivf"))
    parser.add_argument("--clock", default="wall", choices=tuple(CLOCKS), help="processor, where the machine is busy")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="where the collections are made; a temporary folder otherwise")
    parser.add_argument("--out", type=Path, default=Path("growth.json"))
    parser.add_argument("--draw", nargs=2, type=Path, metavar=("FILE.json", "PICTURE"))
    options = parser.parse_args(arguments)
    if options.draw:
        draw(json.loads(options.draw[0].read_text()), options.draw[1])
        return 0
    with tempfile.TemporaryDirectory(prefix="sightline-growth-", dir=options.folder) as folder:
        stores = []
        for size in options.sizes.split(","):
            sys.stderr.write(f"{size} items\n")
            spec = f"{options.kind}:{size}x{options.dim}"
            stores.append(fill(Path(folder), spec, IndexSpec(options.index), CLOCKS[options.clock]))
        measure(stores, options.rounds)
        for store in stores:
            measure_recall(store)
            measure_raw(store, options.rounds)
        found = report(stores) | {"clock": options.clock}
        options.out.write_text(json.dumps(found, indent=1))
        sys.stdout.write(table(found) + "\n")
        for store in stores:
            store.backend.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
