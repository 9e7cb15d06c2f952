"""An inverted index in one SQLite file: the words of records, and BM25 over them.

Not FTS5: its BM25 floors the weight of words that are in more than half of the records, and ranking in
a program of one's own takes a compiled extension. Here the scores are those of ``exact://``, to
rounding.

One transaction a change, in WAL mode with ``synchronous=FULL``: a reader sees all of it or nothing, and
so does whoever comes after a crash. What is stored is only a copy; see `backends.wrappers.keywords`.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from backends.base import Record
from backends.checks import plain_metadata
from backends.filters import Where, fields_of, matches
from backends.kit.scores import best_first
from backends.text import BM25_B, BM25_K1, WORDS_VERSION, searched_text, tokenize, wanted_words

LAYOUT = 1
# A file with words of another version is of another format: it is made anew.
FORMAT = 100 * LAYOUT + WORDS_VERSION
APPLICATION_ID = 0x534C4B57
BUSY_TIMEOUT_S = 30
FIRST_LOOK = 256
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1), spec TEXT, checked_at REAL NOT NULL,
    documents INTEGER NOT NULL, words INTEGER NOT NULL
);
INSERT INTO state VALUES (1, NULL, 0.0, 0, 0);
CREATE TABLE documents (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB NOT NULL, modality TEXT NOT NULL,
    metadata TEXT NOT NULL, words TEXT NOT NULL, length INTEGER NOT NULL
);
CREATE TABLE vocabulary (number INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE);
CREATE TABLE postings (
    word INTEGER NOT NULL, row INTEGER NOT NULL, times INTEGER NOT NULL, length INTEGER NOT NULL,
    PRIMARY KEY (word, row)
) WITHOUT ROWID;
CREATE TABLE pending (id TEXT PRIMARY KEY) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
COMMIT;
"""  # noqa: S608 - constants
# Names in a list of any length, bound as one JSON array.
_LISTED = "IN (SELECT value FROM json_each(?))"
_RANKING = f"""
WITH weights AS (SELECT json_extract(value, '$[0]') AS word, json_extract(value, '$[1]') AS idf FROM json_each(?))
SELECT row, sum(idf * times * {BM25_K1 + 1} / (times + {BM25_K1} * ({1 - BM25_B} + {BM25_B} * length / ?)))
FROM weights CROSS JOIN postings USING (word) GROUP BY row
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class State:
    """What an index says of itself: of which collection it is a copy, when that was checked, and how large it is."""

    spec: str | None
    checked_at: float
    documents: int
    words: int
    pending: bool


@dataclass(frozen=True, slots=True)
class Match:
    """A record that has some word, its BM25 score, and the `digest_of` the record that was indexed."""

    id: str
    score: float
    digest: bytes


def digest_of(record: Record) -> bytes:
    """128 bits of BLAKE2b over all of a record but its vector."""
    parts = [record.modality, record.text, record.uri, plain_metadata(record.metadata)]
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).digest()


class KeywordIndex:
    """Words of records in the SQLite file `path`; thread-safe, any number of processes.

    A file that is not one of these, or of another format, is replaced by an empty one. Raises
    `sqlite3.Error`: a `sqlite3.OperationalError` where the file cannot be used now.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: deque[sqlite3.Connection] = deque()

    def state(self) -> State:
        """What the index says of itself."""
        with self._connection() as connection:
            return _state(connection)

    def announce(self, ids: Iterable[str]) -> None:
        """Note that these records are about to change: until `replace` says how, they are in doubt."""
        with self.writing() as connection:
            connection.executemany("INSERT OR IGNORE INTO pending VALUES (?)", ((i,) for i in ids))

    def pending(self) -> list[str]:
        """The ids of records in doubt."""
        with self._connection() as connection:
            return [i for (i,) in connection.execute("SELECT id FROM pending ORDER BY id")]

    def replace(self, records: Mapping[str, Record | None]) -> None:
        """Store what these ids now are, None for gone; they are in doubt no more."""
        with self.writing() as connection:
            put(connection, records)

    def doubt_all(self) -> None:
        """Say that the index is not known to be a copy of anything."""
        with self.writing() as connection:
            connection.execute("UPDATE state SET spec = NULL")

    def matching(self, where: Where) -> list[str]:
        """The ids of the records that match."""
        with self._connection() as connection:
            rows = connection.execute("SELECT id, modality, metadata FROM documents")
            return [i for i, modality, metadata in rows if matches(where, json.loads(metadata), modality)]

    def search(self, query: str, k: int, where: Where | None) -> list[Match]:
        """The k best records that match, ties by id: BM25 as in Lucene (Robertson and Zaragoza 2009).

        Statistics are those of all records, whatever the filter. Filters are evaluated by
        `backends.filters.matches` down the ranking until k passed.
        """
        with self._connection() as connection:
            connection.execute("BEGIN")
            ranked = _ranked(connection, query)
            found: list[Match] = []
            for rows, scores in _runs(*ranked, first=max(k, FIRST_LOOK)):
                found += _passing(connection, rows, scores, where)
                if len(found) >= k:
                    break
            return found[:k]

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One change: all of it is kept when the block ends, nothing when it raises."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def clear(self) -> None:
        """Forget everything and give the space back."""
        with self.writing() as connection:
            empty(connection)
        with self._connection() as connection, suppress(sqlite3.OperationalError):
            # Others may be reading: then the space is kept for later use.
            connection.execute("VACUUM")

    def close(self) -> None:
        """Close the connections that are not in use; the next call opens one again."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if connection.in_transaction:
            connection.rollback()
        self._idle.append(connection)

    def _open(self) -> sqlite3.Connection:
        connection = self._unchecked()
        if _is_ours(connection):
            return connection
        connection.close()
        # One at a time makes it, whichever thread or process comes first.
        with FileLock(f"{self.path}.new", timeout=BUSY_TIMEOUT_S):
            connection = self._unchecked()
            if not _is_ours(connection):
                connection.close()
                self.discard()
                connection = self._unchecked()
                connection.executescript(_SCHEMA)
            return connection

    def _unchecked(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)

    def discard(self) -> None:
        """Remove the file: the next call makes it anew."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


