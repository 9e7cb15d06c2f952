"""Where the time of an index run with `compact` goes: ``python -m benchmarks.encoders --profile``.

JPEG files are made on the spot. In every round the network runs alone on views that were cut beforehand ("pure"), a
large product of matrices shows what the processor can do at most, an index run stores the pictures in a new faiss://
store, and another one, whose parts are timed, stores them with a caption each. These follow each other closely, so that
what else the machine does meets all alike.

Parts are counted in processor time of the threads that do them, so that waiting and other programs count little.
"""

from __future__ import annotations

import itertools
import os
import resource
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from backends import connect
from backends.base import Backend
from benchmarks.made_pictures import make_pictures
from benchmarks.suite.machine import machine
from benchmarks.suite.tables import markdown_table
from indexers import index
from indexers.items import Reader
from retrieval.encoders import compact_image
from retrieval.encoders.compact import CompactEncoder
from retrieval.encoders.compact_graph import Graph, Network, Runner
from retrieval.encoders.threads import encoder_threads
from retrieval.images.decode import available_cores, load_image
from retrieval.images.pool import DecodePool

P = ParamSpec("P")
T = TypeVar("T")

#: What is measured: width and height, and how many pictures.
SIZES = (((640, 480), 160), ((4000, 3000), 48))
PARTS = ("decode", "hand-over", "read", "cut views", "network", "bridge", "texts", "store", "rest")
_MATRIX = 2048
_PRODUCTS = 3
_CAPTION = "a photo of a dog that runs along a beach in the evening"
#: How many different views the network is given when it runs alone: enough that they do not stay in its caches.
_VIEWS = 32


