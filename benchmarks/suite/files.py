"""Data sets in files: ann-benchmarks' HDF5, fvecs, bvecs and ivecs (Jégou et al., TEXMEX), and parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import MAX_DIM, Metric
from benchmarks.suite.datasets import MAX_VECTOR_BYTES, DataError, DataSet, Floats

DISTANCES: dict[str, Metric] = {"angular": "cosine", "cosine": "cosine", "euclidean": "l2", "l2": "l2", "dot": "dot"}
_CELLS = {".fvecs": np.float32, ".bvecs": np.uint8, ".ivecs": np.int32}
_COLUMNS = ("vector", "emb", "embedding")


def read_file(path: Path, queries: int, seed: int = 1) -> DataSet:
    """The data set in a file; queries that come with it are taken, otherwise rows are held out at random.

    ``base.fvecs`` goes with ``query.fvecs``, as ``sift_base.fvecs`` with ``sift_query.fvecs``. Raises DataError.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    # What is read becomes float32 in memory, whatever it is on disk.
    if path.stat().st_size > MAX_VECTOR_BYTES:
        raise DataError(f"{path} has more than 16 GiB: take a part of it")
    suffix = path.suffix.lower()
    metric: Metric = "l2" if suffix in _CELLS else "cosine"
    asked: Floats | None = None
    if suffix in (".hdf5", ".h5"):
        vectors, asked, metric = _read_hdf5(path)
    elif suffix in _CELLS:
        vectors = read_vecs(path)
        beside = path.with_name(path.name.replace("base", "query", 1))
        asked = read_vecs(beside) if beside != path and beside.is_file() else None
    elif suffix == ".parquet":
        vectors = _read_parquet(path)
    else:
        raise DataError(f"{path} is no .hdf5, .fvecs, .bvecs, .ivecs or .parquet file")
    if asked is None:
        vectors, asked = _held_out(vectors, queries, seed, path)
    origin = {"kind": "file", "file": path.name, "size_bytes": path.stat().st_size}
    return DataSet(path.stem, vectors, asked[:queries], metric, origin=origin, seed=seed)


def _held_out(vectors: Floats, queries: int, seed: int, path: Path) -> tuple[Floats, Floats]:
    if len(vectors) < 2:
        raise DataError(f"{path} has {len(vectors)} vectors: there must be one to store and one to ask for")
    order = np.random.default_rng(seed).permutation(len(vectors))
    out = min(queries, len(vectors) // 2)
    return vectors[np.sort(order[out:])], vectors[order[:out]]


def read_vecs(path: Path) -> Floats:
    """The rows of a fvecs, bvecs or ivecs file: each is its length (int32), then its cells; (n, d) float32."""
    cell = np.dtype(_CELLS[path.suffix.lower()])
    data = np.fromfile(path, np.uint8)
    if data.size < 4:
        raise DataError(f"{path} holds no vector")
    dim = int(data[:4].view("<i4")[0])
    width = 4 + dim * cell.itemsize
    if not 1 <= dim <= MAX_DIM or data.size % width:
        raise DataError(f"{path} is damaged: {data.size:,} bytes are not rows of {dim:,} cells")
    rows = data.reshape(-1, width)
    if (np.ascontiguousarray(rows[:, :4]).view("<i4") != dim).any():
        raise DataError(f"{path} is damaged: its rows differ in length")
    cells: NDArray[Any] = np.ascontiguousarray(rows[:, 4:]).view(cell.newbyteorder("<"))
    return cells.astype(np.float32)


def _read_hdf5(path: Path) -> tuple[Floats, Floats, Metric]:
    try:
        import h5py
    except ModuleNotFoundError:
        raise DataError(f"{path} needs h5py: pip install 'sightline[bench]'") from None
    try:
        with h5py.File(path, "r") as file:
            distance = str(file.attrs.get("distance", "angular"))
            train, test = file.get("train"), file.get("test")
            if train is None or test is None or train.ndim != 2:
                raise DataError(f"{path} is not an ann-benchmarks file: it lacks 'train' or 'test'")
            if train.size * 4 > MAX_VECTOR_BYTES:
                raise DataError(f"{path} holds more than 16 GiB of vectors")
            vectors, asked = np.asarray(train, np.float32), np.asarray(test, np.float32)
    except OSError as error:
        raise DataError(f"{path} cannot be read as HDF5: {error}") from None
    if distance not in DISTANCES:
        raise DataError(f"{path} has the distance {distance!r}; known are {', '.join(DISTANCES)}")
    return vectors, asked, DISTANCES[distance]


def _read_parquet(path: Path) -> Floats:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise DataError(f"{path} needs pyarrow: pip install 'sightline[bench]'") from None
    try:
        names = parquet.read_schema(path).names
        column = next((name for name in _COLUMNS if name in names), None)
        if column is None:
            raise DataError(f"{path} has no column {', '.join(_COLUMNS)}; its columns are {', '.join(names)[:200]}")
        cells = parquet.read_table(path, columns=[column]).column(0).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None
    if not (
        pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type) or pa.types.is_fixed_size_list(cells.type)
    ):
        raise DataError(f"{path}: column {column!r} must hold lists of numbers, not {cells.type}")
    flat = np.asarray(cells.flatten(), np.float32)
    if not len(cells) or cells.null_count or flat.size % len(cells):
        raise DataError(f"{path}: column {column!r} must hold vectors of one length in every row")
    lengths = set(cells.value_lengths().to_pylist()) if hasattr(cells, "value_lengths") else {flat.size // len(cells)}
    if len(lengths) > 1:
        raise DataError(f"{path}: the vectors of column {column!r} differ in length")
    return flat.reshape(len(cells), -1)
