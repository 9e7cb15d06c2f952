"""The collections of one Milvus: named, made, loaded, indexed, dropped."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import uuid4

from pymilvus import MilvusClient, MilvusException

from backends.base import CollectionSpec, IndexSpec
from backends.errors import BackendError, CollectionExists, CollectionNotFound, Unavailable
from backends.kit.folders import sync
from backends.kit.widths import Width
from backends.kit.words import log_unnoted
from backends.milvus.connection import CALL_S, POLL_S, Connection, LiteName, LiteServer
from backends.milvus.notes import Notes
from backends.milvus.records import (
    WIDTH_PROPERTY,
    WORDS_PROPERTY,
    description_of,
    own_name,
    spec_of,
    stored_name,
    words_version,
)
from backends.milvus.schema import FLAT, Index, index_of, index_params, schema_of
from backends.text import WORDS_VERSION

T = TypeVar("T")

# Where a graph pays: a scan of this many bytes takes a server of two cores about 30 ms.
GRAPH_BYTES = 256 << 20
REFRESH_S = 1.0
INDEX_STALLED_S = 300.0


@dataclass(slots=True)
class CollectionHandle:
    """A collection that this handle has used: its spec, and the index it had when last asked."""

    spec: CollectionSpec
    stored: str
    # The version of the words that its rows have, when last asked.
    words: int = WORDS_VERSION
    index: Index = FLAT
    asked: float = -REFRESH_S
    # Whether this handle has read it at the level that waits for all that was written before.
    synced: bool = False
    unflushed: int = 0
    # Whether it is known to hold a record without a vector.
    has_bare: bool = False
    # How wide its graph has to be searched; None where that was not tried.
    width: Width | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    # In Lite: what all handles share about the name, and what had become of it when this handle found it.
    name: LiteName | None = None
    made: int = 0

    @property
    def gone(self) -> bool:
        """Whether it is known to have been dropped; another one of its name may be there."""
        return self.name is not None and self.made != self.name.made

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """A block in which nobody drops it, where that can be had. Raises `CollectionNotFound` once dropped."""
        if self.name is None:
            yield
            return
        with self.name.gate.shared():
            if self.gone:
                raise CollectionNotFound(f"collection {self.spec.name!r} was dropped meanwhile")
            yield


class Collections:
    """What a handle knows of its collections. `lite` is there where Milvus Lite serves them."""

    def __init__(self, connection: Connection, lite: LiteServer | None, keyword: bool) -> None:
        self.connection, self.lite, self.keyword = connection, lite, keyword
        self.notes = Notes(connection)
        self._opened: dict[str, CollectionHandle] = {}
        # Of a server: one for each name, whichever handle it has after `forget`.
        self._writers: dict[str, threading.RLock] = {}

    def names(self) -> list[str]:
        """The names of those that Sightline made."""
        names = []
        for stored in self.connection.call("", lambda client: client.list_collections()):
            name = own_name(stored)
            if name is not None:
                with contextlib.suppress(CollectionNotFound):
                    self.find(name)
                    names.append(name)
        return sorted(names)

    def find(self, name: str) -> CollectionHandle:
        """The collection, known or asked for. Raises `CollectionNotFound`."""
        self.connection.check_open()
        opened = self._opened.get(name)
        if opened is None or opened.gone:
            opened = self._open(name, stored_name(name))
            self._opened[name] = opened
        return opened

    def _open(self, name: str, stored: str) -> CollectionHandle:
        if self.lite is None:
            spec, words, width = self._described(name, stored)
            lock = self._writers.setdefault(stored, threading.RLock())
            return CollectionHandle(spec, stored, words, lock=lock, width=width)
        shared = self.lite.name(stored)
        # Lite opens a collection when it is first asked of it, and two who ask at once get one each.
        with shared.gate.alone():
            spec, words, _ = self._described(name, stored)
            return CollectionHandle(spec, stored, words, lock=shared.writer, name=shared, made=shared.made)

    def _described(self, name: str, stored: str) -> tuple[CollectionSpec, int, Width | None]:
        """The spec of the collection, the version of the words that its rows have, and how wide it is searched."""
        made, found = self._as_made(name, stored)
        changed = self.notes.newest(stored, _creation(found)) if self.lite is None else None
        width = Width.from_json(found.get("properties", {}).get(WIDTH_PROPERTY))
        return made if changed is None else changed.spec, words_version(found), width

    def _as_made(self, name: str, stored: str) -> tuple[CollectionSpec, dict[str, Any]]:
        """The spec in the description of the collection, and all that Milvus says of it."""
        found = self.connection.call(name, lambda client: client.describe_collection(stored))
        spec = spec_of(found)
        if spec is None:
            raise CollectionNotFound(
                f"no collection {name!r}: {stored!r} in {self.connection.address} was not made by Sightline"
            )
        return spec, found

    def words_now(self, opened: CollectionHandle) -> int:
        """The version of the words that its rows have."""
        return words_version(self.call(opened, lambda client: client.describe_collection(opened.stored)))

    def note_words(self, opened: CollectionHandle) -> None:
        """Store that all rows have the words of this version."""
        opened.words = WORDS_VERSION
        properties = {WORDS_PROPERTY: str(WORDS_VERSION)}
        try:
            self.call(opened, lambda client: client.alter_collection_properties(opened.stored, properties))
        except BackendError as error:
            # The server promises nothing of properties that are not its own. The next handle does it all again.
            log_unnoted(f"collection {opened.spec.name!r} in Milvus", error)

    def note_width(self, opened: CollectionHandle, width: Width) -> None:
        """Store how wide the graph has to be searched."""
        opened.width = width
        properties = {WIDTH_PROPERTY: width.to_json()}
        # As of the words: where the server does not keep it, the next `flush` tries again.
        with contextlib.suppress(BackendError):
            self.call(opened, lambda client: client.alter_collection_properties(opened.stored, properties))

    def spec_now(self, name: str) -> CollectionSpec:
        """The spec of the collection as it is now, whoever may have made it anew or set another encoder."""
        if self.lite is None:
            known = self._opened.get(name)
            self.forget(name)
            opened = self.find(name)
            if known is not None:
                opened.has_bare, opened.width = known.has_bare, opened.width or known.width
            return opened.spec
        opened = self.find(name)
        with opened.in_use():
            opened.spec, _, _ = self._described(name, opened.stored)
        return opened.spec

    def set_encoder(self, name: str, fingerprint: str) -> None:
        """Store another encoder's fingerprint in the spec."""
        spec = replace(self.spec_now(name), encoder=fingerprint)
        opened = self.find(name)
        with opened.lock:
            if self.lite is None:
                self.notes.write(opened.stored, _creation(self._as_made(name, opened.stored)[1]), spec)
            else:
                described = {"sightline": description_of(spec, uuid4().hex, self.words_now(opened))}
                self.call(opened, lambda client: client.alter_collection_properties(opened.stored, described))
                # Lite syncs the file, but not the name under which it puts it in the place of the old one.
                sync(self.lite.collections / opened.stored)
            opened.spec = spec

    def forget(self, name: str) -> None:
        """Ask again next time."""
        self._opened.pop(name, None)

    def call(self, opened: CollectionHandle, work: Callable[[MilvusClient], T]) -> T:
        """Do `work`; where the collection is not loaded, load it and wait."""

        def used(client: MilvusClient) -> T:
            with opened.in_use():
                return work(client)

        def restart() -> None:
            with opened.in_use():
                self._load(opened)

        try:
            return self.connection.call(opened.spec.name, used, restart)
        except BackendError:
            # It may have been dropped, and made again as another one.
            self.forget(opened.spec.name)
            raise

    def read(self, opened: CollectionHandle, work: Callable[[MilvusClient, str], T]) -> T:
        """Do `work` at a consistency level that shows all acknowledged writes.

        A writer waits until its writes are visible, so ``Bounded``, which waits for nothing younger than
        five seconds, is enough; but not where a server that died is still catching up with its log, nor
        for what a killed writer left in flight, hence ``Strong`` for the first read.
        """
        found = self.call(opened, lambda client: work(client, "Bounded" if opened.synced else "Strong"))
        opened.synced = True
        return found

    def create(self, spec: CollectionSpec) -> None:
        """Make a collection. Raises `CollectionExists`, `Unsupported`."""
        index = index_of(spec.index, lite=self.lite is not None)
        opened = CollectionHandle(spec, stored_name(spec.name))
        with self._alone(opened.stored):
            self._make(opened)
            self._changed(opened.stored)
            try:
                self._build(opened, index)
                self._load(opened)
            except CollectionNotFound:
                # Made, and dropped by someone else at once.
                return
            except BackendError:
                self._remove(opened.spec.name, opened.stored)
                raise

    @contextlib.contextmanager
    def _alone(self, stored: str) -> Iterator[None]:
        """A block in which nobody else makes, drops or uses a collection of Lite; its leftovers are cleared."""
        if self.lite is None:
            yield
            return
        shared = self.lite.name(stored)
        # A write of many calls is let finish.
        with shared.writer, shared.gate.alone():
            self.lite.clear(stored)
            try:
                yield
            finally:
                self.lite.clear(stored)

    def _make(self, opened: CollectionHandle) -> None:
        spec, stored, call = opened.spec, opened.stored, self.connection.call
        exists = CollectionExists(f"collection {spec.name!r} is already in {self.connection.address}")
        if call(spec.name, lambda client: client.has_collection(stored)):
            raise exists
        # The server takes a second request that is the same for a repetition, so no two are the same.
        described = description_of(spec, uuid4().hex)
        schema = schema_of(spec, described, self.keyword, self.lite is not None)
        # Lite forgets descriptions, and the server promises nothing of properties that are not its own.
        properties = {"sightline": described} if self.lite is not None else {}
        call(spec.name, lambda client: client.create_collection(stored, schema=schema, properties=properties))

    def _build(self, opened: CollectionHandle, index: Index) -> None:
        params = index_params(opened.spec, index, self.keyword)
        self.connection.call(
            opened.spec.name, lambda client: client.create_index(opened.stored, params, sync=False, timeout=CALL_S)
        )

    def _load(self, opened: CollectionHandle) -> None:
        """Ask for the collection to be loaded; where its creator was killed before, give it its index."""
        opened.synced = False

        def load(client: MilvusClient) -> None:
            # Whatever is wrong, the call that needed it loaded says so.
            with contextlib.suppress(MilvusException):
                if not client.list_indexes(opened.stored, field_name="vector"):
                    self._build(opened, index_of(opened.spec.index, lite=self.lite is not None))
                client.load_collection(opened.stored, _async=True, timeout=CALL_S)

        self.connection.call(opened.spec.name, load)

    def drop(self, name: str) -> None:
        """Drop it; silent when it is not there."""
        with contextlib.suppress(CollectionNotFound):
            opened = self.find(name)
            with self._alone(opened.stored):
                self._remove(name, opened.stored)

    def _remove(self, name: str, stored: str) -> None:
        try:
            self.connection.call(name, lambda client: client.drop_collection(stored))
            if self.lite is None:
                self.notes.remove(stored)
        finally:
            self._changed(stored)
            self.forget(name)

    def _changed(self, stored: str) -> None:
        """Tell all handles that have a collection of Lite that it is no longer the one they found."""
        if self.lite is not None:
            name = self.lite.name(stored)
            name.made, name.mirror = name.made + 1, None

    def index_now(self, opened: CollectionHandle) -> Index:
        """The index that the collection has; `flush`, here or elsewhere, may have made a graph of ``auto``."""
        spec = opened.spec.index
        if spec.kind != "auto" or spec.quantization != "none" or self.lite is not None:
            return index_of(spec, lite=self.lite is not None)
        if time.monotonic() - opened.asked >= REFRESH_S:
            said = self.call(opened, lambda client: client.describe_index(opened.stored, "vector")) or {}
            opened.index = Index(said.get("index_type", FLAT.type), {})
            opened.asked = time.monotonic()
        return opened.index

    def flush(self, opened: CollectionHandle) -> None:
        """Seal what was written; in Lite, what it then reads 20 times as fast."""
        self.call(opened, lambda client: client.flush(opened.stored, timeout=CALL_S))
        opened.unflushed = 0

    def needs_graph(self, opened: CollectionHandle, rows: int) -> bool:
        """Whether a collection of kind ``auto`` is searched by scanning, but large enough for a graph."""
        size_bytes = 4 * rows * opened.spec.dim
        return (
            self.lite is None
            and opened.spec.index == IndexSpec()
            and size_bytes > GRAPH_BYTES
            and self.index_now(opened) == FLAT
        )

    def make_graph(self, opened: CollectionHandle) -> None:
        """Give it an HNSW index. Until that is built, calls of all handles wait."""
        with opened.lock:
            self.call(opened, lambda client: client.release_collection(opened.stored))
            self.call(opened, lambda client: client.drop_index(opened.stored, "vector"))
            self._build(opened, index_of(IndexSpec("hnsw"), lite=False))
            opened.asked = -REFRESH_S
            self._load(opened)

    def await_index(self, opened: CollectionHandle) -> None:
        """Return when all sealed rows are indexed."""
        least, since = -1, time.monotonic()
        while True:
            said = self.call(opened, lambda client: client.describe_index(opened.stored, "vector")) or {}
            pending = int(said.get("pending_index_rows", 0))
            if pending == 0:
                return
            if least < 0 or pending < least:
                least, since = pending, time.monotonic()
            if time.monotonic() - since > INDEX_STALLED_S:
                raise Unavailable(
                    f"{self.connection.address} has not indexed {pending} rows of {opened.spec.name!r} for "
                    f"{INDEX_STALLED_S:.0f} s: look at its index nodes' logs"
                )
            time.sleep(POLL_S)


def _creation(found: Mapping[str, Any]) -> str:
    """Which creation of its name a collection of a server is, by the end of its description."""
    return str(found.get("description", "")).partition("\n")[2]
