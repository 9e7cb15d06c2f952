"""`watch`: keep a collection in step with a folder, for as long as it is asked to.

Changes are told by the operating system. When nothing has changed for a moment, `index` brings the collection up to
date, with a prune; nothing else writes to it, so that whatever is interrupted in whatever way is caught up with by the
next run, and the end state is that of a fresh index. A file that something is still being written to waits: what is
stored of it stays until it has been left alone, and a half of a picture that does not decode is never stored.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from backends.base import Backend
from backends.errors import Denied, Locked, ReadOnly, Unavailable
from indexers.files import display
from indexers.report import IndexingError, IndexReport, NothingListed
from indexers.rules import IGNORE_NAME
from indexers.run import index
from indexers.sources import Listing, Source, open_source
from retrieval.encoders.base import Encoder

#: How long a file must be left alone.
SETTLE_S = 1.0
#: Changes that do not end are looked at nevertheless, so often.
LONGEST_WAIT_S = 10.0
#: All is compared so often, for what nobody tells: network drives, mostly.
EVERY_S = 600.0
RETRY_S = (2.0, 5.0, 10.0, 30.0, 60.0)
_POLL_S = 0.1
_READY_MS = 50


class FolderChanges:
    """Tells when a folder has changed and been left alone again. A context manager; `stop` ends every wait.

    Raises `IndexingError` where the system cannot tell.
    """

    def __init__(self, root: Path, stop: threading.Event, *, settle_s: float = SETTLE_S) -> None:
        self._root, self._stop, self._settle_s = root, stop, settle_s
        self._changed = threading.Condition()
        self._seen: dict[str, float] = {}
        self._first: float | None = None
        self._last = 0.0
        self._error: Exception | None = None
        self._ready, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> FolderChanges:
        self._thread.start()
        self._ready.wait()
        self._check()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        from watchfiles import watch

        try:
            changes = watch(
                self._root,
                watch_filter=self._concerns,
                debounce=400,
                stop_event=_Either(self._stop, self._ended),
                rust_timeout=_READY_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                ignore_permission_denied=True,
            )
            for some in changes:
                self._tell([path for _, path in some])
                self._ready.set()
        except (OSError, RuntimeError) as error:
            self._error = error
        finally:
            self._ready.set()
            with self._changed:
                self._changed.notify_all()

    def _concerns(self, _: Any, path: str) -> bool:
        try:
            parts = Path(path).relative_to(self._root).parts
        except ValueError:
            return True
        return parts[-1:] == (IGNORE_NAME,) or not any(part.startswith(".") for part in parts)

    def _tell(self, paths: list[str]) -> None:
        if not paths:
            return
        with self._changed:
            now = time.monotonic()
            self._seen |= dict.fromkeys(paths, now)
            self._first = now if self._first is None else self._first
            self._last = now
            self._changed.notify_all()

    def again(self) -> None:
        """Take the folder for changed: something was left for later."""
        self._tell([str(self._root)])

    def is_settling(self, path: str) -> bool:
        """Whether something has written to a file, by its whole path, a moment ago."""
        with self._changed:
            seen = self._seen.get(path)
            return seen is not None and time.monotonic() - seen < self._settle_s

    def wait(self, longest_s: float) -> bool:
        """Return when the folder has changed and is left alone, or changes for long; False after a time without.

        Also when `stop` is set. Raises `IndexingError` where the system has ceased to tell.
        """
        end = time.monotonic() + longest_s
        while not self._stop.is_set():
            self._check()
            with self._changed:
                now = time.monotonic()
                quiet = now - self._last >= self._settle_s
                if self._first is not None and (quiet or now - self._first >= LONGEST_WAIT_S):
                    self._first = None
                    old = now - self._settle_s
                    self._seen = {path: seen for path, seen in self._seen.items() if seen >= old}
                    return True
                if now >= end and self._first is None:
                    return False
                self._changed.wait(_POLL_S)
        return False

    def _check(self) -> None:
        if self._error is not None:
            raise IndexingError(
                f"{display(str(self._root))} cannot be watched: {self._error}; where its changes are not told, set "
                "WATCHFILES_FORCE_POLLING=1, or run index from time to time"
            )


@dataclass(frozen=True, slots=True)
class _Either:
    """Set when one of two events is."""

    one: threading.Event
    other: threading.Event

    def is_set(self) -> bool:
        return self.one.is_set() or self.other.is_set()


@dataclass(frozen=True, slots=True)
class _Settled(Source):
    """A source without the files that are being written to, of which what is stored stays."""

    is_settling: Callable[[str], bool] = field(default=lambda _: False)
    left: list[str] = field(default_factory=list)

    def listing(self, stop: threading.Event | None = None) -> Listing:
        """As that of any source, without them."""
        found = Source.listing(self, stop)
        self.left[:] = [entry.path for entry in found.entries if self.is_settling(str(self.root / entry.path))]
        if not self.left:
            return found
        unsettled = set(self.left)
        kept = [entry for entry in found.entries if entry.path not in unsettled]
        return replace(found, entries=kept, unread=[*found.unread, *self.left])


def watch(
    path: str | Path,
    backend: Backend,
    encoder: Encoder,
    collection: str,
    *,
    stop: threading.Event,
    told: Callable[[IndexReport], None] = lambda _: None,
    trouble: Callable[[str], None] = lambda _: None,
    settle_s: float = SETTLE_S,
    every_s: float = EVERY_S,
    **options: Any,
) -> None:
    """Bring `collection` up to date with a folder now, and whenever it changes, until `stop` is set.

        watch("photos", backend, load_encoder("compact"), "photos", stop=threading.Event())

    Args:
        path: the folder.
        stop: ends it after the picture in hand; what is embedded by then is stored.
        told: given the report of each run.
        trouble: given a line on why it waits: a database that is away, or a folder that is empty, as one not mounted.
        settle_s: how long a file must be left alone before it is read.
        every_s: how often all is compared, whatever is told.
        options: those of `index`, but `prune`, which is always done, and `prune_empty`, which never is.

    Raises:
        IndexingError: no folder, or one that cannot be watched; and of the first run what `index` raises.
    """
    source = open_source(path)
    if source.kind != "folder":
        raise IndexingError(f"{source.name} is no folder: only folders can be watched")
    with FolderChanges(source.root, stop, settle_s=settle_s) as changes:
        given = {each.name: getattr(source, each.name) for each in fields(source)}
        settled = _Settled(**given, is_settling=changes.is_settling)
        run = partial(index, settled, backend, encoder, collection, stop=stop, prune=True, **options)
        waits: Iterator[float] = iter(RETRY_S)
        is_first = True
        while not stop.is_set():
            try:
                told(run())
                waits = iter(RETRY_S)
            except IndexingError as error:
                is_empty = isinstance(error, NothingListed) or _is_empty(source)
                if not (is_empty or (_is_away(error) and not is_first)):
                    raise
                trouble(str(error))
                if stop.wait(next(waits, RETRY_S[-1])):
                    return
                changes.again()
            is_first = False
            if settled.left:
                changes.again()
            changes.wait(every_s)


def _is_away(error: IndexingError) -> bool:
    """Whether a database was away, so that the same run may succeed later."""
    cause = error.__cause__
    return isinstance(cause, Unavailable) and not isinstance(cause, (Denied, Locked, ReadOnly))


def _is_empty(source: Source) -> bool:
    """Whether the folder is gone or has nothing in it, as that of a disk which is not mounted."""
    with contextlib.suppress(OSError):
        return next(source.root.iterdir(), None) is None
    return True
