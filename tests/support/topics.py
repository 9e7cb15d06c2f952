"""A space one can reason about: a text is its topic, an image its topic beyond a modality gap, both with noise."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backends.base import Backend, CollectionSpec, Metric, Record

DIM = 48


class TopicEncoder:
    """Texts by their first number or, without one, by all their letters; unrelated ones are at random to each other."""

    name = "topics"
    fingerprint = "topics:1"
    dim = DIM

    def __init__(self, gap: float = 1.0) -> None:
        self.gap = gap
        self.texts = 0

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        return unit(np.array([topic(text) for text in texts]).reshape(-1, DIM))

    def encode_images(self, images: Sequence[object]) -> NDArray[np.float32]:
        return unit(np.array([self.image(str(image), noise=0) for image in images]).reshape(-1, DIM))

    def image(self, text: str, noise: int) -> NDArray[np.float64]:
        """The picture number `noise` of what `text` says."""
        gap = np.full(DIM, self.gap / np.sqrt(DIM))
        return 0.7 * topic(text) + gap + 0.6 * direction(f"noise {text} {noise}")


def topic(text: str) -> NDArray[np.float64]:
    number = re.search(r"\d+", text)
    # Related topics are related: ten neighbouring numbers have a direction in common.
    return (
        direction(text) if number is None else direction(number[0]) + 0.5 * direction(f"group {int(number[0]) // 10}")
    )


def direction(text: str) -> NDArray[np.float64]:
    return unit(np.random.default_rng(zlib.crc32(text.encode())).normal(size=(1, DIM)))[0].astype(np.float64)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def image_of(encoder: TopicEncoder, number: int, copy: int = 0) -> Record:
    vector = unit(encoder.image(f"topic {number}", copy)[None])[0]
    return Record(f"image-{number}-{copy}", vector, "image", None, f"file:///{number}-{copy}.jpg", {"n": number})


def text_of(encoder: TopicEncoder, number: int) -> Record:
    vector = unit(topic(f"topic {number}")[None] + 0.5 * direction(f"wording {number}")[None])[0]
    return Record(f"text-{number}", vector, "text", f"topic {number}", f"file:///{number}-0.jpg", {"n": number})


def fill(
    backend: Backend, encoder: TopicEncoder, topics: int, *, metric: Metric = "cosine", texts: bool = False
) -> None:
    """The collection ``c`` with a picture, and a text where asked, of each of the topics 0 to `topics` - 1."""
    backend.create(CollectionSpec("c", DIM, metric, encoder.fingerprint))
    records = [image_of(encoder, number) for number in range(topics)]
    if texts:
        records += [text_of(encoder, number) for number in range(topics)]
    backend.upsert("c", records)
