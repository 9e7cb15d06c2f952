"""Filters as SQL over a record's maps, equal to `backends.filters.matches` on every record.

`fields` maps a name to a scalar as a string that begins with its kind and orders as the values do; `lists` maps a name
to a list. A key that is missing gives ``''`` or ``[]``, which no stored value is, so that nothing is ever NULL and
``NOT`` is the exact complement. Numbers are compared as strings because ClickHouse reads doubles from text only nearly.
Values and names of fields are always bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from backends.filters import MODALITIES, ORDERINGS, And, Compare, MetadataValue, Not, Scalar, Where, kind_of, matches
from backends.fold import folded
from backends.kit.number_keys import number_parts
from backends.kit.parts import in_parts

# A server takes 128 KiB in a bound value, and escapes may double what is bound.
MAX_BOUND = 50_000
# Of a filter at the bounds of `check_where`; the defaults are 50,000 and 500,000, and a depth of 1,000.
LIMITS = {"max_ast_elements": 2_000_000, "max_expanded_ast_elements": 4_000_000, "max_query_size": 16 << 20}
_LARGE = 500


@dataclass(slots=True)
class Params:
    """Values bound to names that count up: `add` gives the placeholder that stands for one."""

    values: dict[str, object] = field(default_factory=dict)

    def add(self, value: object, kind: str = "String") -> str:
        """``{p0:String}``, say."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"{{{name}:{kind}}}"

    def arrays(self, values: Sequence[str]) -> list[str]:
        """Placeholders of arrays of strings that hold these together, none larger than a server takes."""
        parts = in_parts(values, lambda value: len(value.encode()) + 4, most_bytes=MAX_BOUND)
        return [self.add(part, "Array(String)") for part in parts]

    def among(self, expression: str, values: Sequence[str]) -> str:
        """A condition: the expression is one of these strings."""
        return _any([f"{expression} IN {array}" for array in self.arrays(values)])

    @property
    def settings(self) -> Mapping[str, int]:
        """What a statement with so many parameters needs beside the server's defaults."""
        return LIMITS if len(self.values) > _LARGE else {}


def scalar_key(value: Scalar) -> str:
    """A scalar as a string, which begins with its kind, and orders among those of one kind as the values do."""
    kind = kind_of(value)
    if kind == "s":
        return f"s{value}"
    if kind == "b":
        return f"b{int(value)}"
    bits, rest = number_parts(value)  # type: ignore[arg-type]
    return f"n{bits:016x}{rest:03x}"


def field_maps(metadata: Mapping[str, MetadataValue]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What is stored of metadata to filter by: its scalars, and its lists."""
    scalars: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    for name, value in metadata.items():
        if isinstance(value, (str, int, float, bool)):
            scalars[name] = scalar_key(value)
        else:
            lists[name] = list(value)
    return scalars, lists


def where_sql(where: Where | None, params: Params) -> str:
    """A condition over a record's columns; what it compares with is added to `params`.

    Raises ValueError for a filter beyond the bounds of `backends.filters.check_where`.
    """
    return "1" if where is None else _sql(folded(where), params)


def _sql(where: Where, params: Params) -> str:
    if isinstance(where, Compare):
        return _modality(where, params) if where.field == "modality" else _compare(where, params)
    if isinstance(where, Not):
        return f"(NOT {_sql(where.clause, params)})"
    parts = [_sql(clause, params) for clause in where.clauses]
    if isinstance(where, And):
        return f"({' AND '.join(parts)})" if parts else "1"
    return _any(parts)


def _any(parts: Sequence[str]) -> str:
    return f"({' OR '.join(parts)})" if parts else "0"


def _modality(where: Compare, params: Params) -> str:
    return params.among("modality", [modality for modality in MODALITIES if matches(where, {}, modality)])


def _compare(where: Compare, params: Params) -> str:
    name = params.add(where.field)
    scalar = f"fields[{name}]"
    if where.op == "exists":
        there = _there(name)
        return there if where.value else f"(NOT {there})"
    if where.op in ORDERINGS:
        return _ordering(scalar, where, params)
    if where.op == "contains":
        return _has(name, [where.value], params)
    values = where.value if where.op in ("in", "nin") else (where.value,)
    found = _any([params.among(scalar, [scalar_key(value) for value in values]), _has(name, values, params)])
    return found if where.op in ("eq", "in") else f"({_there(name)} AND NOT {found})"


def _there(name: str) -> str:
    return f"(mapContains(fields, {name}) OR mapContains(lists, {name}))"


def _has(name: str, values: Sequence[Scalar], params: Params) -> str:
    strings = [value for value in values if isinstance(value, str)]
    if len(strings) == 1:
        return f"has(lists[{name}], {params.add(strings[0])})"
    return _any([f"hasAny(lists[{name}], {array})" for array in params.arrays(strings)])


def _ordering(scalar: str, where: Compare, params: Params) -> str:
    """Between the value and the end of its kind."""
    key = scalar_key(where.value)
    kind, value = key[0], params.add(key)
    if where.op in ("gt", "gte"):
        return f"({scalar} {'>' if where.op == 'gt' else '>='} {value} AND {scalar} < '{chr(ord(kind) + 1)}')"
    return f"({scalar} >= '{kind}' AND {scalar} {'<' if where.op == 'lt' else '<='} {value})"
