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

import dataclasses
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

Modality: TypeAlias = Literal["image", "text"]
Scalar: TypeAlias = str | int | float | bool
MetadataValue: TypeAlias = Scalar | Sequence[str]
Operator: TypeAlias = Literal["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists", "contains"]

OPERATORS: tuple[Operator, ...] = get_args(Operator)
ORDERINGS: frozenset[str] = frozenset({"gt", "gte", "lt", "lte"})
MODALITIES: tuple[Modality, ...] = get_args(Modality)
MAX_DEPTH = 32
MAX_NODES = 4096
MAX_VALUES = 65_536
# Callers put the user's filter beside a condition or two of their own, so trees may be a little larger than JSON is.
_SPARE = 16
MAX_FIELD_NAME = 64
_ASCII_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_LETTERS = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Nl"})
_MARKS = frozenset({"Mn", "Mc"})


def check_field_name(name: str) -> str:
    """The name as it is stored: a plain string in Unicode's form NFC, so that two spellings are one field.

    Raises ValueError unless it is made of letters and digits of any script, marks that belong to letters, and
    underscores, at most 64 in all, the first no digit.
    """
    if isinstance(name, str):
        plain_name: str = plain(name)
        if _ASCII_NAME.match(plain_name):
            return plain_name
        if not plain_name.isascii() and (usable := _usable_name(plain_name)) is not None:
            return usable
    raise ValueError(
        f"field name {name!r:.200} is not usable: take 1-{MAX_FIELD_NAME} letters, digits and underscores, "
        "not starting with a digit"
    )


@lru_cache(maxsize=4096)
def _usable_name(name: str) -> str | None:
    composed = unicodedata.normalize("NFC", name) if len(name) <= 4 * MAX_FIELD_NAME else ""
    if not 1 <= len(composed) <= MAX_FIELD_NAME:
        return None
    before = ""
    for character in composed:
        category = unicodedata.category(character)
        is_letter = category in _LETTERS
        if category in _MARKS:
            # A mark belongs to the letter before it, perhaps with other marks between.
            usable = before == "letter"
            is_letter = usable
        else:
            usable = is_letter or character == "_" or (category == "Nd" and before != "")
        if not usable:
            return None
        before = "letter" if is_letter else "other"
    return composed


def check_string(value: str, what: str, *, limit_bytes: int | None = None) -> None:
    """Raise ValueError for what no engine can store: NUL, lone surrogates, or more than `limit_bytes`."""
    if "\x00" in value:
        raise ValueError(f"{what} contains a NUL character, which databases cannot store: remove it")
    try:
        size_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid Unicode (it has a lone surrogate): {value!r}") from None
    if limit_bytes is not None and size_bytes > limit_bytes:
        raise ValueError(f"{what} has {size_bytes} bytes in UTF-8; the limit is {limit_bytes}")


def plain(value: Any) -> Any:
    """A value of a subclass of `str`, `int` or `float`, or of NumPy, as the plain value it holds; others as they are.

    Engines and JSON tell an enum member or ``np.str_`` from a string in ways of their own, so values are made
    plain once, where they come in.
    """
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool:
        return value
    # By the base class's own method: a subclass may say something else by ``str()``, as enums do.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    return value


def plain_scalar(value: Any, what: str) -> Any:
    """The value as a plain str, bool, 64-bit int or finite float. Raises ValueError for what is none of them."""
    kind = type(value)
    if kind is not str and kind is not int and kind is not float:
        value = plain(value)
    if isinstance(value, str):
        check_string(value, what)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{what} is beyond 64-bit integers")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{what} is {value}: only finite numbers can be stored and compared")
    else:
        raise ValueError(f"{what} is a {type(value).__name__}; allowed are str, int, float and bool")
    return value


