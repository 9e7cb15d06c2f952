"""Hypothesis strategies for metadata, filters, ids and texts, made so that filters often match something.

Few field names and few values, chosen where engines differ: 1, 1.0, True and "1"; code point order
against collation order; lists against strings; missing against empty.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from backends.base import Capabilities, Operator, Where
from backends.conformance.samples import HOSTILE
from backends.filters import ORDERINGS, And, Compare, MetadataValue, Not, Or

INTEGERS = (-5, -1, 0, 1, 2, 3, 10, 2**31, 2**53)
FLOATS = (-2.5, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 10.0, 1e-300, 1e300)
STRINGS = (
    "",
    "a",
    "A",
    "b",
    "B",
    "a ",
    "ab",
    "z",
    "Z",
    "1",
    "1.0",
    "10",
    "9",
    "true",
    "null",
    "ä",
    "é",
    "e\u0301",
    "ß",
    "ss",
    "it's",
    'say "x"',
    "50%",
    "a_b",
    "back\\slash",
    "new\nline",
    "～",
    "😀",
    "日本",
    "[]",
    '["a"]',
    "image",
    "text",
)
FIELDS = ("count", "ratio", "flag", "lang", "tags", "mixed", "id", "Id", "text", "_x9", "年", "год")

STORABLE = st.characters(codec="utf-8", exclude_characters="\x00")

integers = st.sampled_from(INTEGERS)
floats = st.sampled_from(FLOATS)
numbers = integers | floats
strings = st.sampled_from(STRINGS)
scalars: st.SearchStrategy[Any] = st.one_of(numbers, st.booleans(), strings)
string_lists = st.lists(strings, max_size=3)

_OF_FIELD: dict[str, st.SearchStrategy[Any]] = {
    "count": integers,
    "ratio": numbers,
    "flag": st.booleans(),
    "lang": strings,
    "tags": string_lists,
    "mixed": scalars | string_lists,
    "id": scalars,
    "Id": scalars,
    "text": strings,
    "_x9": numbers,
    "年": scalars | string_lists,
    "год": numbers,
}


def metadata() -> st.SearchStrategy[dict[str, MetadataValue]]:
    """Metadata in which any field may be missing and some hold several types."""
    return st.fixed_dictionaries({}, optional=_OF_FIELD)


def comparisons(capabilities: Capabilities) -> st.SearchStrategy[Compare]:
    """Comparisons the engine declares, mostly of a field with a value of its usual type."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> Compare:
        field = draw(st.sampled_from((*FIELDS, "modality", "nowhere")))
        op: Operator = draw(st.sampled_from(sorted(capabilities.operators)))
        if op == "exists":
            return Compare(field, op, draw(st.booleans()))
        usual = strings if field in ("tags", "modality", "nowhere") else _OF_FIELD[field]
        value = usual.filter(lambda v: not isinstance(v, list)) | scalars
        if op in ("in", "nin"):
            return Compare(field, op, tuple(draw(st.lists(value, max_size=4))))
        if op in ORDERINGS:
            ordered = numbers | strings if capabilities.string_order else numbers
            return Compare(field, op, draw(strings if capabilities.string_order and field == "lang" else ordered))
        return Compare(field, op, draw(value))

    return draw_one()


def filters(capabilities: Capabilities, leaves: int = 8) -> st.SearchStrategy[Where]:
    """Trees of up to about `leaves` comparisons, empty `And` and `Or` included."""

    def grow(inner: st.SearchStrategy[Where]) -> st.SearchStrategy[Where]:
        branches = st.lists(inner, max_size=3).map(tuple)
        return st.one_of(inner.map(Not), branches.map(And), branches.map(Or))

    return st.recursive(comparisons(capabilities), grow, max_leaves=leaves)


def ids() -> st.SearchStrategy[str]:
    """Every id that must work: any text without NUL and surrogates, of 1 to 512 bytes."""
    return st.sampled_from(HOSTILE) | st.text(STORABLE, min_size=1, max_size=128)


def texts() -> st.SearchStrategy[str]:
    """Texts of records and queries."""
    return st.sampled_from(HOSTILE) | st.text(STORABLE, max_size=200)
