"""Engines that break when threads race for a name, or when the process forks, for the conformance suite to catch."""

from __future__ import annotations

import os
import threading
import time

from backends.base import BackendError, CollectionExists, CollectionNotFound, Unavailable
from backends.exact.backend import ExactBackend
from tests.support.sample_engines import DurableBackend


class ForgetsThatOthersCreate(ExactBackend):
    """Looks whether the name is taken, and makes the collection in its own time."""

    def create(self, spec):
        if spec.name in self.collections():
            raise CollectionExists(spec.name)
        time.sleep(0.01)
        self._collections.pop(spec.name, None)
        super().create(spec)


class OneAtATime(ExactBackend):
    """Has room for one who creates, and tells the others that it is busy."""

    def __init__(self):
        super().__init__()
        self.making = threading.Lock()

    def create(self, spec):
        if not self.making.acquire(blocking=False):
            raise Unavailable("someone else is creating a collection: try again")
        try:
            time.sleep(0.05)
            super().create(spec)
        finally:
            self.making.release()


class CallsLateUsersAnOutage(ExactBackend):
    """Says that it is away to those whose collection was dropped while they used it."""

    def search(self, name, vectors, k, *, where=None, effort=None):
        if name not in self.collections():
            return super().search(name, vectors, k, where=where, effort=effort)
        time.sleep(0.001)
        try:
            return super().search(name, vectors, k, where=where, effort=effort)
        except CollectionNotFound as error:
            raise Unavailable("the file is not there: try again") from error


class LocksTwoWays(ExactBackend):
    """Drops with the store's lock before the writer's, and writes with the writer's before the store's."""

    def __init__(self):
        super().__init__()
        self.writer = threading.RLock()

    def drop(self, name):
        with self._lock, self.writer:
            super().drop(name)

    def upsert(self, name, records):
        with self.writer:
            time.sleep(0.001)
            super().upsert(name, records)


class RuinsTheName(DurableBackend):
    """Leaves what it stored of a collection that was dropped while it wrote, to be found when it is opened again."""

    def upsert(self, name, records):
        super().upsert(name, records)
        ExactBackend.drop(self, name)


class WorksInAChild(DurableBackend):
    """Does not see that the process has forked."""

    opened_by = property(lambda self: os.getpid(), lambda self, pid: None)


class HangsInAChild(WorksInAChild):
    """Waits for a lock that a thread of the parent holds."""

    def __init__(self):
        super().__init__()
        self.parent = os.getpid()

    def search(self, name, vectors, k, *, where=None, effort=None):
        if os.getpid() != self.parent:
            threading.Event().wait()
        return super().search(name, vectors, k, where=where, effort=effort)


class GivesUpItsParentsLock(WorksInAChild):
    """Closes in a child what its parent goes on to use."""

    def close(self):
        super().close()
        (self.folder / "lock").unlink(missing_ok=True)


class RefusesOnlySearches(WorksInAChild):
    """Half works and half does not."""

    def __init__(self):
        super().__init__()
        self.parent = os.getpid()

    def search(self, name, vectors, k, *, where=None, effort=None):
        if os.getpid() != self.parent:
            raise BackendError("this is another process")
        return super().search(name, vectors, k, where=where, effort=effort)
