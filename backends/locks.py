"""The right to a folder: one open store in one process, until it is closed or killed."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from backends.errors import Locked, Unavailable

_WORD = re.compile(r"[a-z][a-z-]{0,20}\Z")


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

        Raises `Locked` naming the lock's file and who holds it, `Unavailable` where the folder cannot be used.
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
                raise Unavailable(f"cannot use the folder {self.folder}: {error.strerror or error}") from error
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
