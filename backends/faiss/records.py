"""Rows of a ``faiss://`` collection in SQLite: schema, connections, what is stored and taken away.

One writer process and any number of readers share ``store.sqlite3`` in WAL mode with
``synchronous=FULL``: a commit is on the disk when it returns. `fields` is a covering index over
metadata for filters (see `backends.faiss.filters`), `keywords` an FTS5 index, without content of its own,
over the words that `backends.text` says an item has; see `backends.faiss.keywords`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from backends.base import CollectionSpec, Modality, Record
from backends.checks import plain_metadata
from backends.errors import BackendError, Corrupt, Unavailable
from backends.filters import MetadataValue, kind_of
from backends.kit.json_text import decode_metadata, encode
from backends.kit.sqlite_errors import is_refusal
from backends.kit.stored_records import stored_record
from backends.text import WORDS_VERSION, searched_text, tokenize

FORMAT = 3
# The same, but with words of version 1 in a table of another name; `backends.faiss.keywords` brings it up to date.
OLD_FORMAT = 2
APPLICATION_ID = 0x53494C54
STORE = "store.sqlite3"
CHUNK = 500
#: Connections kept for the next use: each may hold 16 MiB of pages, and a service has a thread for each request.
MAX_IDLE = 8
COLUMNS = "row, id, modality, text, uri, metadata"
_ITEMS = f"SELECT {COLUMNS} FROM items WHERE"  # noqa: S608 - constants
_ITEMS_AT_VERSION = f"SELECT {COLUMNS}, (SELECT version FROM state) FROM items WHERE row"  # noqa: S608
# This tokenizer takes words apart at ASCII's spaces and signs only, and changes none.
KEYWORDS = "CREATE VIRTUAL TABLE keywords USING fts5(text, content = '', tokenize = \"ascii tokenchars '_'\")"
SCHEMA = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA journal_mode = WAL;
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, spec TEXT NOT NULL,
    version INTEGER NOT NULL, generation INTEGER NOT NULL, positions INTEGER NOT NULL,
    live INTEGER NOT NULL, next_row INTEGER NOT NULL, max_norm REAL NOT NULL,
    index_file TEXT, dropped INTEGER NOT NULL
);
CREATE TABLE items (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, modality TEXT NOT NULL,
    text TEXT, uri TEXT, metadata TEXT NOT NULL
);
CREATE TABLE dead (seq INTEGER PRIMARY KEY, position INTEGER NOT NULL);
CREATE TABLE fields (
    key TEXT NOT NULL, kind TEXT NOT NULL, value, row INTEGER NOT NULL, PRIMARY KEY (key, kind, value, row)
) WITHOUT ROWID;
{KEYWORDS};
PRAGMA user_version = {WORDS_VERSION};
"""

# Made when the first record without a vector is stored: the rows that have no place in the vector files.
_BARE = "CREATE TABLE IF NOT EXISTS bare (row INTEGER PRIMARY KEY)"

Row = tuple[int, str, Modality, str | None, str | None, str]
Entry = tuple[str, str, str | int | float, int]


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `BackendError`s that name the file: `Unavailable` only where it cannot be used."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DataError, sqlite3.InterfaceError) as error:
        if is_refusal(error):
            raise BackendError(f"{path}: SQLite refuses what was asked: {error}") from error
        raise Unavailable(f"{path}: SQLite says {error}") from error
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"{path} is damaged or no Sightline collection: SQLite says {error}") from error


class Frozen(sqlite3.Connection):
    """A connection to a file that nobody writes, as far as can be seen; `stamp` is what the file was like then."""

    stamp: object = None


