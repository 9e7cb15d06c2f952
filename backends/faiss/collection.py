"""One collection of a ``faiss://`` folder: reading it, and writing it one transaction at a time.

An upsert appends to the vector files and waits for the disk, then commits SQLite: the commit
acknowledges. Whoever reads sees SQLite's committed version and the positions that belong to it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from backends.base import NO_VECTOR, CollectionSpec, Hit, Page, Record, Where, prepare_queries, prepare_records
from backends.errors import CollectionNotFound, Corrupt, Locked, Unavailable
from backends.facets import Facet
from backends.faiss.columns import facets_of
from backends.faiss.files import VectorFiles
from backends.faiss.index import LoadedIndex, build_index, plan_index
from backends.faiss.keywords import Keywords, find_text
from backends.faiss.records import (
    COLUMNS,
    STORE,
    Connections,
    Row,
    add_bare_rows,
    as_record,
    insert_records,
    items_by_id,
    remove_bare_rows,
    remove_rows,
    rows_of_ids,
    translate_errors,
)
from backends.faiss.search import known_selection, nearest_positions, read_hits
from backends.faiss.snapshot import Floats, Snapshot, read_snapshot
from backends.kit.record_ids import storable_ids

COMPACT_SHARE = 0.2
RENEW_AGAIN_S = 60.0
COPY_BYTES = 1 << 26
T = TypeVar("T")


class CollectionHandle:
    """Reads and writes of one collection; thread-safe. The caller holds the writer's lock for writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / STORE
        if not path.exists():
            raise CollectionNotFound(f"no collection {folder.name!r} in {folder.parent}")
        self.connections = Connections(path)
        try:
            with self.connections.transaction() as connection:
                self.spec = CollectionSpec.from_json(connection.execute("SELECT spec FROM state").fetchone()[0])
        except BaseException as error:
            self.connections.close()
            if isinstance(error, Corrupt) and str(path) not in str(error):
                raise Corrupt(f"{path}: {error}") from error
            raise
        self.files = VectorFiles(folder, self.spec.dim)
        self.keywords = Keywords(path)
        # When words of an earlier version are next tried to be taken anew, by the monotonic clock.
        self._renew_at = 0.0
        self.writing = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._refresh = threading.Lock()
        # The newest version this process has committed: an older snapshot is not worth searching.
        self._committed = 0

    @property
    def closed(self) -> bool:
        """Whether `close` was called: by a `drop` in this process, or with the store."""
        return self.connections.closed

    def is_dropped(self) -> bool:
        """Whether `drop` has marked the collection, in whichever process."""
        with self.connections.transaction() as connection:
            return bool(connection.execute("SELECT dropped FROM state").fetchone()[0])

    def described(self) -> CollectionSpec | None:
        """The spec as it is now, with the encoder that whichever process has set; None once dropped."""
        with self.connections.transaction() as connection:
            dropped, text = connection.execute("SELECT dropped, spec FROM state").fetchone()
        return None if dropped else CollectionSpec.from_json(text)

    def set_encoder(self, fingerprint: str) -> None:
        """Store another encoder's fingerprint; `spec`, which tells how the collection is stored, stays as it was."""
        spec = replace(self.spec, encoder=fingerprint)
        with self._write() as (connection, snapshot):
            self._commits(connection, snapshot, "spec = ?", (spec.to_json(),))
        self._committed = snapshot.version + 1

    @contextmanager
    def reading(self, kind: str = "DEFERRED") -> Iterator[tuple[sqlite3.Connection, Snapshot]]:
        """A transaction and the snapshot of the version it sees."""
        connection = self.connections.take()
        try:
            with translate_errors(self.connections.path):
                snapshot = self._begin(connection, kind)
                yield connection, snapshot
                connection.execute("COMMIT")
            self.connections.check_unchanged(connection)
        finally:
            self.connections.give(connection)

    def _begin(self, connection: sqlite3.Connection, kind: str) -> Snapshot:
        gone: FileNotFoundError | None = None
        for _ in range(20):
            connection.execute(f"BEGIN {kind}")
            version = connection.execute("SELECT version FROM state").fetchone()[0]
            known = self._snapshot
            if known is not None and known.version == version:
                return known
            try:
                # One thread loads what is new, the others take it over.
                with self._refresh:
                    known = self._snapshot
                    if known is None or known.version <= version:
                        self._snapshot = read_snapshot(connection, self.files, self.spec, known)
                        return self._snapshot
            except FileNotFoundError as error:
                gone = error
            connection.execute("ROLLBACK")
        if gone is None:
            raise Unavailable(f"{self.folder} changes faster than it can be read: try again")
        raise Corrupt(f"{gone.filename} is missing: restore it from a backup")

    def get(self, ids: Sequence[str], with_vectors: bool) -> list[Record]:
        with self.reading() as (connection, snapshot):
            items = items_by_id(connection, storable_ids(ids))
            return self._records(snapshot, [items[i] for i in ids if i in items], with_vectors)

    def _records(self, snapshot: Snapshot, rows: Sequence[Row], with_vectors: bool) -> list[Record]:
        if not with_vectors:
            return [as_record(row) for row in rows]
        positions = snapshot.positions_of(np.array([row[0] for row in rows], dtype=np.int64))
        vectors = iter(snapshot.vectors[positions[positions >= 0]])
        return [
            as_record(row, next(vectors) if position >= 0 else NO_VECTOR)
            for row, position in zip(rows, positions.tolist(), strict=True)
        ]

    def page(self, cursor: str | None, batch: int, with_vectors: bool) -> Page | None:
        """The next records after `cursor` in the order of ids; a rewritten record keeps its place there."""
        select = f"SELECT {COLUMNS} FROM items WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608 - a constant
        with self.reading() as (connection, snapshot):
            rows = connection.execute(select, (cursor or "", batch)).fetchall()
            records = self._records(snapshot, rows, with_vectors)
        return Page(records, records[-1].id) if records else None

    def count(self, where: Where | None) -> int:
        with self.reading() as (connection, snapshot):
            if where is None:
                return snapshot.live
            selection = snapshot.selection(connection, where)
            return snapshot.live if selection is None else selection.count

    def facets(self, fields: Sequence[str], where: Where | None, top: int) -> dict[str, Facet]:
        with self.reading() as (connection, snapshot):
            selection = snapshot.selection(connection, where)
            mask = snapshot.alive if selection is None else selection.mask
            return facets_of(connection, snapshot, fields, mask, top)

    def search(self, vectors: ArrayLike, k: int, where: Where | None, effort: float | None) -> list[list[Hit]]:
        queries = prepare_queries(vectors, self.spec)
        snapshot = self._snapshot
        if snapshot is not None and snapshot.version >= self._committed:
            known, selection = known_selection(snapshot, where)
            if known:
                # The read of the hits also reads the version: when it is the snapshot's, one statement did it all.
                found = nearest_positions(snapshot, queries, k, selection, effort)
                connection = self.connections.take()
                try:
                    hits = read_hits(connection, snapshot, found, k, bounded=self.spec.metric == "cosine")
                    self.connections.check_unchanged(connection)
                except sqlite3.Error:
                    with translate_errors(self.connections.path):
                        raise
                finally:
                    self.connections.give(connection)
                if hits is not None:
                    return hits
        with self.reading() as (connection, snapshot):
            found = nearest_positions(snapshot, queries, k, snapshot.selection(connection, where), effort)
            hits = read_hits(connection, snapshot, found, k, bounded=self.spec.metric == "cosine")
        if hits is None:
            raise Corrupt(
                f"{self.connections.path} and the vector files beside it disagree: restore both from a backup"
            )
        return hits

    def search_text(self, query: str, k: int, where: Where | None) -> list[Hit]:
        self._renew_words()
        with self.reading() as (connection, snapshot):
            table = self.keywords.table(connection)
            found = find_text(connection, snapshot, table, query, k, snapshot.selection(connection, where))
            hits = read_hits(connection, snapshot, [found], k, bounded=False)
        if hits is None:
            raise Corrupt(f"{self.connections.path}: its keyword index names rows that are not there")
        return hits[0]

    def _renew_words(self) -> None:
        """Take the words of an earlier version anew, where that can be: what is there still answers where it cannot."""
        with self.connections.transaction() as connection:
            if self.keywords.are_current(connection) or time.monotonic() < self._renew_at:
                return
        try:
            with self._write():
                pass
        except (Unavailable, Locked) as error:
            # Not at every search: on a full disk it is all done before it fails.
            self._renew_at = time.monotonic() + RENEW_AGAIN_S
            self.keywords.note_refused(error)

    @contextmanager
    def _write(self) -> Iterator[tuple[sqlite3.Connection, Snapshot]]:
        with self.writing:
            try:
                with self.reading("IMMEDIATE") as (connection, snapshot):
                    self.keywords.renew(connection)
                    yield connection, snapshot
            except OSError as error:
                raise Unavailable(
                    f"{self.folder}: cannot write: {error.strerror or error}; nothing was stored"
                ) from error

    def _commits(
        self, connection: sqlite3.Connection, snapshot: Snapshot, changes: str, values: tuple[object, ...]
    ) -> None:
        connection.execute(f"UPDATE state SET version = ?, {changes}", (snapshot.version + 1, *values))  # noqa: S608

    def upsert(self, records: Iterable[Record]) -> None:
        kept, prepared = prepare_records(records, self.spec)
        if not kept:
            return
        has_vector = np.array([vector.size > 0 for vector in prepared])
        vectors = np.array([vector for vector in prepared if vector.size], np.float32).reshape(-1, self.spec.dim)
        norm = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64).max(initial=0.0)))
        with self._write() as (connection, snapshot):
            replaced = rows_of_ids(connection, [record.id for record in kept]) if snapshot.live else {}
            self._tombstone(connection, snapshot, sorted(replaced.values()))
            start = len(snapshot.rows)
            rows = np.arange(snapshot.next_row, snapshot.next_row + len(kept), dtype=np.int64)
            self.files.append(snapshot.generation, start, vectors, rows[has_vector])
            add_bare_rows(connection, rows[~has_vector].tolist())
            insert_records(connection, snapshot.next_row, kept)
            live = snapshot.live - len(replaced) + len(kept)
            self._commits(
                connection,
                snapshot,
                "positions = ?, live = ?, next_row = ?, max_norm = max(max_norm, ?)",
                (start + len(vectors), live, snapshot.next_row + len(kept), norm),
            )
        self._committed = snapshot.version + 1

    def delete(self, ids: Sequence[str] | None, where: Where | None) -> int:
        with self._write() as (connection, snapshot):
            if ids is not None:
                rows = sorted(rows_of_ids(connection, storable_ids(ids)).values())
            else:
                selection = snapshot.selection(connection, where)
                rows = snapshot.rows_in(snapshot.alive if selection is None else selection.mask).tolist()
            if not rows:
                return 0
            self._tombstone(connection, snapshot, rows)
            self._commits(connection, snapshot, "live = ?", (snapshot.live - len(rows),))
        self._committed = snapshot.version + 1
        return len(rows)

    def _tombstone(self, connection: sqlite3.Connection, snapshot: Snapshot, rows: list[int]) -> None:
        if rows:
            positions = snapshot.positions_of(np.array(rows, dtype=np.int64)).tolist()
            connection.executemany("INSERT INTO dead (position) VALUES (?)", [(p,) for p in positions])
            remove_rows(connection, rows)

    def flush(self) -> None:
        """Index the rows, give back the space of deleted ones, and drop superseded files.

        A few new rows stay out of the index, as long as comparing them takes a fraction of a search.
        The new index is built beside the one that searches keep using; other writes wait.
        """
        with self.writing:
            with self.reading() as (_, snapshot):
                pass
            dead = len(snapshot.alive) - snapshot.live
            if dead > COMPACT_SHARE * len(snapshot.alive):
                self._compact(snapshot)
            else:
                self._index(snapshot)
            self._vacuum()

    def _index(self, snapshot: Snapshot) -> None:
        wanted = plan_index(self.spec.index, snapshot.searched)
        current = snapshot.index
        text = None
        if wanted is not None:
            if current is not None and current.sort == wanted and current.lags_little(len(snapshot.rows)):
                text = self._remeasured(current, snapshot.vectors)
            else:
                name = f"graph-{snapshot.generation}-{snapshot.version + 1}.faiss"
                text = self._build(snapshot.vectors, wanted, grown_from=current, path=self.folder / name)
        if text != snapshot.index_text:
            with self._write() as (connection, now):
                self._commits(connection, now, "index_file = ?", (text,))
            self._committed = now.version + 1

    def _remeasured(self, current: LoadedIndex, vectors: Floats) -> str:
        """The index as it is, with what an earlier version did not measure."""
        if current.description.is_measured:
            return current.description.to_json()
        return current.measured(vectors, self.spec.metric).to_json()

    def _build(self, vectors: Floats, wanted: tuple[str, str], *, grown_from: LoadedIndex | None, path: Path) -> str:
        try:
            built = build_index(self.spec, vectors, wanted, grown_from, path)
            if not built.description.is_measured:
                return built.measured(vectors, self.spec.metric).to_json()
            return built.description.to_json()
        except (OSError, RuntimeError) as error:
            raise Unavailable(f"{path}: the index could not be built: {error}; all rows stay searchable") from error

    def _compact(self, snapshot: Snapshot) -> None:
        """Rewrite the vector files with live rows only, as the next generation, with its index."""
        generation = snapshot.generation + 1
        kept = np.flatnonzero(snapshot.alive[: len(snapshot.rows)])
        step = max(1, COPY_BYTES // (4 * self.spec.dim))
        with self._write() as (connection, now):
            self.files.append(generation, 0, snapshot.vectors[:0], snapshot.rows[:0])
            for start in range(0, len(kept), step):
                part = kept[start : start + step]
                self.files.append(generation, start, snapshot.vectors[part], snapshot.rows[part])
            wanted = plan_index(self.spec.index, len(kept))
            text = None
            if wanted is not None:
                vectors, _ = self.files.map(generation, len(kept))
                name = f"graph-{generation}-{now.version + 1}.faiss"
                text = self._build(vectors, wanted, grown_from=None, path=self.folder / name)
            remove_bare_rows(connection, snapshot.rows_in(~snapshot.alive, bare_only=True).tolist())
            connection.execute("DELETE FROM dead")
            connection.execute("INSERT INTO keywords (keywords) VALUES ('optimize')")
            self._commits(
                connection, now, "generation = ?, positions = ?, index_file = ?", (generation, len(kept), text)
            )
        self._committed = now.version + 1

    def _vacuum(self) -> None:
        with self.reading() as (_, snapshot):
            current = snapshot.index.description.file if snapshot.index is not None else None
            self.files.remove_except(snapshot.generation, current)
        # `execute` would step the pragma once, which frees one page.
        self._with_connection(lambda connection: connection.executescript("PRAGMA incremental_vacuum"))
        self._with_connection(_truncate_log)

    def drop(self) -> None:
        """Mark the collection as dropped, which every process sees at its next call."""
        self._with_connection(
            lambda connection: connection.execute("UPDATE state SET dropped = 1, version = version + 1")
        )

    def _with_connection(self, action: Callable[[sqlite3.Connection], T]) -> T:
        connection = self.connections.take()
        try:
            with translate_errors(self.connections.path):
                return action(connection)
        finally:
            self.connections.give(connection)

    def close(self) -> None:
        """Close the connections; maps go with the last search that uses them."""
        self.connections.close()
        self._snapshot = None


def _truncate_log(connection: sqlite3.Connection) -> None:
    # Steady readers can hold the log for as long as one waits; the next flush tries again.
    connection.execute("PRAGMA busy_timeout = 500")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute("PRAGMA busy_timeout = 30000")
