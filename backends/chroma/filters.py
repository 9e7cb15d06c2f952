"""Translation of `Where` trees into Chroma's filters, exact.

Chroma's own operators mean something else in many places: ``$ne`` and ``$nin`` hold for a missing field, nothing says
that a field is there, there is no negation, strings have no order, and numbers are not compared by value. So filters
look at what `backends.chroma.records` stores: keywords, and keys of strings and numbers beside them. Negations are
pushed down to single conditions, which have opposites: ``$eq`` and ``$ne``, ``$contains`` and ``$not_contains``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backends.base import Compare, Scalar, Unsupported, Where
from backends.chroma.records import EXACT, HAS, kind_token, modality_token, number_key, string_key, value_token
from backends.kit.tokens import Part, TokenTranslator

Condition = dict[str, Any]

# Chroma refuses a group of 1,000 conditions and takes 1.9 s for 900; 100 keywords took 0.05 s over 10,000 records.
MAX_CONDITIONS = 256
# All conditions together may have as many values as SQLite has variables, 32,766.
MAX_VALUES = 20_000
OPPOSITES = {
    "$eq": "$ne",
    "$ne": "$eq",
    "$in": "$nin",
    "$nin": "$in",
    "$contains": "$not_contains",
    "$not_contains": "$contains",
}
# Not complements where the key is missing, which the keyword beside each of them settles.
ORDER = {"gt": "$gt", "gte": "$gte", "lt": "$lt", "lte": "$lte"}
NOT_ORDER = {"$gt": "$lte", "$gte": "$lt", "$lt": "$gte", "$lte": "$gt"}


class TooLarge(Exception):
    """Chroma does not answer a filter of so many conditions."""


def has(keyword: str) -> Condition:
    """A condition: the record has this keyword."""
    return {HAS: {"$contains": keyword}}


def lacks(keyword: str) -> Condition:
    """A condition: the record has not this keyword."""
    return {HAS: {"$not_contains": keyword}}


#: No record has this keyword.
NOTHING = has("!!")


def both(*conditions: Condition | None) -> Condition | None:
    """A condition: all of these hold, those that are None aside."""
    kept = [condition for condition in conditions if condition is not None]
    return {"$and": kept} if len(kept) > 1 else kept[0] if kept else None


def either(conditions: Sequence[Condition]) -> Condition:
    """A condition: one of these, one or more, holds."""
    return conditions[0] if len(conditions) == 1 else {"$or": list(conditions)}


def opposite(condition: Condition) -> Condition:
    """The exact complement of a condition, where every comparison of order has the keyword of its kind beside it."""
    ((key, value),) = condition.items()
    if key in ("$and", "$or"):
        return {"$or" if key == "$and" else "$and": [opposite(clause) for clause in value]}
    ((operator, operand),) = value.items()
    return {key: {OPPOSITES.get(operator) or NOT_ORDER[operator]: operand}}


def size(condition: Condition) -> tuple[int, int]:
    """How many single conditions it has, and how many values these."""
    ((key, value),) = condition.items()
    if key in ("$and", "$or"):
        sizes = [size(clause) for clause in value]
        return sum(conditions for conditions, _ in sizes), sum(values for _, values in sizes)
    (operand,) = value.values()
    return 1, len(operand) if isinstance(operand, list) else 1


class Translator(TokenTranslator):
    """Turns one `Where` into a filter. `has_lists` says whether any record's field is a list."""

    def __init__(self, has_lists: Callable[[str], bool]) -> None:
        self._has_lists = has_lists
        # What each keyword that the shared translation collects stands for: field, kind and value.
        self._meant: dict[str, tuple[str, str, Scalar]] = {}

    def translate(self, where: Where | None) -> Condition | bool:
        """The filter; True where all records match, False where none does. Raises `TooLarge`, `Unsupported`."""
        part = self.part(where)
        if isinstance(part, bool):
            return part
        condition: Condition = self._condition(part)
        conditions, values = size(condition)
        if conditions > MAX_CONDITIONS or values > MAX_VALUES:
            raise TooLarge
        return condition

    def _token(self, field: str, kind: str, value: Scalar) -> str:
        # The representation tells 1 and True apart, and equal numbers have one.
        shown = int(value) if isinstance(value, float) and value.is_integer() else value
        keyword = f"{field}={kind}:{shown!r}"
        self._meant[keyword] = (field, kind, value)
        return keyword

    def _modality_token(self, modality: str) -> str:
        return modality_token(modality)

    def _presence(self, field: str) -> frozenset[str]:
        return frozenset({field})

    def _has_any(self, keywords: Sequence[str]) -> Condition:
        values: dict[tuple[str, str], list[Any]] = {}
        found: list[Condition] = []
        for keyword in keywords:
            if keyword in self._meant:
                field, kind, value = self._meant[keyword]
                values.setdefault((field, kind), []).append(value)
            else:
                found.append(has(keyword))
        for (field, kind), wanted in values.items():
            found += self._values(field, kind, wanted)
        return either(found or [NOTHING])

    def _values(self, field: str, kind: str, wanted: list[Any]) -> list[Condition]:
        """Conditions of which one holds where the field is, or as a list contains, one of the values."""
        if kind == "s":
            one_of = _one_of("=" + field, [string_key(value) for value in wanted])
            return [{"$and": [has(kind_token(field, "s")), one_of]}]
        if kind == "n":
            plain = [number_key(value)[0] for value in wanted if abs(value) < EXACT]
            listed = [_one_of("<" + field, plain)] if plain else []
            listed += [_equal_large(field, value) for value in wanted if abs(value) >= EXACT]
            return [{"$and": [has(kind_token(field, "n")), either(listed)]}]
        if kind == "l" and len(wanted) > MAX_CONDITIONS // 4 and not self._has_lists(field):
            return []
        return [has(value_token(field, kind, value)) for value in wanted]

    def _and(self, conditions: Sequence[Condition]) -> Condition:
        return {"$and": list(conditions)}

    def _or(self, conditions: Sequence[Condition]) -> Condition:
        return {"$or": list(conditions)}

    def _nor(self, condition: Condition) -> Condition:
        return opposite(condition)

    def _number(self, where: Compare) -> Part:
        high, low = number_key(where.value)
        compared: Condition = {"<" + where.field: {ORDER[where.op]: high}}
        if abs(where.value) >= EXACT:
            strictly = {"<" + where.field: {ORDER[where.op.removesuffix("e")]: high}}
            same = {"<" + where.field: {"$eq": high}}
            compared = either([strictly, {"$and": [same, {"+" + where.field: {ORDER[where.op]: low}}]}])
        return {"$and": [has(kind_token(where.field, "n")), compared]}

    def _string(self, where: Compare) -> Part:
        raise Unsupported(f"Chroma has no order of strings: ask for {where.field} by $eq or $in, not ${where.op}")


def _equal_large(field: str, value: float) -> Condition:
    high, low = number_key(value)
    return {"$and": [{"<" + field: {"$eq": high}}, {"+" + field: {"$eq": low}}]}


def _one_of(key: str, values: Sequence[Any]) -> Condition:
    return {key: {"$eq": values[0]} if len(values) == 1 else {"$in": list(values)}}
