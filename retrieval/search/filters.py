"""Filters as callers give them, and as engines take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from backends.base import And, Compare, Modality, Not, Or, Where, check_where, parse_where
from backends.dates import whole_periods

#: What a search takes as its filter: a tree, its JSON form, or nothing.
Filter: TypeAlias = Where | Mapping[str, Any] | None


def as_where(filter: Filter) -> Where | None:
    """The filter as a tree, in which a bare date means its whole day, month or year (`backends.dates`).

    Raises ValueError for a malformed one, TypeError for what is no filter.
    """
    if isinstance(filter, Mapping):
        return _whole(parse_where(filter))
    if filter is not None and not isinstance(filter, Compare | And | Or | Not):
        raise TypeError(f"a filter is a Where or its JSON form, {{'year': {{'$gte': 1990}}}}, not {filter!r}")
    return filter if filter is None else _whole(filter)


def _whole(where: Where) -> Where:
    widened = whole_periods(where)
    if widened is not where:
        check_where(widened)
    return widened


def and_modality(where: Where | None, modality: Modality | None) -> Where | None:
    """The filter, and only items of this modality where one is given."""
    if modality is None:
        return where
    only = Compare("modality", "eq", modality)
    return only if where is None else And((only, where))
