"""Filters as callers give them, and as engines take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from backends.base import And, Compare, Modality, Not, Or, Where, parse_where

#: What a search takes as its filter: a tree, its JSON form, or nothing.
Filter: TypeAlias = Where | Mapping[str, Any] | None


def as_where(filter: Filter) -> Where | None:
    """The filter as a tree. Raises ValueError for a malformed one, TypeError for what is no filter."""
    if isinstance(filter, Mapping):
        return parse_where(filter)
    if filter is not None and not isinstance(filter, Compare | And | Or | Not):
        raise TypeError(f"a filter is a Where or its JSON form, {{'year': {{'$gte': 1990}}}}, not {filter!r}")
    return filter


def and_modality(where: Where | None, modality: Modality | None) -> Where | None:
    """The filter, and only items of this modality where one is given."""
    if modality is None:
        return where
    only = Compare("modality", "eq", modality)
    return only if where is None else And((only, where))
