"""Filters as SQL over a ``JSON`` column, equal to `backends.filters.matches` on every record.

The column holds a record's fields in a form in which bytes compare as the protocol does, since TiDB's own JSON makes
1.0 an integer and its strings ignore spaces at the end: every scalar is a string that begins with its kind, ``s`` a
string, ``b`` a boolean, ``n`` a number as `number_key` writes it. So strings are ordered by code point, and integers
against floats by value beyond 2^53 too.

Every leaf is true or false, never NULL, so that ``NOT`` is the exact complement. Values are always bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from backends.base import MODALITIES
from backends.filters import ORDERINGS, And, Compare, MetadataValue, Not, Scalar, Where, kind_of, matches
from backends.fold import folded
from backends.kit.json_text import encode
from backends.kit.number_keys import number_parts

Params: TypeAlias = list[object]
Clause: TypeAlias = tuple[str, Params]

_FIELD = "JSON_EXTRACT(fields, %s)"
# A scalar as bytes; a list becomes text that begins with a bracket, which is before the letter of every kind.
_BYTES = f"CAST(JSON_UNQUOTE({_FIELD}) AS BINARY)"
_SYMBOLS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# Below and above all scalars of a kind: the kind's letter, and the letter after it.
_BOUNDS = {"n": ("n", "o"), "s": ("s", "t")}
# More strings are looked up by hash among scalars, which takes a second expression for lists.
_MAX_ALTERNATIVES = 8


def number_key(value: float) -> str:
    """A string for a number, of the same length for all: keys compare as their numbers do."""
    bits, rest = number_parts(value)
    return f"{bits:016x}{rest:03x}"


def tagged(value: Scalar) -> str:
    """A scalar as the column `fields` holds it."""
    kind = kind_of(value)
    if kind == "n":
        return "n" + number_key(value)  # type: ignore[arg-type]
    return f"s{value}" if kind == "s" else f"b{int(value)}"


def fields_json(metadata: Mapping[str, MetadataValue]) -> str:
    """A record's metadata for the column `fields`."""
    scalars = (str, int, float, bool)
    return encode({k: tagged(v) if isinstance(v, scalars) else list(map(tagged, v)) for k, v in metadata.items()})


def where_sql(where: Where | None) -> Clause:
    """A boolean SQL expression over the columns ``modality`` and ``fields``, and its parameters.

    Raises ValueError for a filter beyond the bounds of `backends.filters.check_where`.
    """
    return ("TRUE", []) if where is None else _sql(folded(where))


def _sql(where: Where) -> Clause:
    if isinstance(where, Compare):
        return _modality(where) if where.field == "modality" else _leaf(where)
    if isinstance(where, Not):
        text, params = _sql(where.clause)
        return f"(NOT {text})", params
    glue, empty = (" AND ", "TRUE") if isinstance(where, And) else (" OR ", "FALSE")
    return _join([_sql(clause) for clause in where.clauses], glue, empty)


def _join(clauses: Sequence[Clause], glue: str, empty: str) -> Clause:
    if not clauses:
        return empty, []
    params = [param for _, some in clauses for param in some]
    return balanced([text for text, _ in clauses], glue), params


def balanced(texts: Sequence[str], glue: str) -> str:
    """Terms joined in pairs of pairs: the time that TiDB's planner takes for a term grows with its depth."""
    if len(texts) == 1:
        return texts[0]
    middle = len(texts) // 2
    return f"({balanced(texts[:middle], glue)}{glue}{balanced(texts[middle:], glue)})"


def _modality(where: Compare) -> Clause:
    chosen = [modality for modality in MODALITIES if matches(where, {}, modality)]
    return _join([("modality = %s", [modality]) for modality in chosen], " OR ", "FALSE")


def _path(field: str) -> str:
    return f"$.{encode(field)}"


def _leaf(where: Compare) -> Clause:
    path = _path(where.field)
    if where.op == "exists":
        return f"({_FIELD} IS NOT NULL)" if where.value else f"({_FIELD} IS NULL)", [path]
    if where.op in ORDERINGS:
        return _ordering(where, path)
    if where.op == "contains":
        text, params = _equal(path, [where.value])
        return f"(IFNULL(JSON_TYPE({_FIELD}) = 'ARRAY', FALSE) AND {text})", [path, *params]
    text, params = _equal(path, where.value if where.op in ("in", "nin") else (where.value,))
    if where.op in ("ne", "nin"):
        return f"({_FIELD} IS NOT NULL AND NOT {text})", [path, *params]
    return text, params


def _equal(path: str, values: Sequence[Scalar]) -> Clause:
    """Whether the field, or an element of its list, equals one of the values; lists hold strings only."""
    strings = [tagged(value) for value in values if isinstance(value, str)]
    others = [tagged(value) for value in values if not isinstance(value, str)]
    if len(strings) <= _MAX_ALTERNATIVES:
        one = f"IFNULL(%s MEMBER OF ({_FIELD}), FALSE)"
        either: list[Clause] = [(one, [value, path]) for value in strings]
        return _join([*_among(path, others), *either], " OR ", "FALSE")
    listed = f"IFNULL(JSON_TYPE({_FIELD}) = 'ARRAY' AND JSON_OVERLAPS({_FIELD}, %s), FALSE)"
    return _join([*_among(path, [*others, *strings]), (listed, [path, path, encode(strings)])], " OR ", "FALSE")


def _among(path: str, wanted: Sequence[str]) -> list[Clause]:
    """Whether the field is a scalar that is one of these."""
    if not wanted:
        return []
    marks = ", ".join(["%s"] * len(wanted))
    return [(f"IFNULL({_BYTES} IN ({marks}), FALSE)", [path, *(value.encode() for value in wanted)])]


def _ordering(where: Compare, path: str) -> Clause:
    """Within the scalars of the value's kind."""
    value = tagged(where.value)
    low, high = _BOUNDS[value[0]]
    symbol = _SYMBOLS[where.op]
    other, bound = ("<", high) if symbol[0] == ">" else (">=", low)
    text = f"IFNULL({_BYTES} {symbol} %s AND {_BYTES} {other} %s, FALSE)"
    return text, [path, value.encode(), path, bound.encode()]
