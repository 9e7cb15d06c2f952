"""From the tower of many languages into `compact`'s space: a rotation, fitted on English texts.

The two text towers are of one mind about what texts mean, each in axes of its own. The map is the orthogonal one that
brings what the tower of many languages makes of a text nearest to what MiniLM makes of it, less the middle of the
classes (Procrustes; Schönemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 1966; for
languages Conneau et al., Word translation without parallel data, ICLR 2018). From there `compact_space` places it as
any sentence. The texts are those that describe ImageNet's classes, and the background queries of relevance. All of them
are English, and none is a caption: the tower itself has brought its languages together. Each kind of text (names, names
in a sentence, glosses, scenes, background queries) counts the same.

Tried and left out: rotating straight into the space (finds images as well or a little better, and confuses texts: 25
instead of 27 of 30 Chinese passages found by their questions); both sides centred by their own means, a scale, the
rotation by ridge regression (the stronger, the worse), each language centred: nothing is gained beyond chance.

``python -m retrieval.encoders.compact_map`` writes compact_map.npz anew. It needs the packages open_clip_torch and
timm, which have the class texts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.compact_classes import class_texts, load_classes, texts_digest
from retrieval.encoders.compact_graph import Graph
from retrieval.encoders.compact_multilingual import DIM, MultilingualEncoder
from retrieval.encoders.compact_text import SentenceEncoder
from retrieval.encoders.threads import encoder_threads

DATA_FILE = Path(__file__).with_name("compact_map.npz")
# The scene counts twice in a class's vector; here once.
_KINDS_OF_CLASS_TEXT = 4
_ROUNDING = 1e-6

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TextMap:
    """The shipped data: the map, and the words of the texts that it was fitted on."""

    rotation: Floats  # (512, 384), to half precision
    centre: Floats  # (384,), the middle of the classes
    english: frozenset[str]  # those of the words that MiniLM's vocabulary has not
    texts_sha256: str


def map_graph(text_map: TextMap) -> Graph:
    """From ``vectors``, (n, 512) of the tower of many languages, to ``sentences``, (n, 384) where MiniLM's would be."""
    graph = Graph()
    vectors = graph.input("vectors", "float32", ("n", DIM))
    turned = graph.add("MatMul", vectors, graph.constant(text_map.rotation))
    unit = graph.add("LpNormalization", turned, axis=-1, p=2)
    graph.give("sentences", graph.add("Add", unit, graph.constant(text_map.centre)))
    return graph


def map_texts() -> list[list[str]]:
    """The texts to fit on, by kind."""
    # Relevance is made of encoders; only who writes the file needs its queries here.
    from retrieval.relevance.background import background_texts

    _, of_classes = class_texts()
    return [*(list(kind) for kind in list(zip(*of_classes, strict=True))[:_KINDS_OF_CLASS_TEXT]), background_texts()]


def fit_rotation(given: Sequence[Floats], wanted: Sequence[Floats]) -> Floats:
    """(d, e) orthogonal map that brings (n, d) rows nearest to (n, e) rows, each pair of arrays counting the same."""
    products = [theirs.T.astype(np.float64) @ ours / len(theirs) for theirs, ours in zip(given, wanted, strict=True)]
    left, values, right = np.linalg.svd(np.sum(products, axis=0), full_matrices=False)
    # Of a direction that no wanted row has, nothing is known: what the decomposition gives is rounding.
    known = values > _ROUNDING * values[0]
    return np.asarray(left[:, known] @ right[known], dtype=np.float32)


def fit_map(texts: Sequence[list[str]], centre: Floats) -> Floats:
    """The rotation as these texts, by kind, give it."""
    with encoder_threads() as pool:
        theirs, ours = MultilingualEncoder(pool), SentenceEncoder(pool)
        given = [theirs.encode(kind) for kind in texts]
        wanted = [ours.encode(kind) - centre for kind in texts]
    return fit_rotation(given, [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in wanted])


def rare_words(texts: Sequence[list[str]]) -> list[str]:
    """The words of texts that MiniLM's vocabulary has not, sorted."""
    with encoder_threads() as pool:
        knows = SentenceEncoder(pool).knows
        words = {word for kind in texts for text in kind for word in re.findall(r"[a-z]{2,}", text.lower())}
        return sorted(word for word in words if not knows(word))


def load_map(path: Path = DATA_FILE) -> TextMap:
    """Read the shipped data file."""
    with np.load(path, allow_pickle=False) as data:
        return TextMap(
            rotation=data["rotation"].astype(np.float32),
            centre=data["centre"],
            english=frozenset(data["english"].tobytes().decode().split()),
            texts_sha256=str(data["texts_sha256"]),
        )


def write_map(path: Path = DATA_FILE) -> None:
    """Fit the map and replace the data file in one step."""
    texts, centre = map_texts(), load_classes().vectors.mean(axis=0)
    unfinished = path.with_suffix(".tmp.npz")
    np.savez_compressed(
        unfinished,
        rotation=fit_map(texts, centre).astype(np.float16),
        centre=centre,
        english=np.frombuffer(" ".join(rare_words(texts)).encode(), dtype=np.uint8),
        texts_sha256=texts_digest(texts),
    )
    unfinished.replace(path)


if __name__ == "__main__":
    write_map()
    sys.stdout.write(f"wrote {DATA_FILE} ({DATA_FILE.stat().st_size} bytes)\n")
