"""A store belongs to the process that opened it: what a forked child of that process may do with it.

Of a fork the child gets memory, files and sockets, but no thread other than the one that forked, and every lock
as it was at that moment, held for ever by threads that are not there. An engine's threads, its connections and its
locks are therefore of no use in the child, and what it wrote or released there would be its parent's. So every call
is refused before it touches any of them, and `close` does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

from backends.errors import BackendError, Unavailable

F = TypeVar("F", bound=Callable[..., Any])

# gRPC reads it when it is imported, which is after this module. Left out, gRPC for Python says that it does not support
# forks, but stops its threads before each and starts others after it, in parent and child, and one in some hundreds of
# children hung in that. A program that has set it knows why.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# The process in which a store of ours first opened a gRPC channel.
_grpc_process: int | None = None


def check_process(opened_by: int) -> None:
    """Raise `BackendError` in any other process than the one that opened the store."""
    if os.getpid() != opened_by:
        raise BackendError(
            f"this store was opened by process {opened_by}, and this is process {os.getpid()}, forked from it: "
            "open one here, with connect"
        )


def claim_grpc() -> None:
    """To be called before each gRPC channel is opened: raise `Unavailable` where it would hang.

    gRPC's own threads are not there after a fork, and a channel that the child opens waits for them for ever.
    """
    global _grpc_process
    here = os.getpid()
    if _grpc_process not in (None, here):
        raise Unavailable(
            f"process {_grpc_process} used gRPC before it forked this process {here}, where gRPC would hang: connect "
            "after forking only, or start processes by 'spawn'"
        )
    _grpc_process = here


def refused_after_fork(method: F) -> F:
    """A method of a `Backend` that raises `BackendError` in a process that did not open it."""

    @wraps(method)
    def guarded(self: Any, *arguments: Any, **options: Any) -> Any:
        check_process(self.opened_by)
        return method(self, *arguments, **options)

    return guarded  # type: ignore[return-value]


def refused_page_by_page(method: F) -> F:
    """The same for a generator, which may have been begun before the fork."""

    @wraps(method)
    def guarded(self: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        check_process(self.opened_by)
        for page in method(self, *arguments, **options):
            yield page
            check_process(self.opened_by)

    return guarded  # type: ignore[return-value]


def silent_after_fork(method: F) -> F:
    """`close`, which in a process that did not open the store leaves everything to the one that did."""

    @wraps(method)
    def guarded(self: Any) -> None:
        if os.getpid() == self.opened_by:
            method(self)

    return guarded  # type: ignore[return-value]
