"""Filters of Milvus Lite, made smaller by what a look at the collection says before Lite is asked.

Lite reads a filter in Python: it makes a column of each field that is named, and where one of them is empty it
reads the JSON of each record anew for each comparison. It looks for values in lists one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from backends.errors import Unsupported
from backends.filters import Where, fields_of
from backends.fold import folded
from backends.milvus.filters import (
    Dialect,
    any_of,
    expression,
    list_name,
    scalar_name,
    stored_values,
    wide_fields,
    without_fields,
)
from backends.milvus.records import STORED, record_of

if TYPE_CHECKING:
    from backends.milvus.collections import CollectionHandle

# Of a filter with more fields than this Lite sees only those that some record has; and with more of these, at most
# so many cells: it reads the JSON of a record anew for each, 10 us a cell, where a field is rare.
LITE_FIELDS, LITE_CELLS = 64, 1_000_000


class Pages(Protocol):
    """What is needed of the store."""

    def pages(self, opened: CollectionHandle, selection: str, fields: list[str]) -> Iterator[list[dict[str, Any]]]:
        """All rows that match, in the order of their ids."""
        ...


def lite_expression(reader: Pages, opened: CollectionHandle, where: Where, dialect: Dialect) -> str:
    """The filter in Milvus's language, with those of many values and fields that some record has.

    Raises ValueError as `backends.filters.check_where` does, `Unsupported` for what would take Lite minutes.
    """
    tree = _narrowed(reader, opened, folded(where))
    wide = wide_fields(tree)
    if not wide:
        return expression(tree, dialect)
    names = [key for field in wide for key in (scalar_name(field), list_name(field))]
    selection = any_of([dialect.has_field(field) for field in wide])
    rows = (row for page in reader.pages(opened, selection, ["id", *names]) for row in page)
    return expression(tree, dialect, stored_values(wide, rows))


def _narrowed(reader: Pages, opened: CollectionHandle, tree: Where) -> Where:
    """The filter without fields that no record has, where it names many."""
    if len(fields_of(tree)) <= LITE_FIELDS:
        return tree
    present: set[str] = set()
    rows = 0
    for page in reader.pages(opened, "", ["id", *STORED]):
        present.update(key for row in page for key in record_of(row).metadata)
        rows += len(page)
    tree = folded(without_fields(tree, present))
    fields = len(fields_of(tree))
    if fields > LITE_FIELDS and fields * rows > LITE_CELLS:
        raise Unsupported(
            f"a filter on {fields} fields of {rows} records takes Milvus Lite too long: ask for at most "
            f"{max(LITE_FIELDS, LITE_CELLS // rows)} of the fields that are there at once"
        )
    return tree
