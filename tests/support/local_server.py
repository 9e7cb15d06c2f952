"""A real server for the whole test session, started from packages when the first test needs it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from filelock import FileLock, Timeout

from app.core.local_servers import Running, ServerError, down, up

#: One file for each server, held by the process that has it: other processes of tests wait for their turn.
LOCKS = Path(tempfile.gettempdir()) / f"sightline-test-servers-{os.getuid()}"
#: A turn may be that of all tests of a server.
TURN_S = 3600


def required() -> set[str]:
    """The engines that must have been tested: ``SIGHTLINE_TEST_REQUIRE=faiss,milvus``."""
    return {name.strip() for name in os.environ.get("SIGHTLINE_TEST_REQUIRE", "").split(",") if name.strip()}


def untested(wanted: Iterable[str], outcomes: Mapping[str, Mapping[str, int]]) -> set[str]:
    """Those engines of which no check passed; `outcomes` is how many checks came to what, by engine.

    One whose checks were all skipped, or failed, has not been tested.
    """
    return {scheme for scheme in wanted if not outcomes.get(scheme, {}).get("passed")}


class LocalServer:
    """A server of `app.core.local_servers`. Where it cannot be started its tests skip, or fail if it is required."""

    #: The servers that the running test says it needs, by name; None if it says that it needs none.
    marked: ClassVar[frozenset[str] | None] = None
    _all: ClassVar[list[LocalServer]] = []

    def __init__(self, name: str) -> None:
        self.name = name
        self._home: Path | None = None
        self._failed: str | None = None
        self._lock: FileLock | None = None
        self._all.append(self)

    def running(self) -> Running:
        """The running server, started again if it was killed; its key is in the environment then."""
        assert self.name in (self.marked or ()), (
            f"mark a test that starts {self.name} with pytest.mark.server({self.name!r})"
        )
        first = self._home is None
        if self._failed is None:
            self._take()
            try:
                running = up(self.name, self.folder())
            except ServerError as error:
                if not first:
                    raise
                # Said once for every test, not waited for by each.
                self._failed = str(error)
            else:
                os.environ.update(running.environment)
                return running
        if self.name in required():
            pytest.fail(f"{self.name} is required by SIGHTLINE_TEST_REQUIRE: {self._failed}")
        pytest.skip(self._failed)

    def kill(self) -> None:
        """End the server as a crash would."""
        down(self.name, self.folder(), kill=True)

    def folder(self) -> Path:
        """The folder the server lives in; removed, with the server stopped, when it is given up."""
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix=f"sl-{self.name}-"))
            atexit.register(self.give_up)
        return self._home

    def give_up(self) -> None:
        """Stop the server, remove what it holds, and let another process have its ports."""
        if self._home is not None:
            down(self.name, self._home, kill=True)
            shutil.rmtree(self._home, ignore_errors=True)
            atexit.unregister(self.give_up)
            self._home = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take(self) -> None:
        if self._lock is None:
            LOCKS.mkdir(exist_ok=True)
            lock = FileLock(LOCKS / f"{self.name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                # Who has it may be waiting for one that this process still has, of an earlier test.
                give_up_all_but(self.marked or frozenset())
                lock.acquire(timeout=TURN_S)
            self._lock = lock


def give_up_all_but(names: frozenset[str]) -> None:
    """Stop the servers that this process started, except `names`."""
    for server in LocalServer._all:
        if server.name not in names:
            server.give_up()
