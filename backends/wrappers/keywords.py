"""Keyword search for engines that have none: a copy of every record's words beside the engine.

The engine holds the truth, the copy can be deleted at any time. A write is announced in the copy, done in
the engine, then told to the copy, so that after a crash between any two of these the records in doubt are
read from the engine again. What others wrote, who do not know the copy, is noticed

- at once, when it changed the number of records or a record that a search found, or made the collection anew;
- after `max_age_s`, on servers, when it did none of these: the collection is then read and compared.

An embedded engine belongs to one process at a time; `KeywordSidecar.refresh` compares on request.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from backends.base import Backend, BackendError, CollectionSpec, Hit, Record, Unavailable, Where, matches
from backends.checks import check_search, check_selection
from backends.filters import check_where
from backends.kit.record_ids import storable_ids
from backends.kit.sqlite_errors import is_refusal
from backends.text import searched_text, tokenize, wanted_words
from backends.wrappers.base import Wrapper
from backends.wrappers.keyword_index import KeywordIndex, Match, digest_of, put

__all__ = ["KeywordSidecar", "with_keywords"]

MAX_AGE_S = 3600.0
LOCK_TIMEOUT_S = 600.0
PATIENCE_S = 10.0
GET_IDS = 500
ATTEMPTS = 3


def with_keywords(backend: Backend, folder: Path) -> Backend:
    """`backend` with keyword search: itself where the engine has it, else with a `KeywordSidecar` in `folder`.

    Each store needs a folder of its own.
    """
    return backend if backend.capabilities.keyword else KeywordSidecar(backend, folder)


class KeywordSidecar(Wrapper):
    """A backend that answers `search_text` from an inverted index in `folder` and passes on everything else.

    Hits and scores are those of ``exact://``: BM25 over `backends.text`, any filter, ties by id. Write
    through this object, so that the index follows at once; for other writers see the module. Any number
    of processes may use one folder. Closing it closes `inner`.

    Raises `Unavailable` where the folder cannot be used.
    """

    def __init__(self, inner: Backend, folder: Path, *, max_age_s: float = MAX_AGE_S) -> None:
        super().__init__(inner)
        self.folder = folder
        self.capabilities = replace(inner.capabilities, keyword=True)  # type: ignore[misc]
        self._max_age_s = max_age_s if inner.capabilities.server else float("inf")
        self._copies: dict[str, _Copy] = {}
        self._mutex = threading.Lock()

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        """The k best records by BM25; the index is brought up to date first where it is not."""
        check_search(k, None, self.capabilities)
        check_where(where)
        spec = self.inner.describe(name)
        copy = self._copy(name)
        with _translate_errors(copy):
            for attempt in range(ATTEMPTS):
                copy.catch_up(spec, self._max_age_s)
                found = copy.index.search(query, k, where)
                records = self._records(name, found)
                if all(_is_current(match, records.get(match.id)) for match in found):
                    break
                # At first it may be a write that is just going on.
                if attempt:
                    copy.index.doubt_all()
            # Somebody writes all the time: what was just read counts, as far as it still is an answer.
            asked = set(wanted_words(query))
            pairs = ((match, records.get(match.id)) for match in found)
            return [_hit(m, r) for m, r in pairs if r is not None and _answers(r, asked, where)]

    def refresh(self, name: str) -> int:
        """Compare the index with the whole collection and correct it; returns how many records were wrong."""
        spec = self.inner.describe(name)
        copy = self._copy(name)
        with _translate_errors(copy), copy.writer():
            return copy.compare(spec)

    def create(self, spec: CollectionSpec) -> None:
        """As the engine does, and its index is empty."""
        self.inner.create(spec)
        copy = self._copy(spec.name)
        with _translate_errors(copy), copy.writer():
            copy.compare(spec)

    def drop(self, name: str) -> None:
        """As the engine does, and the index is emptied."""
        self.inner.drop(name)
        copy = self._copy(name)
        if copy.index.path.exists():
            with _translate_errors(copy), copy.writer():
                copy.index.clear()

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        """As the engine does, and the index follows."""
        given = list(records)
        latest: dict[str, Record | None] = {record.id: record for record in given}
        self.inner.describe(name)
        copy = self._copy(name)
        with _translate_errors(copy), copy.writer():
            copy.index.announce(latest)
            self.inner.upsert(name, given)
            copy.index.replace(latest)

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        """As the engine does, and the index follows."""
        ids = check_selection(ids, where)
        spec = self.inner.describe(name)
        copy = self._copy(name)
        with _translate_errors(copy), copy.writer():
            if where is not None:
                copy.catch_up(spec, self._max_age_s)
            doomed = storable_ids(ids or ()) if where is None else copy.index.matching(where)
            copy.index.announce(doomed)
            gone = self.inner.delete(name, ids=ids, where=where)
            copy.index.replace(dict.fromkeys(doomed))
            if where is not None and gone != len(doomed):
                copy.index.doubt_all()
            return gone

    def _copy(self, name: str) -> _Copy:
        with self._mutex:
            if name not in self._copies:
                self._copies[name] = _Copy(self.inner, name, self.folder / f"{_file_name(name)}.sqlite")
            return self._copies[name]

    def _records(self, name: str, found: Sequence[Match]) -> dict[str, Record]:
        ids = [match.id for match in found]
        return {record.id: record for record in _get(self.inner, name, ids)}

    def close(self) -> None:
        """Close the index and the engine."""
        for copy in self._copies.values():
            copy.index.close()
        super().close()


class _Copy:
    """The index of one collection, and how it is kept a copy."""

    def __init__(self, backend: Backend, name: str, path: Path) -> None:
        self.index = KeywordIndex(path)
        self._backend, self._name = backend, name
        self._mutex = threading.RLock()
        self._lock = FileLock(f"{path}.lock", thread_local=False)

    @contextmanager
    def writer(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """The right to write to collection and index, for one thread of one process. Raises `Timeout`."""
        # A file lock does not tell threads from each other.
        if not self._mutex.acquire(timeout=timeout_s):
            raise Timeout(self._lock.lock_file)
        try:
            self.index.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock.acquire(timeout=timeout_s):
                yield
        finally:
            self._mutex.release()

    def catch_up(self, spec: CollectionSpec, max_age_s: float) -> None:
        """Bring the index up to date where something says that it is not."""
        if self._is_current(spec, max_age_s):
            return
        try:
            with self.writer(PATIENCE_S):
                self._correct(spec, max_age_s)
        except Timeout:
            # Somebody is writing: what was there before is an answer, if there was something.
            if self.index.state().spec is None:
                raise

    def _correct(self, spec: CollectionSpec, max_age_s: float) -> None:
        doubtful = self.index.pending()
        if doubtful:
            there = {record.id: record for record in _get(self._backend, self._name, doubtful)}
            self.index.replace({record_id: there.get(record_id) for record_id in doubtful})
        if not self._is_current(spec, max_age_s):
            self.compare(spec)

    def _is_current(self, spec: CollectionSpec, max_age_s: float) -> bool:
        state = self.index.state()
        return (
            state.spec == spec.to_json()
            and not state.pending
            and time.time() - state.checked_at < max_age_s
            and state.documents == self._backend.count(self._name)
        )

    def compare(self, spec: CollectionSpec) -> int:
        """Make the index equal to the collection, in one change; returns how many records differed."""
        wrong = 0
        with self.index.writing() as connection:
            known = dict(connection.execute("SELECT id, digest FROM documents").fetchall())
            for page in self._backend.scan(self._name, with_vectors=False):
                fresh = {r.id: r for r in page.records if known.pop(r.id, None) != digest_of(r)}
                put(connection, fresh)
                wrong += len(fresh)
            put(connection, dict.fromkeys(known))
            connection.execute("DELETE FROM pending")
            connection.execute("UPDATE state SET spec = ?, checked_at = ?", (spec.to_json(), time.time()))
        return wrong + len(known)


@contextmanager
def _translate_errors(copy: _Copy) -> Iterator[None]:
    """Say what to do where the index cannot be used."""
    path = copy.index.path
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DataError, sqlite3.InterfaceError) as error:
        if is_refusal(error):
            raise BackendError(f"the keyword index {path} refuses what was asked: SQLite says {error}") from error
        raise Unavailable(f"the keyword index {path} cannot be used: SQLite says {error}") from error
    except sqlite3.DatabaseError as error:
        copy.index.discard()
        raise Unavailable(f"the keyword index {path} was damaged and is made anew: try again ({error})") from error
    except Timeout:
        raise Unavailable(f"another process is writing the keyword index {path}: wait until it is done") from None
    except OSError as error:
        raise Unavailable(f"cannot use the folder {path.parent}: {error.strerror or error}") from error


def _file_name(name: str) -> str:
    """A name for files that differs where `name` does, on disks that take no notice of case too."""
    return "".join(f"+{c.lower()}" if c.isupper() else c for c in name)


def _get(backend: Backend, name: str, ids: Sequence[str]) -> Iterator[Record]:
    for start in range(0, len(ids), GET_IDS):
        yield from backend.get(name, ids[start : start + GET_IDS])


def _is_current(match: Match, record: Record | None) -> bool:
    return record is not None and digest_of(record) == match.digest


def _answers(record: Record, asked: set[str], where: Where | None) -> bool:
    has_word = not asked.isdisjoint(tokenize(searched_text(record.text, record.uri)))
    return has_word and matches(where, record.metadata, record.modality)


def _hit(match: Match, record: Record) -> Hit:
    return Hit(match.id, match.score, record.modality, record.text, record.uri, dict(record.metadata), exact=True)
