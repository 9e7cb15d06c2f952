"""The right to a folder: one open store in one process, until it is closed or killed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from backends.errors import Unavailable


def require_writable(folder: Path, reason: str) -> None:
    """Raise `Unavailable` for a folder that is there and may not be written, with why the engine has to."""
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise Unavailable(
            f"the folder {folder} may not be written, and {reason}: copy it to where it may be, "
            "or use faiss://, which only reads it for a search"
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

        Raises `Unavailable` naming the lock's file and who holds it.
        """
        with self._mutex:
            if self._lock is not None:
                return False
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.path, blocking=False, thread_local=False)
                lock.acquire()
            except Timeout:
                raise Unavailable(f"{self.path} is locked by {self._holder()}: {self.rule}") from None
            except OSError as error:
                raise Unavailable(
                    f"cannot use the folder {self.folder}: {error.strerror or error}; choose one that may be written"
                ) from error
            self._lock = lock
            self._pid_path.write_text(f"{os.getpid()}\n", encoding="ascii")
            return True

    def _holder(self) -> str:
        try:
            pid = int(self._pid_path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return "another process"
        return f"another store in this process (pid {pid})" if pid == os.getpid() else f"process {pid}"

    def release(self) -> None:
        """Give the lock back; silent when it is not held."""
        with self._mutex:
            if self._lock is not None:
                self._pid_path.unlink(missing_ok=True)
                self._lock.release()
                self._lock = None
