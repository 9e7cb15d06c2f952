"""Pictures that are a part of a file, by the fragment of its address: ``file:///photo.tif#page=2``.

What makes the picture of a part is a row of `MAKERS`, by how its file begins. A file without a row is a picture file
itself, and its part one of its pages, ``page=2``, the second of those that it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote, unquote, urlsplit

#: Gives a part of a file, of the file's bytes and the part, as a picture file: PNG, say. Raises ValueError, in words.
Make: TypeAlias = Callable[[bytes, str], bytes]
#: How files begin, and the function that makes pictures of their parts, ``module:function``, imported when needed.
MAKERS: tuple[tuple[re.Pattern[bytes], str], ...] = ()
_PAGE = re.compile(r"page=([1-9][0-9]{0,5})\Z")


@dataclass(frozen=True, slots=True)
class PartOfFile:
    """A picture's place: a file or its bytes, and which part of it."""

    file: str | Path | bytes
    part: str


@dataclass(frozen=True, slots=True)
class Located(PartOfFile):
    """A part of a file on this machine."""

    file: Path


Place: TypeAlias = Path | Located


def file_of(place: Place) -> Path:
    """The file that a place is in."""
    return place.file if isinstance(place, Located) else place


def located(uri: str | None) -> Place | None:
    """The file, or the part of one, that an item's address names on this machine; None for any other address."""
    # Not at the top: the processes that decode pictures do not load the engines' package.
    from backends.urls import local_path

    path, part = local_path(uri), part_of(uri)
    return Located(path, part) if path is not None and part else path


def part_of(uri: str | None) -> str:
    """The part that an item's address names; "" for a whole file."""
    return unquote(urlsplit(uri).fragment) if uri is not None and uri.startswith("file:") and "#" in uri else ""


def with_part(uri: str, part: str) -> str:
    """The address of a part of the file at `uri`."""
    return f"{uri}#{quote(part, safe='=/!&,.:')}" if part else uri


def picture_of(data: bytes, part: str) -> tuple[bytes, int]:
    """The picture file that shows a part of the file `data`, and which of its pages, from 0 on.

    Raises ValueError for a part that there cannot be.
    """
    if not part:
        return data, 0
    for begins, maker in MAKERS:
        if begins.match(data):
            module, _, function = maker.partition(":")
            make: Make = getattr(import_module(module), function)
            return make(data, part), 0
    page = _PAGE.match(part)
    if page is None:
        raise ValueError(f"a picture has no part that is called {part!r:.60}")
    return data, int(page[1]) - 1
