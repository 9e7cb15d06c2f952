"""Finding and removing records that their source does not have any more.

What is stored and was not expected by a run is one of two things. Some is at a place that is still there: content or
captions changed, so it is always removed, after the new was stored. The rest is of files that are gone: it is removed
only on request, whatever run brought it, if it lies in the folder that was listed. An item that lies elsewhere too only
loses the place. Nothing is removed of files and folders that could not be read in this run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from backends.base import Backend, Compare, Record
from backends.kit.parts import in_pieces
from indexers.copies import Territory, below, captions_of, reduced
from indexers.files import display
from indexers.report import check_stopped
from indexers.sources import Source
from retrieval.places import Place, is_there, places_of

DELETE_IDS = 500
CHANGED = 200
_Fate: TypeAlias = Literal["kept", "replaced", "gone"]


@dataclass(frozen=True, slots=True)
class Removed:
    """How many files and text items were removed because they are gone, and how many were left for a prune."""

    pruned: int
    missing: int


@dataclass(slots=True)
class Doomed:
    """Records to delete, and the places that records lose which stay."""

    ids: list[str] = field(default_factory=list)
    places: dict[str, set[str]] = field(default_factory=dict)

    def add(self, record: Record, gone: set[str]) -> None:
        """Take these places from a record, and all of it if they are all it has."""
        if gone >= {place.uri for place in places_of(record)}:
            self.ids.append(record.id)
        elif gone:
            self.places[record.id] = gone


def vanished(path: str | Path) -> Source | None:
    """A source for a path that is not there any more, to prune what came from it; None if it is there, or ``-``."""
    if str(path) == "-":
        return None
    try:
        resolved = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):
        return None
    return None if is_there(resolved) else Source("folder", display(str(resolved)), resolved)


def count_from(backend: Backend, collection: str, source: Source) -> int:
    """How many records came from a source or, of a folder, from anything in it."""
    own = backend.count(collection, Compare("source", "eq", source.name))
    if own or source.kind != "folder":
        return own
    territory = Territory(source)
    return sum(
        any(territory.covers(place.uri) for place in places_of(record)) or _is_manifest_below(record, source)
        for page in backend.scan(collection, with_vectors=False)
        for record in page.records
    )


def remove_stale(
    backend: Backend,
    collection: str,
    source: Source,
    territory: Territory,
    *,
    expected: Collection[str],
    prune: bool,
    sure: bool,
    stop: threading.Event | None = None,
) -> Removed:
    """Remove what `source` replaced and, with `prune`, what it lost.

    expected: the ids it should have. sure: all of `expected` are stored, so that equal counts mean that there is
    nothing to look for. Raises `Stopped` soon after `stop` is set, with some left, which the next run finds.
    """
    if not source.whole and not territory.files:
        return Removed(0, 0)
    if source.whole and sure and _is_all(backend, collection, source, len(expected)):
        return Removed(0, 0)
    doomed = Doomed()
    gone_files: set[str] = set()
    for page in backend.scan(collection, with_vectors=False):
        check_stopped(stop)
        for record in page.records:
            if record.id in expected:
                continue
            fates = _fates(record, source, territory, expected)
            gone = {place for place, fate in fates.items() if fate == "gone"}
            gone_files |= gone
            replaced = {place for place, fate in fates.items() if fate == "replaced"}
            # Which manifest had a text is not known, so that one which could not be read may have it.
            if not fates and territory.is_all_read and _is_lost_text(record, source):
                # Text items have no file: each counts by itself.
                gone_files.add(record.id)
                if prune:
                    doomed.ids.append(record.id)
            elif replaced or (prune and gone):
                doomed.add(record, replaced | gone if prune else replaced)
    apply(backend, collection, doomed, stop)
    return Removed(len(gone_files), 0) if prune else Removed(0, len(gone_files))


def _is_all(backend: Backend, collection: str, source: Source, expected: int) -> bool:
    """Whether the source has as many records as it should, and there are none of others that may be in its folder."""
    if backend.count(collection, Compare("source", "eq", source.name)) != expected:
        return False
    return source.kind != "folder" or backend.count(collection) == expected


def _fates(record: Record, source: Source, territory: Territory, expected: Collection[str]) -> dict[str, _Fate]:
    """What becomes of each place of a record that the run did not expect, by its address."""
    owner = str(record.metadata.get("image", record.id))
    found: dict[str, _Fate] = {}
    for place in places_of(record):
        fate = _fate(place, source, territory, is_derived=owner.startswith(("img-", "txt-")) and owner not in expected)
        if fate == "gone" and owner != record.id and owner in expected:
            # Its picture was found elsewhere, with the captions that it has there.
            fate = "replaced"
        found[place.uri] = fate
    return found


def _fate(place: Place, source: Source, territory: Territory, *, is_derived: bool) -> _Fate:
    """is_derived: the record's id is made from content that this run has not met."""
    if territory.is_uncertain(place):
        return "kept"
    listed = territory.has(place.uri)
    if territory.is_own(place):
        return "replaced" if listed else "gone" if source.whole else "kept"
    if not territory.covers(place.uri):
        return "kept"
    if listed:
        # Another source's: its file has other content now.
        return "replaced" if is_derived else "kept"
    return "kept" if territory.is_live(place) else "gone"


def _is_lost_text(record: Record, source: Source) -> bool:
    if not source.whole:
        return False
    return record.metadata.get("source") == source.name or _is_manifest_below(record, source, gone=True)


def _is_manifest_below(record: Record, source: Source, *, gone: bool = False) -> bool:
    """Whether a text item came from a manifest in the folder; gone: one that is not there any more."""
    name = record.metadata.get("source")
    if record.uri is not None or source.kind != "folder" or not isinstance(name, str):
        return False
    return below(name, source.name) and not (gone and _may_be_there(name))


def _may_be_there(name: str) -> bool:
    """Whether a file may be there, by the name that `display` gives it, which escapes bytes that are not UTF-8."""
    return (os.sep == "/" and "\\x" in name) or is_there(Path(name))


def apply(backend: Backend, collection: str, doomed: Doomed, stop: threading.Event | None = None) -> None:
    """Delete records and take places from others, whose vectors and remaining captions stay."""
    for changed in in_pieces(list(doomed.places), CHANGED):
        check_stopped(stop)
        records = backend.get(collection, changed, with_vectors=True)
        backend.upsert(collection, list(_changed(backend, collection, records, doomed)))
    for ids in in_pieces(doomed.ids, DELETE_IDS):
        check_stopped(stop)
        backend.delete(collection, ids=ids)


def _changed(backend: Backend, collection: str, records: list[Record], doomed: Doomed) -> Iterator[Record]:
    captions = captions_of(backend, collection, records)
    dead = set(doomed.ids)
    for record in records:
        lost = {
            caption.text or ""
            for caption in captions.get(record.id, ())
            # It is of the lost places alone, whether or not it was looked at by itself.
            if caption.id in dead or {place.uri for place in places_of(caption)} <= doomed.places[record.id]
        }
        yield reduced(record, doomed.places[record.id], lost)
