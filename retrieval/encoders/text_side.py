"""The text side of an encoder: texts that it cannot read, and collections whose texts an earlier text side encoded."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from backends.base import NO_VECTOR
from retrieval.encoders.base import Encoder

__all__ = ["earlier_texts_notice", "has_earlier_texts", "readable", "to_store"]


def readable(row: NDArray[np.float32]) -> bool:
    """Whether a row of `encode_texts` is a vector: of a text that the encoder cannot read it has zeros."""
    return bool(np.any(row))


def to_store(rows: Iterable[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The rows of `encode_texts` as the vectors of records: `NO_VECTOR` for each text that could not be read."""
    return [row if readable(row) else NO_VECTOR for row in rows]


def has_earlier_texts(stored: str, encoder: Encoder) -> bool:
    """Whether a collection of this fingerprint has the encoder's own image vectors, but texts of another text side.

    Two fingerprints that begin with one `image_space` differ in the text side only; see `Encoder`.
    """
    space = getattr(encoder, "image_space", None)
    return bool(space) and stored != encoder.fingerprint and (stored == space or stored.startswith(f"{space}+"))


def earlier_texts_notice(collection: str, encoder: Encoder) -> str:
    """What people are told of such a collection."""
    return (
        f"the texts of collection {collection!r} were encoded by an earlier version of {encoder.name}: run sightline "
        "index on what it holds, or on an empty folder; either encodes its texts anew and keeps its images"
    )
