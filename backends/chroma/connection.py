"""Reaching Chroma, in a folder or on a server, and what its client's errors mean."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import chromadb
import httpx
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings
from chromadb.errors import ChromaError, InternalError, NotFoundError

from backends.errors import BackendError, CollectionExists, CollectionNotFound, Corrupt, Denied, Locked, Unavailable
from backends.kit.again import until_it_passes
from backends.kit.open_folders import OpenFolders, Shared
from backends.locks import FolderLock, require_writable
from backends.redaction import redact
from backends.urls import ServerUrl, parse_server_url

T = TypeVar("T")

KEY_VARIABLE = "SIGHTLINE_CHROMA_TOKEN"
OPTIONS = ("database", "https", "tenant", "timeout_s")
CONNECT_TIMEOUT_S, TIMEOUT_S = 10, 120
SINGLE_PROCESS_HINT = (
    "Chroma's engine lets one process at a time use a folder, as others would not see what it writes; "
    "close that one, or run a Chroma server"
)
DATABASE_FILE = "chroma.sqlite3"
MAX_MESSAGE = 500
LEAST_FREE_BYTES = 1 << 20
# Where the disk is full while Chroma writes, its engine may leave a transaction open, and then every later write waits
# for that one for ever. So writes stop while there is room left for what it writes by itself.
RESERVE_BYTES = 64 << 20


def _locked(folder: Path) -> FolderLock:
    lock = FolderLock(folder, SINGLE_PROCESS_HINT)
    lock.acquire()
    return lock


# The locks that this process has. Chroma itself has one engine for all clients of a path.
_folders = OpenFolders(_locked, FolderLock.release)

# The engines in process that are open, by the ids of their connections.
_engines: dict[int, Any] = {}


def _after_fork() -> None:
    """See to it that a child never ends its parent's engines: their end waits for threads that it has not."""
    for engine in _engines.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _settings() -> Settings:
    # Not what lies about in a file .env: a folder is no place to say where data go.
    return Settings(anonymized_telemetry=False, _env_file=None)


class Connection:
    """A client of Chroma; `place` is its address or folder, fit for messages."""

    def __init__(self, client: Any, place: str, lock: Shared[FolderLock] | None = None) -> None:
        self.client, self.place = client, place
        self._lock = lock
        self._closed = False

    @classmethod
    def to_folder(cls, folder: Path) -> Self:
        """Open a folder, which is made if need be. Raises `Unavailable` where that cannot be."""
        require_writable(folder, "Chroma locks it, and writes to it when it is opened")
        lock = _folders.acquire(folder)
        path = str(lock.place)
        was_open = path in SharedSystemClient._identifier_to_system
        try:
            client = chromadb.PersistentClient(path, settings=_settings())
        except BaseException as error:
            _folders.release(lock)
            if was_open:
                raise Locked(f"another client of Chroma has {folder} open in this process: close that one") from error
            # Chroma keeps what it failed to open, and would never try again.
            SharedSystemClient._identifier_to_system.pop(path, None)
            SharedSystemClient._identifier_to_refcount.pop(path, None)
            if isinstance(error, Exception) or _is_panic(error):
                raise as_backend_error(error, str(folder), name=None) from error
            raise
        opened = cls(client, str(folder), lock)
        _engines[id(opened)] = client._server.bindings
        return opened

    @classmethod
    def to_server(cls, url: str) -> Self:
        """Connect to a server that answers; see `backends.chroma.backend.ChromaBackend.connect`."""
        server = parse_server_url(url, "chroma", port=8000, known=OPTIONS, keyed=True)
        headers = headers_of(server)
        timeout_s = server.number("timeout_s", TIMEOUT_S, highest=86_400)
        tenant = server.options.get("tenant", DEFAULT_TENANT)
        database = server.options.get("database", DEFAULT_DATABASE)
        tell_version(server, CONNECT_TIMEOUT_S)
        _check_database(server, tenant, database)
        try:
            client = chromadb.HttpClient(
                _bracketed(server.host),
                server.port,
                ssl=server.flag("https", default=False),
                headers=headers,
                settings=_settings(),
                tenant=tenant,
                database=database,
            )
        except Exception as error:
            raise as_backend_error(error, server.address, name=None) from error
        # The client has no option for it, and waits for ever.
        client._server._session.timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        return cls(client, server.address)

    def check_room(self, needed_bytes: int = 0) -> None:
        """Raise `Unavailable` where the disk of a folder has less than this and the reserve left."""
        if self._lock is None:
            return
        try:
            free_bytes = shutil.disk_usage(self.place).free
        except OSError as error:
            raise Unavailable(f"cannot use the folder {self.place}: {error.strerror or error}") from error
        if free_bytes < needed_bytes + RESERVE_BYTES:
            raise Unavailable(
                f"the disk of {self.place} is full: {free_bytes >> 20} MiB are left and this needs "
                f"{(needed_bytes + RESERVE_BYTES) >> 20}; make room and try again"
            )

    def check_open(self) -> None:
        """Raise BackendError once it was closed."""
        if self._closed:
            raise BackendError(f"the connection to {self.place} is closed: connect again")

    @contextmanager
    def calling(self, name: str | None = None) -> Iterator[Any]:
        """The client, for calls about a collection; what they raise becomes a `BackendError`."""
        self.check_open()
        try:
            yield self.client
        except BackendError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and not _is_panic(error):
                raise
            # Another thread may have closed it meanwhile.
            self.check_open()
            raise as_backend_error(error, self.place, name=name) from error

    def read(self, call: Callable[[Any], T], name: str | None = None) -> T:
        """What a call returns that changes nothing, given the client; made again where Chroma fails in passing."""

        def attempt() -> T:
            with self.calling(name) as client:
                return call(client)

        return until_it_passes(attempt, _is_passing)

    def close(self) -> None:
        """Release files, lock and connections."""
        if self._closed:
            return
        self._closed = True
        _engines.pop(id(self), None)
        try:
            # The client's own `close` leaves its connections open, and those of the client that it checked tenants by.
            for client in (self.client, self.client._admin_client):
                if (session := getattr(client._server, "_session", None)) is not None:
                    session.close()
            self.client.close()
        finally:
            if self._lock is not None:
                _folders.release(self._lock)


