"""Working on a collection that others may drop, or drop and make anew, at any moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from backends.errors import CollectionNotFound

H = TypeVar("H")
T = TypeVar("T")

ATTEMPTS = 10


def on_current(
    name: str,
    place: object,
    find: Callable[[], H],
    task: Callable[[H], T],
    is_stale: Callable[[H, Exception], bool],
) -> T:
    """Do `task` on what is known of a collection; if that is out of date, again on the collection that is there now.

    Args:
        name: the collection, and `place` where it is, for the message.
        find: what is remembered of it, or what is there now. Raises `CollectionNotFound`.
        task: may be done again, so it must not have used up what it was given.
        is_stale: whether the task failed on this handle because it is out of date. It sees to it that `find` then
            gives a fresh one. A task that was refused for another reason is not repeated.

    Raises `CollectionNotFound` where others drop and make it faster than it can be used.
    """
    cause: Exception | None = None
    for _ in range(ATTEMPTS):
        handle = find()
        try:
            return task(handle)
        except Exception as error:
            if not is_stale(handle, error):
                raise
            cause = error
    raise CollectionNotFound(f"collection {name!r} in {place} was dropped meanwhile") from cause


class Remembered(Generic[H]):
    """What is known of each collection of a store, so that not every call has to ask for it.

    `read` gives it as it is now, and raises `CollectionNotFound`.
    """

    def __init__(self, read: Callable[[str], H]) -> None:
        self._read = read
        self._known: dict[str, H] = {}

    def find(self, name: str) -> H:
        """What is remembered, or what is there now."""
        known = self._known.get(name)
        return self.now(name) if known is None else known

    def now(self, name: str) -> H:
        """What is there now."""
        self.forget(name)
        return self.put(name, self._read(name))

    def put(self, name: str, handle: H) -> H:
        """Remember this of a collection."""
        self._known[name] = handle
        return handle

    def forget(self, name: str) -> None:
        """Ask for the collection when it is used next."""
        self._known.pop(name, None)
