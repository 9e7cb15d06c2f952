"""Filters as SQL over a ``jsonb`` column, equal to `backends.filters.matches` on every record.

Every leaf below a ``NOT`` is true or false, never NULL, so that it is the exact complement. Equality is
containment (``@>``), which a GIN index answers: it keeps strings, booleans and numbers apart and
compares numbers by value. Strings are ordered by code point (``COLLATE "C"`` on UTF-8).
Values are always bound, never formatted into the statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from backends.errors import Unsupported
from backends.filters import ORDERINGS, And, Compare, MetadataValue, Not, Scalar, Where
from backends.fold import folded
from backends.kit.json_text import encode

Params: TypeAlias = list[object]
Clause: TypeAlias = tuple[str, Params]

_SYMBOLS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# A longer `in` list becomes one array: each term of an OR is planned and indexed on its own.
_MAX_ALTERNATIVES = 16
# The protocol counts parameters in 16 bits; some are left for what stands beside the filter.
_MAX_PARAMS = 65_000
# From here on repr() writes floats with an exponent, which jsonb would turn into an integer.
_EXPONENT_FROM = 1e16


def scalar_json(value: Scalar) -> str:
    """One scalar as JSON whose numbers survive ``jsonb`` with value and type (int or float) intact.

    PostgreSQL keeps JSON numbers as decimals: ``1e300`` would come back as an integer of 301 digits.
    Large floats are therefore written out with ``.0``, exactly; smaller ones by their shortest repr,
    which orders against integers as the float itself does.
    """
    if isinstance(value, float) and abs(value) >= _EXPONENT_FROM:
        return f"{value:.1f}"
    return encode(value)


def metadata_json(metadata: Mapping[str, MetadataValue]) -> str:
    """A record's metadata as JSON text for a ``jsonb`` column."""
    if not any(isinstance(value, float) and abs(value) >= _EXPONENT_FROM for value in metadata.values()):
        # At once it takes a third of the time.
        return encode(dict(metadata))
    entries = []
    for key, value in metadata.items():
        if isinstance(value, (str, int, float, bool)):
            entries.append(f"{encode(key)}:{scalar_json(value)}")
        else:
            entries.append(f"{encode(key)}:{encode(list(value))}")
    return "{" + ",".join(entries) + "}"


def where_sql(where: Where | None) -> Clause:
    """A boolean SQL expression over the columns ``modality`` and ``metadata``, and its parameters.

    Raises ValueError for a filter beyond the bounds of `backends.filters.check_where`, `Unsupported` for one with
    more parameters than PostgreSQL takes, which no filter within them has.
    """
    if where is None:
        return "TRUE", []
    tree = folded(where)
    clause = _sql(tree, _MAX_ALTERNATIVES)
    if len(clause[1]) > _MAX_PARAMS:
        clause = _sql(tree, 1)
    if len(clause[1]) > _MAX_PARAMS:
        raise Unsupported(f"this filter needs {len(clause[1])} parameters, and PostgreSQL takes {_MAX_PARAMS}")
    return clause


def ordered_fields(where: Where | None) -> set[str]:
    """The metadata fields that a filter compares with numbers by order, and that no GIN index can look up."""
    if where is None:
        return set()
    if isinstance(where, Compare):
        is_ordering = where.op in ORDERINGS and where.field != "modality" and not isinstance(where.value, str)
        return {where.field} if is_ordering else set()
    clauses = (where.clause,) if isinstance(where, Not) else where.clauses
    return set().union(*map(ordered_fields, clauses))


def number_index(name: str, table: str, field: str) -> str:
    """The statement that makes an index of a field's numbers; of other values none, as those may be too long for it."""
    # Names of fields are letters, digits and underscores.
    return (
        f"CREATE INDEX IF NOT EXISTS {name} ON {table} ((metadata -> '{field}'::text)) "
        f"WHERE jsonb_typeof(metadata -> '{field}'::text) = 'number'"
    )


def _sql(where: Where, alternatives: int, *, negated: bool = False) -> Clause:
    """The expression; a comparison with more values than `alternatives` is one with an array."""
    if isinstance(where, Compare):
        return _modality(where) if where.field == "modality" else _metadata(where, alternatives, negated=negated)
    if isinstance(where, Not):
        text, params = _sql(where.clause, alternatives, negated=True)
        return f"(NOT {text})", params
    glue, empty = (" AND ", "TRUE") if isinstance(where, And) else (" OR ", "FALSE")
    return _join([_sql(clause, alternatives, negated=negated) for clause in where.clauses], glue, empty)


