"""The words of a ``faiss://`` collection: an FTS5 index in its database, searched, and brought up to date.

SQLite's ``user_version`` says which `backends.text.WORDS_VERSION` the words are of. Those of an earlier one are taken
anew in one transaction, so that others see the old ones or the new ones, and a process that is killed leaves the old
ones. The table then has another name: an older Sightline that still has the store open is refused, and spoils nothing.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from backends.faiss.records import FORMAT, KEYWORDS
from backends.faiss.search import Found
from backends.faiss.selections import Selection
from backends.faiss.snapshot import Snapshot
from backends.kit.scores import best_rows
from backends.kit.words import log_renewal, log_stale
from backends.text import WORDS_VERSION, searched_text, tokenize, wanted_words

CHUNK = 1000
CURRENT, OLD = "keywords", "words"


class Keywords:
    """Which words the database `path` has; thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._current = False
        self._noted = False

    def are_current(self, connection: sqlite3.Connection) -> bool:
        """Whether the words are those of this version. Once they are, they stay so."""
        if not self._current:
            self._current = connection.execute("PRAGMA user_version").fetchone()[0] == WORDS_VERSION
        return self._current

    def table(self, connection: sqlite3.Connection) -> str:
        """The table that has them."""
        if self.are_current(connection) or connection.execute("PRAGMA user_version").fetchone()[0]:
            return CURRENT
        return OLD

    def renew(self, connection: sqlite3.Connection) -> None:
        """Within a transaction that writes, take the words of all records anew where they are of an earlier version."""
        if self.are_current(connection):
            return
        log_renewal(self._path)
        for table in (CURRENT, OLD):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute(KEYWORDS)
        last = -1
        select = "SELECT row, text, uri FROM items WHERE row > ? ORDER BY row LIMIT ?"
        while rows := connection.execute(select, (last, CHUNK)).fetchall():
            last = rows[-1][0]
            texts = [(row, " ".join(tokenize(searched_text(text, uri)))) for row, text, uri in rows]
            connection.executemany("INSERT INTO keywords (rowid, text) VALUES (?, ?)", [t for t in texts if t[1]])
        connection.execute("UPDATE state SET format = ?", (FORMAT,))
        connection.execute(f"PRAGMA user_version = {WORDS_VERSION}")

    def note_refused(self, error: Exception) -> None:
        """Say once that the words stay those of an earlier version."""
        if not self._noted:
            log_stale(self._path, error)
        self._noted = True


def find_text(
    connection: sqlite3.Connection, snapshot: Snapshot, table: str, query: str, k: int, selection: Selection | None
) -> Found:
    """The best k positions by FTS5's BM25 (negated: higher is better) for any word of the query.

    Words are quoted, so that nothing a user types is FTS5 syntax.
    """
    match = " OR ".join(f'"{word}"' for word in wanted_words(query))
    found: list[tuple[int, float]] = []
    if match:
        best = f"SELECT rowid, -rank FROM {table} WHERE {table} MATCH ? ORDER BY rank LIMIT ?"  # noqa: S608
        if selection is None or selection is snapshot.everything:
            found = connection.execute(best, (match, k + 1)).fetchall()
        if not found or (len(found) > k and found[k][1] == found[k - 1][1]):
            every = f"SELECT rowid, -bm25({table}) FROM {table} WHERE {table} MATCH ?"  # noqa: S608
            found = connection.execute(every, (match,)).fetchall()
    positions = snapshot.positions_of(np.array([row for row, _ in found], dtype=np.int64))
    scores = np.array([score for _, score in found])
    if selection is not None:
        passing = selection.mask[positions]
        positions, scores = positions[passing], scores[passing]
    order = best_rows(scores, k)
    return Found(positions[order], scores[order], exact=True)
