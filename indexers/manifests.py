"""Manifests: JSON, JSONL, CSV and TSV files that say which images there are, with captions and metadata.

A line names a file (``path``, ``file``, ``image``, ``filename``, ``文件名``, ``Datei`` …), has captions
(``caption``, ``captions``, ``text``, ``描述`` …; a string or a list of strings, none is fine) and any other columns
as metadata; `indexers.columns` has all the names. A line without a file but with a text is a text item of its own;
beside a ``text`` only pictures count as files, unless the column has one of the plain names (the first four).
Lines that name the same file add up: all captions in order, and of each metadata field the first line's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from backends.base import MAX_ID_BYTES
from backends.filters import check_string
from indexers.columns import (
    CAPTION_COLUMNS,
    FILE_COLUMNS,
    PLAIN_FILE_COLUMNS,
    TEXT_COLUMNS,
    TITLE_COLUMNS,
    folded,
)
from indexers.fields import FieldNames, Metadata, clean_value
from indexers.files import Unreadable
from indexers.report import Quarantined
from indexers.tables import NAMES_NO_FILE, read_objects, read_table
from retrieval.images.formats import IMAGE_SUFFIXES

MANIFEST_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv"})
#: Names of manifests within a folder, and of files that may be one: those count only if they look like it.
_CERTAIN = frozenset({"captions.jsonl", "captions.csv", "captions.tsv"})
_POSSIBLE = re.compile(
    r"(?:metadata|captions)\.(?:jsonl|csv|tsv|json|txt)|captions_\w+\.json|Flickr8k\.token\.txt", re.I
)
#: Flickr8k's own lists number the captions of a picture so: ``1000268201_693b08cb0e.jpg#0``.
NUMBERED = re.compile(r"(.+\.[A-Za-z]{3,4})#\d\Z", re.DOTALL)
MAX_CAPTION_BYTES = 16 * 1024


@dataclass(slots=True)
class Row:
    """One usable line: `file` as written there, or None for a text item; `line` counts from 1."""

    line: int
    file: str | None
    captions: tuple[str, ...]
    metadata: Metadata
    id: str | None = None


@dataclass(slots=True)
class Table:
    """What a manifest holds: its rows, and what of it could not be used."""

    rows: list[Row] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)


@dataclass(slots=True)
class _Notes:
    """Faults of single fields, told once per field with the number of lines, not once per line."""

    first: dict[tuple[str, str], int] = field(default_factory=dict)
    lines: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, column: str, reason: str, line: int) -> None:
        key = (column, reason)
        self.first.setdefault(key, line)
        self.lines[key] = self.lines.get(key, 0) + 1

    def quarantined(self, name: str) -> Iterator[Quarantined]:
        for (column, reason), line in self.first.items():
            count = self.lines[column, reason]
            more = f" (and {count - 1} more lines)" if count > 1 else ""
            yield Quarantined(f"{name}:{line}", f"field {column!r} was left out: {reason}{more}")


def is_manifest(name: str) -> bool:
    """Whether a file in a folder has the name of a manifest."""
    return name.lower() in _CERTAIN or bool(_POSSIBLE.fullmatch(name))


def read_manifest(name: str, text: str, *, with_ids: bool = False, in_folder: bool = False) -> Table | None:
    """The rows of a manifest's text; `name` ends in .jsonl, .ndjson, .json, .csv, .tsv or .txt, and is used in reasons.

    with_ids: an ``id`` column is the record's id rather than metadata. in_folder: nobody named it, so that what does
    not look like a manifest is none, unless its name leaves no doubt: None. A malformed line is quarantined with its
    number, the rest goes on. Raises `Unreadable` for a table without usable header.
    """
    lower = name.rpartition("/")[2].lower()
    try:
        is_table = lower.endswith((".csv", ".tsv", ".txt"))
        lines = list(read_table(lower, text) if is_table else read_objects(text, lines=not lower.endswith(".json")))
    except Unreadable:
        if in_folder and lower not in _CERTAIN:
            return None
        raise
    if in_folder and lower not in _CERTAIN and not any(_describes_file(data) for _, data in lines):
        return None
    table, notes, names = Table(), _Notes(), FieldNames()
    for number, data in lines:
        try:
            if isinstance(data, Unreadable):
                raise data
            table.rows.append(_row(number, data, names, notes, with_ids))
        except Unreadable as error:
            table.quarantined.append(Quarantined(f"{name}:{number}", str(error)))
    table.quarantined.extend(notes.quarantined(name))
    return table


def _describes_file(data: dict[str, Any] | Unreadable) -> bool:
    """Whether a line names a picture, rather than anything else that a file called metadata may hold."""
    if isinstance(data, Unreadable):
        return False
    key = _path_key({folded(key): key for key in reversed(data)}, data)
    value = data.get(key) if key is not None else None
    if not isinstance(value, str):
        return False
    numbered = NUMBERED.match(value)
    return PurePosixPath(numbered[1] if numbered else value.strip()).suffix.lower() in IMAGE_SUFFIXES


def is_table_text(text: str) -> bool:
    """Whether a text file begins as a table of pictures and captions does."""
    try:
        rows = [data for _, data in read_table(".txt", text)]
    except Unreadable:
        return False
    return bool(rows) and _describes_file(rows[0])


def _row(line: int, data: dict[str, Any], names: FieldNames, notes: _Notes, with_ids: bool) -> Row:
    columns = {folded(key): key for key in reversed(data)}
    path_key = _path_key(columns, data)
    file = None if path_key is None else data[path_key]
    if file is not None and not isinstance(file, str):
        raise Unreadable(f"{path_key!r} must be a string, not {file!r:.80}")
    captions: list[str] = []
    used = {path_key}
    for column in CAPTION_COLUMNS:
        if column in columns:
            used.add(columns[column])
            captions += _captions(columns[column], data[columns[column]], one=file is None)
    titles = [columns[name] for name in TITLE_COLUMNS if name in columns and isinstance(data[columns[name]], str)]
    for key in titles if file is not None and not captions else ():
        captions += _captions(key, data[key], one=False)
    record_id = None
    if with_ids and data.get("id") is not None:
        used.add("id")
        record_id = _record_id(data["id"])
    if file is None and not captions:
        raise Unreadable(f"names no file ({NAMES_NO_FILE}) and has no text")
    metadata: Metadata = {}
    for key, value in data.items():
        if key in used or value is None:
            continue
        field_name = names.of(key)
        if field_name is None:
            continue
        if not field_name:
            notes.add(key, "its name has no letter or digit that a field's name may have: rename it", line)
            continue
        try:
            clean = clean_value(value)
        except ValueError as error:
            notes.add(key, str(error), line)
            continue
        if clean is not None:
            metadata[field_name] = clean
    return Row(line, file, tuple(dict.fromkeys(captions)), metadata, record_id)


def _path_key(columns: dict[str, str], data: dict[str, Any]) -> str | None:
    """The column that names the row's file; columns: the row's, by their folded names."""
    has_text = any(data[columns[name]] for name in TEXT_COLUMNS & columns.keys())
    named = (name for name in FILE_COLUMNS if name in columns)
    return next((columns[name] for name in named if _is_file(name, data[columns[name]], has_text=has_text)), None)


def _is_file(column: str, value: Any, *, has_text: bool) -> bool:
    """Whether a column's value is the row's file.

    Of a column with a less plain name only a string is, and beside a text only what ends as a picture's name does:
    ``file_path`` is then the document that the text was taken from, ``Bild`` and ``路径`` may say anything.
    """
    if value in (None, "") or column in PLAIN_FILE_COLUMNS:
        return value not in (None, "")
    return isinstance(value, str) and (not has_text or PurePosixPath(value.strip()).suffix.lower() in IMAGE_SUFFIXES)


def _captions(key: str, value: Any, *, one: bool) -> list[str]:
    """Captions with white space collapsed, so that joined by newlines they stay apart; passages as they are."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    result = []
    for caption in values:
        if not isinstance(caption, str):
            raise Unreadable(f"{key!r} must be a string or a list of strings, not {caption!r:.80}")
        text = caption.strip() if one else " ".join(caption.split())
        result += [check_caption(text, f"{key!r}")] if text else []
    return result


def check_caption(text: str, what: str) -> str:
    """`text` if it can be stored as a caption, else raises `Unreadable`."""
    try:
        check_string(text, what, limit_bytes=MAX_CAPTION_BYTES)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    return text


def _record_id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise Unreadable(f"'id' must be a non-empty string or an integer, not {value!r:.80}")
    try:
        check_string(str(value), "'id'", limit_bytes=MAX_ID_BYTES)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    return str(value)
