"""An encoder that a collection may be given instead of its own, and items to fill that with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.base import Backend, Record
from retrieval.encoders.base import ImageInput
from tests.support.cli import paint
from tests.support.toy import ColourEncoder


class Turned(ColourEncoder):
    """The same space with its axes the other way round, and two more: another encoder, of another length."""

    def __init__(self) -> None:
        super().__init__("turned", fingerprint="turned:1")
        self._inner = ColourEncoder()
        self.dim += 2

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        return self._turned(self._inner.encode_texts(texts))

    def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        self.images += len(images)
        return self._turned(self._inner.encode_images(images))

    @staticmethod
    def _turned(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.hstack([rows[:, ::-1], np.zeros((len(rows), 2), np.float32)])


def add(store: Backend, encoder: ColourEncoder, folder: Path, colour: str, name: str = "c") -> None:
    """Store a painted picture and its caption."""
    path = paint(folder / f"{colour}.png", colour)
    known = {"path": path.name}
    image = Record(f"img-{colour}", encoder.encode_images([path])[0], "image", f"a {colour} one", path.as_uri(), known)
    caption = {**known, "image": image.id}
    text = Record(
        f"cap-{colour}", encoder.encode_texts([f"a {colour} one"])[0], "text", f"a {colour} one", None, caption
    )
    store.upsert(name, [image, text])
