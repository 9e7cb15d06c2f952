"""From a ranking to the list that is shown: reranked, near-duplicates folded, diversified, in this order.

Every step keeps pages together: what it makes of the first ranks never depends on how much further the
ranking was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backends.base import Backend, Hit
from retrieval.search.diversity import maximal_marginal_relevance, unit_rows
from retrieval.search.duplicates import group_near_duplicates
from retrieval.search.fusion import Ranked
from retrieval.search.query import SearchError
from retrieval.search.rerank import Reranker

#: Ranks that are read at least where they are shaped, and ranks that are diversified.
WINDOW = 100
#: Ranks that are reranked.
RERANKED = 50
GET_IDS = 500


@dataclass(frozen=True, slots=True)
class PostProcessing:
    """How a ranking is shaped; the default leaves it as it is. Raises SearchError for impossible values."""

    diversity: float = 0.0
    group_duplicates: float | None = None
    reranker: Reranker | None = None
    words: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.diversity < 1:
            raise SearchError(f"diversity must be from 0 to below 1, not {self.diversity!r}")
        if self.group_duplicates is not None and not 0 < self.group_duplicates <= 1:
            raise SearchError(f"group_duplicates must be a cosine above 0 up to 1, not {self.group_duplicates!r}")
        if self.reranker is not None and not self.words.strip():
            raise SearchError("reranking reads words: give the query some")

    @property
    def plain(self) -> bool:
        """Whether the ranking stays as it is."""
        return not self.diversity and self.group_duplicates is None and self.reranker is None


class PostProcessor:
    """Shapes one growing ranking; scores and vectors that were fetched once are kept."""

    def __init__(self, shape: PostProcessing, backend: Backend, collection: str) -> None:
        self._shape, self._backend, self._collection = shape, backend, collection
        self._vectors: dict[str, NDArray[np.float32]] = {}
        self._scores: dict[str, float] = {}

    def shaped(self, ranked: Sequence[Ranked[Hit]]) -> list[tuple[Ranked[Hit], tuple[str, ...]]]:
        """Each hit that is shown, with the ids of those folded into it."""
        items = [*self._reranked(ranked[:RERANKED]), *ranked[RERANKED:]]
        groups = self._grouped(items)
        head = [position for position in groups if position < WINDOW]
        tail = [position for position in groups if position >= WINDOW]
        if self._shape.diversity:
            values = np.array([items[position].value for position in head])
            vectors = self._matrix([items[position] for position in head])
            head = [head[i] for i in maximal_marginal_relevance(values, vectors, self._shape.diversity)]
        return [(items[p], tuple(items[other].hit.id for other in groups[p])) for p in (*head, *tail)]

    def _reranked(self, ranked: Sequence[Ranked[Hit]]) -> list[Ranked[Hit]]:
        """Hits with a text change places among themselves, the others keep theirs; values stay with the places."""
        reranker = self._shape.reranker
        if reranker is None:
            return list(ranked)
        places = [place for place, each in enumerate(ranked) if each.hit.text]
        new = [ranked[place].hit for place in places if ranked[place].hit.id not in self._scores]
        if new:
            scores = reranker.score(self._shape.words, [hit.text or "" for hit in new])
            self._scores.update(zip((hit.id for hit in new), map(float, scores), strict=True))
        order = sorted(places, key=lambda place: (-self._scores[ranked[place].hit.id], place))
        moved = dict(zip(places, order, strict=True))
        return [replace(each, hit=ranked[moved.get(place, place)].hit) for place, each in enumerate(ranked)]

    def _grouped(self, items: Sequence[Ranked[Hit]]) -> dict[int, list[int]]:
        threshold = self._shape.group_duplicates
        if threshold is None:
            return {position: [] for position in range(len(items))}
        return group_near_duplicates([item.hit.modality for item in items], self._matrix(items), threshold)

    def _matrix(self, items: Sequence[Ranked[Hit]]) -> NDArray[np.float32]:
        """(n, d) vectors of unit length; zeros for items that are gone by now or have none, like nothing else."""
        wanted = [item.hit.id for item in items]
        new = [item_id for item_id in wanted if item_id not in self._vectors]
        for start in range(0, len(new), GET_IDS):
            chunk = new[start : start + GET_IDS]
            for record in self._backend.get(self._collection, chunk, with_vectors=True):
                if record.has_vector and record.vector is not None:
                    self._vectors[record.id] = record.vector
        if not wanted:
            return np.empty((0, 0), dtype=np.float32)
        dim = len(next(iter(self._vectors.values()))) if self._vectors else 1
        nothing = np.zeros(dim, dtype=np.float32)
        rows = np.stack([self._vectors.get(item_id, nothing) for item_id in wanted])
        return unit_rows(rows)