def named(clause: Clause) -> tuple[str, dict[str, object]]:
    """The clause with its placeholders named ``p0``, ``p1`` and so on, to stand beside others that have names."""
    head, *rest = clause[0].split("%s")
    text = head + "".join(f"%(p{i})s{part}" for i, part in enumerate(rest))
    return text, {f"p{i}": value for i, value in enumerate(clause[1])}


def _join(clauses: Sequence[Clause], glue: str, empty: str) -> Clause:
    if not clauses:
        return empty, []
    params = [param for _, some in clauses for param in some]
    return "(" + glue.join(text for text, _ in clauses) + ")", params


def _modality(where: Compare) -> Clause:
    """A comparison of the field every record has: a string column, so only strings can equal or order."""
    if where.op == "exists":
        return ("TRUE" if where.value else "FALSE"), []
    if where.op == "contains":
        return "FALSE", []
    if where.op in ORDERINGS:
        if not isinstance(where.value, str):
            return "FALSE", []
        return f'(modality COLLATE "C" {_SYMBOLS[where.op]} %s)', [where.value]
    values = where.value if where.op in ("in", "nin") else (where.value,)
    strings = [value for value in values if isinstance(value, str)]
    text = "(modality = ANY(%s::text[]))"
    return (f"(NOT {text})" if where.op in ("ne", "nin") else text), [strings]


def _metadata(where: Compare, alternatives: int, *, negated: bool) -> Clause:
    if where.op == "exists":
        return ("(metadata ? %s)" if where.value else "(NOT metadata ? %s)"), [where.field]
    if where.op in ORDERINGS:
        text, params = _ordering(where)
        # Under a NOT, NULL must be false. Elsewhere it is as good, and an index sees through a plain AND only.
        return (f"({text} IS TRUE)" if negated else text), params
    if where.op == "contains":
        return _contains([f"[{scalar_json(where.value)}]"], where.field)
    values = where.value if where.op in ("in", "nin") else (where.value,)
    text, params = _equal(where.field, values, alternatives)
    if where.op in ("ne", "nin"):
        return f"(metadata ? %s AND NOT {text})", [where.field, *params]
    return text, params


def _equal(field: str, values: Sequence[Scalar], alternatives: int) -> Clause:
    """True when the field, or an element of its list, equals one of the values; lists hold strings only."""
    if len(values) <= alternatives:
        forms = [scalar_json(value) for value in values]
        forms += [f"[{scalar_json(value)}]" for value in values if isinstance(value, str)]
        return _contains(forms, field)
    strings = [value for value in values if isinstance(value, str)]
    # As one literal the array is a constant to PostgreSQL, which then hashes it instead of comparing one by one.
    scalars = "{" + ",".join(_quoted(scalar_json(value)) for value in values) + "}"
    found = "(metadata -> %s::text) = ANY(%s::jsonb[])"
    if not strings:
        return f"({found} IS TRUE)", [field, scalars]
    listed = "jsonb_typeof(metadata -> %s::text) = 'array' AND (metadata -> %s::text) ?| %s::text[]"
    return f"(({found} OR ({listed})) IS TRUE)", [field, scalars, field, field, strings]


def _quoted(element: str) -> str:
    """An element of an array literal."""
    return '"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _contains(forms: Sequence[str], field: str) -> Clause:
    key = encode(field)
    return _join([("metadata @> %s::jsonb", [f"{{{key}:{form}}}"]) for form in forms], " OR ", "FALSE")


def _ordering(where: Compare) -> Clause:
    symbol = _SYMBOLS[where.op]
    if isinstance(where.value, str):
        kind, text = "string", f'(metadata ->> %s::text) COLLATE "C" {symbol} %s'
        params: Params = [where.field, where.field, where.value]
    else:
        kind, text = "number", f"(metadata -> %s::text) {symbol} %s::jsonb"
        params = [where.field, where.field, scalar_json(where.value)]
    return f"(jsonb_typeof(metadata -> %s::text) = '{kind}' AND {text})", params
