"""The right to a folder: one open store in one process, until it is closed or killed; and a lock many may share."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from backends.errors import Locked, ReadOnly, Unavailable

_MAY_NOT_WRITE = (errno.EROFS, errno.EACCES, errno.EPERM)
_WORD = re.compile(r"[a-z][a-z-]{0,20}\Z")


def require_writable(folder: Path, reason: str) -> None:
    """Raise `ReadOnly` for a folder that is there and may not be written, with why the engine has to."""
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise ReadOnly(
            f"the folder {folder} may not be written, and {reason}: copy it to where it may be, "
            "or use the default engine, which only reads it for a search"
        )


class FolderLock:
    """An operating system lock on ``sightline.lock`` in a folder, so that a killed holder frees it.

    `rule` ends the message to who comes second: what the engine allows and what to do.
    ``sightline.pid`` beside the lock only names the holder in that message.
    """

    def __init__(self, folder: Path, rule: str) -> None:
        self.folder = folder
        self.rule = rule
        self.path = folder / "sightline.lock"
        self._pid_path = folder / "sightline.pid"
        self._lock: FileLock | None = None
        self._mutex = threading.Lock()

    def acquire(self) -> bool:
        """Make the folder and take the lock unless it is held already; whether it was taken now.

        Raises `Locked` naming the lock's file and who holds it, `ReadOnly` where the folder may not be written,
        `Unavailable` where it cannot be used for another reason.
        """
        with self._mutex:
            if self._lock is not None:
                return False
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.path, blocking=False, thread_local=False)
                lock.acquire()
            except Timeout:
                holder = self._holder()
                raise Locked(f"{self.path} is locked by {holder}: {self.rule}", holder) from None
            except OSError as error:
                kind = ReadOnly if error.errno in _MAY_NOT_WRITE else Unavailable
                raise kind(
                    f"cannot use the folder {self.folder}: {error.strerror or error}; choose one that may be written"
                ) from error
            self._lock = lock
            self._pid_path.write_text(f"{os.getpid()} {_program()}\n", encoding="ascii")
            return True

    def _holder(self) -> str:
        try:
            number, _, program = self._pid_path.read_text(encoding="ascii").strip().partition(" ")
            pid = int(number)
        except (OSError, ValueError):
            return "another process"
        if pid == os.getpid():
            return f"another store in this process (pid {pid})"
        return f"process {pid} ({program})" if program else f"process {pid}"

    def release(self) -> None:
        """Give the lock back; silent when it is not held."""
        with self._mutex:
            if self._lock is not None:
                self._pid_path.unlink(missing_ok=True)
                self._lock.release()
                self._lock = None


def _program() -> str:
    """What runs here, for people: ``sightline serve``. Never more of its arguments, which may be secret."""
    path = Path(sys.argv[0] if sys.argv else "")
    name = path.parent.name if path.stem == "__main__" else path.stem
    words = ["sightline" if name == "app" else name if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name) else "python"]
    if words == ["sightline"] and len(sys.argv) > 1 and _WORD.match(sys.argv[1]):
        words.append(sys.argv[1])
    return " ".join(words)


class SharedLock:
    """Held by many who use a thing, or alone by one who makes or removes it. Not reentrant.

    Who wants it alone goes before those who come later to share it, so that steady users cannot keep it out.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._users = 0
        self._waiting = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """A block in which the thing stays as it is."""
        with self._changed:
            while self._alone or self._waiting:
                self._changed.wait()
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block in which nobody else uses it."""
        with self._changed:
            self._waiting += 1
            try:
                while self._alone or self._users:
                    self._changed.wait()
            finally:
                self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class NameLocks:
    """A `SharedLock` for each name, kept as long as anyone holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, SharedLock] = WeakValueDictionary()
        self._mutex = threading.Lock()

    def of(self, name: str) -> SharedLock:
        """The lock of a name."""
        with self._mutex:
            found = self._locks.get(name)
            if found is None:
                found = self._locks[name] = SharedLock()
            return found
