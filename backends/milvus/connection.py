"""Connections to Milvus: the client, Milvus Lite's server in process, and errors as `BackendError`s."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar
from weakref import WeakValueDictionary

import grpc
from pymilvus import MilvusClient, MilvusException
from pymilvus.exceptions import ParamError

from backends.errors import BackendError, CollectionExists, CollectionNotFound, Denied, Locked, Unavailable
from backends.locks import SharedLock, require_writable
from backends.milvus.records import PREFIX
from backends.processes import claim_grpc
from backends.redaction import redact
from backends.urls import parse_server_url

if TYPE_CHECKING:
    from backends.milvus.mirror import Mirror

T = TypeVar("T")

# The client logs every error it raises, with its stack and the filter, and we raise it again in our words.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

REMEDY = "start it with: sightline engines up milvus, or check host and port"
CONNECT_S, CALL_S = 10.0, 60.0
POLL_S = 0.1
NOT_FOUND = {4, 100}
# What the server says while a collection is being loaded, or again after the node that held it has died.
_UNLOADED = re.compile(
    r"not loaded|not fully loaded|no available shard|shard (leader|delegator)|channel not (found|available)"
    r"|delegator \d+ for channel|node (offline|not (found|match))|no replica|not ready|NodeNotFound"
    r"|not in state|load segment|recovering|server is not (ready|serving)|state code",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"unavailable|deadline|fail(ed)? connecting|connection refused|retry timeout|rpc error", re.IGNORECASE
)
_TOO_LARGE = re.compile(r"larger than max|exceeds? the max ?output|resource_?exhausted", re.IGNORECASE)
_EXISTS = re.compile(r"^(create duplicate )?collection .*(already exists|different parameters)", re.IGNORECASE)
_DENIED = re.compile(r"auth|password|permission|privilege|token", re.IGNORECASE)
_FULL = re.compile(r"no space left|disk quota|memory quota|quota exhausted", re.IGNORECASE)


# The message of a filter that was read and refused repeats parts of it, which may look like any other trouble.
_REFUSED = re.compile(r"pars(e|ing) expression|query plan|at column \d+", re.IGNORECASE)
ILLEGAL_ARGUMENT = 6
_REFUSED_BY_GRPC = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.UNIMPLEMENTED}


def _is_refusal(error: BaseException) -> bool:
    """Whether the client or the server refused what was asked, which is no outage."""
    if isinstance(error, grpc.RpcError):
        return error.code() in _REFUSED_BY_GRPC
    if isinstance(error, ParamError) or getattr(error, "code", None) == ILLEGAL_ARGUMENT:
        return True
    return isinstance(error, MilvusException) and bool(_REFUSED.search(str(error.message)))


class TooLarge(BackendError):
    """An answer does not fit in one message: ask for less at once."""


def first_line(error: BaseException) -> str:
    """One line of what the client says, without the expression it repeats."""
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name}: {redact(str(error.details()), foreign=True)[:300]}"
    text = error.message if isinstance(error, MilvusException) else str(error)
    text = redact(str(text), foreign=True).split("\n")[0].removeprefix("cannot parse expression: ")
    return text if len(text) <= 300 else f"{text[:140]} ... {text[-140:]}"


@dataclass(slots=True, weakref_slot=True, eq=False)
class LiteName:
    """One name in a folder of Milvus Lite, as all handles of this process share it.

    Lite takes one writer a collection at a time (`writer`), and neither looks nor waits while it makes or removes
    one: users hold `gate` shared, who makes, removes or first opens it holds it alone. `writer` is taken first.
    `made` counts what became of the name, so that a handle knows whether its collection is still the one there.
    `mirror` is the copy of its rows once there is one; False where there cannot be.
    """

    writer: threading.RLock = field(default_factory=threading.RLock)
    gate: SharedLock = field(default_factory=SharedLock)
    made: int = 0
    mirror: Mirror | Literal[False] | None = None

    @contextmanager
    def mirrored(self) -> Iterator[Mirror | Literal[False] | None]:
        """For a write: the mirror, which it has to follow. Where the write fails nobody knows what is stored."""
        try:
            yield self.mirror
        except BaseException:
            self.mirror = None
            raise
        if self.mirror and self.mirror.too_large:
            self.mirror = False


@dataclass(slots=True)
class LiteServer:
    """Milvus Lite's own server, serving one folder on a free loopback port of this process."""

    folder: Path
    grpc_server: Any
    database: Any
    port: int
    handles: int = 0
    # Kept as long as a handle or a call under way knows the name.
    names: WeakValueDictionary[str, LiteName] = field(default_factory=WeakValueDictionary)
    _naming: threading.Lock = field(default_factory=threading.Lock)

    open_servers: ClassVar[dict[Path, LiteServer]] = {}
    mutex: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def of(cls, folder: Path) -> LiteServer:
        """The server of a folder, started by the first handle. Raises `Unavailable`."""
        from milvus_lite.adapter.grpc.server import start_server_in_thread
        from milvus_lite.exceptions import DataDirLockedError, MilvusLiteError

        folder = folder.resolve()
        with cls.mutex:
            server = cls.open_servers.get(folder)
            if server is None:
                require_writable(folder, "Milvus Lite locks it, and starts a server over it")
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    server = cls(folder, *start_server_in_thread(str(folder), "127.0.0.1", 0))
                except DataDirLockedError:
                    raise Locked(
                        f"{folder} is in use by another process: Milvus Lite allows one at a time; close it there, "
                        "or serve several with a Milvus server and milvus://"
                    ) from None
                except (OSError, MilvusLiteError) as error:
                    raise Unavailable(f"cannot open the folder {folder} as Milvus Lite: {first_line(error)}") from error
                for leftover in server.collections.glob(f"{PREFIX}*"):
                    server.clear(leftover.name)
                cls.open_servers[folder] = server
            server.handles += 1
            return server

    @property
    def collections(self) -> Path:
        """Where Lite keeps the collections, a folder each."""
        return self.folder / "collections"

    def name(self, stored: str) -> LiteName:
        """What is shared about a name."""
        with self._naming:
            found = self.names.get(stored)
            if found is None:
                found = self.names[stored] = LiteName()
            return found

    def clear(self, stored: str) -> None:
        """Remove what a `create` or `drop` that was killed or failed has left: a folder that is no collection.

        Lite neither lists such a folder nor makes a collection where it is.
        """
        folder = self.collections / stored
        if folder.is_dir() and not (folder / "schema.json").exists():
            # What it still holds in memory of a collection that it could not remove.
            getattr(self.database, "_collections", {}).pop(("default", stored), None)
            shutil.rmtree(folder, ignore_errors=True)

    def release(self) -> None:
        """Give one handle back; the last one stops the server and frees the folder."""
        with self.mutex:
            self.handles -= 1
            if self.handles:
                return
            del self.open_servers[self.folder]
            self.grpc_server.stop(grace=5).wait()
            self.database.close()


