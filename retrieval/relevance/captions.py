"""Captions as evidence for the images they describe.

The caption of an image is a text item of its own, whose metadata field `image` holds the id of the image, and
stands among the lines of that image's text (as `indexers` writes them). Who finds the caption has found the
image: what an encoder does not see in a picture, its caption may say.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backends.base import MAX_ID_BYTES, Backend, Compare, Hit, Modality, Record

__all__ = ["CONSULTED", "describes", "image_of", "nearest"]

CONSULTED = 100
"""Texts nearest to a query that are consulted; as many whatever page or filter is asked for, so that the relevance
of an image depends on neither. Images whose captions lie deeper are judged by what they look like."""

_FIELD = "image"


def image_of(text: Hit) -> str | None:
    """The id of the image that a text item says it is a caption of; None where it says nothing."""
    owner = text.metadata.get(_FIELD) if text.modality == "text" else None
    usable = isinstance(owner, str) and 0 < len(owner.encode()) <= MAX_ID_BYTES and text.text
    return str(owner) if usable else None


def describes(caption: str | None, image: Hit | Record) -> bool:
    """Whether a text is one of the captions of an image item."""
    return bool(caption) and image.modality == "image" and caption in (image.text or "").split("\n")


def nearest(
    backend: Backend, collection: str, vector: NDArray[np.float32], modality: Modality, *, count: int
) -> list[Hit]:
    """The items of a modality nearest to a vector, of the whole collection. Raises `BackendError`."""
    depth = min(count, backend.capabilities.max_k or count)
    return backend.search(collection, vector[None, :], depth, where=Compare("modality", "eq", modality))[0]
