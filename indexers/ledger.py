"""A cache of content hashes in SQLite, so that files that did not change are not read again.

Truth lives in the backend: the ledger never says what is stored, only what a file's content was when its
size, times and inode were as they are now. Losing, deleting or sharing it between collections changes
how long a run takes, never its result.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from indexers.files import Stamp
from indexers.report import IndexingError

#: Written into every row; raise it when what is stored in `facts` or how it is measured changes.
FACTS_VERSION = 2
#: A file touched this shortly before it was read may change again within one tick of its clock (the
#: "racily clean" entries of git's index; FAT counts in two seconds), so it is not trusted but read again.
RACY_NS = 2_000_000_000
APPLICATION_ID = 0x534C4E31
_TABLE = """CREATE TABLE IF NOT EXISTS files (
    root BLOB NOT NULL, path BLOB NOT NULL, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, inode BLOB NOT NULL, read_ns INTEGER NOT NULL, version INTEGER NOT NULL,
    facts TEXT NOT NULL, PRIMARY KEY (root, path)) WITHOUT ROWID"""


class Ledger:
    """Facts about files by root and path; thread-safe, a context manager.

    Raises `IndexingError` for a file that is no ledger. A ledger locked by another run is left alone:
    what it would have saved is read again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=5, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise IndexingError(f"the ledger {path} cannot be opened: {error}") from error
        try:
            known = self._db.execute("PRAGMA application_id").fetchone()[0]
            tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if known != APPLICATION_ID and tables:
                raise IndexingError(f"{path} is another program's database, not a ledger: name another file")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self._db.execute(_TABLE)
            self._db.commit()
        except sqlite3.Error as error:
            self._db.close()
            raise IndexingError(
                f"the ledger {path} is not usable ({error}): if it is one, delete it, which only costs re-reading"
            ) from error
        except IndexingError:
            self._db.close()
            raise

    def get(self, root: Path, path: str, stamp: Stamp) -> str | None:
        """The facts of the file if it is still the one that was read, else None."""
        row = None
        with self._lock:
            try:
                row = self._db.execute(
                    "SELECT size_bytes, mtime_ns, ctime_ns, inode, read_ns, version, facts FROM files"
                    " WHERE root = ? AND path = ?",
                    (os.fsencode(root), os.fsencode(path)),
                ).fetchone()
            except sqlite3.OperationalError:
                return None
        if row is None or row[5] != FACTS_VERSION:
            return None
        if (row[0], row[1], row[2], row[3]) != (stamp.size_bytes, stamp.mtime_ns, stamp.ctime_ns, _blob(stamp.inode)):
            return None
        if row[4] - max(stamp.mtime_ns, stamp.ctime_ns) < RACY_NS:
            return None
        return str(row[6])

    def put(self, root: Path, rows: Iterable[tuple[str, Stamp, int, str]]) -> None:
        """Remember (path, stamp, time of reading in ns, facts) of files, in one transaction."""
        values = [
            (
                os.fsencode(root),
                os.fsencode(path),
                stamp.size_bytes,
                stamp.mtime_ns,
                stamp.ctime_ns,
                _blob(stamp.inode),
                read_ns,
                FACTS_VERSION,
                facts,
            )
            for path, stamp, read_ns, facts in rows
        ]
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def keep_only(self, root: Path, paths: Collection[str]) -> None:
        """Forget the files of `root` that are not in `paths`."""
        kept = {os.fsencode(path) for path in paths}
        with self._lock:
            try:
                known = self._db.execute("SELECT path FROM files WHERE root = ?", (os.fsencode(root),))
                gone = [(os.fsencode(root), path) for (path,) in known if path not in kept]
            except sqlite3.OperationalError:
                return
        self._write("DELETE FROM files WHERE root = ? AND path = ?", gone)

    def _write(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        if not rows:
            return
        with self._lock:
            try:
                with self._db:
                    self._db.executemany(sql, rows)
            except sqlite3.OperationalError:
                # Locked, or the disk is full: only a cache is not written.
                return

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _blob(number: int) -> bytes:
    """An inode number as bytes: some file systems use all 64 bits, unsigned, and more."""
    return number.to_bytes(16, "little", signed=False)
