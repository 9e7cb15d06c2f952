"""Facets: which values a metadata field has over a set of items, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backends.filters import MetadataValue, Modality, Scalar, check_field_name, kind_of


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of one field over `items` items.

    `counts` are the most frequent values with the number of items that have them, most first, ties in
    the order of the values; `more` is how many further values there are, `missing` how many items lack
    the field. An item with a list counts once for each distinct element. Types never mix: True, 1 and
    "1" are three values, 1 and 1.0 are one.
    """

    field: str
    counts: tuple[tuple[Scalar, int], ...]
    more: int
    missing: int
    items: int


def count_facets(
    items: Iterable[tuple[Mapping[str, MetadataValue], Modality]], fields: Sequence[str], top: int
) -> dict[str, Facet]:
    """Facets of these fields, by field name; ``modality`` is a field too."""
    counters: dict[str, Counter[tuple[str, Scalar]]] = {field: Counter() for field in fields}
    missing = dict.fromkeys(fields, 0)
    total = 0
    for metadata, modality in items:
        total += 1
        for field, counter in counters.items():
            value = modality if field == "modality" else metadata.get(field)
            if value is None:
                missing[field] += 1
                continue
            values = [value] if isinstance(value, (str, int, float, bool)) else value
            counter.update({(kind_of(each), each) for each in values})
    return {
        field: _facet(field, counter, top=top, missing=missing[field], items=total)
        for field, counter in counters.items()
    }


def _facet(field: str, counter: Counter[tuple[str, Scalar]], *, top: int, missing: int, items: int) -> Facet:
    # Keys are (type, value): within one type values can be ordered.
    ranked = sorted(sorted(counter), key=lambda key: -counter[key])
    counts = tuple((value, counter[kind, value]) for kind, value in ranked[:top])
    return Facet(field, counts, more=max(0, len(ranked) - top), missing=missing, items=items)


def check_facets(fields: Sequence[str], top: int) -> list[str]:
    """The names of the fields as they are stored. Raises ValueError for a name or a `top` that cannot be."""
    if isinstance(fields, str) or isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise ValueError(f"facets take a list of field names and a top of at least 1, not {fields!r} and {top!r}")
    return [check_field_name(field) for field in fields]
