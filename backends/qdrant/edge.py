"""``qdrant-edge:///dir``: Qdrant's own engine in process, from the package `qdrant-edge-py`.

Each collection is a sub-folder: ``collection.json`` (its spec) and ``shard`` (Qdrant's files). One
open store at a time has the folder. `flush` builds the HNSW index; until then searches scan.

A write returns when Qdrant's write-ahead log is on the disk. Qdrant itself leaves that to the operating
system, and its `flush` writes every segment and payload index through: 0.2 to 1.3 s a call in
measurements, where the log takes 0.006 to 0.03 s. A killed process replays the log when it opens again.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import qdrant_edge as qe

from backends.base import Capabilities, CollectionSpec
from backends.checks import COLLECTION_NAME
from backends.errors import BackendError, CollectionExists, CollectionNotFound, Corrupt, Locked, Unavailable
from backends.kit.folders import put_aside, remove, remove_leftovers, replace_file, sync, whole_folder, write_through
from backends.kit.open_folders import OpenFolders
from backends.kit.widths import Width
from backends.kit.words import read_version
from backends.locks import FolderLock, require_writable
from backends.qdrant.driver import Floats, Found, Plan, Point, Row
from backends.qdrant.edge_config import EdgeDialect, config_of, params_of
from backends.qdrant.edge_payload import WANTED, packed, unpacked
from backends.qdrant.payload import DENSE, SPARSE, TOKENS
from backends.qdrant.store import QdrantStore
from backends.text import WORDS_VERSION
from backends.urls import parse_folder_url

SPEC, WORDS, WIDTH, SHARD, LOG = "collection.json", "words", "width", "shard", "wal"
SINGLE_PROCESS_HINT = "Qdrant's engine lets one process at a time open a folder; close that one, or run a Qdrant server"
# Opening after a crash replays about this many bytes of vectors at most, a few seconds' work.
REPLAYED_BYTES = 128 << 20
# The engine maps its files and grows them by 32 MiB. On a full disk the system ends the process (SIGBUS)
# instead of giving an error, so writes stop while there is room left for each kind of file to grow.
RESERVE_BYTES = 128 << 20


@dataclass(slots=True, eq=False)
class _EdgeHandle:
    """An open collection. `gone` is set, and its shard closed, by who holds `writer` and drops or closes it."""

    spec: CollectionSpec
    folder: Path
    shard: Any
    keys: set[str]
    words: int
    width: Width | None = None
    writer: threading.RLock = field(default_factory=threading.RLock)
    logged_bytes: int = 0
    gone: bool = False

    def fsync_wal(self) -> None:
        """See to it that what was written is on the disk, in the log or in its final place."""
        if self.logged_bytes > REPLAYED_BYTES:
            self.checkpoint()
        else:
            log = self.folder / SHARD / LOG
            for path in (*log.iterdir(), log):
                # A part of the log that `flush` has just made superfluous is gone.
                with suppress(FileNotFoundError):
                    sync(path)

    def checkpoint(self) -> None:
        """Write everything to its final place and forget the log."""
        self.shard.flush()
        self.logged_bytes = 0

    def release(self) -> None:
        """Close the shard, by who holds `writer`; who still has the collection is told that it is gone."""
        self.gone = True
        with suppress(Exception):
            self.shard.close()


class _EdgeFolder:
    """What this process has open of a folder: its lock, and the collections that any store of it has used."""

    def __init__(self, folder: Path) -> None:
        self.mutex = threading.RLock()
        self.collections: dict[str, _EdgeHandle] = {}
        self._lock = FolderLock(folder, SINGLE_PROCESS_HINT)
        require_writable(folder, "Qdrant Edge locks it, and writes to it when it is opened")
        self._lock.acquire()
        remove_leftovers(folder)

    def close(self) -> None:
        """Close the collections, each when what writes to it has ended, and free the folder."""
        with self.mutex:
            opened = list(self.collections.values())
            self.collections.clear()
        for collection in opened:
            with collection.writer:
                collection.release()
        self._lock.release()


_folders = OpenFolders(_EdgeFolder, _EdgeFolder.close)


class EdgeDriver:
    """The shards of one folder. A shard takes calls from any thread; writes to one are made one after another.

    Locks are taken in one order: a collection's `writer` first, then the folder's `_mutex`, which nobody holds while
    waiting for a writer. All drivers of a folder share its collections.
    """

    dialect = EdgeDialect()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shared = _folders.acquire(folder)
        self._mutex, self._open = self._shared.value.mutex, self._shared.value.collections
        self._closed = False

    @contextmanager
    def _using(self, at: _EdgeHandle, doing: str) -> Iterator[Any]:
        """The shard of a collection; whatever it raises once that was dropped says just that."""
        self._check_open()
        try:
            with self._translate_errors(f"{doing} {at.spec.name!r}"):
                yield at.shard
        except BackendError as error:
            self._check_there(at, error)
            raise

    def _check_there(self, at: _EdgeHandle, cause: BaseException | None = None) -> None:
        """Raise `CollectionNotFound` once the collection was dropped, BackendError once the store was closed."""
        if at.gone:
            self._check_open()
            raise CollectionNotFound(f"collection {at.spec.name!r} in {self.folder} was dropped meanwhile") from cause

    @contextmanager
    def _translate_errors(self, what: str) -> Iterator[None]:
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
        if "No space left" in message or "StorageFull" in message or "Disk quota" in message:
            return Unavailable(f"{what}: the disk of {self.folder} is full: make room and try again")
        if "WouldBlock" in message:
            return Locked(f"{what} in {self.folder} is open in another process: {SINGLE_PROCESS_HINT}")
        return BackendError(f"{what} in {self.folder}: Qdrant says {message}")

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"the store qdrant-edge://{self.folder} is closed: connect again")

    def find(self, name: str) -> _EdgeHandle:
        self._check_open()
        found = self._open.get(name)
        if found is not None:
            return found
        with self._mutex:
            self._check_open()
            if name not in self._open:
                self._open[name] = self._load(name)
            return self._open[name]

    def _load(self, name: str) -> _EdgeHandle:
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
        with self._translate_errors(f"collection {name!r}"):
            shard = qe.EdgeShard.load(str(folder / SHARD))
            keys = set(shard.info().payload_schema)
        width = Width.from_json((folder / WIDTH).read_text(encoding="utf-8")) if (folder / WIDTH).is_file() else None
        return _EdgeHandle(spec, folder, shard, keys, read_version(folder / WORDS), width)

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

    def create(self, spec: CollectionSpec) -> None:
        with self._mutex:
            self._check_open()
            target = self._folder(spec.name)
            if target.exists():
                raise CollectionExists(f"collection {spec.name!r} is already in {self.folder}")
            self._check_room(0)
            with whole_folder(target) as unfinished:
                (unfinished / SHARD).mkdir(parents=True)
                with self._translate_errors(f"creating {spec.name!r}"):
                    shard = qe.EdgeShard.create(str(unfinished / SHARD), config_of(spec))
                    try:
                        shard.update(qe.UpdateOperation.create_field_index(TOKENS, qe.KeywordIndexParams()))
                    finally:
                        shard.close()
                write_through(unfinished / WORDS, str(WORDS_VERSION))
                write_through(unfinished / SPEC, spec.to_json())

    def spec_now(self, name: str) -> CollectionSpec:
        return self.find(name).spec

    def set_encoder(self, name: str, fingerprint: str) -> None:
        at = self.find(name)
        with self.writing(at):
            spec = replace(at.spec, encoder=fingerprint)
            try:
                replace_file(at.folder / SPEC, spec.to_json())
            except OSError as error:
                raise Unavailable(f"cannot write {at.folder / SPEC}: {error.strerror or error}") from error
            at.spec = spec

    def drop(self, name: str) -> None:
        while not self._dropped(name):
            pass

    def _dropped(self, name: str) -> bool:
        """Drop the collection that is there now; False where another thread was faster, so that it may be another."""
        with self._mutex:
            self._check_open()
            try:
                folder = self._folder(name)
            except CollectionNotFound:
                return True
            opened = self._open.get(name)
            if opened is None:
                aside = put_aside(folder)
        if opened is not None:
            # Writes under way end first. They do not need the mutex, and nobody waits here while holding it.
            with opened.writer, self._mutex:
                self._check_open()
                if self._open.get(name) is not opened:
                    return False
                opened.release()
                del self._open[name]
                aside = put_aside(folder)
        if aside is not None:
            remove(aside)
        return True

    @contextmanager
    def writing(self, at: _EdgeHandle) -> Iterator[None]:
        with at.writer:
            self._check_there(at)
            yield
            with self._using(at, "writing to"):
                at.fsync_wal()

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

    def _update(self, at: _EdgeHandle, operation: Any) -> None:
        with self._using(at, "writing to") as shard:
            shard.update(operation)

    def upsert(self, at: _EdgeHandle, points: Sequence[Point]) -> None:
        size_bytes = sum(vector.nbytes for _, vector, _, _ in points)
        # Once for the log and once for the storage, with as much again for payloads and indexes.
        self._check_room(4 * size_bytes)
        prepared = []
        for point, vector, weights, payload in points:
            # The bindings take a list in half the time of an array.
            named: dict[str, Any] = {DENSE: vector.tolist()} if vector.size else {}
            if weights:
                named[SPARSE] = qe.SparseVector(list(weights), list(weights.values()))
            prepared.append(qe.Point(point, named, packed(payload)))
        self._update(at, qe.UpdateOperation.upsert_points(prepared))
        at.logged_bytes += size_bytes

    def retrieve(self, at: _EdgeHandle, ids: Sequence[str], *, payload: bool, vectors: bool) -> list[Row]:
        with self._using(at, "reading") as shard:
            return [_row(r) for r in shard.retrieve(list(ids), WANTED if payload else False, _vectors(vectors))]

    def delete_ids(self, at: _EdgeHandle, ids: Sequence[str]) -> None:
        self._update(at, qe.UpdateOperation.delete_points(list(ids)))

    def delete_where(self, at: _EdgeHandle, condition: Any) -> None:
        self._update(at, qe.UpdateOperation.delete_points_by_filter(condition))

    def count(self, at: _EdgeHandle, condition: Any | None) -> int:
        with self._using(at, "counting") as shard:
            return int(shard.count(qe.CountRequest(exact=True, filter=condition)))

    def estimate(self, at: _EdgeHandle, condition: Any | None) -> int | None:
        with self._using(at, "counting") as shard:
            if condition is None:
                return int(shard.info().points_count)
            return int(shard.count(qe.CountRequest(exact=False, filter=condition)))

    def scroll(
        self, at: _EdgeHandle, start: str | None, limit: int, condition: Any | None, *, vectors: bool
    ) -> list[Row]:
        request = qe.ScrollRequest(
            offset=start, limit=limit, filter=condition, with_payload=WANTED, with_vector=_vectors(vectors)
        )
        with self._using(at, "reading") as shard:
            rows, _ = shard.scroll(request)
            return [_row(row) for row in rows]

    def search(
        self, at: _EdgeHandle, queries: Floats, limit: int, condition: Any | None, plan: Plan
    ) -> list[list[Found]]:
        params = params_of(at.spec, plan, condition is not None)
        requests = [
            qe.QueryRequest(
                limit=limit,
                query=qe.Query.Nearest(query.tolist(), using=DENSE),
                filter=condition,
                params=params,
                with_payload=WANTED,
            )
            for query in queries
        ]
        with self._using(at, "searching") as shard:
            if len(requests) == 1:
                return [_found(shard.query(requests[0]))]
            return [_found(points) for points in shard.query_batch(qe.QueryBatchRequest(requests))]

    def search_words(self, at: _EdgeHandle, indices: list[int], limit: int, condition: Any | None) -> list[Found]:
        query = qe.Query.Nearest(qe.SparseVector(indices, [1.0] * len(indices)), using=SPARSE)
        request = qe.QueryRequest(limit=limit, query=query, filter=condition, with_payload=WANTED)
        with self._using(at, "searching") as shard:
            return _found(shard.query(request))

    def set_words(self, at: _EdgeHandle, weights: Mapping[str, dict[int, float]]) -> None:
        # Of the log and of the storage, eight bytes a word each.
        self._check_room(32 * sum(map(len, weights.values())))
        points = [qe.PointVectors(p, {SPARSE: qe.SparseVector(list(w), list(w.values()))}) for p, w in weights.items()]
        self._update(at, qe.UpdateOperation.update_vectors(points))

    def note_words(self, at: _EdgeHandle, version: int) -> None:
        at.fsync_wal()
        replace_file(at.folder / WORDS, str(version))
        at.words = version

    def note_width(self, at: _EdgeHandle, width: Width) -> None:
        with at.writer:
            self._check_there(at)
            replace_file(at.folder / WIDTH, width.to_json())
            at.width = width

    def index(self, at: _EdgeHandle, key: str) -> None:
        with at.writer:
            self._check_there(at)
            if key not in at.keys:
                self._update(at, qe.UpdateOperation.create_field_index(key, qe.IntegerIndexParams()))
                at.keys.add(key)

    def flush(self, at: _EdgeHandle) -> None:
        with self._using(at, "indexing") as shard:
            # Segments are written anew before the old ones go.
            self._check_room(2 * at.spec.dim * 4 * int(shard.info().points_count))
            shard.optimize()
            at.checkpoint()

    def close(self) -> None:
        with self._mutex:
            if self._closed:
                return
            self._closed = True
        _folders.release(self._shared)


class QdrantEdgeBackend(QdrantStore[_EdgeHandle]):
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
        process has the folder open or it cannot be written.
        """
        return cls(EdgeDriver(parse_folder_url(url, "qdrant-edge")))


def _vectors(wanted: bool) -> list[str] | bool:
    return [DENSE] if wanted else False


def _row(record: Any) -> Row:
    return str(record.id), unpacked(record.payload), (record.vector or {}).get(DENSE)


def _found(points: Sequence[Any]) -> list[Found]:
    return [(point.score, unpacked(point.payload)) for point in points]
