"""A tiny encoder and a store that outlives commands, for tests that are not about models or engines."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backends.exact.backend import ExactBackend
from retrieval.encoders.base import ImageInput
from retrieval.images.decode import load_image

PALETTE = {
    "red": (255, 0, 0),
    "green": (0, 160, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "purple": (128, 0, 128),
    "orange": (255, 140, 0),
}
OTHER_WORDS = 8


class ColourEncoder:
    """Pictures by their mean colour, texts by the colour words in them: a cross-modal space one can foresee."""

    def __init__(self, name: str = "toy", *, fingerprint: str = "toy:1") -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.dim = len(PALETTE) + OTHER_WORDS
        self.images = 0
        self.texts = 0

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        vectors = np.full((len(texts), self.dim), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                if word in PALETTE:
                    vectors[row, list(PALETTE).index(word)] += 1
                else:
                    vectors[row, len(PALETTE) + zlib.crc32(word.encode()) % OTHER_WORDS] += 0.1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        self.images += len(images)
        vectors = np.full((len(images), self.dim), 1e-3, dtype=np.float32)
        colours = np.array(list(PALETTE.values()), dtype=np.float64)
        for row, image in enumerate(images):
            mean = np.asarray(load_image(image), dtype=np.float64).mean(axis=(0, 1))
            distances = ((colours - mean) ** 2).sum(axis=1)
            vectors[row, : len(PALETTE)] += np.exp(-distances / 3000)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class KeptBackend(ExactBackend):
    """``kept://``: an `ExactBackend` that closing does not empty, so that it lasts from command to command."""

    stores: dict[str, KeptBackend] = {}  # noqa: RUF012

    @classmethod
    def connect(cls, url: str) -> Self:
        return cls.stores.setdefault(url, cls())  # type: ignore[return-value]

    def close(self) -> None:
        """Keep everything."""


class Slow(ColourEncoder):
    """Encodes when it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.began = threading.Semaphore(0)

    def encode_texts(self, texts: Any) -> Any:
        self.began.release()
        assert self.go.wait(20)
        return super().encode_texts(texts)


class Stuck(ColourEncoder):
    """Encodes pictures when it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def encode_images(self, images: Any) -> Any:
        assert self.go.wait(20)
        return super().encode_images(images)
