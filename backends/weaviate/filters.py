"""Translation of `Where` trees into Weaviate filters.

Weaviate's own comparisons mean something else in many places (keywords lose their outer white space, a
range over a list is true when any element is inside, numbers are doubles, a field must be declared before
it can be asked for), so filters look at what `backends.weaviate.records` stores beside the metadata.
Equality is a keyword of ``has``. What comes after a value in order shares its first digits and has a
greater one next, so order is a union of prefix patterns over the same keywords; numbers in fields with a
property of their own are compared by its range index instead, which is quicker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from weaviate.proto.v1 import base_pb2

from backends.base import MODALITIES, Compare, Scalar, Where
from backends.kit.field_names import ascii_name
from backends.kit.number_keys import double_below
from backends.kit.tokens import Part, TokenTranslator
from backends.weaviate.records import (
    BARE,
    HAS,
    KINDS,
    NUMBER_DIGITS,
    SAFE_INTEGER,
    SPELLED_BYTES,
    kind_token,
    modality_token,
    number_digits,
    number_property,
    spell,
    token,
)

Filters = base_pb2.Filters
COMPARISONS = {
    "gt": Filters.OPERATOR_GREATER_THAN,
    "gte": Filters.OPERATOR_GREATER_THAN_EQUAL,
    "lt": Filters.OPERATOR_LESS_THAN,
    "lte": Filters.OPERATOR_LESS_THAN_EQUAL,
}


def one_of(values: Iterable[str], target: str = HAS) -> Any:
    """A filter: the property holds one of these keywords."""
    wanted = list(values)
    on = base_pb2.FilterTarget(property=target)
    if len(wanted) == 1:
        return Filters(operator=Filters.OPERATOR_EQUAL, target=on, value_text=wanted[0])
    array = base_pb2.TextArray(values=wanted)
    return Filters(operator=Filters.OPERATOR_CONTAINS_ANY, target=on, value_text_array=array)


def by_id(object_ids: Iterable[str]) -> Any:
    """A filter: the object is one of these."""
    return one_of(object_ids, "_id")


def everything() -> Any:
    """A filter that selects every record."""
    return one_of(modality_token(modality) for modality in MODALITIES)


def both(condition: Any, other: Any) -> Any:
    """A filter: both of these, of which the first may be True."""
    return other if condition is True else Filters(operator=Filters.OPERATOR_AND, filters=[condition, other])


def bare() -> Any:
    """A filter: the record has no vector."""
    return one_of([BARE])


def not_bare() -> Any:
    """A filter: the record has a vector."""
    return Filters(operator=Filters.OPERATOR_NOT, filters=[bare()])


def _starts(prefix: str) -> Any:
    on = base_pb2.FilterTarget(property=HAS)
    return Filters(operator=Filters.OPERATOR_LIKE, target=on, value_text=prefix + "*")


def _after(prefix: str, digits: str, start: int = 0) -> list[Any]:
    """Patterns for the keywords that agree with `digits` up to `start` and come after it."""
    longer = [_starts(prefix + digits + more) for more in "0123+"]
    return longer + [
        _starts(prefix + digits[:i] + greater)
        for i in range(start, len(digits))
        for greater in "123"
        if greater > digits[i]
    ]


class Translator(TokenTranslator):
    """Turns one `Where` into a filter.

    `numbers`: the properties that hold numbers of a field. `longer` finds the strings that share their first
    48 bytes with a longer operand, given the filter that selects them: (object id, metadata) of each.
    """

    def __init__(self, numbers: Collection[str], longer: Callable[[Any], Iterable[tuple[str, Any]]]) -> None:
        self._numbers = numbers
        self._longer = longer

    def filter(self, where: Where | None) -> Any:
        """The filter; ``True`` when it selects everything, ``False`` when it selects nothing."""
        part = self.part(where)
        return part if isinstance(part, bool) else self._condition(part)

    def _token(self, field: str, kind: str, value: Scalar) -> str:
        return token(field, kind, value)

    def _modality_token(self, modality: str) -> str:
        return modality_token(modality)

    def _presence(self, field: str) -> frozenset[str]:
        return frozenset(kind_token(field, kind) for kind in KINDS)

    def _has_any(self, keywords: Sequence[str]) -> Any:
        return one_of(keywords)

    def _and(self, conditions: Sequence[Any]) -> Any:
        return Filters(operator=Filters.OPERATOR_AND, filters=conditions)

    def _or(self, conditions: Sequence[Any]) -> Any:
        return Filters(operator=Filters.OPERATOR_OR, filters=conditions)

    def _nor(self, condition: Any) -> Any:
        return Filters(operator=Filters.OPERATOR_NOT, filters=[condition])

    def _number(self, where: Compare) -> Part:
        typed = number_property(where.field) in self._numbers
        if typed and abs(where.value) < SAFE_INTEGER:
            return self._range(where.field, where.op, float(where.value))
        prefix, digits = f"{ascii_name(where.field)}=n", number_digits(where.value)
        if typed:
            padded = digits.ljust(NUMBER_DIGITS, "0")
            beyond = _after(prefix, padded, NUMBER_DIGITS)
            after = self._any([self._range(where.field, "gt", double_below(where.value)), *beyond])
        else:
            after = self._any(_after(prefix, digits))
        return self._ordered(where, "n", after)

    def _range(self, field: str, op: str, bound: float) -> Any:
        on = base_pb2.FilterTarget(property=number_property(field))
        return Filters(operator=COMPARISONS[op], target=on, value_number=bound)

    def _string(self, where: Compare) -> Part:
        data = where.value.encode("utf-8")
        prefix, digits = f"{ascii_name(where.field)}=s", spell(data[:SPELLED_BYTES])
        after = _after(prefix, digits)
        if len(data) > SPELLED_BYTES:
            # Those that begin alike and go on stand at the end of the digits, behind a hash that has no order.
            alike = _starts(prefix + digits + "+")
            after = [part for part in after if part.value_text != alike.value_text]
            later = [i for i, metadata in self._longer(alike) if metadata[where.field] > where.value]
            after.extend([by_id(later)] if later else [])
        return self._ordered(where, "s", self._any(list(after)))

    def _ordered(self, where: Compare, kind: str, after: Part) -> Part:
        equal = frozenset({token(where.field, kind, where.value)})
        if where.op in ("gt", "gte"):
            return self._any([after, equal]) if where.op == "gte" else after
        excluded = after if where.op == "lte" else self._any([after, equal])
        return self._all([frozenset({kind_token(where.field, kind)}), self._not(excluded)])
