"""The pictures that were uploaded: files in the home, each kept as long as a record of any store may name it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import threading
import time
import weakref
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from app.core.references import References, ReferencesError, memory_store, new_token
from backends.base import Backend, BackendError, CollectionNotFound, Compare, Record
from backends.urls import local_path
from backends.wrappers.base import Wrapper
from retrieval.places import uris_of

log = logging.getLogger(__name__)

#: A collection of so many items at most is read through for records that name a file; of a larger one the records
#: that may name it are asked for: those of its content, which all that Sightline makes from it are.
READ_THROUGH = 5_000
ASKED_TOGETHER = 100
TRIES = 5
TEMPORARY_AFTER_S = 3600.0
_NAME = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{1,8}\Z")
_URI = re.compile(r"[0-9a-f]{32}\.[a-z0-9]{1,8}\Z", re.IGNORECASE)
_IN_MEMORY: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_NAMING = threading.Lock()


class UploadedFiles:
    """The files of `folder`, called ``collection/name``, the name being the hash of the content; and what names them.

    A file is named by records of this store, which are looked at, or of other stores that use the same home, of which
    `References` knows that they took it. Whoever stores records that name files does it within `holding`; whoever
    removed some calls `release`. Killed at any moment, this loses no file that is named; one that is not may stay
    until `sweep`. Thread-safe, and of several processes.
    """

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.folder = folder
        self._backend = backend
        self._store = store_name(backend)
        self._references = References(folder.parent / "uploads.sqlite")

    def named(self, uri: str | None) -> str | None:
        """The uploaded file that a record's `uri` names; None where it names anything else."""
        # Nearly all names are of other files, and a path takes its time.
        if uri is None or not _URI.search(uri):
            return None
        path = local_path(uri)
        if path is None or not _NAME.match(path.name):
            return None
        try:
            parent = Path(os.path.realpath(path.parent))
        except (OSError, ValueError):
            return None
        return f"{parent.name}/{path.name}" if str(parent.parent) == os.path.realpath(self.folder) else None

    def files_of(self, records: Iterable[Record]) -> set[str]:
        """The uploaded files that records name."""
        return {file for record in records for uri in uris_of(record) if (file := self.named(uri)) is not None}

    def keep(self, hold: Hold, collection: str, name: str, data: bytes) -> None:
        """Have the file `name` of a collection hold `data`. Raises OSError, `ReferencesError`."""
        file = f"{collection}/{name}"
        # First held, then looked for: what is there now stays there.
        hold.add(file)
        path = self.folder / file
        # Of another length it was written by a disk that was full, or before a power cut.
        if path.is_file() and path.stat().st_size == len(data):
            return
        try:
            _write(path, data)
        except FileNotFoundError:
            # Its collection was dropped in this moment, and the folder with it.
            _write(path, data)

    @contextlib.contextmanager
    def holding(self, files: Iterable[str] = ()) -> Iterator[Hold]:
        """Hold files, while records that name them are stored; at the end those that nothing names are removed.

        Only files that were not `stored`, that were `replaced`, or that somebody removed records of meanwhile are
        looked at then.
        """
        hold = Hold(self._references, self._store)
        try:
            hold.add(*files)
            yield hold
        finally:
            self._end(hold)

    def _end(self, hold: Hold) -> None:
        if not hold.files:
            self.release(hold.gone)
            return
        try:
            asked = self._references.give_back(hold.token)
        except ReferencesError as error:
            log.warning("%s", error)
            return
        self.release(hold.gone | (hold.files - hold.kept) | set(asked))

    def release(self, files: Iterable[str]) -> None:
        """Remove those of the files that no record names any more. Where that cannot be known, they stay.

        Raises nothing: what was asked for, a deletion mostly, is done, and the log says what was left.
        """
        left = set(files)
        try:
            for _ in range(TRIES):
                if not left:
                    return
                claims = {file: self._references.claim(file, self._store) for file in left}
                named = self._still_named(left)
                left = {
                    file
                    for file in left - named
                    if self._references.remove(file, self._store, claims[file], self._unlinking(file)) == "changed"
                }
        except (BackendError, ReferencesError, OSError) as error:
            log.warning("uploaded files that nothing may name any more were left: %s", error)

    def _unlinking(self, file: str) -> Any:
        return lambda: (self.folder / file).unlink(missing_ok=True)

    def forget(self, collection: str) -> None:
        """Remove what only a collection named that was dropped, and its folder if nothing is left in it."""
        self.release({*self._references_of_store(), *self._on_disk(collection)})
        with contextlib.suppress(OSError):
            (self.folder / collection).rmdir()

    def sweep(self) -> None:
        """Remove what was left by processes that were killed, and by what removes records without saying so."""
        try:
            files = self._references.forget_dead()
        except ReferencesError as error:
            log.warning("%s", error)
            return
        self.release({*files, *self._references_of_store()})
        for temporary in self.folder.glob("*/.*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - temporary.stat().st_mtime > TEMPORARY_AFTER_S:
                    temporary.unlink()

    def _references_of_store(self) -> list[str]:
        try:
            return self._references.used_by(self._store)
        except ReferencesError as error:
            log.warning("%s", error)
            return []

    def _on_disk(self, collection: str) -> list[str]:
        try:
            names = [path.name for path in (self.folder / collection).iterdir()]
        except OSError:
            return []
        return [f"{collection}/{name}" for name in names if _NAME.match(name)]

    def _still_named(self, files: Collection[str]) -> set[str]:
        """Those of the files that a record of this store may name."""
        found: set[str] = set()
        for collection in self._backend.collections():
            left = set(files) - found
            if not left:
                break
            # Dropped since: it names nothing.
            with contextlib.suppress(CollectionNotFound):
                found |= self._named_in(collection, left)
        return found

    def _named_in(self, collection: str, files: set[str]) -> set[str]:
        backend = self._backend
        if backend.count(collection) <= READ_THROUGH:
            pages = backend.scan(collection, with_vectors=False)
            return {file for page in pages for file in self.files_of(page.records) & files}
        found: set[str] = set()
        listed = sorted(files)
        for start in range(0, len(listed), ASKED_TOGETHER):
            some = listed[start : start + ASKED_TOGETHER]
            found |= self.files_of(backend.get(collection, [f"img-{_digest(file)}" for file in some])) & files
            rest = [file for file in some if file not in found]
            if rest and backend.count(collection, Compare("content_hash", "in", [_digest(file) for file in rest])):
                found |= {
                    file for file in rest if backend.count(collection, Compare("content_hash", "eq", _digest(file)))
                }
        return found

    def claiming(self) -> Backend:
        """The store, each of whose writes holds the files that its records name. For all that writes but uploads."""
        return _Claiming(self._backend, self)


class Hold:
    """Files that are kept until the end of a block, and what is known of them then."""

    def __init__(self, references: References, store: str) -> None:
        self.token = new_token()
        self.files: set[str] = set()
        self.kept: set[str] = set()
        self.gone: set[str] = set()
        self._references, self._store = references, store

    def add(self, *files: str) -> None:
        """Hold these as well. Raises `ReferencesError`."""
        if files:
            self._references.take(self.token, self._store, files)
            self.files.update(files)

    def stored(self, files: Iterable[str]) -> None:
        """Records that name these are stored now."""
        self.kept.update(files)

    def replaced(self, files: Iterable[str]) -> None:
        """Records that named these name others now, or are gone."""
        self.gone.update(files)


class _Claiming(Wrapper):
    def __init__(self, inner: Backend, uploaded: UploadedFiles) -> None:
        super().__init__(inner)
        self._uploaded = uploaded

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        """As the store does it. Raises `BackendError` also where it cannot be noted which files are named."""
        given = list(records)
        files = self._uploaded.files_of(given)
        if not files:
            self.inner.upsert(name, given)
            return
        try:
            with self._uploaded.holding(files) as hold:
                self.inner.upsert(name, given)
                hold.stored(files)
        except ReferencesError as error:
            raise BackendError(str(error)) from error


def store_name(backend: Backend) -> str:
    """What a store is called in `References`: the hash of its place; of one in memory, a name for as long as it is."""
    if backend.place is not None and backend.capabilities.persistent:
        return hashlib.sha256(backend.place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    while isinstance(backend, Wrapper):
        backend = backend.inner
    with _NAMING:
        return _IN_MEMORY.setdefault(backend, memory_store())


def _digest(file: str) -> str:
    return file.rpartition("/")[2].partition(".")[0]


def _write(path: Path, data: bytes) -> None:
    """Write a file wholly or not at all, so that it outlives a power cut. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the system knows how."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
