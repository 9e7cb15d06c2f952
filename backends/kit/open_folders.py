"""What a process has open of the folders of an engine in process: one thing for all stores of a folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from backends.errors import Unavailable

T = TypeVar("T")


class Shared(Generic[T]):
    """A folder's `value`, until the last of those who acquired it releases it."""

    def __init__(self, place: Path, value: T) -> None:
        self.place, self.value = place, value
        self.users = 0


class OpenFolders(Generic[T]):
    """What is open of each folder: opened by the first who acquires it, closed with the last who releases it.

    A forked child has nothing open. What it was given by its parent is the parent's.
    """

    def __init__(self, opened: Callable[[Path], T], close: Callable[[T], None]) -> None:
        self._opened, self._close = opened, close
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._mutex = threading.Lock()
        # Weakly, so that a store that nobody closed, and nobody has, keeps no folder from other processes.
        self._shared: WeakValueDictionary[Path, Shared[T]] = WeakValueDictionary()

    def acquire(self, folder: Path) -> Shared[T]:
        """What is open of this folder, which is told by its real path. Raises what opening it raises."""
        try:
            place = folder.resolve()
        except OSError as error:
            raise Unavailable(f"cannot use the folder {folder}: {error.strerror or error}") from error
        with self._mutex:
            shared = self._shared.get(place)
            if shared is None:
                shared = self._shared[place] = Shared(place, self._opened(folder))
            shared.users += 1
            return shared

    def release(self, shared: Shared[T]) -> None:
        """Give it back; to be called once by each who acquired it."""
        with self._mutex:
            shared.users -= 1
            if shared.users:
                return
            self._shared.pop(shared.place, None)
            self._close(shared.value)
