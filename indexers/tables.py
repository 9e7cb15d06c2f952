"""The lines of tables and JSON files, as people, spreadsheets and data sets write them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from indexers.columns import CAPTION_COLUMNS, FILE_COLUMNS, folded
from indexers.fields import column_types, convert
from indexers.files import Unreadable
from retrieval.images.formats import IMAGE_SUFFIXES

MAX_LINE_CHARS = 1024 * 1024
#: Lines of a table that one row may take; a quote that was left open takes all that follow.
MAX_ROW_LINES = 1000
MAX_COLUMNS = 1000
#: What may stand between the cells of a table; the second where a header has none of the first.
DELIMITERS = (",;\t|", "，；")
NAMES_NO_FILE = "path, file, image or filename, 文件名, Datei or the like in another language"
#: Columns without a name, as trailing delimiters make them, and as pandas calls them.
_UNNAMED = re.compile(r"(?:Unnamed: \d+)?\Z")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*\Z', re.IGNORECASE)

csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS))

Line: TypeAlias = tuple[int, dict[str, Any] | Unreadable]


def read_objects(text: str, *, lines: bool) -> Iterator[Line]:
    """The objects of JSON lines, or of one JSON document: a list, one object, file names to captions, or COCO's form.

    lines: whether it should be JSON lines; a document is read all the same. Numbers are those of lines, or count the
    objects of a document. Raises `Unreadable` for what is no JSON document, where it should be one.
    """
    if not lines or _is_document(text):
        yield from _document(text)
        return
    # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE_CHARS:
            yield number, Unreadable(f"the line has {len(line)} characters, more than the {MAX_LINE_CHARS} allowed")
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, Unreadable(f"is not JSON: {error}")
            continue
        yield number, _checked(data)


def _checked(data: Any) -> dict[str, Any] | Unreadable:
    if isinstance(data, dict) and len(data) <= MAX_COLUMNS:
        return data
    return Unreadable(f"must be one JSON object of at most {MAX_COLUMNS} fields: {json.dumps(data)[:60]}")


def _is_document(text: str) -> bool:
    """Whether a text is one JSON value over several lines, or a list, rather than a value on each line."""
    start = text.lstrip()
    first = start.split("\n", 1)[0].rstrip()
    if start.startswith("["):
        return not first.endswith("]") or "\n" not in start.rstrip()
    return first == "{" or (first.startswith("{") and first.endswith((",", "{", "[")))


def _document(text: str) -> Iterator[Line]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is not JSON: {error}") from None
    if isinstance(data, dict) and isinstance(data.get("images"), list):
        rows: Iterable[Any] = _of_images(data)
    elif isinstance(data, dict) and data and all(PurePosixPath(key).suffix.lower() in IMAGE_SUFFIXES for key in data):
        rows = (
            {"file": key, **(value if isinstance(value, dict) else {"caption": value})} for key, value in data.items()
        )
    else:
        rows = data if isinstance(data, list) else [data]
    for number, row in enumerate(rows, start=1):
        yield number, _checked(row)


def _of_images(data: dict[str, Any]) -> Iterator[Any]:
    """COCO's form: images by id, and annotations that name them; and Karpathy's, whose images have sentences."""
    captions: dict[Any, list[str]] = {}
    annotations = data.get("annotations")
    for each in annotations if isinstance(annotations, list) else ():
        if (
            isinstance(each, dict)
            and isinstance(each.get("caption"), str)
            and isinstance(each.get("image_id"), int | str)
        ):
            captions.setdefault(each["image_id"], []).append(each["caption"])
    for image in data["images"]:
        if not isinstance(image, dict):
            yield image
            continue
        sentences = image.get("sentences")
        raw = [each.get("raw") for each in sentences if isinstance(each, dict)] if isinstance(sentences, list) else []
        known = image.get("id")
        found = captions.get(known, []) if isinstance(known, int | str) else []
        plain = {key: value for key, value in image.items() if not isinstance(value, list | dict)}
        plain.pop("id", None)
        if found or raw:
            plain["captions"] = found + [text for text in raw if isinstance(text, str)]
        yield plain


def read_table(name: str, text: str) -> Iterator[Line]:
    """The rows of a table, by their columns' names. Raises `Unreadable` for one without a usable header."""
    lines = text.split("\n")
    start, delimiter = _first_line(lines)
    header_line = lines[start] if start < len(lines) else ""
    if delimiter is None:
        delimiters = next((some for some in DELIMITERS if set(some) & set(header_line)), DELIMITERS[0])
        delimiter = "\t" if name.endswith(".tsv") else max(delimiters, key=header_line.count)
    cells = list(_rows(lines, start, delimiter))
    if not cells or isinstance(cells[0][1], Unreadable):
        raise Unreadable("has no readable header line")
    header = [column.strip() for column in cells[0][1]]
    rows = cells[1:]
    if not _is_header(header):
        header, rows = _assumed_header(header, header_line), cells
    if len(header) > MAX_COLUMNS:
        raise Unreadable(f"its header must name at most {MAX_COLUMNS} columns: {header_line[:80]!r}")
    header = ["" if _UNNAMED.match(column) else column for column in header]
    yield from _named(header, rows)


