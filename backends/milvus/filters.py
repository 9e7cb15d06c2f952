"""Filters in Milvus's expression language, exact on every version by what is stored beside the metadata.

Milvus compares JSON numbers as doubles, mixes integers with floats, and disagrees between versions on
what a missing key makes of ``not``. So a filter never looks at the metadata itself. Each field has a
dynamic key holding a string that sorts as the value does:

- ``v`` + `ascii_name`: ``b0``/``b1`` for a boolean, ``n`` + `number_key` for a number, ``s`` + the string;
- ``l`` + `ascii_name`: the elements of a list, after a 0 that makes the empty list present. Milvus Lite reads
  JSON lists row by row in Python, which takes 20 times as long as its columns, so there it is one
  string of the elements' hashes, searched with ``like``.

Lite looks for one hash after the other, so of a long list of values it is asked only for those that some
record has: see `wide_fields`.

Every atom is true or false, never unknown, so `Not` is ``not``.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from backends.errors import Unsupported
from backends.filters import MODALITIES, ORDERINGS, And, Compare, Not, Or, Scalar, Where, kind_of, matches
from backends.fold import folded
from backends.kit.field_names import ascii_name
from backends.kit.number_keys import number_parts

SYMBOLS = {"eq": "==", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# 64 characters in the order of their code points, none of which JSON or Milvus escapes.
DIGITS = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
KEY_DIGITS = 11
_IN_ORDER = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", DIGITS.encode("ascii"))
AFTER = {"b": "c", "n": "o", "s": "t"}
EVERYTHING, NOTHING = '(id != "")', '(id == "")'
# The modality of a row whose record has no vector, see `backends.milvus.records`.
BARE = {modality: f"bare {modality}" for modality in MODALITIES}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


# Lists of more values than this are cut down to what is stored before Lite is asked.
WIDE_VALUES = 100
# How many hashes Lite is asked for at most, half a millisecond each with 5,000 records; and how many single
# values beside them, since for a field with both it falls back to Python, row by row.
MAX_HASHES, MAX_BESIDE_HASHES = 4_096, 1_000
Stored = Mapping[str, frozenset[str]]


def scalar_name(field: str) -> str:
    """The dynamic key of a field's single values."""
    # The one field whose key would be that of the column with the vector.
    return "x" + field if field == "ector" else "v" + ascii_name(field)


def list_name(field: str) -> str:
    """The dynamic key of a field's lists."""
    return "l" + ascii_name(field)


def quote(text: str) -> str:
    """A string literal that the server and Lite both read back unchanged."""
    return '"' + text.translate(_ESCAPES) + '"'


def id_in(ids: Sequence[str]) -> str:
    """The expression that selects these primary keys."""
    return f"id in [{','.join(map(quote, ids))}]"


def number_key(value: float) -> str:
    """A string that sorts, by code point, as 64-bit integers and doubles do by value; equal for equal ones.

    Its `number_parts`: the bits in 11 digits of six bits without trailing zeros; then, for an integer beyond 2^53
    only, what is left over.
    """
    ordered, left_over = number_parts(value)
    # Base 64 cuts eight bytes into eleven digits of six bits; only its alphabet is in another order.
    key = b2a_base64(ordered.to_bytes(8, "big")).translate(_IN_ORDER)[:KEY_DIGITS].decode("ascii")
    if left_over:
        return f"{key}{DIGITS[left_over >> 6]}{DIGITS[left_over & 63]}"
    return key.rstrip(DIGITS[0])


def scalar_key(value: Scalar) -> str:
    """What is stored for a value that is no list."""
    kind = kind_of(value)
    if kind == "s":
        return f"s{value}"
    return f"b{int(value)}" if kind == "b" else f"n{number_key(value)}"  # type: ignore[arg-type]


