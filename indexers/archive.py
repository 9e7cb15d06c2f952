"""A collection as one folder of Parquet files, for backup and for other tools."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import NO_VECTOR, Backend, CollectionSpec, Page, Record
from backends.checks import plain_metadata
from backends.errors import Corrupt
from indexers.report import check_stopped
from indexers.transfer import BATCH, TransferError, TransferReport, transfer, until_stopped

FORMAT = "sightline-archive/1"
ROWS_PER_PART = 20_000
MANIFEST = "manifest.json"


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise TransferError("archives need pyarrow: install it with pip install 'sightline[parquet]'") from None
    return pyarrow, pyarrow.parquet


def export_collection(
    source: Backend,
    name: str,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> int:
    """Write collection `name` into `folder` as Parquet parts and a manifest; returns the number of records.

    Columns: id, modality, text, uri, metadata (JSON), vector (float32 list, null for an item that
    has none). The manifest is written
    last, with each part's SHA-256, so its presence proves that the archive is whole. Refuses a folder
    that holds anything but the remains of an unfinished export, which `Stopped` leaves after `stop` was set.
    """
    pa, pq = _pyarrow()
    spec, total = source.describe(name), source.count(name)
    _claim(folder)
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("modality", pa.string()),
            ("text", pa.string()),
            ("uri", pa.string()),
            ("metadata", pa.string()),
            ("vector", pa.list_(pa.float32(), spec.dim)),
        ]
    )
    parts: list[dict[str, Any]] = []
    done = 0
    for number, records in enumerate(_batches(until_stopped(source.scan(name, batch=BATCH), stop))):
        path = folder / f"part-{number:05d}.parquet"
        with path.open("wb") as file:
            pq.write_table(_table(pa, schema, records, spec.dim), file)
            file.flush()
            os.fsync(file.fileno())
        parts.append({"file": path.name, "rows": len(records), "sha256": _sha256(path)})
        done += len(records)
        if progress:
            progress(done, total)
        check_stopped(stop)
    manifest = {"format": FORMAT, "spec": json.loads(spec.to_json()), "count": done, "parts": parts}
    temporary = folder / f".{MANIFEST}.tmp"
    with temporary.open("w", encoding="utf-8") as out:
        json.dump(manifest, out, ensure_ascii=False, indent=1)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(folder / MANIFEST)
    return done


def import_collection(
    folder: Path,
    target: Backend,
    name: str | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> TransferReport:
    """Write an archive into `target`, under its own name or `name`; resumable and checked as `transfer` is.

    Raises `Corrupt` naming the file when the manifest or a part is missing or damaged, before anything
    is written.
    """
    spec, count, parts = read_manifest(folder)
    for part, digest in parts:
        check_stopped(stop)
        if not part.is_file() or _sha256(part) != digest:
            raise Corrupt(f"{part} is missing or damaged: its SHA-256 is not the manifest's; restore it from a copy")
    _check_ids(folder, [part for part, _ in parts], count)

    def pages() -> Iterator[Page]:
        for part, _ in parts:
            yield from _read_part(part)

    return transfer(pages, replace(spec, name=name or spec.name), count, target, progress=progress, stop=stop)


def read_manifest(folder: Path) -> tuple[CollectionSpec, int, list[tuple[Path, str]]]:
    """The spec, record count and parts (path, SHA-256) of an archive. Raises `Corrupt`."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"it is of format {manifest['format']!r}; this version reads {FORMAT}")
        spec = CollectionSpec.from_json(json.dumps(manifest["spec"]))
        # A manifest may come from anywhere: take names, never paths, from it.
        parts = [(folder / Path(part["file"]).name, str(part["sha256"])) for part in manifest["parts"]]
        return spec, int(manifest["count"]), parts
    except FileNotFoundError:
        raise Corrupt(f"{path} is not there: {folder} is no archive, or its export was not finished") from None
    except (Corrupt, OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} is not readable as a manifest: {error}") from None


def _check_ids(folder: Path, parts: list[Path], count: int) -> None:
    """Raise `Corrupt` where an id is there twice, of which only one could be stored, or records are missing."""
    pa, pq = _pyarrow()
    try:
        ids = pa.chunked_array(
            [chunk for part in parts for chunk in pq.read_table(part, columns=["id"]).column("id").chunks], pa.string()
        )
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise Corrupt(f"{folder} is not an archive: {error}") from None
    if len(ids) != count:
        raise Corrupt(f"{folder} holds {len(ids)} records, and its manifest says {count}: export it again")
    counted = ids.value_counts()
    for row in counted.filter(pa.compute.greater(counted.field("counts"), 1)):
        raise Corrupt(f"{folder} holds the id {row['values'].as_py()!r:.200} twice: export it again")


def _claim(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = {entry.name for entry in folder.iterdir()}
    if MANIFEST in names:
        raise TransferError(f"{folder} holds a finished archive: name another folder")
    foreign = {name for name in names if not (name.startswith("part-") and name.endswith(".parquet"))}
    if foreign - {f".{MANIFEST}.tmp"}:
        raise TransferError(f"{folder} is not empty (it has {min(foreign)!r}): name a new folder")
    for name in names:
        (folder / name).unlink()


def _batches(pages: Iterator[Page]) -> Iterator[list[Record]]:
    waiting: list[Record] = []
    for page in pages:
        waiting += page.records
        while len(waiting) >= ROWS_PER_PART:
            yield waiting[:ROWS_PER_PART]
            waiting = waiting[ROWS_PER_PART:]
    if waiting:
        yield waiting


def _table(pa: Any, schema: Any, records: list[Record], dim: int) -> Any:
    vectors = np.zeros((len(records), dim), dtype=np.float32)
    without = np.array([not record.has_vector for record in records])
    for row, record in enumerate(records):
        if record.has_vector:
            vectors[row] = record.vector
    columns = [
        pa.array([record.id for record in records], pa.string()),
        pa.array([record.modality for record in records], pa.string()),
        pa.array([record.text for record in records], pa.string()),
        pa.array([record.uri for record in records], pa.string()),
        pa.array([json.dumps(plain_metadata(r.metadata), ensure_ascii=False) for r in records], pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), dim, mask=pa.array(without)),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _read_part(path: Path) -> Iterator[Page]:
    pa, pq = _pyarrow()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                columns = batch.to_pydict()
                vectors = _vectors(batch.column("vector"))
                records = [
                    Record(i, vector, modality, text, uri, json.loads(metadata))
                    for i, vector, modality, text, uri, metadata in zip(
                        columns["id"],
                        vectors,
                        columns["modality"],
                        columns["text"],
                        columns["uri"],
                        columns["metadata"],
                        strict=True,
                    )
                ]
                yield Page(records, records[-1].id if records else "")
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise Corrupt(f"{path} is not a part of an archive: {error}") from None


def _vectors(column: Any) -> list[NDArray[np.float32]]:
    """The vectors of a column, `NO_VECTOR` where it is null."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    # What is null has no place in it.
    flat = column.flatten().to_numpy(zero_copy_only=False)
    rows = iter(flat.reshape(int(there.sum()), -1) if there.any() else ())
    return [next(rows) if valid else NO_VECTOR for valid in there]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
