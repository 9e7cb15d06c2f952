"""`remove`: take items out of a collection, by the path of their files, by id or by filter; the files stay."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.base import Backend, Compare, Record, Where, matches
from backends.checks import check_ids
from backends.fold import is_everything
from backends.kit.parts import in_pieces
from backends.urls import local_path
from indexers.copies import below
from indexers.files import display
from indexers.removal import DELETE_IDS, Doomed, apply
from retrieval.places import places_of, uris_of
from retrieval.search.filters import as_where


@dataclass(frozen=True, slots=True)
class RemovalReport:
    """How many items are removed, with how many captions of theirs, and how many stay that lie elsewhere too.

    `uris` are the addresses that the removed items had.
    """

    items: int = 0
    captions: int = 0
    kept_elsewhere: int = 0
    uris: tuple[str, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The counts as plain JSON types."""
        return {"items": self.items, "captions": self.captions, "kept_elsewhere": self.kept_elsewhere}


def remove(
    backend: Backend,
    collection: str,
    *,
    path: str | Path | None = None,
    ids: Sequence[str] | None = None,
    where: Where | Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> RemovalReport:
    """Remove items from a collection, chosen by exactly one of `path`, `ids` and `where`; the captions of an image too.

        remove(backend, "photos", path="photos/2019", dry_run=True).items

    Args:
        path: a file or folder, also one that is not there any more. All items at it or below it go, whatever run
            brought them; one that lies elsewhere too only loses these places, with the captions it had from them.
        ids: those that are not there are passed over.
        where: all that match go; as filter or in its JSON form.
        dry_run: only count.

    Raises:
        ValueError: none or several of the three, or a filter that is true of whatever there is.
        CollectionNotFound: there is no such collection.
    """
    if sum(choice is not None for choice in (path, ids, where)) != 1:
        raise ValueError("remove takes exactly one of path, ids and where")
    if path == "":
        # The system takes it for the working directory; whoever gave it has an empty variable.
        raise ValueError("remove takes no empty path: name the file or folder, . for this one")
    doomed, uris = Doomed(), set[str]()
    images: list[str] = []
    captions = items = kept = 0
    for record, gone in _chosen(backend, collection, path=path, ids=ids, where=where):
        before = len(doomed.ids)
        doomed.add(record, gone)
        if len(doomed.ids) == before:
            # The captions of what stays are not items of their own.
            kept += "image" not in record.metadata
            continue
        uris.update(uris_of(record))
        if record.modality == "image":
            images.append(record.id)
        # A caption that goes by itself is an item; beside its picture it is the picture's.
        items += path is None or "image" not in record.metadata
        captions += path is not None and "image" in record.metadata
    # By path each caption was met at its own places.
    owned = _captions_of(backend, collection, images, set(doomed.ids)) if path is None else 0
    if not dry_run:
        apply(backend, collection, doomed)
        if path is None:
            _delete_captions(backend, collection, images)
        backend.flush(collection)
    return RemovalReport(items, captions + owned, kept, tuple(sorted(uris)))


def _chosen(
    backend: Backend,
    collection: str,
    *,
    path: str | Path | None,
    ids: Sequence[str] | None,
    where: Where | Mapping[str, Any] | None,
) -> Iterator[tuple[Record, set[str]]]:
    """The records that are meant, each with the places that it loses."""
    if path is not None:
        backend.describe(collection)
        folder = os.path.realpath(path)
        name = display(folder)
        for record in _scanned(backend, collection):
            gone = {uri for uri in uris_of(record) if _is_below(uri, folder)}
            if gone or (not uris_of(record) and _is_text_of(record, name)):
                yield record, gone
        return
    if ids is not None:
        for wanted in in_pieces(list(dict.fromkeys(check_ids(ids))), DELETE_IDS):
            for record in backend.get(collection, wanted):
                yield record, _all_places(record)
        return
    clause = as_where(where)
    if clause is None or is_everything(clause):
        raise ValueError("remove refuses a filter that is true of every item; to remove everything drop the collection")
    for record in _scanned(backend, collection):
        if matches(clause, record.metadata, record.modality):
            yield record, _all_places(record)


def _scanned(backend: Backend, collection: str) -> Iterator[Record]:
    for page in backend.scan(collection, with_vectors=False):
        yield from page.records


def _all_places(record: Record) -> set[str]:
    return {place.uri for place in places_of(record)}


def _is_below(uri: str, folder: str) -> bool:
    file = local_path(uri) if uri.startswith("file:") else None
    return file is not None and below(str(file), folder)


def _is_text_of(record: Record, name: str) -> bool:
    """Whether a text item came from a manifest of this name or below it."""
    source = record.metadata.get("source")
    return isinstance(source, str) and below(source, name)


def _captions_of(backend: Backend, collection: str, images: Sequence[str], counted: Collection[str]) -> int:
    """How many captions images have beside those that were counted already."""
    owners = set(images)
    if not owners:
        return 0
    return sum(
        record.metadata.get("image") in owners and record.id not in counted for record in _scanned(backend, collection)
    )


def _delete_captions(backend: Backend, collection: str, images: Sequence[str]) -> None:
    for piece in in_pieces(images, DELETE_IDS):
        backend.delete(collection, where=Compare("image", "in", tuple(piece)))
