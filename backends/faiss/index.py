"""FAISS indexes of a ``faiss://`` collection: which one, how it is built, kept in a file, and searched.

An index is derived data: it covers the first positions of one generation's vector file, and its
labels are those positions. Unquantized HNSW (Malkov and Yashunin 2018) is stored as a graph alone,
over the mapped vector file, so vectors are held once, on disk and in the page cache.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from backends.base import CollectionSpec, IndexSpec
from backends.errors import Corrupt
from backends.faiss.calibration import DEPTHS, GROWN, make_probes, measure_widths
from backends.faiss.files import checksum
from backends.kit.folders import sync

FLAT_ROWS = 10_000
INT8_ROWS = 1_000_000
HNSW_M = 32
HNSW_EF_CONSTRUCTION = 100
EF_DEFAULT = 128
EF_LEAST, EF_MOST = 16, 1024
NPROBE_EXPONENT = 0.65
ADD_ROWS = 16_384
TRAIN_ROWS = 262_144
# Retrain and rebuild once the collection has outgrown the sample that quantizers were trained on.
OUTGROWN = 4
# A quantized index is asked for more than k, and the originals decide among them.
OVERSAMPLE = {"half": 2, "int8": 3}
# Measured on 100,000 x 512, by processor time: a vector that a walk looks at costs 1.6 of those that a scan of selected
# rows reads, and a row of a scan of all, one after the other, 0.6 of them. A walk looks at 22 (of efSearch 2,048) to 35
# (of 128) for each unit of efSearch there.
WALK_COST, IN_ORDER_COST, VISITS = 1.6, 0.6, 32.0
# The rows that an index may lag behind cost a search at most this share of what the index itself does.
LAG_SHARE = 0.25

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class IndexFile:
    """What SQLite remembers of the current index file."""

    file: str
    kind: str
    quantization: str
    covered: int
    trained: int
    size_bytes: int
    crc: int
    #: How many times wider than usual it must be searched, by `calibration.DEPTHS`; empty where nobody has measured.
    widths: tuple[float, ...] = ()
    #: How many rows it had when that was measured.
    measured: int = 0
    #: How many vectors a walk of a graph looks at for each unit of its breadth.
    visits: float = VISITS

    @property
    def is_measured(self) -> bool:
        """Whether `widths` still hold, or are not needed: a flat index reads every row."""
        return self.kind == "flat" or (self.measured > 0 and self.covered <= GROWN * self.measured)

    def to_json(self) -> str:
        """One line of JSON for the state row."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` gave, here or in a later version, which may say more than this one knows."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})


def plan_index(spec: IndexSpec, rows: int) -> tuple[str, str] | None:
    """Kind and quantization for so many rows; `None` where a scan of the originals is the index."""
    kind, quantization = spec.kind, spec.quantization
    if kind == "auto":
        if rows <= FLAT_ROWS:
            return None
        return "hnsw", "int8" if quantization == "none" and rows > INT8_ROWS else quantization
    if rows == 0 or (kind == "flat" and quantization == "none"):
        return None
    return kind, quantization


