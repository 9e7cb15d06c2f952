"""What an encoder promises: images and texts in one vector space, at unit length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ImageInput: TypeAlias = Image.Image | str | Path


class EncoderError(Exception):
    """An encoder cannot be had or used: one line that says why and what to do."""


@runtime_checkable
class Encoder(Protocol):
    """Puts images and texts into one space, where related ones have a high cosine.

    `fingerprint` names architecture, weights, preprocessing and activation: two encoders with the
    same fingerprint give the same vectors (up to rounding), two with different ones must never be
    mixed in a collection. `name` is what a person wrote to choose it. Thread-safe.

    A text that the encoder cannot read (a script or language that it does not know, emoji alone) has a row of zeros.
    The optional attribute `image_space: str` names the space of its image vectors alone: two fingerprints that begin
    with the same one differ in the text side only, so that images need not be encoded again for the other.

    Three more attributes are optional hints to the indexer: `context_length: int`, the tokens of a text
    that are read, sizes the passages of documents; `decode_size: int`, in pixels, is the `target_size`
    with which the encoder itself decodes paths, so that files decoded ahead give the same vectors;
    `images_at_once: int` is how many images take hardly longer than one, since they are worked on side
    by side, 1 where it is left out. One more is for relevance: `text_language(text: str) -> str` says as which
    language a text is read (``en``, ``zh``, ``und`` for one that cannot be told) by an encoder for which it matters.
    """

    @property
    def name(self) -> str:
        """What chose this encoder, e.g. ``compact`` or ``openclip:ViT-B-32/openai``."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the vector space; stored with every collection."""
        ...

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts.

        Returns:
            (n, dim) float32 rows of unit length, in the order given; n may be 0. A row of zeros for each text that
            cannot be read.
        """
        ...

    def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        """The vectors of images.

        Args:
            images: PIL images, or paths, which are decoded as `retrieval.images.decode.load_image` does.

        Returns:
            (n, dim) float32 rows of unit length, in the order given; n may be 0.

        Raises:
            ImageError: a file that is not a usable image.
        """
        ...
