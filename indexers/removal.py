"""Finding and removing records that their source does not have any more.

A record belongs to a source by its `source` metadata. Of those that the source should not have, some
belong to a path that is still there: its content or captions changed, so they are always removed, after
the new ones were stored. The others' files are gone: they are removed only on request. Nothing is removed
of files and folders that could not be read in this run.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from backends.base import Backend, Compare, Record
from indexers.files import display
from indexers.report import check_stopped
from indexers.sources import Listing, Source

DELETE_IDS = 500


@dataclass(frozen=True, slots=True)
class Removed:
    """How many files and text items were removed because they are gone, and how many were left for a prune."""

    pruned: int
    missing: int


def remove_stale(
    backend: Backend,
    collection: str,
    source: Source,
    listing: Listing,
    *,
    expected: Collection[str],
    kept_on_error: Collection[str],
    prune: bool,
    sure: bool,
    stop: threading.Event | None = None,
) -> Removed:
    """Remove what `source` replaced and, with `prune`, what it lost.

    expected: the ids it should have; kept_on_error: display paths that failed in this run. sure: all of
    `expected` are stored, so that equal counts mean that there is nothing to look for. Raises `Stopped` soon after
    `stop` is set, with some left, which the next run finds.
    """
    paths = {display(entry.path) for entry in listing.entries if entry.kind != "text"}
    if source.whole:
        if sure and backend.count(collection, Compare("source", "eq", source.name)) == len(expected):
            return Removed(0, 0)
    elif not paths:
        return Removed(0, 0)
    unread = [display(folder) for folder in listing.unread]
    doomed: list[str] = []
    pruned: set[str] = set()
    missing: set[str] = set()
    for record in _records_of(backend, collection, source.name):
        check_stopped(stop)
        if record.id in expected:
            continue
        path = str(record.metadata.get("path", ""))
        if path in kept_on_error or _below(path, unread):
            continue
        if path in paths:
            doomed.append(record.id)
        elif source.whole:
            # Text items have no path: each counts by itself.
            (pruned if prune else missing).add(path or record.id)
            if prune:
                doomed.append(record.id)
    for start in range(0, len(doomed), DELETE_IDS):
        check_stopped(stop)
        backend.delete(collection, ids=doomed[start : start + DELETE_IDS])
    return Removed(len(pruned), len(missing))


def _records_of(backend: Backend, collection: str, source_name: str) -> Iterator[Record]:
    for page in backend.scan(collection, with_vectors=False):
        yield from (record for record in page.records if record.metadata.get("source") == source_name)


def _below(path: str, folders: list[str]) -> bool:
    return any(folder == "" or path == folder or path.startswith(f"{folder}/") for folder in folders)
