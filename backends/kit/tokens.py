"""Translation of `Where` trees for engines whose records carry keywords that say what their fields hold.

The keywords themselves are the engine's: `TokenTranslator` decides which of them answer a filter, and how
their conditions are put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.base import MODALITIES
from backends.filters import ORDERINGS, And, Compare, Not, Or, Scalar, Where, kind_of, matches
from backends.fold import folded

# What a subtree has become: a constant, "has any of these keywords", or a condition of the engine.
Part = bool | frozenset[str] | Any


class TokenTranslator:
    """What translators have in common; a subclass says how its engine spells keywords, conditions and order."""

    def _token(self, field: str, kind: str, value: Scalar) -> str:
        """The keyword that says that `field` is, or as a list (kind ``l``) contains, `value`."""
        raise NotImplementedError

    def _modality_token(self, modality: str) -> str:
        """The keyword for a record's modality."""
        raise NotImplementedError

    def _presence(self, field: str) -> frozenset[str]:
        """The keywords of which every record with the field has one, and no other record has any."""
        raise NotImplementedError

    def _has_any(self, keywords: Sequence[str]) -> Any:
        """A condition: the record has one of these keywords."""
        raise NotImplementedError

    def _and(self, conditions: Sequence[Any]) -> Any:
        """A condition: all of these, two or more, hold."""
        raise NotImplementedError

    def _or(self, conditions: Sequence[Any]) -> Any:
        """A condition: one of these, two or more, holds."""
        raise NotImplementedError

    def _nor(self, condition: Any) -> Any:
        """A condition: this one does not hold."""
        raise NotImplementedError

    def _number(self, where: Compare) -> Part:
        """An ordering of numbers."""
        raise NotImplementedError

    def _string(self, where: Compare) -> Part:
        """An ordering of strings."""
        raise NotImplementedError

    def part(self, where: Where | None) -> Part:
        """What a whole filter becomes. Raises ValueError as `backends.filters.check_where` does."""
        return True if where is None else self._part(folded(where))

    def _condition(self, part: Part) -> Any:
        return self._has_any(sorted(part)) if isinstance(part, frozenset) else part

    def _part(self, where: Where) -> Part:
        if isinstance(where, And):
            return self._all([self._part(clause) for clause in where.clauses])
        if isinstance(where, Or):
            return self._any([self._part(clause) for clause in where.clauses])
        if isinstance(where, Not):
            return self._not(self._part(where.clause))
        if where.field == "modality":
            chosen = [m for m in MODALITIES if matches(where, {}, m)]
            return len(chosen) == len(MODALITIES) or (
                len(chosen) > 0 and frozenset(self._modality_token(m) for m in chosen)
            )
        if where.op in ORDERINGS:
            return self._number(where) if kind_of(where.value) == "n" else self._string(where)
        return self._equality(where)

    def _all(self, parts: Sequence[Part]) -> Part:
        kept = [part for part in parts if part is not True]
        if any(part is False for part in kept):
            return False
        if len(kept) < 2:
            return kept[0] if kept else True
        return self._and([self._condition(part) for part in kept])

    def _any(self, parts: Sequence[Part]) -> Part:
        kept = [part for part in parts if part is not False]
        if any(part is True for part in kept):
            return True
        keywords = [part for part in kept if isinstance(part, frozenset)]
        others = [part for part in kept if not isinstance(part, frozenset)]
        # One look-up of many keywords is far quicker than many look-ups of one.
        together: list[Part] = [frozenset().union(*keywords), *others] if keywords else others
        if len(together) < 2:
            return together[0] if together else False
        return self._or([self._condition(part) for part in together])

    def _not(self, part: Part) -> Part:
        return not part if isinstance(part, bool) else self._nor(self._condition(part))

    def _equality(self, where: Compare) -> Part:
        there = self._presence(where.field)
        if where.op == "exists":
            return there if where.value else self._not(there)
        wanted: set[str] = set()
        for value in where.value if where.op in ("in", "nin") else (where.value,):
            kind = kind_of(value)
            if kind == "s":
                wanted.add(self._token(where.field, "l", value))
            if where.op != "contains":
                wanted.add(self._token(where.field, kind, value))
        found: Part = frozenset(wanted) if wanted else False
        return self._all([there, self._not(found)]) if where.op in ("ne", "nin") else found
