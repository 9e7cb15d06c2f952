"""Content that lies at several places as one item: its places, its captions, and what was said of each copy."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from backends.base import Backend, Record
from backends.filters import MetadataValue
from backends.kit.parts import in_pieces
from backends.text import file_name
from backends.urls import local_path
from indexers.files import display, file_uri
from indexers.items import Item, Planned, caption_id, joined
from indexers.sources import Listing, Source
from retrieval.places import Place, in_order, is_there, place_fields, places_of, without_places


class Territory:
    """What a run knows of files: which its source has, and which of other places are still there."""

    def __init__(self, source: Source, listing: Listing | None = None, kept_on_error: Collection[str] = ()) -> None:
        self._source, self._kept_on_error = source, kept_on_error
        self._entries = listing.entries if listing is not None else []
        self._unread = [display(folder) for folder in listing.unread] if listing is not None else []

    @cached_property
    def files(self) -> frozenset[str]:
        """The addresses of the files in the listing."""
        root = self._source.root
        return frozenset(file_uri(root / entry.path) for entry in self._entries if entry.kind != "text")

    @property
    def is_all_read(self) -> bool:
        """Whether no folder or manifest was left unread."""
        return not self._unread

    def has(self, uri: str) -> bool:
        """Whether a file is in the listing, by its address or that of a part of it."""
        return uri.partition("#")[0] in self.files

    def covers(self, uri: str) -> bool:
        """Whether a file lies in the folder that is listed, so that its end can be noticed."""
        path = local_path(uri) if uri.startswith("file:") else None
        return self._source.kind == "folder" and path is not None and below(str(path), str(self._source.root))

    def is_uncertain(self, place: Place) -> bool:
        """Whether this run could not read it, so that nothing of it may be removed."""
        path = place.path if place.source == self._source.name else self._relative(place.uri)
        return path is not None and (path in self._kept_on_error or below_any(path, self._unread))

    def is_own(self, place: Place) -> bool:
        """Whether the place was listed by this very source before."""
        return place.source == self._source.name

    def is_live(self, place: Place) -> bool:
        """Whether the item may still be at this place, which is not the one that was just read."""
        if self.has(place.uri) or self.is_uncertain(place):
            return True
        if self.is_own(place) and self._source.whole:
            return False
        path = local_path(place.uri) if place.uri.startswith("file:") else None
        return path is None or is_there(path)

    def is_kept(self, place: Place) -> bool:
        """Whether a place of which nothing was read in this whole run stays with its item."""
        return self.is_uncertain(place) or (not self.has(place.uri) and self.is_live(place))

    def _relative(self, uri: str) -> str | None:
        if not self.covers(uri):
            return None
        return display(os.path.relpath(str(local_path(uri)), str(self._source.root)).replace(os.sep, "/"))


def below(path: str, folder: str) -> bool:
    """Whether a path is that of a folder or of something in it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def below_any(path: str, folders: Iterable[str]) -> bool:
    """Whether a path within a source lies in one of its folders, "" being all of it."""
    return any(folder in ("", path) or path.startswith(f"{folder}/") for folder in folders)


@dataclass
class _Growing:
    """A record while the copies of its content are put together."""

    first: Planned
    places: list[Place] = field(default_factory=list)
    metadata: dict[str, MetadataValue] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        self.places += places_of(record)
        for name, value in without_places(record.metadata).items():
            known = self.metadata.setdefault(name, value)
            if isinstance(known, (list, tuple)) and isinstance(value, (list, tuple)):
                self.metadata[name] = list(dict.fromkeys([*known, *value]))

    def finish(self, places: Sequence[Place], text: str | None) -> Planned:
        uri, about = place_fields(places)
        record = replace(self.first.record, text=text, uri=uri, metadata={**self.metadata, **about})
        return Planned(record, self.first.embed)


def merged(items: Sequence[Item], kept: Sequence[Record] = ()) -> Item:
    """One item of items of the same content, and of stored records of places that stay.

    Of a field that copies say differently the first says what holds; lists are joined.
    """
    growing: dict[str, _Growing] = {}
    for planned in (planned for item in items for planned in item.records):
        growing.setdefault(planned.record.id, _Growing(planned)).add(planned.record)
    for record in kept:
        known = growing.setdefault(record.id, _Growing(Planned(replace(record, vector=None), record.text)))
        known.add(record)
    main_id = items[0].records[0].record.id
    main = growing.pop(main_id)
    placed = {record_id: in_order(each.places) for record_id, each in growing.items()}
    places = in_order(main.places)
    others = [each.finish(placed[record_id], each.first.record.text) for record_id, each in growing.items()]
    text = main.first.record.text
    if main.first.record.modality == "image":
        rank = {place.uri: number for number, place in enumerate(places)}
        # Stable, so that captions of one copy keep their order.
        others.sort(key=lambda planned: rank.get(planned.record.uri or "", len(rank)))
        text = image_text([str(planned.record.text) for planned in others], items[0].words, places)
    return Item(items[0].entry, items[0].digest, [main.finish(places, text), *others], words=items[0].words)


def image_text(captions: Sequence[str], words: Sequence[str], places: Sequence[Place]) -> str | None:
    """The text of an image: captions, the file's own words, and the names under which it also lies."""
    return joined([*captions, *words, *_further_names(places)])


def _further_names(places: Sequence[Place]) -> list[str]:
    names = [file_name(place.uri) for place in places]
    return [name for name in dict.fromkeys(names[1:]) if name != names[0]]


def kept_records(
    stored: Record, captions: Iterable[Record], is_kept: Callable[[Place], bool], seen: set[str]
) -> list[Record]:
    """What stays of a stored item and its captions beside the places that were `seen`, each with these places alone."""
    found = []
    for record in (stored, *captions):
        places = [place for place in places_of(record) if place.uri not in seen and is_kept(place)]
        if places:
            found.append(_at(record, places))
    # Captions of a place that the image itself does not have are of something else.
    return found if found and found[0].id == stored.id else []


def _at(record: Record, places: Sequence[Place]) -> Record:
    uri, about = place_fields(places)
    return replace(record, uri=uri, metadata={**without_places(record.metadata), **about})


def captions_of(backend: Backend, collection: str, images: Iterable[Record]) -> dict[str, list[Record]]:
    """The stored captions of images, by the image's id; with their vectors."""
    wanted = {
        caption_id(image.id, line): image.id
        for image in images
        if image.modality == "image"
        for line in (image.text or "").split("\n")
        if line
    }
    found: dict[str, list[Record]] = {}
    for piece in in_pieces(list(wanted), 500):
        for record in backend.get(collection, piece, with_vectors=True):
            found.setdefault(wanted[record.id], []).append(record)
    return found


def reduced(record: Record, gone: set[str], lost: set[str]) -> Record:
    """A record without the places that are gone and, of an image's text, without the captions that are lost."""
    before = places_of(record)
    left = [place for place in before if place.uri not in gone]
    smaller = _at(record, left)
    if record.modality != "image":
        return smaller
    lost = lost | set(_further_names(before))
    lines = [line for line in (record.text or "").split("\n") if line and line not in lost]
    return replace(smaller, text=image_text(lines, (), left))
