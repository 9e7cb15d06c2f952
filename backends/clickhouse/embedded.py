"""``chdb:///dir``: ClickHouse's engine in process, its files in a folder that one process at a time has open.

The engine has one folder open in a process. Several stores of one process take turns: who needs another folder waits
until nobody is in the one that is open, closes it and opens the other, in about 60 ms.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

# Imported here, so that its absence is told with the extra to install; the client imports it only when it is used.
import chdb  # noqa: F401
from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from backends.base import Capabilities
from backends.clickhouse.backend import ClickHouseStore
from backends.clickhouse.connection import Connected, explain, first_line, is_busy, quoted
from backends.clickhouse.dialects import ClickHouse
from backends.errors import Unavailable
from backends.kit.again import until_it_passes
from backends.kit.open_folders import OpenFolders
from backends.locks import FolderLock, require_writable
from backends.urls import parse_folder_url

T = TypeVar("T")

RULE = "chDB allows one process a folder: close that one first, or run a ClickHouse server"
DATABASE = "sightline"
_DATA = "chdb"


class _Engine:
    """The engine of this process: the folder that it has open, how many are in it, and who waits for another."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._path: Path | None = None
        self._users = 0
        self._queue: deque[object] = deque()
        self._idle: list[Client] = []
        self._open: list[Client] = []
        self._process: int | None = None

    @contextmanager
    def client(self, path: Path) -> Iterator[Client]:
        """A client of the engine on this folder, for one call; each serves one thread at a time."""
        self._check_process()
        self._enter(path)
        client = None
        try:
            client = self._take() or self._opened(path)
            yield client
        finally:
            with self._changed:
                if client is not None:
                    self._idle.append(client)
                self._users -= 1
                self._changed.notify_all()

    def _check_process(self) -> None:
        if self._process is None:
            self._process = os.getpid()
            atexit.register(self._at_exit)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._after_fork)
        if os.getpid() != self._process:
            raise Unavailable(
                f"process {self._process} used chDB before it forked this process {os.getpid()}, where it would hang: "
                "connect after forking only, or start processes by 'spawn'"
            )

    def _enter(self, path: Path) -> None:
        """Wait for one's turn, in the order of arrival, so that a busy store cannot keep another one out."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or (self._users and self._path != path):
                    self._changed.wait()
            except BaseException:
                # Who is interrupted leaves the queue, in which nobody behind would ever come first.
                self._queue.remove(ticket)
                self._changed.notify_all()
                raise
            self._queue.popleft()
            if self._path != path:
                self._release()
                self._path = path
            self._users += 1
            self._changed.notify_all()

    def _take(self) -> Client | None:
        with self._changed:
            return self._idle.pop() if self._idle else None

    def _opened(self, path: Path) -> Client:
        client = get_client(interface="chdb", path=str(path), query_limit=0)
        with self._changed:
            self._open.append(client)
        return client

    def _release(self) -> None:
        while self._idle:
            client = self._idle.pop()
            client.close()
            self._open.remove(client)
        self._path = None

    def let_go(self, path: Path) -> None:
        """Close the folder, if it is the one that is open, once nobody is in it."""
        with self._changed:
            while self._users and self._path == path:
                self._changed.wait()
            if self._path == path:
                self._release()

    def _at_exit(self) -> None:
        """Close what is open: the engine complains, when Python ends, of what is not."""
        if os.getpid() == self._process:
            with self._changed:
                if not self._users:
                    self._release()

    def _after_fork(self) -> None:
        """See to it that a child ends: the engine's own end waits for threads that the child does not have.

        So its connections are never closed there, and once Python has ended the process ends without the engine's part.
        """
        if not self._open:
            return
        for client in self._open:
            backend: Any = client._backend
            backend._release.detach()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend._handle.conn))
        libc = ctypes.CDLL(None)
        if hasattr(libc, "on_exit"):
            libc.on_exit(libc._exit, None)


_engine = _Engine()


class _ChdbFolder:
    """What this process has of a folder: its lock, and who writes to which collection, by whatever store of it."""

    def __init__(self, folder: Path) -> None:
        self.writers: dict[str, threading.RLock] = {}
        require_writable(folder, "chDB locks it, and writes to it when it is opened")
        self._path = folder.resolve() / _DATA
        self._lock = FolderLock(folder, RULE)
        self._lock.acquire()

    def close(self) -> None:
        """Let go of the files, then free the folder."""
        try:
            _engine.let_go(self._path)
        finally:
            self._lock.release()


_folders = OpenFolders(_ChdbFolder, _ChdbFolder.close)


class Folder(Connected):
    """The database of a folder."""

    def __init__(self, folder: Path) -> None:
        self.address = f"chdb://{folder}"
        self.name = DATABASE
        self._shared = _folders.acquire(folder)
        self._path, self.writers = self._shared.place / _DATA, self._shared.value.writers
        try:
            self.execute(f"CREATE DATABASE IF NOT EXISTS {quoted(self.name)}")
        except BaseException:
            self.close()
            raise

    @contextmanager
    def client(self) -> Iterator[Client]:
        self.check_open()
        try:
            with _engine.client(self._path) as client:
                yield client
        except (ClickHouseError, OSError) as error:
            said = first_line(error)
            if "EmbeddedServer" in said:
                raise Unavailable(f"chDB cannot open {self.address}: another program has it open ({said})") from error
            raise explain(error, self.address) from error

    def run(self, work: Callable[[], T]) -> T:
        self.check_open()
        return until_it_passes(work, is_busy)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            _folders.release(self._shared)


class ChdbBackend(ClickHouseStore):
    """ClickHouse's engine in process."""

    capabilities: ClassVar[Capabilities] = ClickHouseStore.offered(server=False, concurrent_writers=False)

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open the folder that the URL names, ``chdb:///abs/dir`` or ``chdb://./relative/dir``; it is made if need be.

        ValueError for a URL of another form, `Unavailable` when another process has the folder open or it cannot be
        written.
        """
        return cls(Folder(parse_folder_url(url, "chdb").absolute()), ClickHouse())