def _is_ours(connection: sqlite3.Connection) -> bool:
    """Whether the file is an index of this format, wholly made; False too for a file that is no database."""
    try:
        marks = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        return marks == [APPLICATION_ID, FORMAT] and connection.execute("SELECT count(*) FROM state").fetchone() == (1,)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False


def _state(connection: sqlite3.Connection) -> State:
    row = connection.execute(
        "SELECT spec, checked_at, documents, words, EXISTS (SELECT 1 FROM pending) FROM state"
    ).fetchone()
    return State(row[0], row[1], row[2], row[3], bool(row[4]))


def empty(connection: sqlite3.Connection) -> None:
    """Within a change, forget every record, and of what this was a copy."""
    for table in ("documents", "postings", "vocabulary", "pending"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
    connection.execute("UPDATE state SET spec = NULL, checked_at = 0.0, documents = 0, words = 0")


def put(connection: sqlite3.Connection, records: Mapping[str, Record | None]) -> None:
    """Within a change, store what these ids now are, None for gone."""
    ids = json.dumps(list(records))
    old = connection.execute(f"SELECT row, words, length FROM documents WHERE id {_LISTED}", (ids,)).fetchall()  # noqa: S608
    connection.executemany(
        "DELETE FROM postings WHERE word = ? AND row = ?",
        ((number, row) for row, numbers, _ in old for number in json.loads(numbers)),
    )
    connection.executemany("DELETE FROM documents WHERE row = ?", ((row,) for row, _, _ in old))
    connection.execute(f"DELETE FROM pending WHERE id {_LISTED}", (ids,))  # noqa: S608
    there = [record for record in records.values() if record is not None]
    counted = [Counter(tokenize(searched_text(record.text, record.uri))) for record in there]
    numbers = _numbers(connection, {word for counts in counted for word in counts})
    (last,) = connection.execute("SELECT coalesce(max(row), 0) FROM documents").fetchone()
    documents: list[tuple[Any, ...]] = []
    postings: list[tuple[int, int, int, int]] = []
    for row, (record, counts) in enumerate(zip(there, counted, strict=True), start=last + 1):
        length = counts.total()
        metadata = json.dumps(plain_metadata(record.metadata), ensure_ascii=False)
        listed = json.dumps([numbers[word] for word in counts])
        documents.append((row, record.id, digest_of(record), record.modality, metadata, listed, length))
        postings += [(numbers[word], row, times, length) for word, times in counts.items()]
    postings.sort()
    connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)", documents)
    connection.executemany("INSERT INTO postings VALUES (?, ?, ?, ?)", postings)
    grown = sum(counts.total() for counts in counted) - sum(length for _, _, length in old)
    connection.execute("UPDATE state SET documents = documents + ?, words = words + ?", (len(there) - len(old), grown))


def _numbers(connection: sqlite3.Connection, wanted: set[str]) -> dict[str, int]:
    connection.executemany("INSERT OR IGNORE INTO vocabulary (word) VALUES (?)", ((word,) for word in sorted(wanted)))
    return _known_numbers(connection, wanted)


def _known_numbers(connection: sqlite3.Connection, wanted: Iterable[str]) -> dict[str, int]:
    select = f"SELECT word, number FROM vocabulary WHERE word {_LISTED}"  # noqa: S608
    return dict(connection.execute(select, (json.dumps(list(wanted)),)))


def _ranked(connection: sqlite3.Connection, query: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows that have some word of the query, and their scores, best first."""
    state = _state(connection)
    weights = []
    for number in sorted(_known_numbers(connection, wanted_words(query)).values()):
        (having,) = connection.execute("SELECT count(*) FROM postings WHERE word = ?", (number,)).fetchone()
        if having:
            weights.append((number, math.log(1 + (state.documents - having + 0.5) / (having + 0.5))))
    mean = state.words / max(1, state.documents) or 1.0
    found = connection.execute(_RANKING, (json.dumps(weights), mean)).fetchall() if weights else []
    rows = np.array([row for row, _ in found], dtype=np.int64)
    scores = np.array([score for _, score in found], dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order]


def _runs(
    rows: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], first: int
) -> Iterator[tuple[list[int], dict[int, float]]]:
    """Stretches of a ranking, ever longer, none of which parts rows of one score."""
    start, length = 0, first
    while start < len(rows):
        end = min(start + length, len(rows))
        end = int(np.searchsorted(-scores, -scores[end - 1], side="right"))
        stretch = rows[start:end].tolist()
        yield stretch, dict(zip(stretch, scores[start:end].tolist(), strict=True))
        start, length = end, 4 * length


def _passing(
    connection: sqlite3.Connection, rows: Sequence[int], scores: Mapping[int, float], where: Where | None
) -> list[Match]:
    metadata = "metadata" if where is not None and fields_of(where) - {"modality"} else "'{}'"
    select = f"SELECT row, id, digest, modality, {metadata} FROM documents WHERE row {_LISTED}"  # noqa: S608
    return best_first(
        Match(i, scores[row], digest)
        for row, i, digest, modality, fields in connection.execute(select, (json.dumps(rows),))
        if where is None or matches(where, json.loads(fields), modality)
    )