def _hash(element: str) -> str:
    return blake2b(element.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one Milvus wants expressions.

    `guarded`: a comparison with a missing key is unknown, so each stands behind ``exists``; where it is
    False the comparison is false, and ``exists`` cannot be combined with ``and`` (2.3). `lists_as_text`:
    lists are strings of hashes.
    """

    guarded: bool
    lists_as_text: bool

    def fields(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The dynamic fields that make a record's metadata findable."""
        found: dict[str, Any] = {}
        for field, value in metadata.items():
            if not isinstance(value, list):
                found[scalar_name(field)] = scalar_key(value)
            elif self.lists_as_text:
                found[list_name(field)] = "".join(f" {_hash(element)}" for element in dict.fromkeys(value))
            else:
                found[list_name(field)] = [0, *dict.fromkeys(value)]
        return found

    def _atom(self, key: str, *comparisons: str) -> str:
        parts = (f"exists {key}", *comparisons) if self.guarded else comparisons
        return f"({' and '.join(parts)})"

    def _has_scalar(self, field: str) -> str:
        key = _scalar(field)
        return self._atom(key) if self.guarded else self._atom(key, f'{key} >= ""')

    def _has_list(self, field: str) -> str:
        key = f'$meta["{list_name(field)}"]'
        return self._atom(key) if self.lists_as_text else self._atom(key, f"json_contains({key}, 0)")

    def _list_holds(self, field: str, wanted: Sequence[str]) -> str:
        key = f'$meta["{list_name(field)}"]'
        if self.lists_as_text:
            return self._atom(key, any_of([f"{key} like {quote(f'% {_hash(value)}%')}" for value in wanted]))
        return self._atom(key, f"json_contains_any({key}, [{','.join(map(quote, wanted))}])")

    def _scalar_is(self, field: str, wanted: Sequence[Scalar]) -> str:
        key = _scalar(field)
        literals = [quote(scalar_key(value)) for value in wanted]
        if len(literals) == 1:
            return self._atom(key, f"{key} == {literals[0]}")
        # Lite takes a list only after a bare name, which it looks for among the dynamic fields too.
        name = scalar_name(field) if self.lists_as_text else key
        return self._atom(key, f"{name} in [{','.join(literals)}]")

    def has_field(self, field: str) -> str:
        """The expression that selects the records with this field."""
        return any_of([self._has_scalar(field), self._has_list(field)])

    def _one_of(self, field: str, values: Sequence[Scalar], stored: Stored) -> str:
        """Whether the field, or an element of its list, is one of these values; of those in `stored` if it is there."""
        scalars, strings = list(values), [value for value in values if isinstance(value, str)]
        if field in stored:
            scalars = [value for value in values if scalar_key(value) in stored[field]]
            strings = [value for value in strings if _hash(value) in stored[field]]
            if len(strings) > MAX_HASHES or (strings and len(scalars) > MAX_BESIDE_HASHES):
                most = MAX_HASHES if len(strings) > MAX_HASHES else MAX_BESIDE_HASHES
                raise Unsupported(
                    f"Milvus Lite compares a list with at most {most} values that are stored, and here "
                    f"{max(len(strings), len(scalars))} of those asked for {field} are: ask for fewer at once"
                )
        parts = [self._scalar_is(field, scalars)] if scalars else []
        if strings:
            parts.append(self._list_holds(field, strings))
        return any_of(parts)

    def compare(self, clause: Compare, stored: Stored) -> str:
        """One comparison of a metadata field; `stored`: what the records have of fields that are asked for much."""
        field, op, value = clause.field, clause.op, clause.value
        if op in ORDERINGS:
            key, kind = _scalar(field), kind_of(value)
            other_end = f"{key} < {quote(AFTER[kind])}" if op in ("gt", "gte") else f"{key} >= {quote(kind)}"
            return self._atom(key, f"{key} {SYMBOLS[op]} {quote(scalar_key(value))}", other_end)
        if op == "exists":
            present = self.has_field(field)
            return present if value else f"(not {present})"
        if op == "contains":
            return self._list_holds(field, [value]) if isinstance(value, str) else NOTHING
        if op in ("ne", "nin"):
            positive: Any = Compare(field, "eq" if op == "ne" else "in", value)
            return all_of([self.has_field(field), f"(not {self.compare(positive, stored)})"])
        return self._one_of(field, value if op == "in" else (value,), stored)


def _scalar(field: str) -> str:
    return f'$meta["{scalar_name(field)}"]'


def _combine(word: str, parts: Sequence[str]) -> str:
    # Balanced, because the server's own parsers nest no deeper than about a hundred levels.
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_combine(word, parts[:middle])} {word} {_combine(word, parts[middle:])})"


def any_of(parts: Sequence[str]) -> str:
    """The disjunction."""
    return _combine("or", parts) if parts else NOTHING


def all_of(parts: Sequence[str]) -> str:
    """The conjunction."""
    return _combine("and", parts) if parts else EVERYTHING


def _modality(clause: Compare) -> str:
    # Always present and one of a few, so its meaning is decided here.
    chosen = [modality for modality in MODALITIES if matches(clause, {}, modality)]
    if len(chosen) == len(MODALITIES):
        return EVERYTHING
    return modality_in([stored for modality in chosen for stored in (modality, BARE[modality])])


def modality_in(stored: Sequence[str]) -> str:
    """The expression that selects the rows whose modality is stored as one of these."""
    return f"(modality in [{','.join(map(quote, stored))}])" if stored else NOTHING


def wide_fields(where: Where) -> list[str]:
    """The fields that are compared with so many values that Milvus Lite must know first which of them are stored."""
    if isinstance(where, Compare):
        wide = where.op in ("in", "nin") and len(where.value) > WIDE_VALUES and where.field != "modality"
        return [where.field] if wide else []
    clauses = (where.clause,) if isinstance(where, Not) else where.clauses
    return list(dict.fromkeys(field for clause in clauses for field in wide_fields(clause)))


def without_fields(where: Where, present: Collection[str]) -> Where:
    """The filter for records that have no other fields than `present`: a comparison with another one is false."""
    if isinstance(where, Compare):
        return where if where.field in present or where.field == "modality" else Or(())
    if isinstance(where, Not):
        return Not(without_fields(where.clause, present))
    return type(where)(tuple(without_fields(clause, present) for clause in where.clauses))


def stored_values(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Stored:
    """What rows of Milvus Lite have in these fields: the keys of single values and the hashes of elements of lists."""
    found: dict[str, set[str]] = {field: set() for field in fields}
    for row in rows:
        for field, values in found.items():
            if (key := row.get(scalar_name(field))) is not None:
                values.add(key)
            values.update((row.get(list_name(field)) or "").split())
    return {field: frozenset(values) for field, values in found.items()}


def expression(where: Where | None, dialect: Dialect, stored: Stored | None = None) -> str:
    """The filter in Milvus's language, "" where it selects everything by saying nothing.

    Raises ValueError as `backends.filters.check_where` does, `Unsupported` for more values than Lite compares.
    """
    return "" if where is None else _translate(folded(where), dialect, stored or {})


def _translate(where: Where, dialect: Dialect, stored: Stored) -> str:
    if isinstance(where, Compare):
        return _modality(where) if where.field == "modality" else dialect.compare(where, stored)
    if isinstance(where, Not):
        return f"(not {_translate(where.clause, dialect, stored)})"
    parts = [_translate(clause, dialect, stored) for clause in where.clauses]
    return all_of(parts) if isinstance(where, And) else any_of(parts)