class Connections:
    """A pool of SQLite connections to one file: each is used by one thread at a time and then reused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False
        self._mutex = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def take(self) -> sqlite3.Connection:
        """An open connection, to be handed back with `give`."""
        try:
            while True:
                connection = self._idle.pop()
                if not self._is_stale(connection):
                    return connection
                connection.close()
        except IndexError:
            return self._open()

    def give(self, connection: sqlite3.Connection) -> None:
        """Hand a connection back; an open transaction is rolled back."""
        if connection.in_transaction:
            connection.rollback()
        if len(self._idle) >= MAX_IDLE or self._is_stale(connection):
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:
            self._drain()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable(f"{self.path.parent} was closed or dropped: connect again")

    def _open(self) -> sqlite3.Connection:
        self._check_open()
        try:
            return self._opened("mode=rw", sqlite3.Connection)
        except Unavailable as error:
            code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
            if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or os.access(self.path.parent, os.W_OK):
                raise
        return self._open_frozen()

    def _open_frozen(self) -> sqlite3.Connection:
        """A connection to a file in a folder where SQLite cannot make the files that it shares with a writer.

        It takes no locks, so its answers count only as long as the file is what it was: see `check_unchanged`.
        """
        stamp = self._stamp()
        if stamp[1]:
            raise Unavailable(
                f"{self.path}-wal holds writes that cannot be read where the folder may not be written: "
                "open the collection once where it may be"
            )
        connection = self._opened("mode=ro&immutable=1", Frozen)
        assert isinstance(connection, Frozen)
        connection.stamp = stamp
        return connection

    def _stamp(self) -> tuple[tuple[int, int, int] | None, int]:
        """What tells a written file from what it was: of the file itself, and the size of what is not yet in it."""
        sizes: list[tuple[int, int, int] | None] = []
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            try:
                found = path.stat()
                sizes.append((found.st_mtime_ns, found.st_size, found.st_ino))
            except OSError:
                sizes.append(None)
        return sizes[0], sizes[1][1] if sizes[1] else 0

    def _is_stale(self, connection: sqlite3.Connection) -> bool:
        return isinstance(connection, Frozen) and connection.stamp != self._stamp()

    def check_unchanged(self, connection: sqlite3.Connection) -> None:
        """Raise `Unavailable` when what was just read may be neither the old nor the new."""
        if self._is_stale(connection):
            raise Unavailable(f"{self.path} was written while it was read, and cannot be locked here: try again")

    def _opened(self, how: str, factory: type[sqlite3.Connection]) -> sqlite3.Connection:
        with translate_errors(self.path):
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?{how}",
                uri=True,
                timeout=30,
                isolation_level=None,
                check_same_thread=False,
                factory=factory,
            )
            try:
                # What is found at the path once this was closed may be another collection, made anew.
                self._check_open()
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA cache_size = -16384")
                connection.execute("PRAGMA temp_store = MEMORY")
                found = connection.execute("PRAGMA application_id").fetchone()[0]
                if found != APPLICATION_ID:
                    raise Corrupt(f"{self.path} is not a Sightline collection (application id {found:#x})")
                version = connection.execute("SELECT format FROM state").fetchone()
                if version not in ((FORMAT,), (OLD_FORMAT,)):
                    raise Corrupt(
                        f"{self.path} has format {version and version[0]}; this version reads {FORMAT}: index it anew"
                    )
                words = connection.execute("PRAGMA user_version").fetchone()[0]
                if words > WORDS_VERSION:
                    raise Corrupt(
                        f"{self.path} has words of version {words}; this Sightline knows {WORDS_VERSION}: upgrade it"
                    )
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def transaction(self, kind: str = "DEFERRED") -> Iterator[sqlite3.Connection]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        connection = self.take()
        try:
            with translate_errors(self.path):
                connection.execute(f"BEGIN {kind}")
                yield connection
                connection.execute("COMMIT")
            self.check_unchanged(connection)
        finally:
            self.give(connection)

    def _drain(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def close(self) -> None:
        """Close idle connections now and busy ones when they come back; no new ones open."""
        with self._mutex:
            self._closed = True
            self._drain()


def create_store(path: Path, spec: CollectionSpec) -> None:
    """Write an empty collection's database; `path` must not exist."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        with translate_errors(path):
            connection.executescript(SCHEMA)
            connection.execute(
                "INSERT INTO state VALUES (1, ?, ?, 1, 1, 0, 0, 1, 0.0, NULL, 0)", (FORMAT, spec.to_json())
            )
    finally:
        connection.close()


def field_entries(row: int, modality: str, metadata: dict[str, Any]) -> set[Entry]:
    """The entries of `fields` for one record.

    Kinds are 's', 'n', 'b' for scalars, 'l' for an element of a list and 'e' for an empty list. The
    value column has no affinity, so integers and floats compare exactly.
    """
    entries: set[Entry] = {("modality", "s", modality, row)}
    for key, value in metadata.items():
        if isinstance(value, list):
            entries.update((key, "l", element, row) for element in value)
            if not value:
                entries.add((key, "e", "", row))
        else:
            entries.add((key, kind_of(value), value, row))
    return entries