class LoadedIndex:
    """One index in memory, read-only: any number of threads may search it."""

    def __init__(self, description: IndexFile, index: Any, vectors: Floats) -> None:
        self.description = description
        self.covered = description.covered
        self.sort = (description.kind, description.quantization)
        self.quantized = description.quantization != "none"
        self._index = index
        self._vectors = vectors
        self._params: dict[int, Any] = {}
        self._nlist: int = index.nlist if description.kind == "ivf" else 0
        self._oversample = OVERSAMPLE.get(description.quantization, 1)
        self._depths = [math.log(depth * self._oversample) for depth in DEPTHS[: len(description.widths)]]

    def fetch(self, depth: int) -> int:
        """How many to ask the index for, so that the best `depth` are among them."""
        return min(self.covered, depth * self._oversample)

    def width(self, fetch: int) -> float:
        """How many times wider than usual this collection needs to be searched for so many."""
        if not self._depths:
            return 1.0
        return float(np.interp(math.log(fetch), self._depths, self.description.widths))

    def breadth(self, effort: float | None, fetch: int, width: float | None = None) -> int:
        """The efSearch or nprobe for an effort in (0, 1), at least what `fetch` results need; rises with effort.

        width: instead of the one that was measured.
        """
        wider = self.width(fetch) if width is None else width
        if self.description.kind == "hnsw":
            ef = EF_DEFAULT if effort is None else EF_LEAST * (EF_MOST / EF_LEAST) ** effort
            return max(fetch, round(max(ef, fetch) * wider))
        if self.description.kind == "ivf":
            probes = self._nlist ** (NPROBE_EXPONENT if effort is None else effort)
            # Lists that hold several times what is fetched, or the rarer neighbours are never looked at.
            least = 8 * fetch * self._nlist / max(1, self.covered)
            probed: int = min(self._nlist, math.ceil(max(probes, least) * wider))
            return probed
        return 0

    def lags_little(self, rows: int) -> bool:
        """Whether a search reads those of so many rows that the index does not cover in a fraction of its time."""
        usual = self.cost(self.breadth(None, self.fetch(DEPTHS[0])))
        return rows - self.covered <= LAG_SHARE * min(self.covered, usual)

    def measured(self, vectors: Floats, metric: str) -> IndexFile:
        """The description with how wide the index must be searched, measured now on the vectors it is of."""
        bare = replace(self.description, widths=(), measured=0)
        if self.description.kind == "hnsw":
            bare = replace(bare, visits=self._measured_visits(make_probes(vectors[: self.covered], metric)))
        widths = measure_widths(LoadedIndex(bare, self._index, vectors), vectors[: self.covered], metric)
        return replace(bare, widths=widths, measured=self.covered)

    def _measured_visits(self, probes: Floats) -> float:
        # FAISS counts for the whole process: what others search meanwhile is in it, and bounded by what can be.
        faiss.cvar.hnsw_stats.reset()
        self.search(probes, self.fetch(DEPTHS[0]), 2 * EF_DEFAULT)
        seen = faiss.cvar.hnsw_stats.ndis / (2 * EF_DEFAULT * len(probes))
        return round(float(min(max(seen, 1.0), 2 * VISITS)), 2)

    def cost(self, breadth: int) -> float:
        """About how many selected rows a scan could read in the time of one search."""
        if self.description.kind == "hnsw":
            return min(WALK_COST * self.description.visits * breadth, WALK_COST * self.covered)
        if self.description.kind == "ivf":
            return self._nlist + 1.2 * breadth * self.covered / self._nlist
        return 0.5 * self.covered

    def scan_cost(self, rows: int) -> float:
        """The same for a scan of so many rows: of nearly all, it reads all and drops the others."""
        return min(rows, IN_ORDER_COST * self.covered)

    def search(self, queries: Floats, fetch: int, breadth: int) -> tuple[Floats, Integers]:
        """The nearest `fetch` positions of each query: FAISS's own distances and labels, -1 where there are fewer."""
        params = self._params.get(breadth)
        if params is None and breadth:
            if self.description.kind == "hnsw":
                params = faiss.SearchParametersHNSW(efSearch=breadth)
            else:
                params = faiss.SearchParametersIVF(nprobe=breadth)
            if len(self._params) < 256:
                self._params[breadth] = params
        if self.description.kind == "flat" and len(queries) == 1:
            with one_thread():
                return self._index.search(queries, fetch)  # type: ignore[no-any-return]
        return self._index.search(queries, fetch, params=params)  # type: ignore[no-any-return]


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenMP with one thread for the calling thread, and back.

    FAISS opens a parallel region even for one query; waiting for a second thread that has nothing to
    do took 17 ms at p99 on a busy machine. The setting is the calling thread's own, not the process's.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _faiss_metric(spec: CollectionSpec) -> int:
    metric: int = faiss.METRIC_L2 if spec.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    return metric


def _new_index(kind: str, quantization: str, spec: CollectionSpec, rows: int) -> Any:
    metric, dim, params = _faiss_metric(spec), spec.dim, spec.index.params
    code = {"half": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}.get(quantization)
    if kind == "hnsw":
        m = params.get("m", HNSW_M)
        if code is None:
            index = faiss.IndexHNSWFlat(dim, m, metric)
        else:
            index = faiss.IndexHNSWSQ(dim, code, m, metric)
        index.hnsw.efConstruction = params.get("ef_construction", HNSW_EF_CONSTRUCTION)
        return index
    if kind == "flat":
        return faiss.IndexScalarQuantizer(dim, code, metric)
    nlist = min(params.get("nlist", max(1, round(4 * math.sqrt(rows)))), rows)
    quantizer = faiss.IndexFlat(dim, metric)
    if code is None:
        index = faiss.IndexIVFFlat(quantizer, dim, nlist, metric)
    else:
        index = faiss.IndexIVFScalarQuantizer(quantizer, dim, nlist, code, metric)
    quantizer.this.disown()
    index.own_fields = True
    # The sample is what there is; FAISS would print a warning for small ones.
    index.cp.min_points_per_centroid = 1
    return index


