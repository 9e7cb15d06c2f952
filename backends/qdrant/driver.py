"""What `backends.qdrant.store` needs of one Qdrant: collections by handle, points in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from backends.base import CollectionSpec
from backends.kit.widths import Width
from backends.qdrant.filters import Dialect

# At 200, recall was 1.00 beside the data but 0.86 to 0.96 on its far side; at 400 it was 0.96 to 1.00 there.
DEFAULT_EF = 400
# What is tried at `flush`, the default first.
WIDTHS = (DEFAULT_EF, 800, 1_600, 3_200)

Floats = NDArray[np.float32]
Point = tuple[str, Floats, dict[int, float] | None, dict[str, Any]]
Row = tuple[str, Mapping[str, Any], Sequence[float] | Floats | None]
Found = tuple[float, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search: scan all that match, or walk the graph with `ef` candidates."""

    exact: bool
    ef: int = DEFAULT_EF


class Handle(Protocol):
    """A collection as an operation found it: looked up once, so that a drop meanwhile cannot exchange it."""

    @property
    def spec(self) -> CollectionSpec:
        """The spec stored with it."""
        ...

    @property
    def keys(self) -> set[str]:
        """The payload keys that are known to be indexed."""
        ...

    @property
    def words(self) -> int:
        """The version of the words that its points have, see `backends.text.WORDS_VERSION`."""
        ...

    @property
    def width(self) -> Width | None:
        """How wide its graph has to be searched; None where that was not tried."""
        ...


H = TypeVar("H", bound=Handle)


class Driver(Protocol[H]):
    """One Qdrant: points in and out. Every call raises `BackendError`s, `CollectionNotFound` among them.

    An operation calls `find` once and gives the handle to all else that it calls. Where the collection was dropped
    since, those raise `CollectionNotFound`, though another one of that name may be there by then.
    """

    @property
    def dialect(self) -> Dialect:
        """The filter classes of its client."""
        ...

    def names(self) -> list[str]:
        """The names of all collections that Sightline made, in any order."""
        ...

    def find(self, name: str) -> H:
        """The collection of this name as it is now."""
        ...

    def spec_now(self, name: str) -> CollectionSpec:
        """The spec as whoever changed it last has left it."""
        ...

    def set_encoder(self, name: str, fingerprint: str) -> None:
        """Store another encoder's fingerprint in the spec."""
        ...

    def create(self, spec: CollectionSpec) -> None:
        """Make an empty collection with its spec."""
        ...

    def drop(self, name: str) -> None:
        """Remove a collection; silent when it is not there."""
        ...

    def writing(self, at: H) -> AbstractContextManager[None]:
        """A block of writes: alone where the engine can promise it, on the disk when the block ends."""
        ...

    def upsert(self, at: H, points: Sequence[Point]) -> None:
        """Store points: id, vector (of length 0 for none), weights of words, payload."""
        ...

    def retrieve(self, at: H, ids: Sequence[str], *, payload: bool, vectors: bool) -> list[Row]:
        """The points of these ids, in any order; a vector that is not there or not asked for is None."""
        ...

    def delete_ids(self, at: H, ids: Sequence[str]) -> None:
        """Delete points by id."""
        ...

    def delete_where(self, at: H, condition: Any) -> None:
        """Delete points by filter."""
        ...

    def count(self, at: H, condition: Any | None) -> int:
        """How many points match, exactly."""
        ...

    def estimate(self, at: H, condition: Any | None) -> int | None:
        """About how many points match, `None` where asking costs as much as searching."""
        ...

    def scroll(self, at: H, start: str | None, limit: int, condition: Any | None, *, vectors: bool) -> list[Row]:
        """Points in the order of their ids, from `start` on."""
        ...

    def search(self, at: H, queries: Floats, limit: int, condition: Any | None, plan: Plan) -> list[list[Found]]:
        """The best by the dense vector: Qdrant's score and the payload of each."""
        ...

    def search_words(self, at: H, indices: list[int], limit: int, condition: Any | None) -> list[Found]:
        """The best by the sparse vector."""
        ...

    def set_words(self, at: H, weights: Mapping[str, dict[int, float]]) -> None:
        """Replace the weights of words of points that are there, and nothing else of them."""
        ...

    def note_words(self, at: H, version: int) -> None:
        """Store the version of the words, when all points have them, and say so in the handle's `words`."""
        ...

    def note_width(self, at: H, width: Width) -> None:
        """Store how wide the graph has to be searched, and say so in the handle's `width`."""
        ...

    def index(self, at: H, key: str) -> None:
        """See to it that this payload key, which holds integers, is indexed, and say so in the handle's `keys`."""
        ...

    def flush(self, at: H) -> None:
        """Return when everything is indexed and on the disk."""
        ...

    def close(self) -> None:
        """Release everything; calls after it raise `BackendError`."""
        ...
