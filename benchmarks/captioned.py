"""Collections to measure relevance on, as `indexers.index` makes them; see `benchmarks.relevance`.

A caption is only a fair query where it is not stored. So the captions are dealt into five folds: caption j of
photograph i is in fold (i + j) mod 5, which of five captions takes one a photograph, and of single captions those of
one photograph in five. Each fold asks its own captions of a collection without them, be it as a text, in the
text of their image, or word for word at another photograph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from backends import connect
from backends.base import CollectionSpec, Record
from benchmarks.encoders import Dataset, DatasetError
from indexers import index
from retrieval import Retriever
from retrieval.encoders.base import Encoder, ImageInput
from retrieval.relevance.background import text_language

FOLDS = 5
COLLECTION = "relevance"


class CachingEncoder:
    """An encoder that encodes each text once: a query is asked of many collections."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, NDArray[np.float32]] = {}

    @property
    def name(self) -> str:
        """As the encoder's."""
        return self._encoder.name

    @property
    def fingerprint(self) -> str:
        """As the encoder's."""
        return self._encoder.fingerprint

    @property
    def dim(self) -> int:
        """As the encoder's."""
        return self._encoder.dim

    def text_language(self, text: str) -> str:
        """As the encoder's; ``en`` for one that has none."""
        return text_language(self._encoder, text)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the encoder does."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self._encoder.encode_texts(new), strict=True))
        return np.array([self._known[text] for text in texts], dtype=np.float32).reshape(-1, self.dim)

    def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        """As the encoder does."""
        return self._encoder.encode_images(images)


@dataclass(frozen=True)
class Fold:
    """A collection, the captions asked of it, and the id and whether it is captioned of the photograph of each."""

    retriever: Retriever
    queries: list[str]
    images: list[str]
    captioned: NDArray[np.bool_]


@dataclass(frozen=True)
class Collections:
    """What indexing made of a dataset: `images` in its order, and each caption's text item by image and caption."""

    dataset: Dataset
    encoder: Encoder
    images: list[Record]
    texts: dict[tuple[str, str], Record]

    @classmethod
    def of(cls, folder: Path, dataset: Dataset, encoder: Encoder) -> Collections:
        """Index `folder` with its captions, in memory. Raises `DatasetError`."""
        backend = connect("exact://")
        report = index(folder / "captions.jsonl", backend, encoder, COLLECTION)
        if report.quarantined:
            raise DatasetError(f"{report.quarantined[0].path}: {report.quarantined[0].reason}")
        stored = [record for page in backend.scan(COLLECTION) for record in page.records]
        by_file = {unquote(urlsplit(each.uri or "").path): each for each in stored if each.modality == "image"}
        try:
            images = [by_file[str(file.resolve())] for file in dataset.files]
        except KeyError as error:
            raise DatasetError(f"{error.args[0]}: has the same content as another photograph") from None
        texts = {(str(each.metadata["image"]), each.text or ""): each for each in stored if each.modality == "text"}
        return cls(dataset, encoder, images, texts)

    def photographs(self) -> Retriever:
        """The photographs alone."""
        return self.filled([replace(image, text=None) for image in self.images])

    def folds(self, *, half: bool = False) -> Iterator[Fold]:
        """The five folds; with `half` only every other photograph has captions, by turns from fold to fold."""
        place = [self.dataset.image_of[:n].count(image) for n, image in enumerate(self.dataset.image_of)]
        for number in range(FOLDS):
            asked = [n for n, image in enumerate(self.dataset.image_of) if (image + place[n]) % FOLDS == number]
            with_captions = [not half or (image + number) % 2 == 0 for image in range(len(self.images))]
            queries = [self.dataset.captions[n] for n in asked]
            owners = [self.dataset.image_of[n] for n in asked]
            yield Fold(
                self.filled(self._without({plain(query) for query in queries}, with_captions)),
                queries,
                [self.images[owner].id for owner in owners],
                np.array([with_captions[owner] for owner in owners], dtype=bool),
            )

    def _without(self, left_out: set[str], with_captions: Sequence[bool]) -> list[Record]:
        """The images with their captions, where they have any, but those left out."""
        records = []
        for image, captioned in zip(self.images, with_captions, strict=True):
            lines = (image.text or "").split("\n") if captioned else []
            kept = [line for line in lines if line and plain(line) not in left_out]
            records.append(replace(image, text="\n".join(kept) or None))
            records += [self.texts[image.id, line] for line in kept]
        return records

    def filled(self, records: Sequence[Record]) -> Retriever:
        """A retriever over these records."""
        backend = connect("exact://")
        backend.create(CollectionSpec(COLLECTION, self.encoder.dim, encoder=self.encoder.fingerprint))
        backend.upsert(COLLECTION, records)
        return Retriever(backend, self.encoder, COLLECTION)


def plain(text: str) -> str:
    """The words of a text, without case and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))
