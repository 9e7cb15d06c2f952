"""Filters as SQL++ over a document's typed maps, equal to `backends.filters.matches` on every record.

``n``, ``s``, ``b`` and ``l`` hold a record's numbers, strings, booleans and lists by field, ``fields`` the names of
all, so that types never mix. Every leaf is true or false, never MISSING, so that ``NOT`` is the exact complement. Values are
always bound; names of fields are letters, digits and underscores, and stand between back quotes.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence

from backends.filters import MODALITIES, ORDERINGS, And, Compare, Not, Scalar, Where, kind_of, matches
from backends.fold import folded

_SYMBOLS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Condition:
    """A filter as an expression, `text`, over the document ``d``, and its `values` by the names of their parameters."""

    def __init__(self, where: Where | None) -> None:
        self.values: dict[str, object] = {}
        self.text = "TRUE" if where is None else self._text(folded(where))

    def _bind(self, value: object) -> str:
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"${name}"

    def _text(self, where: Where) -> str:
        if isinstance(where, Compare):
            return self._modality(where) if where.field == "modality" else self._compare(where)
        if isinstance(where, Not):
            return f"(NOT {self._text(where.clause)})"
        glue, empty = (" AND ", "TRUE") if isinstance(where, And) else (" OR ", "FALSE")
        return _joined([self._text(clause) for clause in where.clauses], glue, empty)

    def _modality(self, where: Compare) -> str:
        """Folding has left those that hold of some records and not of others."""
        chosen = [modality for modality in MODALITIES if matches(where, {}, modality)]
        return f"(d.modality IN {self._bind(chosen)})"

    def _compare(self, where: Compare) -> str:
        there = f"ARRAY_CONTAINS(d.fields, {self._bind(where.field)})" if where.op in ("exists", "ne", "nin") else ""
        if where.op == "exists":
            return there if where.value else f"(NOT {there})"
        if where.op in ORDERINGS:
            kind = kind_of(where.value)
            if kind not in ("n", "s"):
                return "FALSE"
            return _sure(f"d.{kind}.`{where.field}` {_SYMBOLS[where.op]} {self._bind(where.value)}")
        if where.op == "contains":
            return self._listed(where.field, [where.value]) if isinstance(where.value, str) else "FALSE"
        equal = self._equal(where.field, where.value if where.op in ("in", "nin") else (where.value,))
        return f"({there} AND (NOT {equal}))" if where.op in ("ne", "nin") else equal

    def _equal(self, field: str, values: Sequence[Scalar]) -> str:
        """True when the field, or an element of its list, equals one of the values; lists hold strings only."""
        kinds: dict[str, list[Scalar]] = {}
        for value in values:
            kinds.setdefault(kind_of(value), []).append(value)
        found = [_sure(f"d.{kind}.`{field}` IN {self._bind(some)}") for kind, some in kinds.items()]
        if "s" in kinds:
            found.append(self._listed(field, kinds["s"]))
        return _joined(found, " OR ", "FALSE")

    def _listed(self, field: str, values: Sequence[Scalar]) -> str:
        return _sure(f"ANY x IN d.l.`{field}` SATISFIES x IN {self._bind(list(values))} END")


def _sure(text: str) -> str:
    return f"IFMISSINGORNULL({text}, FALSE)"


def _joined(texts: Sequence[str], glue: str, empty: str) -> str:
    return "(" + glue.join(texts) + ")" if texts else empty
