"""Where an item's bytes are: one place, or several of content that lies in several folders.

An item of one place has its `uri`, and `path`, `folder` and `source` as plain metadata. One of several has the `uri` of
the first, the addresses of all as the list `places`, `path` as a list in the same order, `source` likewise unless it is
the same for all, and the distinct folders as `folder`. A list equals a value when one of its elements does, so that a
filter finds an item by any of its places.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from backends.filters import MetadataValue
from backends.urls import local_path

#: The fields that say where an item is.
FIELDS = frozenset({"path", "folder", "source", "places"})
#: Of more copies only the first are kept: metadata has room for 64 KiB.
MAX_PLACES = 200
MAX_PLACES_BYTES = 24 * 1024


class Placed(Protocol):
    """A record or a hit."""

    @property
    def uri(self) -> str | None:
        """The first place."""

    @property
    def metadata(self) -> Mapping[str, MetadataValue]:
        """With what says where the others are."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place: its address, the path within its source, and the source's name; "" where that is not known."""

    uri: str
    path: str
    source: str

    @property
    def folder(self) -> str:
        """The folder within the source, "" at its top."""
        folder = str(PurePosixPath(self.path).parent)
        return "" if folder == "." else folder


def uris_of(item: Placed) -> list[str]:
    """The addresses of all places of an item, the first one first."""
    several = item.metadata.get("places")
    # Somebody else's field of that name holds other things.
    if isinstance(several, (list, tuple)) and several and several[0] == item.uri:
        return [str(uri) for uri in several]
    return [item.uri] if item.uri else []


def places_of(item: Placed) -> list[Place]:
    """All places of an item that has an address."""
    uris = uris_of(item)
    paths, sources = (_aligned(item.metadata.get(name), len(uris)) for name in ("path", "source"))
    return [Place(uri, path, source) for uri, path, source in zip(uris, paths, sources, strict=True)]


def whereabouts(item: Placed) -> set[tuple[str, str]]:
    """Path and source of each place; of an item without a file its source alone."""
    found = {(place.path, place.source) for place in places_of(item)}
    return found or {("", str(item.metadata.get("source", "")))}


def _aligned(value: MetadataValue | None, count: int) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(each) for each in value][:count] + [""] * (count - len(value))
    return ["" if value is None else str(value)] * count


def place_fields(places: Sequence[Place]) -> tuple[str | None, dict[str, MetadataValue]]:
    """The `uri` of an item that is at these places, and the metadata that says so."""
    if not places:
        return None, {}
    folders = list(dict.fromkeys(place.folder for place in places if place.folder))
    sources = [place.source for place in places]
    fields: dict[str, MetadataValue] = {
        "path": places[0].path if len(places) == 1 else [place.path for place in places],
        "source": sources[0] if len(set(sources)) == 1 else sources,
    }
    if folders:
        fields["folder"] = folders[0] if len(folders) == 1 else folders
    if len(places) > 1:
        fields["places"] = [place.uri for place in places]
    return places[0].uri, fields


def _fitting(places: Sequence[Place]) -> list[Place]:
    kept: list[Place] = []
    size_bytes = 0
    for place in places[:MAX_PLACES]:
        size_bytes += len(place.uri.encode()) + 2 * len(place.path.encode()) + len(place.source.encode())
        if kept and size_bytes > MAX_PLACES_BYTES:
            break
        kept.append(place)
    return kept


def in_order(places: Iterable[Place]) -> list[Place]:
    """Each place once, by the path of its file, which is the order to store them in; as many as there is room for."""
    return _fitting(sorted({place.uri: place for place in places}.values(), key=lambda place: _file(place.uri)))


def _file(uri: str) -> str:
    path = local_path(uri)
    return uri if path is None else str(path)


def existing_uri(item: Placed) -> str | None:
    """The first of an item's addresses whose file is there on this machine; its own where none is."""
    for uri in uris_of(item):
        path = local_path(uri) if uri.startswith("file:") else None
        if path is not None and is_there(path):
            return uri
    return item.uri


def is_there(path: Path) -> bool:
    """Whether something has this name; True also where only permission is missing to tell."""
    try:
        os.stat(path)  # noqa: PTH116 - a tenth of the time
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def is_gone(item: Placed) -> bool:
    """Whether an item's file was on this machine, by its address, and is not there any more, at any of its places."""
    uris = uris_of(item)
    files = [local_path(uri) for uri in uris if uri.startswith("file:")]
    return bool(files) and len(files) == len(uris) and not any(path is None or is_there(path) for path in files)


def without_places(metadata: Mapping[str, MetadataValue]) -> dict[str, Any]:
    """Metadata without the fields that say where an item is."""
    return {name: value for name, value in metadata.items() if name not in FIELDS}
