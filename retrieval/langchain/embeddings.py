"""Sightline's encoders as LangChain embeddings, and which embeddings made a vector."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import unquote_to_bytes, urlsplit

from langchain_core.embeddings import Embeddings

from retrieval.encoders.base import Encoder, ImageInput
from retrieval.images.decode import ImageError, ImageSource, load_image
from retrieval.images.parts import PartOfFile
from retrieval.search.query import UnreadableQuery

IMAGES_AT_ONCE = 64

#: What LangChain's own integrations call that which decides their vectors.
IDENTIFYING = (
    "model",
    "model_name",
    "model_id",
    "model_path",
    "repo_id",
    "deployment",
    "revision",
    "dimensions",
    "size",
    "task_type",
    "embed_instruction",
    "seed",
)


@runtime_checkable
class ImageEmbeddings(Protocol):
    """Embeddings that put images into the space of their texts."""

    def embed_images(self, images: list[ImageSource]) -> list[list[float]]:
        """One vector for each image, in the order given."""
        ...


class SightlineEmbeddings(Embeddings):
    """LangChain embeddings of any Sightline encoder: texts and images in one space, at unit length.

    `fingerprint` is the encoder's, so a collection filled through LangChain is searched by Sightline's
    own commands, and the other way round.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def fingerprint(self) -> str:
        """Identity of the vector space."""
        return self.encoder.fingerprint

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text, in the order given; of zeros for one that the encoder cannot read."""
        return self.encoder.encode_texts(texts).tolist() if texts else []

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text; queries and documents share the space.

        Raises `UnreadableQuery` for a text that the encoder cannot read.
        """
        (vector,) = self.embed_documents([text])
        if not any(vector):
            raise UnreadableQuery(self.encoder.name, text, is_whole=True)
        return vector

    def embed_images(self, images: Sequence[ImageSource]) -> list[list[float]]:
        """One vector for each image, in the order given: PIL images, bytes, paths or ``file:`` URIs.

        Nothing is fetched: any other URL raises `ImageError`, as does what cannot be decoded.
        """
        vectors: list[list[float]] = []
        for start in range(0, len(images), IMAGES_AT_ONCE):
            chunk = [_readable(image) for image in images[start : start + IMAGES_AT_ONCE]]
            vectors += self.encoder.encode_images(chunk).tolist()
        return vectors

    def embed_image(self, image: ImageSource) -> list[float]:
        """The vector of one image."""
        return self.embed_images([image])[0]


def embeddings_fingerprint(embeddings: Embeddings) -> str:
    """What tells the vector space of these embeddings from others, as far as it can be known.

    A `fingerprint` string of their own (`SightlineEmbeddings` has its encoder's) is taken as it is. Of
    others it is the class and the fields by which LangChain's integrations name a model (``model``,
    ``model_name``, ``dimensions``, ``size`` ...), of a cache those of what it caches. Keys, addresses and
    time-outs are left out, as they may change while the vectors do not. So two models under one name, or
    which differ in a field of another name, are not told apart: state a fingerprint where that matters.
    """
    own = getattr(embeddings, "fingerprint", None)
    if isinstance(own, str) and own:
        return own
    cached = getattr(embeddings, "underlying_embeddings", None)
    if isinstance(cached, Embeddings):
        return embeddings_fingerprint(cached)
    cls = type(embeddings)
    found = {name: getattr(embeddings, name, None) for name in IDENTIFYING}
    known = {name: value for name, value in found.items() if isinstance(value, str | int | float)}
    return f"langchain:{cls.__module__}.{cls.__qualname__}{json.dumps(known, sort_keys=True)}"


def image_uris(images: Iterable[ImageSource]) -> list[str | None]:
    """The ``file:`` URI of each image that was given by its name; None for bytes and objects."""
    return [_uri(image) for image in images]


def _uri(image: ImageSource) -> str | None:
    file = _readable(image) if isinstance(image, str | Path) else None
    return Path(file).resolve().as_uri() if isinstance(file, str | Path) else None


def _readable(image: ImageSource) -> ImageInput:
    """The image as encoders take it: bytes decoded, URIs resolved."""
    if isinstance(image, bytes | PartOfFile):
        return load_image(image)
    if not isinstance(image, str) or "://" not in image:
        return image
    parts = urlsplit(image)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise ImageError(f"{image[:80]}: images are not fetched: download it and give the file")
    # Byte by byte, as the name may be in no encoding at all.
    return Path(os.fsdecode(unquote_to_bytes(parts.path)))
