"""A test encoder: colour histograms and hashed words in one space, deterministic, and it counts its work."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image

DIM = 64


class CountingEncoder:
    """Images by their 64-bin colour histogram, texts by hashed words. For tests only: it understands nothing.

    `images` and `texts` list what was embedded. An image whose first pixel is `poison`, or a text that
    contains it, makes the whole call fail, as a bug in a model would.
    """

    name = "counting"

    def __init__(self, fingerprint: str = "counting/1", poison: object = None) -> None:
        self.fingerprint, self.dim, self.poison = fingerprint, DIM, poison
        self.images: list[tuple[int, int, int]] = []
        self.texts: list[str] = []
        self.calls: list[int] = []
        self.lock = threading.Lock()

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        rows = np.zeros((len(images), DIM), np.float32)
        for row, image in zip(rows, images, strict=True):
            if image.getpixel((0, 0)) == self.poison:
                raise RuntimeError("poisoned pixel")
            pixels = np.asarray(image.resize((16, 16))) // 64
            row += np.bincount((pixels @ [16, 4, 1]).ravel(), minlength=DIM)
        with self.lock:
            self.images += [image.getpixel((0, 0)) for image in images]
            self.calls.append(len(images))
        return _unit(rows)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), DIM), np.float32)
        for row, text in zip(rows, texts, strict=True):
            if isinstance(self.poison, str) and self.poison in text:
                raise RuntimeError("poisoned text")
            row[0] = 0.5
            for word in text.lower().split():
                row[hashlib.md5(word.encode()).digest()[0] % DIM] += 1
        with self.lock:
            self.texts += texts
        return _unit(rows)

    def reset(self) -> None:
        """Forget what was counted."""
        self.images, self.texts, self.calls = [], [], []


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if len(rows) else rows
