"""Translation of `Where` trees into VikingDB's filters.

They know ``must`` and ``must_not`` (one of, none of), ``range``, ``and`` and ``or``. A row has a default where a field
is missing, so that everything but the order of numbers is asked of the keywords in ``has``, and the order only of rows
whose keywords say that the field is in this slot. A negation is pushed down to the leaves, as there is none in the
language. Conditions are its JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from backends.base import Compare, Scalar, Unsupported, Where
from backends.filters import Operator, matches
from backends.kit.number_keys import double_below
from backends.kit.tokens import Part, TokenTranslator
from backends.vikingdb.records import (
    HAS,
    HIGH,
    LOW,
    UNPLACED,
    halves,
    presence_token,
    slot_token,
    slots_of,
    value_token,
)

_OPPOSITES = {"must": "must_not", "must_not": "must", "and": "or", "or": "and"}
_COMPLEMENTS = {"gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt"}
_SAFE_INTEGER = 2**53


def one_of(keywords: Sequence[str]) -> dict[str, Any]:
    """A condition: the row has one of these keywords."""
    return {"op": "must", "field": HAS, "conds": [*keywords]}


def all_of(*conditions: dict[str, Any]) -> dict[str, Any]:
    """A condition: all of these hold."""
    return conditions[0] if len(conditions) == 1 else {"op": "and", "conds": [*conditions]}


def negated(condition: dict[str, Any]) -> dict[str, Any]:
    """A condition that holds where this one does not."""
    op = condition["op"]
    if op == "range":
        ((bound, value),) = ((key, value) for key, value in condition.items() if key in _COMPLEMENTS)
        return {"op": "range", "field": condition["field"], _COMPLEMENTS[bound]: value}
    conds = condition["conds"]
    return condition | {"op": _OPPOSITES[op], "conds": [*map(negated, conds)] if op in ("and", "or") else conds}


class Translator(TokenTranslator):
    """Translates a filter; True is what every row matches, False what none does.

    has_unplaced: whether there is a row with one of these keywords, which say that a number found no slot.
    """

    def __init__(self, has_unplaced: Callable[[Sequence[str]], bool]) -> None:
        self._has_unplaced = has_unplaced
        self._ordered: set[str] = set()

    def condition(self, where: Where | None) -> dict[str, Any] | bool:
        """The condition. Raises `Unsupported` for an order that cannot be decided."""
        part = self.part(where)
        if self._ordered and self._has_unplaced([slot_token(field, UNPLACED) for field in sorted(self._ordered)]):
            raise Unsupported(
                f"some records have more numbers than can be ordered here, {', '.join(sorted(self._ordered))[:80]} "
                "among them: in VikingDB a record has about 30 fields of numbers at most that can be compared by order"
            )
        return part if isinstance(part, bool) else self._condition(part)

    def _token(self, field: str, kind: str, value: Scalar) -> str:
        return value_token(field, kind, value)

    def _modality_token(self, modality: str) -> str:
        return f"modality-{modality}"

    def _presence(self, field: str) -> frozenset[str]:
        return frozenset({presence_token(field)})

    def _has_any(self, keywords: Sequence[str]) -> Any:
        return one_of(keywords)

    def _and(self, conditions: Sequence[Any]) -> Any:
        return {"op": "and", "conds": [*conditions]}

    def _or(self, conditions: Sequence[Any]) -> Any:
        return {"op": "or", "conds": [*conditions]}

    def _nor(self, condition: Any) -> Any:
        return negated(condition)

    def _string(self, where: Compare) -> Part:
        raise Unsupported("VikingDB cannot compare strings by order: use $eq or $in")

    def _number(self, where: Compare) -> Part:
        """Numbers whose double is another are compared by slots, the few that share the double by their keywords."""
        self._ordered.add(where.field)
        bound = "gt" if where.op in ("gt", "gte") else "lt"
        high, low = halves(where.value)
        slots: list[Part] = []
        for slot in slots_of(where.field):
            beyond = {"op": "range", "field": f"{HIGH}{slot}", bound: high}
            same = {"op": "must", "field": f"{HIGH}{slot}", "conds": [high]}
            further = {"op": "range", "field": f"{LOW}{slot}", bound: low}
            order = self._or([beyond, self._and([same, further])])
            slots.append(self._and([one_of([slot_token(where.field, slot)]), order]))
        equal = frozenset(self._token(where.field, "n", number) for number in sharing_double(where.value, where.op))
        return self._any([*slots, *([equal] if equal else [])])


def sharing_double(value: float, op: Operator) -> list[float]:
    """The numbers with the same double below them as `value` for which the comparison holds."""
    double = double_below(value)
    if abs(double) < _SAFE_INTEGER:
        numbers: Sequence[float] = [value]
    elif abs(double) < 2**63 or double == -(2.0**63):
        numbers = range(int(double), int(math.nextafter(double, math.inf)))
    else:
        numbers = [double]
    where = Compare("x", op, value)
    return [number for number in numbers if matches(where, {"x": number}, "text")]
