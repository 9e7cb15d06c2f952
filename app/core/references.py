"""Which stores may hold records that name an uploaded file, and who is using it now: one SQLite file in the home.

Every change is one transaction under SQLite's write lock, which counts for all threads and processes that use the
home and is let go when one is killed. So a file that is wanted is never removed by who looked a moment ago.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

WAIT_S = 20.0
#: No request or write holds a file so long: its process hangs, or ran on another machine and died.
DEAD_AFTER_S = 6 * 3600.0
_TABLES = """
CREATE TABLE IF NOT EXISTS users (
    claim INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL, store TEXT NOT NULL, UNIQUE (file, store)
);
CREATE TABLE IF NOT EXISTS holds (
    token TEXT NOT NULL, file TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, since_s REAL NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (token, file)
);
"""

Outcome: TypeAlias = Literal["removed", "kept", "changed"]


class ReferencesError(Exception):
    """The file of references cannot be used: one line that says why. Nothing may be removed then."""


class References:
    """What is known of files, each called by a name; stores by theirs. Thread-safe, and of several processes.

    A store that took a file *uses* it until `remove` is told that it does not any more. A *hold* is of a request or
    write that is going on: it keeps the file, whatever the stores hold meanwhile. Raises `ReferencesError`.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        # Threads of one process wait here, in their order, rather than at SQLite, which has them try again and again.
        self._mutex = threading.Lock()

    def take(self, token: str, store: str, files: Iterable[str]) -> None:
        """Hold the files, and note that `store` uses them; both are on disk when this returns."""
        host, pid, now_s = socket.gethostname(), os.getpid(), time.time()
        with self._changing() as db:
            for file in files:
                # Anew each time, with a number that was never there: `remove` sees that somebody came.
                db.execute("INSERT OR REPLACE INTO users (file, store) VALUES (?, ?)", (file, store))
                db.execute(
                    "INSERT OR IGNORE INTO holds (token, file, host, pid, since_s) VALUES (?, ?, ?, ?, ?)",
                    (token, file, host, pid, now_s),
                )

    def give_back(self, token: str) -> list[str]:
        """End a hold; returns the files that somebody wanted to remove meanwhile."""
        with self._changing() as db:
            asked = db.execute("SELECT file FROM holds WHERE token = ? AND asked", (token,)).fetchall()
            db.execute("DELETE FROM holds WHERE token = ?", (token,))
        return [file for (file,) in asked]

    def claim(self, file: str, store: str) -> int | None:
        """The number of the store's last claim to a file; None for one that it does not use."""
        if not self.file.exists():
            return None
        with self._changing() as db:
            row = db.execute("SELECT claim FROM users WHERE file = ? AND store = ?", (file, store)).fetchone()
        return None if row is None else int(row[0])

    def used_by(self, store: str) -> list[str]:
        """The files that a store uses."""
        if not self.file.exists():
            return []
        with self._changing() as db:
            return [file for (file,) in db.execute("SELECT file FROM users WHERE store = ? ORDER BY file", (store,))]

    def remove(self, file: str, store: str, claim: int | None, unlink: Callable[[], None]) -> Outcome:
        """Say that `store` does not use the file, and remove it if nobody else does or holds it.

        claim: what `claim` gave before the store was looked through; "changed" if it has another by now, so that
        it is to be looked through again.
        """
        with self._changing() as db:
            if db.execute("UPDATE holds SET asked = 1 WHERE file = ?", (file,)).rowcount:
                return "kept"
            row = db.execute("SELECT claim FROM users WHERE file = ? AND store = ?", (file, store)).fetchone()
            if (None if row is None else int(row[0])) != claim:
                return "changed"
            db.execute("DELETE FROM users WHERE file = ? AND store = ?", (file, store))
            if db.execute("SELECT 1 FROM users WHERE file = ? LIMIT 1", (file,)).fetchone():
                return "kept"
            # Within the transaction: who takes the file next finds it gone, and writes it again.
            unlink()
            return "removed"

    def forget_dead(self) -> list[str]:
        """End the holds of processes that ended, and the stores in their memory; returns the files of these stores."""
        if not self.file.exists():
            return []
        host, now_s = socket.gethostname(), time.time()
        with self._changing() as db:
            rows = db.execute("SELECT DISTINCT token, host, pid, since_s FROM holds").fetchall()
            for token, its_host, pid, since_s in rows:
                if now_s - since_s > DEAD_AFTER_S or (its_host == host and not _lives(pid)):
                    db.execute("DELETE FROM holds WHERE token = ?", (token,))
            stores = db.execute("SELECT DISTINCT store FROM users WHERE store GLOB 'memory *'").fetchall()
            dead = [(store,) for (store,) in stores if _is_dead(store, host)]
            files = [row for each in dead for row in db.execute("SELECT file FROM users WHERE store = ?", each)]
            db.executemany("DELETE FROM users WHERE store = ?", dead)
        return [file for (file,) in files]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else writes beside; undone when the block raises."""
        with self._mutex:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.closing(sqlite3.connect(self.file, timeout=WAIT_S, isolation_level=None)) as db:
                    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'holds'").fetchone():
                        db.executescript(_TABLES)
                    db.execute("BEGIN IMMEDIATE")
                    try:
                        yield db
                    except BaseException:
                        db.execute("ROLLBACK")
                        raise
                    db.execute("COMMIT")
            except sqlite3.Error as error:
                raise ReferencesError(f"{self.file} cannot be used: SQLite says {error}") from error
            except OSError as error:
                raise ReferencesError(f"{self.file} cannot be used: {error.strerror or error}") from error


def new_token() -> str:
    """The name of a hold."""
    return secrets.token_hex(8)


def memory_store() -> str:
    """The name of a store in this process's memory, which ends with it."""
    return f"memory {os.getpid()} {secrets.token_hex(8)} {socket.gethostname()}"


def _is_dead(store: str, host: str) -> bool:
    _, pid, _, its_host = store.split(" ", 3)
    return its_host == host and not _lives(int(pid))


def _lives(pid: int) -> bool:
    if os.name == "nt":
        # There no signal only asks.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
