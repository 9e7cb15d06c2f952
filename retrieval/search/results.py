"""What a search gives: the engine's hit, and what retrieval adds to it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from backends.base import Hit


@dataclass(frozen=True, slots=True)
class Result(Hit):
    """A hit with what retrieval knows about it beyond the engine.

    `relevance` is the calibrated probability-like number in [0, 1] that the item answers the query,
    the same on every encoder and engine; None where nothing was judged. `duplicates` are the ids of
    near-identical items that were folded into this one.
    """

    relevance: float | None = None
    duplicates: tuple[str, ...] = ()

    @classmethod
    def of(cls, hit: Hit, duplicates: tuple[str, ...] = ()) -> Self:
        """The hit, with what was folded into it; what is known of its relevance is kept."""
        known = {each.name: getattr(hit, each.name) for each in fields(hit)}
        return cls(**{**known, "duplicates": duplicates})
