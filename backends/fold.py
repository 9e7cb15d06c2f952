"""Filters made smaller without a change of meaning.

Engines translate what `folded` returns: thousands of equalities on one field are one list of values there,
which every database answers quicker than as many comparisons, and what is always true or always false is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backends.filters import (
    MODALITIES,
    And,
    Compare,
    Not,
    Or,
    Scalar,
    Where,
    check_where,
    kind_of,
    matches,
)

TRUE, FALSE = And(()), Or(())


def folded(where: Where) -> Where:
    """A filter that means the same, with less in it. Raises ValueError as `check_where` does.

    Equalities on one field are one ``in``, nested conjunctions and disjunctions are flat, and constants are
    gone: what is left is ``And(())``, which is always true, ``Or(())``, which never is, or holds neither.
    """
    check_where(where)
    return _fold(where)


def is_everything(where: Where) -> bool:
    """Whether `where` matches every record whatever it holds, by its form: ``{}``, or not one of none."""
    return folded(where) == TRUE


def _fold(where: Where) -> Where:
    if isinstance(where, Compare):
        return _fold_compare(where)
    if isinstance(where, Not):
        return _negated(_fold(where.clause))
    return _fold_group(where)


def _fold_compare(where: Compare) -> Where:
    if where.field == "modality":
        chosen = [matches(where, {}, modality) for modality in MODALITIES]
        return where if any(chosen) and not all(chosen) else TRUE if all(chosen) else FALSE
    if where.op == "exists":
        return where if where.value else Not(Compare(where.field, "exists", True))
    if where.op not in ("in", "nin"):
        return where
    if not where.value:
        return FALSE if where.op == "in" else Compare(where.field, "exists", True)
    return _listed(where.field, where.op == "in", where.value)


def _listed(field: str, positive: bool, values: Sequence[Scalar]) -> Compare:
    """The comparison with several values, each of them once."""
    wanted = tuple(value for _, value in dict.fromkeys((kind_of(value), value) for value in values))
    if len(wanted) == 1:
        return Compare(field, "eq" if positive else "ne", wanted[0])
    return Compare(field, "in" if positive else "nin", wanted)


def _negated(where: Where) -> Where:
    if isinstance(where, Not):
        return where.clause
    if where == TRUE:
        return FALSE
    return TRUE if where == FALSE else Not(where)


def _fold_group(where: And | Or) -> Where:
    kind, neutral, absorbing = (And, TRUE, FALSE) if isinstance(where, And) else (Or, FALSE, TRUE)
    parts: dict[str, Where] = {}
    for clause in _merged(_flat(where, kind), any_of=kind is Or):
        if clause == absorbing:
            return absorbing
        if clause != neutral:
            # By its text, as 1, 1.0 and True are equal to Python and differ to a filter.
            parts[repr(clause)] = clause
    if any(repr(_negated(clause)) in parts for clause in parts.values()):
        return absorbing
    return next(iter(parts.values())) if len(parts) == 1 else kind(tuple(parts.values()))


def _flat(where: And | Or, kind: type[And] | type[Or]) -> Iterator[Where]:
    """The clauses, folded, with those of inner groups of the same kind among them."""
    for clause in map(_fold, where.clauses):
        if isinstance(clause, kind):
            yield from clause.clauses
        else:
            yield clause


def _merged(clauses: Iterator[Where], *, any_of: bool) -> Iterator[Where]:
    """Clauses with those on one field that can be one list made one.

    One of several equalities holds where the field is among their values. So it is with all of several
    inequalities, and with the negations of both.
    """
    lists: dict[tuple[str, bool, bool], list[Scalar]] = {}
    for clause in clauses:
        negated = isinstance(clause, Not)
        inner = clause.clause if isinstance(clause, Not) else clause
        if not isinstance(inner, Compare) or inner.op not in ("eq", "in", "ne", "nin") or inner.field == "modality":
            yield clause
            continue
        positive = inner.op in ("eq", "in")
        if (positive != negated) is not any_of:
            yield clause
            continue
        values = inner.value if inner.op in ("in", "nin") else (inner.value,)
        lists.setdefault((inner.field, positive, negated), []).extend(values)
    for (field, positive, negated), values in lists.items():
        merged = _listed(field, positive, values)
        yield Not(merged) if negated else merged
