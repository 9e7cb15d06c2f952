"""Translation of `Where` trees into Qdrant filters, exact on the server, in process and in local mode.

Qdrant's own conditions mean something else in many places (a match on a number does not see equal
floats, ranges are over doubles, strings have no order, a missing field has no complement), so filters
do not look at the metadata but at what `backends.qdrant.payload` stores beside it: equality is a match
on the keywords of ``has``, order a range on the integers of ``order``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from backends.base import Compare, Scalar, Where
from backends.kit.tokens import Part, TokenTranslator
from backends.qdrant.payload import CHUNK_BYTES, CHUNKS, number_key, order_path, string_key, token

# No field is called "!", so no point has this keyword.
NOTHING = frozenset({"!"})


class Dialect(Protocol):
    """The filter classes of one client; `qdrant-edge` and `qdrant-client` have the same under different names."""

    def has_any(self, keywords: Sequence[str]) -> Any:
        """A condition: the point has one of these keywords."""
        ...

    def between(self, key: str, **bounds: float) -> Any:
        """A condition: the number at `key` is there and within ``gt``, ``gte``, ``lt``, ``lte``."""
        ...

    def one_of(self, point_ids: Sequence[str]) -> Any:
        """A condition: the point's id is one of these."""
        ...

    def combine(self, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        """A filter, which is a condition too: all of `must`, some of `should` unless empty, none of `must_not`."""
        ...


class Translator(TokenTranslator):
    """Turns one `Where` into a filter of `dialect`.

    `longer` finds strings that share their first 48 bytes with a longer operand, given the condition
    that selects them: it returns (point id, value of the field) of each. `keys` collects the payload
    keys of the ranges used, which are worth an index, each with its field.
    """

    def __init__(self, dialect: Dialect, longer: Callable[[str, Any], list[tuple[str, str]]]) -> None:
        self.dialect = dialect
        self.keys: dict[str, str] = {}
        self._longer = longer

    def filter(self, where: Where | None) -> Any | None:
        """The filter, or `None` when it selects everything."""
        part = self.part(where)
        if isinstance(part, bool):
            return None if part else self.dialect.combine(must=[self.dialect.has_any(sorted(NOTHING))])
        return self.dialect.combine(must=[self._condition(part)])

    def everything(self) -> Any:
        """A filter that selects everything, for calls that must have one."""
        return self.dialect.combine(must_not=[self.dialect.has_any(sorted(NOTHING))])

    def _token(self, field: str, kind: str, value: Scalar) -> str:
        return token(field, kind, value)

    def _modality_token(self, modality: str) -> str:
        return token("modality", "s", modality)

    def _presence(self, field: str) -> frozenset[str]:
        return frozenset({field})

    def _has_any(self, keywords: Sequence[str]) -> Any:
        return self.dialect.has_any(keywords)

    def _and(self, conditions: Sequence[Any]) -> Any:
        return self.dialect.combine(must=conditions)

    def _or(self, conditions: Sequence[Any]) -> Any:
        return self.dialect.combine(should=conditions)

    def _nor(self, condition: Any) -> Any:
        return self.dialect.combine(must_not=[condition])

    def _range(self, field: str, kind: str, *, position: int, **bounds: float) -> Any:
        key = order_path(field, kind, position)
        if position < 2:
            self.keys[key] = field
        return self.dialect.between(key, **bounds)

    def _number(self, where: Compare) -> Part:
        high, low = number_key(where.value)
        strictly = where.op.removesuffix("e")
        return self._any(
            [
                self._range(where.field, "n", position=0, **{strictly: high}),
                self._all(
                    [
                        self._range(where.field, "n", position=0, gte=high, lte=high),
                        self._range(where.field, "n", position=1, **{where.op: low}),
                    ]
                ),
            ]
        )

    def _string(self, where: Compare) -> Part:
        after = self._after(where.field, where.value)
        equal = frozenset({token(where.field, "s", where.value)})
        if where.op == "gt":
            return after
        if where.op == "gte":
            return self._any([after, equal])
        is_string = self._range(where.field, "s", position=0, gte=0)
        excluded = after if where.op == "lte" else self._any([after, equal])
        return self._all([is_string, self._not(excluded)])

    def _after(self, field: str, value: str) -> Part:
        """The strings that come after `value`: greater in one position and equal in all before it."""
        key = string_key(value)[:CHUNKS] if value else []
        cases: list[Part] = []
        equal: list[Any] = []
        for position, part in enumerate(key):
            cases.append(self._all([*equal, self._range(field, "s", position=position, gt=part)]))
            equal.append(self._range(field, "s", position=position, gte=part, lte=part))
        longer = self._all([*equal, self._range(field, "s", position=len(key), gt=0)])
        if len(value.encode("utf-8")) <= CHUNK_BYTES * CHUNKS:
            cases.append(longer)
        elif later := [point for point, text in self._longer(field, longer) if text > value]:
            cases.append(self.dialect.one_of(later))
        return self._any(cases)