def as_list(value: Any) -> Sequence[Any] | None:
    """A list, a tuple, another sequence or a NumPy array of one dimension; None for all else, strings among it."""
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim == 1 else None
    return value if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)) else None


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison of a field with a value; `in`/`nin` take a tuple of scalars, `exists` a bool."""

    field: str
    op: Operator
    value: Any
    #: The kinds and values of a list, so that a long one is one look-up for each record.
    _wanted: frozenset[tuple[str, Scalar]] = dataclasses.field(
        default=frozenset(), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", check_field_name(self.field))
        what = f"the value of {self.field} ${self.op}"
        if self.op not in OPERATORS:
            known = ", ".join("$" + op for op in OPERATORS)
            raise ValueError(f"unknown operator '${self.op}' on field {self.field!r}; known are {known}")
        object.__setattr__(self, "op", plain(self.op))
        object.__setattr__(self, "value", self._plain_value(what))
        if self.op in ("in", "nin"):
            object.__setattr__(self, "_wanted", frozenset((kind_of(item), item) for item in self.value))

    def _plain_value(self, what: str) -> Any:
        if self.op in ("in", "nin"):
            items = as_list(self.value)
            if items is None:
                raise ValueError(f"{what} must be a list of values, not {_cut(self.value)}")
            return tuple(plain_scalar(item, f"an element of {what}") for item in items)
        value = plain(self.value)
        if self.op == "exists":
            if not isinstance(value, bool):
                raise ValueError(f"{what} must be true or false, not {_cut(value)}")
            return value
        if value is None or as_list(value) is not None:
            raise ValueError(
                f"{what} must be one string, number or boolean, not {_cut(value)}; "
                "use $exists for a missing field, $in for one of several values"
            )
        if self.op in ORDERINGS and isinstance(value, bool):
            raise ValueError(f"{what} cannot be a boolean: booleans have no order")
        return plain_scalar(value, what)


def _cut(value: Any) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
    elements: Sequence[Any] = value if is_list else (value,)  # type: ignore[assignment]
    if clause.op in ("in", "nin"):
        found = any((kind_of(element), element) in clause._wanted for element in elements)
    else:
        found = any(_equal(element, clause.value) for element in elements)
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
    list, ``$not`` one mapping. Raises ValueError naming the place for anything else, and as `check_where` does.
    """
    where = _Parser().mapping(data, "where", depth=1)
    check_where(where)
    return where


def check_where(where: Where | None) -> None:
    """Raise ValueError for a filter of more than 32 levels, 4,096 comparisons or 65,536 values in its lists."""
    comparisons = values = 0
    todo: list[tuple[Where, int]] = [] if where is None else [(where, 1)]
    while todo:
        node, depth = todo.pop()
        # A level of JSON is up to two of the tree: a group in a group.
        if depth > 2 * MAX_DEPTH + _SPARE:
            raise ValueError(f"where is nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, Compare):
            comparisons += 1
            values += len(node.value) if node.op in ("in", "nin") else 0
        elif isinstance(node, Not):
            todo.append((node.clause, depth + 1))
        else:
            comparisons += 1
            todo.extend((clause, depth + 1) for clause in node.clauses)
        if comparisons > MAX_NODES + _SPARE:
            raise ValueError(
                f"where has more than {MAX_NODES} comparisons: put several values of one field into one $in"
            )
        if values > MAX_VALUES:
            raise ValueError(f"where has more than {MAX_VALUES} values in its lists: ask for fewer at once")


class _Parser:
    def __init__(self) -> None:
        self.nodes = 0

    def mapping(self, data: Any, where: str, *, depth: int) -> Where:
        if not isinstance(data, Mapping):
            raise ValueError(f"{where} must be an object like {{'year': {{'$gte': 1990}}}}, not {_cut(data)}")
        if depth > MAX_DEPTH:
            raise ValueError(f"{where} is nested deeper than {MAX_DEPTH} levels")
        clauses: list[Where] = []
        for key, value in data.items():
            place = f"{where}.{key}"
            if key in ("$and", "$or"):
                if not isinstance(value, Sequence) or isinstance(value, str):
                    raise ValueError(f"{place} must be a list of filters, not {_cut(value)}")
                parts = tuple(self.mapping(v, f"{place}[{i}]", depth=depth + 1) for i, v in enumerate(value))
                clauses.append(And(parts) if key == "$and" else Or(parts))
            elif key == "$not":
                clauses.append(Not(self.mapping(value, place, depth=depth + 1)))
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
                self.count(len(inner))
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
