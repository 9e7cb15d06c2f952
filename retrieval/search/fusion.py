"""Merging rankings whose scores cannot be compared: by what their scores are worth, or by rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from backends.base import Hit

Fusion: TypeAlias = Literal["worth", "ranks"]

RRF_CONSTANT = 60
AnyHit = TypeVar("AnyHit", bound=Hit)


@dataclass(frozen=True, slots=True)
class Ranked(Generic[AnyHit]):
    """A hit in a list, and the value by which the list is sorted: its score, or what fusion gave it."""

    hit: AnyHit
    value: float


def fuse(rankings: Sequence[Sequence[AnyHit]], worth: Mapping[str, float] | None = None) -> list[Ranked[AnyHit]]:
    """Merge rankings, keeping the values they are merged by; a single one stays as it is.

    worth: of each item by id, the log-odds that all evidence gives it (`RelevanceScorer.worth`); its own rank in a list
    decides between equals, then its id. None merges by `reciprocal_rank_fusion`.
    """
    if len(rankings) == 1:
        return [Ranked(hit, hit.score) for hit in rankings[0]]
    reciprocal: dict[str, float] = {}
    best_rank: dict[str, int] = {}
    hits: dict[str, AnyHit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            reciprocal[hit.id] = reciprocal.get(hit.id, 0.0) + 1.0 / (RRF_CONSTANT + rank)
            best_rank[hit.id] = min(best_rank.get(hit.id, rank), rank)
            hits.setdefault(hit.id, hit)
    if worth is None:
        return [Ranked(hits[i], reciprocal[i]) for i in sorted(hits, key=lambda i: (-reciprocal[i], i))]
    return [Ranked(hits[i], worth[i]) for i in sorted(hits, key=lambda i: (-worth[i], best_rank[i], i))]


def reciprocal_rank_fusion(rankings: Sequence[Sequence[AnyHit]]) -> list[AnyHit]:
    """Merge rankings by rank: each hit scores the sum of ``1 / (60 + rank)`` over the lists it is in.

    Scores of different modalities cannot be compared in a CLIP space, nor cosines with BM25; ranks can.
    The hits keep the scores of the first list they are in, so the merged list is not sorted by them. Ties
    by id. (Cormack, Clarke and Buettcher, SIGIR 2009.)
    """
    return [ranked.hit for ranked in fuse(rankings)] if rankings else []