def _first_line(lines: list[str]) -> tuple[int, str | None]:
    """Where a table's header is, behind blank lines, comments and ``sep=;``, and the delimiter that the last names."""
    delimiter = None
    for number, line in enumerate(lines):
        stated = _SEPARATOR_LINE.match(line)
        if stated:
            delimiter = stated[1]
        elif line.strip() and not line.lstrip().startswith("#"):
            return number, delimiter
    return len(lines), delimiter


def _is_header(header: list[str]) -> bool:
    return bool((FILE_COLUMNS.keys() | CAPTION_COLUMNS.keys()) & {folded(column) for column in header})


def _assumed_header(first: list[str], header_line: str) -> list[str]:
    """The header of a table that has none: a picture and its caption. Raises `Unreadable` for any other."""
    name = first[0].partition("#")[0]
    if len(first) == 2 and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
        return ["file", "caption"]
    raise Unreadable(f"its header must name {NAMES_NO_FILE}: {header_line[:80]!r}")


def _named(header: list[str], rows: list[tuple[int, list[str] | Unreadable]]) -> Iterator[Line]:
    kinds = column_types((row for _, row in rows if not isinstance(row, Unreadable)), len(header))
    of_text = FILE_COLUMNS.keys() | CAPTION_COLUMNS.keys()
    as_text = [folded(column) in of_text or column.lower() == "id" for column in header]
    for number, row in rows:
        if isinstance(row, Unreadable):
            yield number, row
        elif any(row[len(header) :]):
            yield number, Unreadable(f"has {len(row)} columns where the header has {len(header)}: quote the delimiter")
        elif any(row):
            data: dict[str, Any] = {}
            for column, cell, kind, plain in zip(header, row, kinds, as_text, strict=False):
                if cell and column:
                    _put(data, column, cell if plain else convert(cell, kind))
            yield number, data


def _put(data: dict[str, Any], column: str, value: Any) -> None:
    """Add a cell; of several columns of one name captions add up, and the others are numbered."""
    if column in data and folded(column) in CAPTION_COLUMNS:
        earlier = data[column]
        data[column] = [*earlier, value] if isinstance(earlier, list) else [earlier, value]
        return
    name, number = column, 2
    while name in data:
        name, number = f"{column} {number}", number + 1
    data[name] = value


def _rows(lines: list[str], start: int, delimiter: str) -> Iterator[tuple[int, list[str] | Unreadable]]:
    """The rows with the numbers of their first lines. What is no row costs its first line, and no more."""
    at = start
    while at < len(lines):
        within = [0]
        # strict: else a quote left open would quietly swallow the lines after it.
        reader = csv.reader(_from(lines, at, within), delimiter=delimiter, strict=True, skipinitialspace=True)
        first = at
        try:
            for row in reader:
                yield at + 1, row
                at, within[0] = first + reader.line_num, 0
            return
        except csv.Error as error:
            yield at + 1, Unreadable(f"is not a table row: {error}")
            at += 1


def _from(lines: list[str], start: int, within: list[int]) -> Iterator[str]:
    """The lines from `start` on; within: how many were taken of the row in hand."""
    for number in range(start, len(lines)):
        within[0] += 1
        if within[0] > MAX_ROW_LINES:
            raise csv.Error(f"a quote is open for over {MAX_ROW_LINES} lines")
        yield lines[number] + "\n"
