"""Files of a ``faiss://`` folder: the append-only vector files, and checksums.

`vectors-<generation>.f32` holds the original rows, raw little-endian float32, one after another;
`rows-<generation>.i64` holds the SQLite row number of each. What counts of them is what SQLite has
committed; bytes beyond it are the tail of a write that was never acknowledged, and are overwritten.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.errors import Corrupt
from backends.kit.folders import sync

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def checksum(path: Path) -> tuple[int, int]:
    """Size in bytes and CRC-32 of a file."""
    crc = size_bytes = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
            size_bytes += len(block)
    return size_bytes, crc


class VectorFiles:
    """The two append-only files of each generation in one collection's folder."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder = folder
        self.dim = dim

    def paths(self, generation: int) -> tuple[Path, Path]:
        """The vector file and the row-number file of a generation."""
        return self.folder / f"vectors-{generation}.f32", self.folder / f"rows-{generation}.i64"

    def append(self, generation: int, start: int, vectors: Floats, rows: Integers) -> None:
        """Write rows from position `start` on and wait until they are on the disk.

        Whatever lies at or after `start` is overwritten: it was never committed.
        """
        vectors_path, rows_path = self.paths(generation)
        _write(vectors_path, start * self.dim * 4, vectors.astype("<f4", copy=False))
        _write(rows_path, start * 8, rows.astype("<i8", copy=False))

    def map(self, generation: int, positions: int) -> tuple[Floats, Integers]:
        """The first `positions` rows, read-only and backed by the file: (n, d) float32 and (n,) int64.

        Raises FileNotFoundError when the generation has been compacted away, `Corrupt` when a file is
        shorter than what was committed.
        """
        vectors_path, rows_path = self.paths(generation)
        vectors = _map(vectors_path, "<f4", positions * self.dim).reshape(positions, self.dim)
        return vectors, _map(rows_path, "<i8", positions)

    def remove_except(self, generation: int, index_file: str | None) -> None:
        """Delete files of other generations, superseded indexes and leftovers of interrupted writes."""
        keep = {path.name for path in self.paths(generation)} | {index_file}
        for path in self.folder.iterdir():
            ours = path.name.startswith(("vectors-", "rows-", "graph-"))
            if ours and path.name not in keep:
                path.unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """Bytes of all files of the collection."""
        total = 0
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total


def _write(path: Path, offset_bytes: int, values: NDArray[Any]) -> None:
    is_new = not path.exists()
    # O_TRUNC is not among the flags: readers may have the committed part mapped.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644), "r+b") as file:
        file.seek(offset_bytes)
        file.write(values.data)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync(path.parent)


def _map(path: Path, dtype: str, length: int) -> NDArray[Any]:
    expected = length * np.dtype(dtype).itemsize
    size_bytes = path.stat().st_size if length else 0
    if size_bytes < expected:
        raise Corrupt(f"{path} has {size_bytes} bytes where {expected} were committed: restore it from a backup")
    if not length:
        return np.empty(0, dtype=dtype)
    # The plain array view keeps the map alive and indexes several times faster than np.memmap itself.
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=(length,)))