class PartTimes:
    """Processor seconds of threads, by the part of the work that they did. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable[P, T]) -> Callable[P, T]:
        """`function`, whose calls are counted as `part`."""

        def call(*arguments: P.args, **options: P.kwargs) -> T:
            start_s = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent_s = time.thread_time() - start_s
                with self._lock:
                    self.seconds[part] += spent_s

        return call


@dataclass(frozen=True)
class Round:
    """One round: pictures a second, processor milliseconds a picture, and billions of operations a second and core."""

    pure_per_s: float
    index_per_s: float
    pure_ms: float
    index_ms: float
    parts_ms: dict[str, float]
    network_gflops: float
    peak_gflops: float


def network_operations(graph: Graph) -> int:
    """Multiplications and additions of the convolutions for one view: all but 1% of what the image network computes.

    Counted from the graph's own weights, strides and paddings.
    """
    sides = {name: shape[1] for name, (_, shape) in graph.inputs.items() if isinstance(shape[1], int)}
    operations = 0
    for node in graph.nodes:
        side = next(sides[name] for name in node.inputs if name in sides)
        if node.operator == "Conv":
            channels, given, kernel, _ = graph.constants[node.inputs[1]].shape
            before, _, after, _ = node.attributes["pads"]
            side = (side + before + after - kernel) // node.attributes["strides"][0] + 1
            operations += 2 * channels * given * kernel**2 * side**2
        sides[node.output] = side
    return operations


class Profile:
    """Measures index runs of `compact` over the same pictures, round by round."""

    def __init__(self, place: Path, size: tuple[int, int], count: int) -> None:
        self._place, self._count = place, count
        self._files = make_pictures(place / "pictures", size, count)
        self._captioned = place / "captioned"
        self._captioned.mkdir()
        for file in self._files:
            os.link(file, self._captioned / file.name)
            (self._captioned / file.with_suffix(".txt").name).write_text(_CAPTION)
        self._encoder = CompactEncoder()
        self._encoder.encode_images(self._files[:2])
        self._encoder.encode_texts([_CAPTION])
        self._graph, _ = compact_image.image_graph()
        some = [load_image(file, target_size=compact_image.DECODE_PIXELS) for file in self._files[:_VIEWS]]
        cut = [compact_image.cut_views(image) for image in some]
        self._views = list(itertools.islice(itertools.cycle(cut), count))

    def round(self) -> Round:
        """Measure everything once."""
        pure_per_s, pure_s = self._pure()
        index_s, index_per_s = self._indexed(self._place / "pictures")
        operations = network_operations(self._graph) * compact_image.VIEWS
        return Round(
            pure_per_s=pure_per_s,
            index_per_s=index_per_s,
            pure_ms=pure_s * 1e3,
            index_ms=index_s * 1e3,
            parts_ms=self._parts(),
            network_gflops=operations / pure_s / 1e9,
            peak_gflops=_peak() / 1e9,
        )

    def _pure(self) -> tuple[float, float]:
        """Pictures a second, and processor seconds a picture, of the network alone."""
        network, times = self._encoder._image_network, PartTimes()
        run = times.timed("network", lambda views: network.run(views=views))
        with encoder_threads() as pool:
            start_s = time.perf_counter()
            list(pool.map(run, self._views))
            wall_s = time.perf_counter() - start_s
        return self._count / wall_s, times.seconds["network"] / self._count

    def _indexed(self, folder: Path) -> tuple[float, float]:
        """Processor seconds a picture, and pictures a second, of an index run into a new store."""
        with tempfile.TemporaryDirectory(dir=self._place) as home, connect(f"faiss://{home}/store") as backend:
            return self._run(folder, backend)

    def _run(self, folder: Path, backend: Backend) -> tuple[float, float]:
        before_s, start_s = processor_s(), time.perf_counter()
        report = index(folder, backend, self._encoder, "profile")
        wall_s = time.perf_counter() - start_s
        if report.indexed != self._count:
            raise RuntimeError(f"{report.indexed} of {self._count} pictures were indexed: {report.quarantined[:3]}")
        return (processor_s() - before_s) / self._count, self._count / wall_s

    def _parts(self) -> dict[str, float]:
        """Processor milliseconds a picture of each part of an index run with captions."""
        times = PartTimes()
        children_s = _processor_s(resource.RUSAGE_CHILDREN)
        with (
            tempfile.TemporaryDirectory(dir=self._place) as home,
            connect(f"faiss://{home}/store") as backend,
            _instrumented(self._encoder, backend, times),
        ):
            total_s, _ = self._run(self._captioned, backend)
        # Decoding is done by processes of its own, which have ended.
        found = {part: seconds / self._count for part, seconds in times.seconds.items()}
        found["decode"] = (_processor_s(resource.RUSAGE_CHILDREN) - children_s) / self._count
        found["texts"] = self._texts_s()
        found["rest"] = total_s - sum(found.values())
        return {part: found[part] * 1e3 for part in PARTS}

    def _texts_s(self) -> float:
        """Processor seconds of a caption, in calls of as many as an index run gives at once for so many pictures."""
        texts, repeats = [_CAPTION] * self._encoder.images_at_once, 10
        start_s = time.process_time()
        for _ in range(repeats):
            self._encoder.encode_texts(texts)
        return (time.process_time() - start_s) / repeats / len(texts)


@contextmanager
def _instrumented(encoder: CompactEncoder, backend: Backend, times: PartTimes) -> Iterator[None]:
    """Have the parts of an index run counted in `times`."""
    measured: Sequence[tuple[Any, str, str]] = (
        (DecodePool, "load", "hand-over"),
        (Reader, "read", "read"),
        (Reader, "content", "read"),
        (compact_image, "cut_views", "cut views"),
        (encoder._image_network, "run", "network"),
        (encoder._image_placer, "run", "bridge"),
        (backend, "upsert", "store"),
        (backend, "flush", "store"),
    )
    with ExitStack() as stack:
        for owner, name, part in measured:
            stack.enter_context(mock.patch.object(owner, name, times.timed(part, getattr(owner, name))))
        yield


def processor_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    return _processor_s(resource.RUSAGE_SELF) + _processor_s(resource.RUSAGE_CHILDREN)


def _processor_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _peak() -> float:
    """Operations a second of one core in a large product of float32 matrices, while every core computes one."""
    graph = Graph()
    shape = (_MATRIX, _MATRIX)
    graph.give("c", graph.add("MatMul", graph.input("a", "float32", shape), graph.input("b", "float32", shape)))
    network: Runner = Network(graph)
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape, dtype=np.float32) for _ in range(2))
    times = PartTimes()

    def multiply(_: int) -> list[NDArray[np.float32]]:
        return network.run(a=a, b=b)

    count = _PRODUCTS * available_cores()
    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(multiply, range(available_cores())))
        list(pool.map(times.timed("product", multiply), range(count)))
    return count * 2 * _MATRIX**3 / times.seconds["product"]


def measure(rounds: int, sizes: Sequence[tuple[tuple[int, int], int]] = SIZES) -> dict[str, Any]:
    """All rounds of all sizes, and the machine."""
    results = []
    for size, count in sizes:
        with tempfile.TemporaryDirectory(prefix="sightline-profile-") as place:
            profile = Profile(Path(place), size, count)
            found = [asdict(profile.round()) for _ in range(rounds)]
        results.append({"width": size[0], "height": size[1], "pictures": count, "rounds": found})
    return {"machine": machine(), "cores": available_cores(), "results": results}


def tables(report: dict[str, Any]) -> str:
    """The report as two Markdown tables: medians, with the least and largest of the rounds in brackets."""
    results = report["results"]
    sizes = [f"{each['width']} x {each['height']}" for each in results]
    parts = [
        [part, *(_spread([round_["parts_ms"][part] for round_ in each["rounds"]], 2) for each in results)]
        for part in PARTS
    ]
    rows = [
        [name, *(_spread([figure(round_) for round_ in each["rounds"]], digits) for each in results)]
        for name, digits, figure in _FIGURES
    ]
    counts = ", ".join(str(each["pictures"]) for each in results)
    return "\n".join(
        (
            f"Processor milliseconds a picture of an index run ({counts} pictures, {report['cores']} cores)",
            "",
            *markdown_table(("part", *sizes), parts),
            "",
            *markdown_table(("", *sizes), rows),
            "",
        )
    )


_FIGURES: tuple[tuple[str, int, Callable[[dict[str, Any]], float]], ...] = (
    ("pure network, images/s", 1, lambda each: each["pure_per_s"]),
    ("index run, images/s", 1, lambda each: each["index_per_s"]),
    ("index / pure, images/s", 3, lambda each: each["index_per_s"] / each["pure_per_s"]),
    ("pure network, processor ms", 1, lambda each: each["pure_ms"]),
    ("index run, processor ms", 1, lambda each: each["index_ms"]),
    ("pure / index, processor time", 3, lambda each: each["pure_ms"] / each["index_ms"]),
    ("network, GFLOP/s a core", 0, lambda each: each["network_gflops"]),
    ("peak of a core, GFLOP/s", 0, lambda each: each["peak_gflops"]),
    ("network / peak", 2, lambda each: each["network_gflops"] / each["peak_gflops"]),
)


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
