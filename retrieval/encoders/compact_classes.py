"""What `compact` knows about ImageNet's 1,000 classes: their labels and their vectors in text space.

``python -m retrieval.encoders.compact_classes`` writes compact_classes.npz and compact_ridge.npz anew. They are
shipped, and not made on first use, because they decide the vector space: made on each machine, rounding would differ
from machine to machine, and a first search would wait for some thousand texts to be embedded. So it is with what
follows from the vectors: the spectral filter took more of a processor than all else that a search does, the ridge map
took 0.3 s at the start of every index run.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.compact_image import image_graph
from retrieval.encoders.compact_space import Floats, fit_ridge, spectral_filter
from retrieval.encoders.compact_text import SentenceEncoder
from retrieval.encoders.threads import encoder_threads

DATA_FILE = Path(__file__).with_name("compact_classes.npz")
RIDGE_FILE = Path(__file__).with_name("compact_ridge.npz")
SCENES_FILE = Path(__file__).with_name("compact_scenes.csv")


@dataclass(frozen=True)
class ClassVectors:
    """ImageNet's classes in the classifier's order."""

    labels: tuple[str, ...]
    vectors: NDArray[np.float32]  # (1000, 384) unit rows, to half precision
    spectral: NDArray[np.float32]  # (384, 384), the `spectral_filter` of the vectors
    texts_sha256: str


def class_texts() -> tuple[list[str], list[list[str]]]:
    """Labels, and for each class the texts whose vectors are summed to describe it."""
    # The last of these imports takes seconds; a user of the encoder needs none of them.
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    wordnet = ImageNetInfo("imagenet-1k")
    labels = list(IMAGENET_CLASSNAMES)
    texts = [
        # The scene counts twice: it says what else such a photograph shows, in the words of a caption.
        [label, f"a photo of a {label}", wordnet.index_to_description(index, detailed=True), scene, scene]
        for index, (label, scene) in enumerate(zip(labels, _scenes(labels), strict=True))
    ]
    return labels, texts


def _scenes(labels: list[str]) -> list[str]:
    """One caption for each class: what a photograph of it usually shows, people and place included."""
    scenes: dict[int, str] = {}
    with SCENES_FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for index in range(int(row["first_class"]), int(row["last_class"]) + 1):
                if index in scenes:
                    raise ValueError(f"{SCENES_FILE.name}: class {index} has two scenes")
                scenes[index] = row["scene"].format(label=labels[index])
    if sorted(scenes) != list(range(len(labels))):
        raise ValueError(f"{SCENES_FILE.name} does not give every class a scene")
    return [scenes[index] for index in range(len(labels))]


def embed_classes(texts: list[list[str]]) -> NDArray[np.float16]:
    """(n, 384) vectors of classes described by `texts`: normalised sums, rounded to half precision."""
    with encoder_threads() as pool:
        encoder = SentenceEncoder(pool)
        sums = np.stack([encoder.encode(of_class).sum(axis=0) for of_class in texts])
    vectors: NDArray[np.float16] = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float16)
    return vectors


def texts_digest(texts: list[list[str]]) -> str:
    """SHA-256 of the texts, by which a stale data file is noticed."""
    return hashlib.sha256("\n\n".join("\n".join(of_class) for of_class in texts).encode()).hexdigest()


def load_classes(path: Path = DATA_FILE) -> ClassVectors:
    """Read the shipped data file."""
    with np.load(path, allow_pickle=False) as data:
        return ClassVectors(
            labels=tuple(data["labels"].tolist()),
            vectors=data["vectors"].astype(np.float32),
            spectral=data["spectral"],
            texts_sha256=str(data["texts_sha256"]),
        )


def load_ridge(path: Path = RIDGE_FILE) -> Floats:
    """The shipped (1280, 384) map from features to text space, as `fit_ridge` makes it."""
    with np.load(path, allow_pickle=False) as data:
        ridge: Floats = data["ridge"]
    return ridge


def write_classes(path: Path = DATA_FILE) -> None:
    """Embed the class texts and replace the data file in one step."""
    labels, texts = class_texts()
    vectors = embed_classes(texts)
    with _replaced(path) as unfinished:
        np.savez_compressed(
            unfinished,
            labels=np.array(labels),
            vectors=vectors,
            spectral=spectral_filter(vectors.astype(np.float32)),
            texts_sha256=texts_digest(texts),
        )


def write_ridge(path: Path = RIDGE_FILE, classes: Path = DATA_FILE) -> None:
    """Fit the ridge map to the class vectors of a data file and replace its own file in one step."""
    _, classifier = image_graph()
    with _replaced(path) as unfinished:
        # Not compressed: that would save a tenth of it, and cost as much time as all else that reads it.
        np.savez(unfinished, ridge=fit_ridge(load_classes(classes).vectors, classifier.weight))


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `path` if nothing goes wrong."""
    unfinished = path.with_suffix(".tmp.npz")
    yield unfinished
    unfinished.replace(path)


if __name__ == "__main__":
    write_classes()
    write_ridge()
    for file in (DATA_FILE, RIDGE_FILE):
        sys.stdout.write(f"wrote {file} ({file.stat().st_size} bytes)\n")
