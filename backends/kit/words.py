"""Stores whose words are of an earlier `backends.text.WORDS_VERSION`: all their records are given their words anew.

A store keeps the version of the words it was written with. Its engine looks at it before it searches by keyword or
writes, and stores the new version only when every record has its new words: whoever is killed before leaves the work
to the next, and doing it twice does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from backends.base import Page, Record
from backends.text import WORDS_VERSION, searched_text

_log = logging.getLogger(__name__)


def log_renewal(place: object) -> None:
    """Say, before it takes a while, that words are taken anew."""
    _log.warning("%s: taking the words of all records anew for keyword search, once", place)


def log_stale(place: object, error: Exception) -> None:
    """Say that words stay those of an earlier version, and why."""
    _log.warning("%s: keyword search knows words as an earlier Sightline took them, which stays so: %s", place, error)


def log_unnoted(place: object, error: Exception) -> None:
    """Say that words were taken anew, but that a later process will not know."""
    _log.warning("%s: words were taken anew, which the engine would not note: %s", place, error)


class Renewals:
    """Renewals for searches: who may not write searches by the old words, which is said once.

    Args:
        engine: its name, for the log.
        refusals: the errors by which it says that this user may not write.
    """

    def __init__(self, engine: str, refusals: tuple[type[Exception], ...]) -> None:
        self._engine, self._refusals = engine, refusals
        self._refused: set[str] = set()

    def attempt(self, name: str, renew: Callable[[], object]) -> None:
        """Take the words of a collection anew, unless that was refused before."""
        if name in self._refused:
            return
        try:
            renew()
        except self._refusals as error:
            self._refused.add(name)
            log_stale(f"collection {name!r} in {self._engine}", error)


def renew_words(
    pages: Iterable[Page],
    write: Callable[[Sequence[Record]], None],
    read: Callable[[Sequence[str]], Sequence[Record]],
) -> None:
    """Give each record its words anew, and once more to those that others changed at the same moment.

    Args:
        pages: all records, without vectors.
        write: stores the words of these records, and nothing else of them. Those that are gone are passed over.
        read: the records of these ids as they now are.
    """
    for page in pages:
        records = page.records
        while records:
            write(records)
            there = {record.id: record for record in read([record.id for record in records])}
            records = [there[r.id] for r in records if r.id in there and _read_of(there[r.id]) != _read_of(r)]


def read_version(path: Path) -> int:
    """The version that a file says; 1 where there is none, as with stores of the time before."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 1


def _read_of(record: Record) -> str:
    return searched_text(record.text, record.uri)


def is_outdated(version: int) -> bool:
    """Whether words of this version are to be taken anew; those of a newer Sightline are left as they are."""
    return version < WORDS_VERSION
