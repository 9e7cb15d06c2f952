"""Merging rankings whose scores cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from backends.base import Hit

RRF_CONSTANT = 60
AnyHit = TypeVar("AnyHit", bound=Hit)


@dataclass(frozen=True, slots=True)
class Ranked(Generic[AnyHit]):
    """A hit in a list, and the value by which the list is sorted: its score, or what fusion gave it."""

    hit: AnyHit
    value: float


def fuse(rankings: Sequence[Sequence[AnyHit]]) -> list[Ranked[AnyHit]]:
    """Merge rankings by `reciprocal_rank_fusion`, keeping the fused values; a single one stays as it is."""
    if len(rankings) == 1:
        return [Ranked(hit, hit.score) for hit in rankings[0]]
    fused: dict[str, float] = {}
    hits: dict[str, AnyHit] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            fused[hit.id] = fused.get(hit.id, 0.0) + 1.0 / (RRF_CONSTANT + rank)
            hits.setdefault(hit.id, hit)
    return [Ranked(hits[i], fused[i]) for i in sorted(fused, key=lambda i: (-fused[i], i))]


def reciprocal_rank_fusion(rankings: Sequence[Sequence[AnyHit]]) -> list[AnyHit]:
    """Merge rankings by rank: each hit scores the sum of ``1 / (60 + rank)`` over the lists it is in.

    Scores of different modalities cannot be compared in a CLIP space, nor cosines with BM25; ranks can.
    The hits keep the scores of the first list they are in, so the merged list is not sorted by them. Ties
    by id. (Cormack, Clarke and Buettcher, SIGIR 2009.)
    """
    return [ranked.hit for ranked in fuse(rankings)] if rankings else []
