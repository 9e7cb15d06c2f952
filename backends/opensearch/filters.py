"""Translation of `Where` trees into queries that both servers answer alike, and exactly.

Their own comparisons mean something else in many places (numbers are doubles, keywords of a list match by any of
them, strings beyond a length are not indexed), so filters look at the keywords that `backends.opensearch.records`
stores: equality is a term, order a range of terms.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.base import Compare, Scalar, Where
from backends.kit.tokens import Part, TokenTranslator
from backends.opensearch.records import CHUNK, HAS, ID, chunk_prefixes, number_key, token

# The least `index.max_terms_count` and `indices.query.bool.max_clause_count` that a server has unless changed.
MAX_TERMS, MAX_CLAUSES = 65_000, 900
# Elasticsearch takes 30 levels, of which what is around the filter needs some.
MAX_LEVELS = 12
NOTHING: dict[str, Any] = {"match_none": {}}


@dataclass(frozen=True, slots=True)
class Condition:
    """A query of filters, with how many clauses of Lucene's and levels of JSON it has."""

    query: dict[str, Any]
    clauses: int
    levels: int = 1


def terms(values: Iterable[str], field: str = HAS) -> Condition:
    """A condition: the field has one of these keywords."""
    wanted = list(values)
    if len(wanted) == 1:
        return Condition({"term": {field: wanted[0]}}, 1)
    parts = [wanted[start : start + MAX_TERMS] for start in range(0, len(wanted), MAX_TERMS)]
    queries: list[dict[str, Any]] = [{"terms": {field: part}} for part in parts]
    return Condition(queries[0], 1) if len(queries) == 1 else Condition(_bool("should", queries), len(queries), 2)


def _bool(kind: str, queries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"bool": {kind: list(queries)}}


def _group(kind: str, parts: Sequence[Condition]) -> Condition:
    """Conditions under one, in a wrapper, which is read anew, where the levels would be too many."""
    levels = 1 + max(part.levels for part in parts)
    query = _bool(kind, [part.query for part in parts])
    if levels > MAX_LEVELS:
        query, levels = {"wrapper": {"query": b64encode(json.dumps(query).encode()).decode("ascii")}}, 1
    return Condition(query, sum(part.clauses for part in parts), levels)


def _chunks(parts: Sequence[Condition]) -> list[list[Condition]]:
    """The conditions in groups of few enough clauses; each has few enough alone."""
    chunks: list[list[Condition]] = [[]]
    room = MAX_CLAUSES
    for part in parts:
        if part.clauses > room:
            chunks.append([])
            room = MAX_CLAUSES
        chunks[-1].append(part)
        room -= part.clauses
    return chunks


class Translator(TokenTranslator):
    """Turns one `Where` into a query.

    `matching` finds the ids of the records that meet a query: what has more clauses than a server takes in one is
    asked for piece by piece, and the ids stand for it then.
    """

    def __init__(self, matching: Callable[[dict[str, Any]], Sequence[str]]) -> None:
        self._matching = matching

    def query(self, where: Where | None) -> dict[str, Any] | bool:
        """The query; ``True`` when it selects everything, ``False`` when it selects nothing."""
        part = self.part(where)
        return part if isinstance(part, bool) else self._condition(part).query

    def _token(self, field: str, kind: str, value: Scalar) -> str:
        return token(field, kind, value)

    def _modality_token(self, modality: str) -> str:
        return token("modality", "s", modality)

    def _presence(self, field: str) -> frozenset[str]:
        return frozenset({field})

    def _has_any(self, keywords: Sequence[str]) -> Condition:
        return terms(keywords)

    def _and(self, conditions: Sequence[Condition]) -> Condition:
        first, *others = _chunks(conditions)
        found = _group("filter", first)
        for chunk in others:
            found = _group("filter", [terms(self._ids(found), ID), *chunk])
        return terms(self._ids(found), ID) if others else found

    def _or(self, conditions: Sequence[Condition]) -> Condition:
        chunks = _chunks(conditions)
        if len(chunks) == 1:
            return _group("should", conditions)
        found = {i for chunk in chunks for i in self._ids(_group("should", chunk))}
        return terms(sorted(found), ID) if found else Condition(NOTHING, 1)

    def _ids(self, condition: Condition) -> Sequence[str]:
        return self._matching(condition.query)

    def _nor(self, condition: Condition) -> Condition:
        found = _group("must_not", [condition])
        # The servers add a clause that matches everything.
        return replace(found, clauses=found.clauses + 1)

    def _number(self, where: Compare) -> Part:
        return _range(f"{where.field}=n:", where.op, number_key(where.value))

    def _string(self, where: Compare) -> Part:
        """Greater, or less, in one piece and equal in all before it; a string that ends first is the lesser one."""
        field, value = where.field, where.value
        pieces = list(chunk_prefixes(field, value))
        parts: list[Part] = [_range(prefix, where.op.removesuffix("e"), piece) for prefix, piece in pieces]
        if where.op.startswith("l"):
            parts += [frozenset({token(field, "s", value[: i * CHUNK])}) for i in range(1, len(pieces))]
        elif len(pieces[-1][1]) == CHUNK:
            (*_, (longer, _)) = chunk_prefixes(field, value + "-")
            parts.append(_range(longer, "gt", ""))
        if where.op.endswith("e"):
            parts.append(frozenset({token(field, "s", value)}))
        return self._any(parts)


def _range(prefix: str, op: str, value: str) -> Condition:
    """The keywords with this prefix that come before or after the value."""
    # No keyword with the prefix reaches the one where the character after the colon stands for it.
    bounds = {"lt": prefix.removesuffix(":") + ";"} if op.startswith("g") else {"gte": prefix}
    return Condition({"range": {HAS: {**bounds, op: prefix + value}}}, 1)
