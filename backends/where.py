"""Filters on record fields: the `Where` tree, its JSON form, and the one evaluator that defines its meaning.

Every engine translates a `Where` into its own filter language and must agree with `matches` below.

The meaning, in full:

- A field is a metadata key or ``modality``. A comparison with a missing field is false, whatever the
  operator, except ``exists`` with value ``False``. `Not` is the exact complement, so
  ``Not(eq)`` is true for a record without the field while ``ne`` is false.
- Types never mix: numbers (int and float) compare with numbers by value, strings with strings by
  code point, booleans with booleans (``True`` is not 1). Across types ``eq`` is false, ``ne`` is true
  (the field is there and is not equal) and the orderings are false.
- A list field equals a value when one of its elements does, so ``eq``/``in`` mean "has an element"
  and ``ne``/``nin`` "is there and has no such element". Orderings on a list are false.
- ``contains`` is ``eq`` for list fields only: false for a string field.
- An empty `And` is true, an empty `Or` is false.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

Scalar: TypeAlias = str | int | float | bool
MetadataValue: TypeAlias = Scalar | Sequence[str]
Operator: TypeAlias = Literal["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists", "contains"]

OPERATORS: tuple[Operator, ...] = get_args(Operator)
ORDERINGS: frozenset[str] = frozenset({"gt", "gte", "lt", "lte"})
MAX_DEPTH = 32
MAX_NODES = 4096
FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


def check_field_name(name: str) -> None:
    """Raise ValueError unless `name` is a portable field name: letters, digits, underscore; at most 64."""
    if not isinstance(name, str) or not FIELD_NAME.match(name):
        raise ValueError(
            f"field name {name!r} is not usable: take 1-64 ASCII letters, digits and underscores, "
            "not starting with a digit"
        )


def check_string(value: str, what: str, limit_bytes: int | None = None) -> None:
    """Raise ValueError for what no engine can store: NUL, lone surrogates, or more than `limit_bytes`."""
    if "\x00" in value:
        raise ValueError(f"{what} contains a NUL character, which databases cannot store: remove it")
    try:
        size_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid Unicode (it has a lone surrogate): {value!r}") from None
    if limit_bytes is not None and size_bytes > limit_bytes:
        raise ValueError(f"{what} has {size_bytes} bytes in UTF-8; the limit is {limit_bytes}")


def check_scalar(value: Any, what: str) -> None:
    """Raise ValueError unless `value` is a str, bool, 64-bit int or finite float."""
    if isinstance(value, str):
        check_string(value, what)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{what} is {value}, beyond 64-bit integers")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{what} is {value}: only finite numbers can be stored and compared")
    else:
        raise ValueError(f"{what} is a {type(value).__name__}; allowed are str, int, float and bool")


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison of a field with a value; `in`/`nin` take a tuple of scalars, `exists` a bool."""

    field: str
    op: Operator
    value: Any

    def __post_init__(self) -> None:
        check_field_name(self.field)
        what = f"the value of {self.field} ${self.op}"
        if self.op not in OPERATORS:
            known = ", ".join("$" + op for op in OPERATORS)
            raise ValueError(f"unknown operator '${self.op}' on field {self.field!r}; known are {known}")
        if self.op in ("in", "nin"):
            if isinstance(self.value, str) or not isinstance(self.value, Sequence):
                raise ValueError(f"{what} must be a list of values, not {self.value!r}")
            for item in self.value:
                check_scalar(item, f"an element of {what}")
            object.__setattr__(self, "value", tuple(self.value))
            return
        if self.op == "exists":
            if not isinstance(self.value, bool):
                raise ValueError(f"{what} must be true or false, not {self.value!r}")
            return
        if self.value is None or isinstance(self.value, (list, tuple)):
            raise ValueError(
                f"{what} must be one string, number or boolean, not {self.value!r}; "
                "use $exists for a missing field, $in for one of several values"
            )
        check_scalar(self.value, what)
        if self.op in ORDERINGS and isinstance(self.value, bool):
            raise ValueError(f"{what} cannot be a boolean: booleans have no order")