def _after_fork() -> None:
    """The servers are the parent's, and so is whoever holds the lock: the child has none."""
    LiteServer.open_servers.clear()
    LiteServer.mutex = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Connection:
    """A client and its address; `call` turns what it raises into `BackendError`s.

    `address` is fit for messages: it holds no token. `timeout_s` bounds each call, with its retries and
    the wait for a collection that is being loaded.
    """

    def __init__(
        self, uri: str, address: str, remedy: str, *, token: str = "", database: str = "", timeout_s: float = CALL_S
    ) -> None:
        self.address, self.timeout_s, self._remedy = address, timeout_s, remedy
        self._closed = False
        claim_grpc()
        try:
            # A channel of our own, since the client shares one among equal addresses and closing is for all.
            self._client = MilvusClient(
                uri, token=token, db_name=database, timeout=min(CONNECT_S, timeout_s), dedicated=True
            )
        except (MilvusException, grpc.RpcError) as error:
            raise self._translated(error, "") from None
        try:
            self.version = str(self.call("", lambda client: client.get_server_version()))
        except BackendError:
            self.close()
            raise

    @classmethod
    def to(cls, url: str, *, within_s: float | None = None) -> Self:
        """The connection that a ``milvus://`` URL asks for, its time-out cut to `within_s`.

        Raises `Unavailable`, ValueError for a malformed URL.
        """
        parts = parse_server_url(url, "milvus", port=19530, known=("token", "database", "secure", "timeout"))
        timeout_s = float(parts.number("timeout", int(CALL_S), highest=86_400))
        host = parts.address.removeprefix("milvus://")
        return cls(
            f"{'https' if parts.flag('secure', default=False) else 'http'}://{host}",
            parts.address,
            REMEDY,
            token=parts.options.get("token") or os.environ.get("SIGHTLINE_MILVUS_TOKEN", ""),
            database=parts.options.get("database", ""),
            timeout_s=timeout_s if within_s is None else min(timeout_s, within_s),
        )

    def check_open(self) -> None:
        """Raise BackendError once closed."""
        if self._closed:
            raise BackendError(f"this store on {self.address} is closed: connect again")

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version of the server; (0, 0) for one that says something else."""
        found = re.match(r"v?(\d+)\.(\d+)", self.version)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def call(self, name: str, work: Callable[[MilvusClient], T], restart: Callable[[], None] | None = None) -> T:
        """Do `work` with the client; where the collection `name` is not loaded, `restart` it and wait.

        Raises `CollectionNotFound`, `Unavailable` or another `BackendError`.
        """
        deadline = time.monotonic() + self.timeout_s
        while True:
            self.check_open()
            try:
                return work(self._client)
            except (MilvusException, grpc.RpcError, ValueError) as error:
                if self._closed:
                    continue
                if isinstance(error, ValueError) and "closed channel" not in str(error):
                    raise
                if restart is None or time.monotonic() > deadline or not self._unloaded(error):
                    raise self._translated(error, name) from None
            restart()
            time.sleep(POLL_S)

    def _unloaded(self, error: BaseException) -> bool:
        return (
            isinstance(error, MilvusException)
            and (error.code in (101, 106, 503) or bool(_UNLOADED.search(str(error.message))))
            and error.code not in NOT_FOUND
        )

    def _translated(self, error: BaseException, name: str) -> BackendError:
        said = first_line(error)
        code = error.code if isinstance(error, MilvusException) else None
        if code in NOT_FOUND or "can't find collection" in said or "collection not found" in said:
            return CollectionNotFound(f"no collection {name!r} in {self.address}")
        if _EXISTS.search(said):
            return CollectionExists(f"collection {name!r} is already in {self.address}")
        if _is_refusal(error):
            return BackendError(f"{self.address} refuses what was asked: {said}")
        if _TOO_LARGE.search(said):
            return TooLarge(f"{self.address}: an answer is larger than a message may be: {said}")
        if _FULL.search(said):
            # Lite reads what it could not write from its log again, but only when it is opened.
            then = ", then open it again" if self.address.startswith("milvus-lite") else ""
            return Unavailable(f"{self.address} has no room left: {said}; free disk or memory there{then}")
        if _DENIED.search(said):
            return Denied(
                f"{self.address} refused the credentials: {said}; "
                "set SIGHTLINE_MILVUS_TOKEN to user:password or an API key"
            )
        if isinstance(error, grpc.RpcError) or not isinstance(code, int) or code == 2 or _AWAY.search(said):
            return Unavailable(f"{self.address} does not answer: {said}; {self._remedy}")
        return BackendError(f"{self.address} failed{f' on collection {name!r}' if name else ''}: {said}")

    def close(self) -> None:
        """Close the channel; calls under way end with `BackendError`."""
        if not self._closed:
            self._closed = True
            self._client.close()