def _is_passing(error: Exception) -> bool:
    """Whether Chroma failed inside, as it does where what a query found first is gone when its parts are put together.

    Such as "Error executing plan: Internal error: Error finding id", of a record that is written or deleted meanwhile.
    What is wrong for longer, as damage or a disk without room, is of another kind.
    """
    return type(error) is BackendError and isinstance(error.__cause__, InternalError)


def _is_panic(error: BaseException) -> bool:
    # pyo3 raises a BaseException where Rust panics.
    return type(error).__name__ == "PanicException"


def headers_of(server: ServerUrl) -> dict[str, str]:
    """The headers that carry the key: Chroma Cloud's own, and the one that proxies before a server look at."""
    key = server.key or os.environ.get(KEY_VARIABLE) or None
    if key is None:
        return {}
    if not (key.isascii() and key.isprintable()):
        # The client's own error would repeat it.
        raise ValueError(f"the key for {server.address} has characters that no key has")
    return {"x-chroma-token": key, "Authorization": f"Bearer {key}"}


def tell_version(server: ServerUrl, within_s: float) -> str:
    """The version that a server tells. Raises `Denied` where the key is refused, `Unavailable` without an answer."""
    return str(_ask(server, "version", within_s))


def _check_database(server: ServerUrl, tenant: str, database: str) -> None:
    """Raise `Unavailable` where they are not there: the client would say so too, but leave its connections open."""
    path = f"tenants/{quote(tenant, safe='')}/databases/{quote(database, safe='')}"
    _ask(server, path, CONNECT_TIMEOUT_S, missing=f"{server.address} has no such tenant or database: make it first")


def _ask(server: ServerUrl, path: str, within_s: float, *, missing: str | None = None) -> Any:
    """What a server answers, JSON. `missing` is the message where it has nothing there."""
    scheme = "https" if server.flag("https", default=False) else "http"
    url = f"{scheme}://{_bracketed(server.host)}:{server.port}/api/v2/{path}"
    try:
        answer = httpx.get(url, headers=headers_of(server), timeout=within_s)
        answer.raise_for_status()
        return answer.json()
    except httpx.HTTPStatusError as error:
        if error.response.status_code == 404:
            raise Unavailable(missing or f"{server.address} is no Chroma server of version 1.0 or later") from error
        raise as_backend_error(error, server.address, name=None) from error
    except httpx.HTTPError as error:
        raise Unavailable(
            f"nothing answers at {server.address} ({error or type(error).__name__}): start a Chroma server there, "
            "for instance chroma run --path FOLDER"
        ) from error
    except ValueError as error:
        raise Unavailable(f"what answers at {server.address} is no Chroma server") from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _status_of(error: BaseException) -> int:
    """The HTTP status with which a server, or a proxy before it, refused; 0 for none."""
    # The client raises a plain Exception for an answer that is not Chroma's own, and has this one behind it.
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, httpx.HTTPStatusError):
            return behind.response.status_code
        behind = behind.__context__
    return int(error.code()) if isinstance(error, ChromaError) else 0


def _is_full(place: str) -> bool:
    """Whether the disk of a folder is full: Chroma often names only what it could not do for that."""
    try:
        return shutil.disk_usage(place).free < LEAST_FREE_BYTES
    except OSError:
        return False


def as_backend_error(error: BaseException, place: str, *, name: str | None) -> BackendError:
    """The `BackendError` for what the client raised in a call about the collection `name`."""
    status = _status_of(error)
    text = " ".join(redact(str(error), foreign=True).split())[:MAX_MESSAGE] or type(error).__name__
    lower = text.lower()
    if name is not None and isinstance(error, NotFoundError):
        return CollectionNotFound(f"no collection {name!r} in {place}")
    if name is not None and "already exists" in lower:
        return CollectionExists(f"collection {name!r} is already in {place}")
    if status in (401, 403):
        return Denied(f"{place} refused the key: give the right one in {KEY_VARIABLE} (the server says: {text})")
    if "disk is full" in lower or "no space left" in lower or "disk quota" in lower or _is_full(place):
        return Unavailable(f"the disk of {place} is full: make room and try again (Chroma says: {text})")
    if "not a database" in lower or "malformed" in lower:
        return Corrupt(f"{Path(place) / DATABASE_FILE} is damaged: restore it from a backup (Chroma says: {text})")
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(f"{place} did not answer in time: look at its load, or connect with ?timeout_s= more")
    if isinstance(error, httpx.TransportError) or status in (429, 502, 503, 504) or "could not connect" in lower:
        return Unavailable(f"{place} does not answer: is the Chroma server running? ({text})")
    return BackendError(f"{place}: Chroma says: {text}")