def insert_records(connection: sqlite3.Connection, first_row: int, records: Sequence[Record]) -> None:
    """Insert records under consecutive row numbers; their ids must not be there."""
    entries: list[Entry] = []
    items: list[Row] = []
    texts: list[tuple[int, str]] = []
    for row, record in enumerate(records, first_row):
        metadata = plain_metadata(record.metadata)
        items.append((row, record.id, record.modality, record.text, record.uri, encode(metadata)))
        entries.extend(field_entries(row, record.modality, metadata))
        if searched := " ".join(tokenize(searched_text(record.text, record.uri))):
            texts.append((row, searched))
    # Sorted, entries of one batch land beside each other in the tree.
    entries.sort(key=lambda entry: (entry[0], entry[1], entry[2]))
    connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", items)
    connection.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", entries)
    connection.executemany("INSERT INTO keywords (rowid, text) VALUES (?, ?)", texts)


def remove_rows(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    """Take rows out of `items`, `fields` and `keywords`."""
    for found in _selected(connection, f"{_ITEMS} row", rows):
        entries: list[Entry] = []
        texts: list[tuple[int, str]] = []
        for row, _, modality, text, uri, metadata in found:
            entries.extend(field_entries(row, modality, metadata_of(metadata)))
            if searched := " ".join(tokenize(searched_text(text, uri))):
                texts.append((row, searched))
        connection.executemany("DELETE FROM fields WHERE key = ? AND kind = ? AND value = ? AND row = ?", entries)
        connection.executemany("INSERT INTO keywords (keywords, rowid, text) VALUES ('delete', ?, ?)", texts)
        connection.executemany("DELETE FROM items WHERE row = ?", [(row[0],) for row in found])


def add_bare_rows(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    """Note that these rows, which come after all before, have no vector."""
    if rows:
        connection.execute(_BARE)
        connection.executemany("INSERT INTO bare VALUES (?)", ((row,) for row in rows))


def remove_bare_rows(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    """Forget these rows without a vector."""
    if rows:
        connection.executemany("DELETE FROM bare WHERE row = ?", ((row,) for row in rows))


def bare_rows(connection: sqlite3.Connection, after: int) -> list[int]:
    """The rows without a vector that come after `after`, in order."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'bare'").fetchone() is None:
        return []
    return [row for (row,) in connection.execute("SELECT row FROM bare WHERE row > ? ORDER BY row", (after,))]


def rows_of_ids(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, int]:
    """The row number of each id that is there."""
    found = _selected(connection, "SELECT id, row FROM items WHERE id", list(dict.fromkeys(ids)))
    return {record_id: row for chunk in found for record_id, row in chunk}


def ids_of_rows(connection: sqlite3.Connection, rows: Sequence[int]) -> dict[int, str]:
    """The id of each row number that is there."""
    return {row: i for chunk in _selected(connection, "SELECT row, id FROM items WHERE row", rows) for row, i in chunk}


def items_by_id(connection: sqlite3.Connection, ids: Iterable[str]) -> dict[str, Row]:
    """The stored rows of these ids."""
    found = _selected(connection, f"{_ITEMS} id", list(dict.fromkeys(ids)))
    return {row[1]: row for chunk in found for row in chunk}


def items_by_row(connection: sqlite3.Connection, rows: Sequence[int]) -> tuple[int, dict[int, Row]]:
    """The stored rows of these row numbers, and the collection's version as the same reads saw it, else -1."""
    if len(rows) <= CHUNK:
        found = connection.execute(_items_at_version(len(rows)), rows).fetchall()
    else:
        found = [item for chunk in _selected(connection, _ITEMS_AT_VERSION, rows) for item in chunk]
        if len({item[6] for item in found}) != 1:
            return -1, {}
    return found[0][6] if len(found) == len(rows) else -1, {item[0]: item for item in found}


@lru_cache(maxsize=CHUNK)
def _items_at_version(count: int) -> str:
    return f"{_ITEMS_AT_VERSION} IN ({marks(count)})"


def rows_since(connection: sqlite3.Connection, first: int) -> Iterator[tuple[int, dict[str, MetadataValue], Modality]]:
    """The live rows from number `first` on, with what a filter asks about."""
    for row, metadata, modality in connection.execute(
        "SELECT row, metadata, modality FROM items WHERE row >= ?", (first,)
    ):
        yield row, metadata_of(metadata), modality


def _selected(connection: sqlite3.Connection, select: str, values: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK]
        yield connection.execute(f"{select} IN ({marks(len(chunk))})", chunk).fetchall()


def marks(count: int) -> str:
    """``?,?,?`` for so many bound values."""
    return ",".join("?" * count)


def metadata_of(text: str) -> dict[str, MetadataValue]:
    """Metadata as stored in `items.metadata`."""
    try:
        return decode_metadata(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"the metadata of a row cannot be read: {error}") from None


def as_record(row: Row, vector: Any = None) -> Record:
    """A stored row as a record."""
    return stored_record(row[1], vector, row[2], row[3], row[4], metadata_of(row[5]))
