"""Turning what manifests say about an item into portable metadata.

The rules, in full:

- A name is folded to lower case, everything but letters and digits becomes one underscore, a leading digit gets an
  underscore before it, and 64 characters are kept: ``Date taken`` becomes ``date_taken``. Latin letters lose their
  accents; those of other scripts stay as they are: ``拍摄地点``. A name without any letter or digit is left out and
  reported.
- Two names that fold to the same one: the later becomes ``name_2``, ``name_3``...
- What the indexer measures (`MEASURED`) is never taken from a manifest: those fields are dropped.
- What a photo's EXIF may say (taken, camera, lens, latitude, longitude) is overridden by the manifest: a person
  corrected it.
- Names that the indexer gives a meaning of its own (`OWN`) become ``manifest_name``.
- Values are strings, 64-bit integers, finite numbers, booleans or lists of strings. null, and lists that
  are empty, are dropped; anything nested is left out and reported.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from backends.filters import MetadataValue, check_field_name, check_string, plain_scalar

Metadata: TypeAlias = dict[str, MetadataValue]

MEASURED = frozenset({"width", "height", "bytes", "format"})
OWN = frozenset(
    {"modality", "path", "source", "folder", "places", "image", "heading", "passage", "line", "content_hash"}
)
#: The micro and ohm signs: of units, though NFKC makes Greek letters of them. ``size (µm)`` is ``size_m``.
_SIGNS = {0xB5: None, 0x2126: None}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})\Z")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")


def field_name(name: str) -> str:
    """The portable form of a column name, ``""`` if nothing of it can be used."""
    plain = unicodedata.normalize("NFKC", name.translate(_SIGNS)).lower()
    if any(_is_other_letter(char) for char in plain):
        own = _underscored(unicodedata.normalize("NFC", "".join(map(_kept, plain))))
        with contextlib.suppress(ValueError):
            check_field_name(own)
            return own
    return _underscored(re.sub("[^a-z0-9]", "_", _ascii(plain)))


def _underscored(name: str) -> str:
    """`name` as it may begin, with single underscores, in at most 64 characters."""
    single = re.sub("_+", "_", name).strip("_")
    return ("_" + single if single[:1].isdigit() else single)[:64].rstrip("_")


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _is_other_letter(char: str) -> bool:
    return not char.isascii() and char.isalpha() and not unicodedata.name(char, "").startswith("LATIN ")


def _kept(char: str) -> str:
    """What a name has of one character of it: letters, digits, and the marks of other scripts' letters."""
    if _is_other_letter(char) or unicodedata.category(char) in ("Mn", "Mc", "Nd"):
        return char
    return re.sub("[^a-z0-9]", "_", _ascii(char)) if char.isascii() or char.isalpha() else "_"


class FieldNames:
    """The metadata names of a manifest's columns, in the order in which they turn up."""

    def __init__(self) -> None:
        self._names: dict[str, str | None] = {}
        self._taken: set[str] = set()

    def of(self, column: str) -> str | None:
        """The column's field; None if it is dropped because the indexer measures it, "" if it has no usable name."""
        if column not in self._names:
            self._names[column] = self._name(column)
        return self._names[column]

    def _name(self, column: str) -> str | None:
        folded = field_name(column)
        if not folded:
            return ""
        if folded in MEASURED:
            return None
        base = f"manifest_{folded}"[:64] if folded in OWN else folded
        unique, number = base, 2
        while unique in self._taken:
            unique, number = f"{base[:60]}_{number}", number + 1
        self._taken.add(unique)
        return unique


def clean_value(value: Any) -> MetadataValue | None:
    """`value` if it can be stored, None for null and empty lists. Raises ValueError saying what is wrong."""
    if value is None:
        return None
    if isinstance(value, list):
        if not all(isinstance(element, str) for element in value):
            raise ValueError("a list may hold strings only")
        for element in value:
            check_string(element, "an element")
        return value or None
    if isinstance(value, Mapping):
        raise ValueError("nested objects cannot be stored")
    scalar: MetadataValue = plain_scalar(value, "the value")
    return scalar


def column_types(rows: Iterable[list[str]], width: int) -> list[type]:
    """For each column of a table of strings: int, float or bool if every non-empty cell reads as one, else str.

    Codes stay strings: an integer with a leading zero or beyond 18 digits is none.
    """
    could: list[list[type]] = [[int, float, bool] for _ in range(width)]
    empty = [True] * width
    for row in rows:
        for column, cell in enumerate(row[:width]):
            if cell and could[column]:
                empty[column] = False
                could[column] = [kind for kind in could[column] if _reads_as(cell, kind)]
    return [str if empty[i] or not kinds else kinds[0] for i, kinds in enumerate(could)]


def _reads_as(cell: str, kind: type) -> bool:
    if kind is int:
        return bool(_INTEGER.match(cell)) and -(2**63) <= int(cell) < 2**63
    if kind is float:
        return bool(_NUMBER.match(cell)) and abs(float(cell)) != float("inf")
    return cell.lower() in ("true", "false")


def convert(cell: str, kind: type) -> MetadataValue:
    """A cell as the type of its column."""
    if kind is bool:
        return cell.lower() == "true"
    if kind is int:
        return int(cell)
    return float(cell) if kind is float else cell
