"""``qdrant-edge:///dir``: Qdrant's own engine in process, from the package `qdrant-edge-py`.

Each collection is a sub-folder: ``collection.json`` (its spec) and ``shard`` (Qdrant's files). One
open store at a time has the folder. `flush` builds the HNSW index; until then searches scan.

A write returns when Qdrant's write-ahead log is on the disk. Qdrant itself leaves that to the operating
system, and its `flush` writes every segment and payload index through: 0.2 to 1.3 s a call in
measurements, where the log takes 0.006 to 0.03 s. A killed process replays the log when it opens again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import uuid4

import qdrant_edge as qe

from backends.base import Capabilities, CollectionSpec
from backends.checks import COLLECTION_NAME
from backends.errors import BackendError, CollectionExists, CollectionNotFound, Corrupt, Unavailable
from backends.locks import FolderLock, require_writable
from backends.qdrant_edge_config import EdgeDialect, config_of, params_of
from backends.qdrant_edge_payload import WANTED, packed, unpacked
from backends.qdrant_payload import DENSE, SPARSE, TOKENS
from backends.qdrant_store import Floats, Found, Plan, Point, QdrantStore, Row
from backends.urls import folder_of

SPEC, SHARD, LOG = "collection.json", "shard", "wal"
NEW, DROPPED = ".new-", ".dropped-"
RULE = "Qdrant's engine lets one process at a time open a folder; close that one, or run a Qdrant server"
# Opening after a crash replays about this many bytes of vectors at most, a few seconds' work.
REPLAYED_BYTES = 128 << 20
# The engine maps its files and grows them by 32 MiB. On a full disk the system ends the process (SIGBUS)
# instead of giving an error, so writes stop while there is room left for each kind of file to grow.
RESERVE_BYTES = 128 << 20


@dataclass(slots=True)
class _Collection:
    spec: CollectionSpec
    folder: Path
    shard: Any
    keys: set[str]
    writer: threading.RLock = field(default_factory=threading.RLock)
    logged_bytes: int = 0

    def secure(self) -> None:
        """See to it that what was written is on the disk, in the log or in its final place."""
        if self.logged_bytes > REPLAYED_BYTES:
            self.settle()
        else:
            log = self.folder / SHARD / LOG
            for path in (*log.iterdir(), log):
                sync(path)

    def settle(self) -> None:
        """Write everything to its final place and forget the log."""
        self.shard.flush()
        self.logged_bytes = 0


class EdgeEngine:
    """The shards of one folder. A shard takes calls from any thread; writes to one are made one after another."""

    dialect = EdgeDialect()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FolderLock(folder, RULE)
        self._mutex = threading.RLock()
        self._open: dict[str, _Collection] = {}
        self._closed = False
        require_writable(folder, "Qdrant Edge locks it, and writes to it when it is opened")
        self._lock.acquire()
        for leftover in folder.iterdir():
            if leftover.name.startswith((NEW, DROPPED)):
                shutil.rmtree(leftover, ignore_errors=True)

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """Turn what the engine raises into `BackendError`s that name the folder."""
        try:
            yield
        except (BackendError, ValueError, TypeError, OverflowError, MemoryError):
            raise
        except OSError as error:
            raise Unavailable(f"{what} in {self.folder}: {error.strerror or error}") from error
        except Exception as error:
            raise self._as_backend_error(what, str(error)) from error
        except BaseException as error:
            # pyo3 raises a BaseException where Rust panics.
            if type(error).__name__ != "PanicException":
                raise
            raise self._as_backend_error(what, str(error)) from error

    def _as_backend_error(self, what: str, message: str) -> BackendError:
        message = " ".join(message.split())
        if "not initialized" in message:
            return CollectionNotFound(f"{what} in {self.folder} was dropped or closed meanwhile")
        if "No space left" in message or "StorageFull" in message or "Disk quota" in message:
            return Unavailable(f"{what}: the disk of {self.folder} is full: make room and try again")
        if "WouldBlock" in message:
            return Unavailable(f"{what} in {self.folder} is open in another process: {RULE}")
        return BackendError(f"{what} in {self.folder}: Qdrant says {message}")

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"the store qdrant-edge://{self.folder} is closed: connect again")

    def _find(self, name: str) -> _Collection:
        found = self._open.get(name)
        if found is not None:
            return found
        with self._mutex:
            self._check_open()
            if name not in self._open:
                self._open[name] = self._load(name)
            return self._open[name]

    def _load(self, name: str) -> _Collection:
        folder = self._folder(name)
        try:
            spec = CollectionSpec.from_json((folder / SPEC).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise CollectionNotFound(f"no collection {name!r} in {self.folder}") from None
        except UnicodeDecodeError as error:
            raise Corrupt(f"{folder / SPEC} is damaged: {error}") from error
        except OSError as error:
            raise Unavailable(f"cannot read {folder / SPEC}: {error.strerror or error}") from error
        if not (folder / SHARD).is_dir():
            raise Corrupt(f"{folder} has lost its {SHARD} folder: restore it from a backup")
        with self._reported(f"collection {name!r}"):
            shard = qe.EdgeShard.load(str(folder / SHARD))
            return _Collection(spec, folder, shard, set(shard.info().payload_schema))

    def _folder(self, name: str) -> Path:
        if not isinstance(name, str) or not COLLECTION_NAME.match(name):
            raise CollectionNotFound(f"no collection {name!r} in {self.folder}")
        # Names that differ by case only must not meet where file names ignore it.
        if name == name.lower():
            return self.folder / name
        return self.folder / f"{name.lower()}.{hashlib.sha256(name.encode()).hexdigest()[:12]}"

    def names(self) -> list[str]:
        self._check_open()
        found = []
        try:
            folders = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise Unavailable(f"cannot read {self.folder}: {error.strerror or error}") from error
        for folder in folders:
            with suppress(OSError, UnicodeDecodeError, Corrupt):
                found.append(CollectionSpec.from_json((folder / SPEC).read_text(encoding="utf-8")).name)
        return found

    def spec(self, name: str) -> CollectionSpec:
        return self._find(name).spec

    def create(self, spec: CollectionSpec) -> None:
        with self._mutex:
            self._check_open()
            target = self._folder(spec.name)
            if target.exists():
                raise CollectionExists(f"collection {spec.name!r} is already in {self.folder}")
            self._check_room(0)
            unfinished = self.folder / f"{NEW}{uuid4().hex}"
            try:
                (unfinished / SHARD).mkdir(parents=True)
                with self._reported(f"creating {spec.name!r}"):
                    shard = qe.EdgeShard.create(str(unfinished / SHARD), config_of(spec))
                    shard.update(qe.UpdateOperation.create_field_index(TOKENS, qe.KeywordIndexParams()))
                    shard.close()
                _write_through(unfinished / SPEC, spec.to_json())
                unfinished.rename(target)
                sync(self.folder)
            except OSError as error:
                raise Unavailable(f"cannot create {target}: {error.strerror or error}") from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)

    def drop(self, name: str) -> None:
        with self._mutex:
            self._check_open()
            opened = self._open.pop(name, None)
            try:
                folder = self._folder(name)
            except CollectionNotFound:
                return
            if opened is not None:
                with opened.writer:
                    opened.shard.close()
            dropped = self.folder / f"{DROPPED}{uuid4().hex}"
            try:
                folder.rename(dropped)
            except FileNotFoundError:
                return
            except OSError as error:
                raise Unavailable(f"cannot remove {folder}: {error.strerror or error}") from error
            sync(self.folder)
            shutil.rmtree(dropped, ignore_errors=True)

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        collection = self._find(name)
        with collection.writer:
            yield
            with self._reported(f"writing to {name!r}"):
                collection.secure()

    def _check_room(self, needed_bytes: int) -> None:
        """Raise `Unavailable` where the disk has less than this and the reserve left."""
        try:
            free_bytes = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise Unavailable(f"cannot use the folder {self.folder}: {error.strerror or error}") from error
        if free_bytes < needed_bytes + RESERVE_BYTES:
            raise Unavailable(
                f"the disk of {self.folder} is full: {free_bytes >> 20} MiB are left and this needs "
                f"{(needed_bytes + RESERVE_BYTES) >> 20}; make room and try again"
            )

    def _update(self, name: str, operation: Any) -> None:
        with self._reported(f"writing to {name!r}"):
            self._find(name).shard.update(operation)

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        size_bytes = sum(vector.nbytes for _, vector, _, _ in points)
        # Once for the log and once for the storage, with as much again for payloads and indexes.
        self._check_room(4 * size_bytes)
        prepared = []
        for point, vector, weights, payload in points:
            # The bindings take a list in half the time of an array.
            named: dict[str, Any] = {DENSE: vector.tolist()}
            if weights:
                named[SPARSE] = qe.SparseVector(list(weights), list(weights.values()))
            prepared.append(qe.Point(point, named, packed(payload)))
        self._update(name, qe.UpdateOperation.upsert_points(prepared))
        self._find(name).logged_bytes += size_bytes

    def retrieve(self, name: str, ids: Sequence[str], payload: bool, vectors: bool) -> list[Row]:
        with self._reported(f"reading {name!r}"):
            wanted = WANTED if payload else False
            return [_row(r) for r in self._find(name).shard.retrieve(list(ids), wanted, [DENSE] if vectors else False)]

    def delete_ids(self, name: str, ids: Sequence[str]) -> None:
        self._update(name, qe.UpdateOperation.delete_points(list(ids)))

    def delete_where(self, name: str, condition: Any) -> None:
        self._update(name, qe.UpdateOperation.delete_points_by_filter(condition))

    def count(self, name: str, condition: Any | None) -> int:
        with self._reported(f"counting {name!r}"):
            return int(self._find(name).shard.count(qe.CountRequest(exact=True, filter=condition)))

    def estimate(self, name: str, condition: Any | None) -> int | None:
        with self._reported(f"counting {name!r}"):
            shard = self._find(name).shard
            if condition is None:
                return int(shard.info().points_count)
            return int(shard.count(qe.CountRequest(exact=False, filter=condition)))

    def scroll(self, name: str, start: str | None, limit: int, condition: Any | None, vectors: bool) -> list[Row]:
        request = qe.ScrollRequest(
            offset=start, limit=limit, filter=condition,
            with_payload=WANTED, with_vector=[DENSE] if vectors else False,
        )  # fmt: skip
        with self._reported(f"reading {name!r}"):
            rows, _ = self._find(name).shard.scroll(request)
            return [_row(row) for row in rows]

    def search(self, name: str, queries: Floats, limit: int, condition: Any | None, plan: Plan) -> list[list[Found]]:
        collection = self._find(name)
        params = params_of(collection.spec, plan, condition is not None)
        requests = [
            qe.QueryRequest(
                limit=limit, query=qe.Query.Nearest(query.tolist(), using=DENSE), filter=condition,
                params=params, with_payload=WANTED,
            )
            for query in queries
        ]  # fmt: skip
        with self._reported(f"searching {name!r}"):
            if len(requests) == 1:
                return [_found(collection.shard.query(requests[0]))]
            return [_found(points) for points in collection.shard.query_batch(qe.QueryBatchRequest(requests))]

    def search_words(self, name: str, indices: list[int], limit: int, condition: Any | None) -> list[Found]:
        query = qe.Query.Nearest(qe.SparseVector(indices, [1.0] * len(indices)), using=SPARSE)
        request = qe.QueryRequest(limit=limit, query=query, filter=condition, with_payload=WANTED)
        with self._reported(f"searching {name!r}"):
            return _found(self._find(name).shard.query(request))

    def index(self, name: str, keys: set[str]) -> None:
        collection = self._find(name)
        if keys <= collection.keys:
            return
        with collection.writer:
            for key in sorted(keys - collection.keys):
                self._update(name, qe.UpdateOperation.create_field_index(key, qe.IntegerIndexParams()))
                collection.keys.add(key)

    def flush(self, name: str) -> None:
        collection = self._find(name)
        # Segments are written anew before the old ones go.
        self._check_room(2 * collection.spec.dim * 4 * int(collection.shard.info().points_count))
        with self._reported(f"indexing {name!r}"):
            collection.shard.optimize()
            collection.settle()

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            while self._open:
                _, collection = self._open.popitem()
                with collection.writer, suppress(Exception):
                    collection.shard.close()
            self._lock.release()


class QdrantEdgeBackend(QdrantStore):
    """Qdrant's engine in process, its files in a folder that one process at a time has open."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True,
        persistent=True,
        server=False,
        concurrent_writers=False,
        effort=True,
        index_kinds=frozenset({"auto", "flat", "hnsw"}),
        quantizations=frozenset({"none", "int8", "binary"}),
    )

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open the folder that the URL names, ``qdrant-edge:///abs/dir`` or ``qdrant-edge://./relative/dir``.

        The folder is made if need be. ValueError for a URL of another form, `Unavailable` when another
        store has the folder open or it cannot be written.
        """
        return cls(EdgeEngine(folder_of(url, "qdrant-edge")))


def _row(record: Any) -> Row:
    vector = record.vector
    return str(record.id), unpacked(record.payload), vector[DENSE] if vector else None


def _found(points: Sequence[Any]) -> list[Found]:
    return [(point.score, unpacked(point.payload)) for point in points]


def _write_through(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
