"""Translation of `Where` trees into Weaviate filters.

Weaviate's own comparisons mean something else in many places (keywords lose their outer white space, a
range over a list is true when any element is inside, numbers are doubles, a field must be declared before
it can be asked for), so filters look at what `backends.weaviate_objects` stores beside the metadata.
Equality is a keyword of ``has``. What comes after a value in order shares its first digits and has a
greater one next, so order is a union of prefix patterns over the same keywords; numbers in fields with a
property of their own are compared by its range index instead, which is quicker.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias

from weaviate.proto.v1 import base_pb2

from backends.base import MODALITIES, And, Compare, Not, Or, Where, matches
from backends.weaviate_objects import (
    HAS,
    KINDS,
    NUMBER_DIGITS,
    SAFE_INTEGER,
    SPELLED_BYTES,
    double_below,
    kind_token,
    modality_token,
    number_digits,
    number_property,
    spell,
    token,
)
from backends.where import ORDERINGS, kind_of

Filters = base_pb2.Filters
# What a subtree has become: a constant, "has any of these keywords", or a filter.
Part: TypeAlias = Any
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


class Translator:
    """Turns one `Where` into a filter.

    `numbers`: the properties that hold numbers of a field. `longer` finds the strings that share their first
    48 bytes with a longer operand, given the filter that selects them: (object id, metadata) of each.
    """

    def __init__(self, numbers: Collection[str], longer: Callable[[Any], Iterable[tuple[str, Any]]]) -> None:
        self._numbers = numbers
        self._longer = longer

    def filter(self, where: Where | None) -> Any:
        """The filter; ``True`` when it selects everything, ``False`` when it selects nothing."""
        part = True if where is None else self._part(where)
        return part if isinstance(part, bool) else self._condition(part)

    def _condition(self, part: Part) -> Any:
        return one_of(sorted(part)) if isinstance(part, frozenset) else part

    def _part(self, where: Where) -> Part:
        if isinstance(where, And):
            return self._all([self._part(clause) for clause in where.clauses])
        if isinstance(where, Or):
            return self._any([self._part(clause) for clause in where.clauses])
        if isinstance(where, Not):
            return self._not(self._part(where.clause))
        if where.field == "modality":
            chosen = [m for m in MODALITIES if matches(where, {}, m)]
            return len(chosen) == len(MODALITIES) or (len(chosen) > 0 and frozenset(map(modality_token, chosen)))
        if where.op in ORDERINGS:
            return self._number(where) if kind_of(where.value) == "n" else self._string(where)
        return self._equality(where)

    def _all(self, parts: list[Part]) -> Part:
        kept = [part for part in parts if part is not True]
        if any(part is False for part in kept):
            return False
        if len(kept) < 2:
            return kept[0] if kept else True
        return Filters(operator=Filters.OPERATOR_AND, filters=[self._condition(part) for part in kept])

    def _any(self, parts: list[Part]) -> Part:
        kept = [part for part in parts if part is not False]
        if any(part is True for part in kept):
            return True
        keywords = [part for part in kept if isinstance(part, frozenset)]
        others = [part for part in kept if not isinstance(part, frozenset)]
        # One look-up of many keywords is quicker than many look-ups of one.
        together: list[Part] = [frozenset().union(*keywords), *others] if keywords else others
        if len(together) < 2:
            return together[0] if together else False
        return Filters(operator=Filters.OPERATOR_OR, filters=[self._condition(part) for part in together])

    def _not(self, part: Part) -> Part:
        if isinstance(part, bool):
            return not part
        return Filters(operator=Filters.OPERATOR_NOT, filters=[self._condition(part)])

    def _equality(self, where: Compare) -> Part:
        there = frozenset(kind_token(where.field, kind) for kind in KINDS)
        if where.op == "exists":
            return there if where.value else self._not(there)
        wanted: set[str] = set()
        for value in where.value if where.op in ("in", "nin") else (where.value,):
            kind = kind_of(value)
            if kind == "s":
                wanted.add(token(where.field, "l", value))
            if where.op != "contains":
                wanted.add(token(where.field, kind, value))
        found: Part = frozenset(wanted) if wanted else False
        return self._all([there, self._not(found)]) if where.op in ("ne", "nin") else found

    def _number(self, where: Compare) -> Part:
        typed = number_property(where.field) in self._numbers
        if typed and abs(where.value) < SAFE_INTEGER:
            return self._range(where.field, where.op, float(where.value))
        prefix, digits = f"{where.field}=n", number_digits(where.value)
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
        prefix, digits = f"{where.field}=s", spell(data[:SPELLED_BYTES])
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