@dataclass(frozen=True, slots=True)
class And:
    """True when every clause is; true when there is none."""

    clauses: tuple[Where, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True when some clause is; false when there is none."""

    clauses: tuple[Where, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The exact complement of its clause."""

    clause: Where


Where: TypeAlias = Compare | And | Or | Not


def kind_of(value: Scalar) -> str:
    """The comparison class of a scalar: 's' string, 'b' boolean, 'n' number. Classes never mix."""
    if isinstance(value, str):
        return "s"
    return "b" if isinstance(value, bool) else "n"


def _equal(left: Scalar, right: Scalar) -> bool:
    return kind_of(left) == kind_of(right) and left == right


def _ordered(left: Scalar, right: Any, op: Operator) -> bool:
    if kind_of(left) != kind_of(right) or isinstance(left, bool):
        return False
    x: Any = left
    if op == "gt":
        return bool(x > right)
    if op == "gte":
        return bool(x >= right)
    if op == "lt":
        return bool(x < right)
    return bool(x <= right)


def _compare(clause: Compare, metadata: Mapping[str, MetadataValue], modality: str) -> bool:
    present = clause.field == "modality" or clause.field in metadata
    if clause.op == "exists":
        return present is clause.value
    if not present:
        return False
    value = modality if clause.field == "modality" else metadata[clause.field]
    is_list = not isinstance(value, (str, int, float, bool))
    if clause.op in ORDERINGS:
        return not is_list and _ordered(value, clause.value, clause.op)  # type: ignore[arg-type]
    if clause.op == "contains" and not is_list:
        return False
    wanted = clause.value if clause.op in ("in", "nin") else (clause.value,)
    elements: Sequence[Any] = value if is_list else (value,)  # type: ignore[assignment]
    found = any(_equal(element, item) for element in elements for item in wanted)
    return not found if clause.op in ("ne", "nin") else found


def matches(where: Where | None, metadata: Mapping[str, MetadataValue], modality: str) -> bool:
    """Whether a record with this metadata and modality satisfies `where`; `None` matches everything."""
    if where is None:
        return True
    if isinstance(where, Compare):
        return _compare(where, metadata, modality)
    if isinstance(where, Not):
        return not matches(where.clause, metadata, modality)
    if isinstance(where, And):
        return all(matches(clause, metadata, modality) for clause in where.clauses)
    return any(matches(clause, metadata, modality) for clause in where.clauses)


def fields_of(where: Where) -> frozenset[str]:
    """The names of every field that `where` looks at."""
    if isinstance(where, Compare):
        return frozenset({where.field})
    if isinstance(where, Not):
        return fields_of(where.clause)
    return frozenset().union(*(fields_of(clause) for clause in where.clauses))


def parse_where(data: Any) -> Where:
    """Read the JSON form of a filter, e.g. ``{"year": {"$gte": 1990}, "tags": {"$in": ["a"]}}``.

    A mapping is the conjunction of its entries; a plain value means ``$eq``; ``$and``/``$or`` take a
    list, ``$not`` one mapping. Raises ValueError naming the place for anything else, for a tree deeper
    than 32 or with more than 4,096 nodes.
    """
    return _Parser().mapping(data, "where", 1)


class _Parser:
    def __init__(self) -> None:
        self.nodes = 0

    def mapping(self, data: Any, where: str, depth: int) -> Where:
        if not isinstance(data, Mapping):
            raise ValueError(f"{where} must be an object like {{'year': {{'$gte': 1990}}}}, not {data!r}")
        if depth > MAX_DEPTH:
            raise ValueError(f"{where} is nested deeper than {MAX_DEPTH} levels")
        clauses: list[Where] = []
        for key, value in data.items():
            place = f"{where}.{key}"
            if key in ("$and", "$or"):
                if not isinstance(value, Sequence) or isinstance(value, str):
                    raise ValueError(f"{place} must be a list of filters, not {value!r}")
                parts = tuple(self.mapping(v, f"{place}[{i}]", depth + 1) for i, v in enumerate(value))
                clauses.append(And(parts) if key == "$and" else Or(parts))
            elif key == "$not":
                clauses.append(Not(self.mapping(value, place, depth + 1)))
            elif isinstance(key, str) and key.startswith("$"):
                raise ValueError(f"{place}: unknown operator {key!r}; only $and, $or and $not stand here")
            else:
                clauses.extend(self.field(key, value, place, depth))
        self.count(len(clauses))
        return clauses[0] if len(clauses) == 1 else And(tuple(clauses))

    def field(self, name: str, value: Any, place: str, depth: int) -> list[Where]:
        if not isinstance(value, Mapping):
            return [Compare(name, "eq", value)]
        if not value:
            raise ValueError(f"{place} is empty: give it an operator such as $eq")
        clauses: list[Where] = []
        for key, operand in value.items():
            if key == "$not":
                if depth >= MAX_DEPTH:
                    raise ValueError(f"{place} is nested deeper than {MAX_DEPTH} levels")
                inner = self.field(name, operand, f"{place}.$not", depth + 1)
                clauses.append(Not(inner[0] if len(inner) == 1 else And(tuple(inner))))
            elif not isinstance(key, str) or not key.startswith("$"):
                raise ValueError(f"{place}.{key}: expected an operator such as $eq; nested fields do not exist")
            else:
                clauses.append(Compare(name, key[1:], operand))  # type: ignore[arg-type]
        return clauses

    def count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise ValueError(f"where has more than {MAX_NODES} comparisons")


def format_where(where: Where) -> dict[str, Any]:
    """The JSON form of `where`; `parse_where(format_where(w))` means the same as `w`."""
    if isinstance(where, Compare):
        value = list(where.value) if where.op in ("in", "nin") else where.value
        return {where.field: {"$" + where.op: value}}
    if isinstance(where, Not):
        return {"$not": format_where(where.clause)}
    key = "$and" if isinstance(where, And) else "$or"
    return {key: [format_where(clause) for clause in where.clauses]}


def is_everything(where: Where) -> bool:
    """Whether `where` is the empty conjunction, which matches every record by saying nothing."""
    return isinstance(where, And) and all(is_everything(clause) for clause in where.clauses)
