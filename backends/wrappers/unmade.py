"""A store in a folder that is not there: it has no collections, and the first one makes it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from backends.base import Backend, BackendError, Capabilities, CollectionNotFound, CollectionSpec
from backends.wrappers.base import Wrapper


class UnmadeStore(Wrapper):
    """The store that `opened` makes, which is called when a collection is created or the folder is there.

    Until then nothing is written, and nothing is found: who mistypes a folder's name is told so and leaves none behind.
    """

    def __init__(self, opened: Callable[[], Backend], folder: Path, place: str, capabilities: Capabilities) -> None:
        self.capabilities = capabilities  # type: ignore[misc]
        self.place = place
        self._opened, self._folder = opened, folder
        self._store: Backend | None = None
        self._closed = False
        self._mutex = threading.Lock()

    def _if_there(self, *, make: bool = False) -> Backend | None:
        """The store, opened if its folder is there by now, or made; else None."""
        with self._mutex:
            if self._closed:
                raise BackendError(f"the store {self.place} is closed: connect again")
            if self._store is None and (make or self._folder.exists()):
                self._store = self._opened()
                self.capabilities = self._store.capabilities  # type: ignore[misc]
            return self._store

    @property
    def inner(self) -> Backend:  # type: ignore[override]
        """The store. Raises `CollectionNotFound` where there is none."""
        store = self._if_there()
        if store is None:
            raise CollectionNotFound(f"there is no such collection, as there is no folder {self._folder} yet")
        return store

    def collections(self) -> list[str]:
        store = self._if_there()
        return [] if store is None else store.collections()

    def create(self, spec: CollectionSpec) -> None:
        store = self._if_there(make=True)
        assert store is not None
        store.create(spec)

    def drop(self, name: str) -> None:
        store = self._if_there()
        if store is not None:
            store.drop(name)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            store, self._store = self._store, None
        if store is not None:
            store.close()
