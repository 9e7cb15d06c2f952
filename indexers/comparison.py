"""How two collections of the same records answer: by their own captions where there are some, and by neighbours."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.base import Backend, Compare, Record
from backends.kit.parts import in_pieces

__all__ = ["Comparison", "compare"]

SAMPLE = 200
K = 10
_GET = 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a sample of the stored vectors finds on either side.

    Of `captions` captions the share in % whose own image comes first, and is among the first ten, before and after;
    None where there are none. Of `neighbours` images the share in % of their ten nearest that is the same on both
    sides: how much changes, not which is better. Captions were encoded when they were indexed; nothing is encoded here.
    """

    captions: int
    first: tuple[float, float] | None
    in_ten: tuple[float, float] | None
    neighbours: int
    same_neighbours: float | None


def compare(backend: Backend, before: str, after: str) -> Comparison:
    """Search both collections for the vectors of up to 200 captions and 200 images that both have.

    Captions of the image itself were indexed with it, so an image is found by its pixels alone. Raises `BackendError`.
    """
    captions, images = _sampled(backend, after)
    pairs = _in_both(backend, before, after, captions)
    image_pairs = _in_both(backend, before, after, images)
    ranks = [_ranks(backend, name, [pair[side] for pair in pairs]) for side, name in enumerate((before, after))]
    near = [_near(backend, name, [pair[side] for pair in image_pairs]) for side, name in enumerate((before, after))]
    shared = [len(left & right) / max(1, len(left)) for left, right in zip(*near, strict=True)]
    return Comparison(
        captions=len(pairs),
        first=(_share(ranks[0], 1), _share(ranks[1], 1)) if pairs else None,
        in_ten=(_share(ranks[0], K), _share(ranks[1], K)) if pairs else None,
        neighbours=len(image_pairs),
        same_neighbours=round(100 * float(np.mean(shared)), 1) if shared else None,
    )


def _share(ranks: Sequence[int | None], k: int) -> float:
    return round(100 * sum(rank is not None and rank <= k for rank in ranks) / len(ranks), 1)


def _sampled(backend: Backend, name: str) -> tuple[list[str], list[str]]:
    """Ids of captions and of images: those with the lowest hashes, the same in every run."""
    captions: list[tuple[bytes, str]] = []
    images: list[tuple[bytes, str]] = []
    for page in backend.scan(name, with_vectors=False):
        for record in page.records:
            key = (hashlib.blake2b(record.id.encode(), digest_size=8).digest(), record.id)
            if record.modality == "image":
                images.append(key)
            elif isinstance(record.metadata.get("image"), str):
                captions.append(key)
        captions, images = heapq.nsmallest(SAMPLE, captions), heapq.nsmallest(SAMPLE, images)
    return [record_id for _, record_id in captions], [record_id for _, record_id in images]


def _in_both(backend: Backend, before: str, after: str, ids: Sequence[str]) -> list[tuple[Record, Record]]:
    """The records of these ids with the vectors of either side, where both have one."""
    sides = []
    for name in (before, after):
        found = [r for piece in in_pieces(ids, _GET) for r in backend.get(name, piece, with_vectors=True)]
        sides.append({record.id: record for record in found if record.has_vector})
    return [(sides[0][each], sides[1][each]) for each in ids if each in sides[0] and each in sides[1]]


def _found(backend: Backend, name: str, records: Sequence[Record], k: int) -> list[list[Any]]:
    if not records:
        return []
    vectors = np.array([record.vector for record in records], dtype=np.float32)
    return list(backend.search(name, vectors, k, where=Compare("modality", "eq", "image")))


def _ranks(backend: Backend, name: str, captions: Sequence[Record]) -> list[int | None]:
    """The rank of each caption's own image among the first ten; None where it is not among them."""
    ranks: list[int | None] = []
    for caption, hits in zip(captions, _found(backend, name, captions, K), strict=True):
        ids = [hit.id for hit in hits]
        own = caption.metadata["image"]
        ranks.append(ids.index(own) + 1 if own in ids else None)
    return ranks


def _near(backend: Backend, name: str, images: Sequence[Record]) -> list[set[str]]:
    """The ten nearest images of each, without itself."""
    found = _found(backend, name, images, K + 1)
    return [{hit.id for hit in hits if hit.id != image.id} for image, hits in zip(images, found, strict=True)]
