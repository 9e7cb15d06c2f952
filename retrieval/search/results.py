"""What a search gives: the engine's hit, and what retrieval adds to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from backends.base import Hit
from retrieval.places import is_gone


@dataclass(frozen=True, slots=True)
class Result(Hit):
    """A hit with what retrieval knows about it beyond the engine.

    `relevance` is the calibrated probability-like number in [0, 1] that the item answers the query,
    the same on every encoder and engine; None where nothing was judged. `duplicates` are the ids of
    near-identical items that were folded into this one. `scored_by` says what `score` is: a similarity of
    vectors, or the BM25 of an item that only its words found.
    """

    relevance: float | None = None
    duplicates: tuple[str, ...] = ()
    scored_by: Literal["vector", "keyword"] = "vector"

    @property
    def gone(self) -> bool:
        """Whether its file was on this machine and is not there any more; looked for at the moment of asking."""
        return is_gone(self)

    @classmethod
    def of(cls, hit: Hit, **more: Any) -> Self:
        """The hit, with `more` known of it; what was known before is kept."""
        known = {each.name: getattr(hit, each.name) for each in fields(hit)}
        return cls(**{**known, **more})


class Found(list[Result]):
    """The results of one search, best first.

    `words_only` says that only words were searched though meaning was asked for, as the encoder cannot read the query;
    `notices` tell it, and whatever else a person should know of the list.
    """

    def __init__(
        self, results: Iterable[Result] = (), *, notices: tuple[str, ...] = (), words_only: bool = False
    ) -> None:
        super().__init__(results)
        self.notices, self.words_only = notices, words_only