def build_index(
    spec: CollectionSpec, vectors: Floats, wanted: tuple[str, str], previous: LoadedIndex | None, path: Path
) -> LoadedIndex:
    """An index over all of `vectors` in `path`, grown from a copy of `previous` where that is of the wanted sort."""
    rows = len(vectors)
    old = previous.description if previous is not None else None
    learns = wanted[0] == "ivf" or wanted[1] == "int8"
    if old and (old.kind, old.quantization) == wanted and not (learns and rows > OUTGROWN * old.trained):
        index = faiss.read_index(str(path.with_name(old.file)))
        if _graph_only(old.kind, old.quantization):
            storage = faiss.IndexFlat(spec.dim, _faiss_metric(spec))
            _in_blocks(vectors[: old.covered], storage.add)
            _adopt(index, storage)
        start, trained = old.covered, old.trained
        widths, measured, visits = old.widths, old.measured, old.visits
    else:
        index = _new_index(*wanted, spec, rows)
        start, trained = 0, rows
        widths, measured, visits = (), 0, VISITS
        if not index.is_trained:
            step = max(1, math.ceil(rows / TRAIN_ROWS))
            index.train(np.ascontiguousarray(vectors[::step]))
    _in_blocks(vectors[start:], index.add)
    saved = _save(index, wanted, trained, path)
    return LoadedIndex(replace(saved, widths=widths, measured=measured, visits=visits), index, vectors)


def _in_blocks(vectors: Floats, add: Callable[[Floats], None]) -> None:
    # Between blocks Python sees Ctrl-C.
    for start in range(0, len(vectors), ADD_ROWS):
        add(np.ascontiguousarray(vectors[start : start + ADD_ROWS]))


def _save(index: Any, wanted: tuple[str, str], trained: int, path: Path) -> IndexFile:
    """Write an index to `path`, whole or not at all, and describe it."""
    temporary = path.with_name(path.name + ".tmp")
    flags = faiss.IO_FLAG_SKIP_STORAGE if _graph_only(*wanted) else 0
    faiss.write_index(index, str(temporary), flags)
    sync(temporary)
    size_bytes, crc = checksum(temporary)
    temporary.replace(path)
    sync(path.parent)
    return IndexFile(path.name, *wanted, int(index.ntotal), trained, size_bytes, crc)


def load_index(spec: CollectionSpec, text: str, folder: Path, vectors: Floats) -> LoadedIndex:
    """Read the index that the state row describes.

    Raises FileNotFoundError when it is gone (superseded or removed), `Corrupt` when it is not what was
    written: FAISS trusts its files, so size and checksum are compared before it sees one.
    """
    description = IndexFile.from_json(text)
    path = folder / description.file
    if checksum(path) != (description.size_bytes, description.crc):
        raise Corrupt(f"{path} is damaged: delete it and flush the collection, which rebuilds it")
    index = faiss.read_index(str(path))
    if index.ntotal != description.covered or index.d != spec.dim or description.covered > len(vectors):
        raise Corrupt(f"{path} does not belong to this collection: delete it and flush, which rebuilds it")
    if _graph_only(description.kind, description.quantization):
        _adopt(index, _view(spec, vectors[: description.covered]))
    return LoadedIndex(description, index, vectors)


def _graph_only(kind: str, quantization: str) -> bool:
    return kind == "hnsw" and quantization == "none"


def _adopt(index: Any, storage: Any) -> None:
    index.storage = storage
    storage.this.disown()
    index.own_fields = True


def _view(spec: CollectionSpec, vectors: Floats) -> Any:
    """A flat FAISS index over memory it does not own; the caller keeps `vectors` alive.

    FAISS has such views for its own mapped files; its Python bindings make one only by the fields.
    Where they differ from what is expected here, the vectors are copied instead.
    """
    storage = faiss.IndexFlat(spec.dim, _faiss_metric(spec))
    codes = storage.codes
    if vectors.flags.c_contiguous and len(vectors) and all(hasattr(codes, name) for name in _VIEW_FIELDS):
        pointer = faiss.swig_ptr(vectors.view(np.uint8).reshape(-1))
        codes.is_owned = False
        codes.view_data = codes.c_ptr = pointer
        codes.view_size = codes.c_size = vectors.nbytes
        storage.ntotal = len(vectors)
        if storage.codes.size() == vectors.nbytes and np.array_equal(storage.reconstruct(0), vectors[0]):
            return storage
        storage = faiss.IndexFlat(spec.dim, _faiss_metric(spec))
    _in_blocks(vectors, storage.add)
    return storage


_VIEW_FIELDS = ("is_owned", "view_data", "view_size", "c_ptr", "c_size")
