"""Queries: words, pictures, or a weighted mixture of both, turned into one vector."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.base import Modality
from backends.harmless import shortened
from retrieval.encoders.base import Encoder
from retrieval.encoders.text_side import readable
from retrieval.images.decode import load_image

MAX_WEIGHT = 1e6
MAX_TERMS = 64
MAX_QUERY_CHARS = 10_000
_WEIGHT = re.compile(r"\^(\d+(?:\.\d+)?)\Z")


class SearchError(Exception):
    """A search that cannot be answered as asked: one line that says why and what to do."""


class UnreadableQuery(SearchError):
    """The encoder cannot read a text of the query, which has no vector then; its words can still be searched for.

    encoder: its name. text: what it cannot read.
    """

    def __init__(self, encoder: str, text: str, *, is_whole: bool) -> None:
        what = "this query;" if is_whole else f"the term {shortened(text, 80)!r}; leave it out,"
        super().__init__(
            f"{encoder} cannot read {what} use --mode keyword, or an encoder for its language (sightline encoders)"
        )
        self.encoder, self.text = encoder, text


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A stored item as a part of a query, as `Retriever.stored` gives it: its (dim,) vector stands for it."""

    id: str
    modality: Modality
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a composed query: text (a str), a stored item or an image (anything else), and its weight.

    A negative weight steers away from the term. Raises SearchError for a weight that is zero, not finite, or
    further from 1 than a factor of a million, beyond which one term would drown the others.
    """

    value: str | Path | bytes | Image.Image | Stored
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight) or self.weight == 0:
            raise SearchError(f"a term's weight must be a number other than 0, not {self.weight!r}")
        if not 1 / MAX_WEIGHT <= abs(self.weight) <= MAX_WEIGHT:
            raise SearchError(
                f"a term's weight must be from {1 / MAX_WEIGHT:g} to {MAX_WEIGHT:g}, or the same below 0, "
                f"not {self.weight!r}"
            )
        if isinstance(self.value, str):
            if not self.value.strip():
                raise SearchError("a query text is empty: say what to look for")
            if len(self.value) > MAX_QUERY_CHARS:
                raise SearchError(f"a query text has {len(self.value)} characters; the limit is {MAX_QUERY_CHARS}")


Query: TypeAlias = str | Path | bytes | Image.Image | Sequence[Term]


def parse_terms(parts: Sequence[str]) -> list[Term]:
    """Read terms as people write them: ``beach``, ``-people``, ``sunset^0.5``, ``image:dog.jpg^2``.

    A leading ``-`` makes the weight negative, ``^NUMBER`` at the end sets it, ``image:`` takes a file.

    Raises:
        SearchError: a part that says nothing, or a weight that `Term` refuses.
    """
    terms = []
    for part in parts:
        rest = part.strip()
        sign = -1.0 if rest.startswith("-") else 1.0
        rest, weight = _split_weight(rest.removeprefix("-"))
        is_image = rest.startswith("image:")
        value = rest.removeprefix("image:").strip()
        if not value:
            raise SearchError(f"term {part!r} says nothing: write words, -words, words^0.5 or image:FILE")
        terms.append(Term(Path(value) if is_image else value, sign * weight))
    return terms


def _split_weight(term: str) -> tuple[str, float]:
    match = _WEIGHT.search(term)
    return (term[: match.start()], float(match[1])) if match else (term, 1.0)


def as_terms(query: Query) -> list[Term]:
    """The terms of any query: one of weight 1, or those it lists."""
    if isinstance(query, (str, Path, bytes, Image.Image)):
        return [Term(query)]
    terms = list(query)
    if not terms:
        raise SearchError("the query is empty: give it words or an image")
    if len(terms) > MAX_TERMS:
        raise SearchError(f"the query has {len(terms)} terms; the limit is {MAX_TERMS}")
    for term in terms:
        if not isinstance(term, Term):
            raise SearchError(f"a composed query is a list of Term, not of {type(term).__name__}")
    return terms


def query_words(query: Query) -> str:
    """The texts of a query that it does not steer away from, for keyword search and reranking."""
    return " ".join(term.value for term in as_terms(query) if isinstance(term.value, str) and term.weight > 0)


def query_items(query: Query) -> frozenset[str]:
    """The ids of the stored items that a query is made of."""
    return frozenset(term.value.id for term in as_terms(query) if isinstance(term.value, Stored))


def query_vector(query: Query, encoder: Encoder) -> NDArray[np.float32]:
    """The vector of a query: the weighted sum of its terms' vectors.

    Returns:
        (dim,) float32 of unit length.

    Raises:
        UnreadableQuery: a text that the encoder cannot read.
        SearchError: the terms cancel each other out.
        ImageError: an image that cannot be read.
    """
    terms = as_terms(query)
    texts = [(row, term.value) for row, term in enumerate(terms) if isinstance(term.value, str)]
    images = [
        (row, load_image(term.value)) for row, term in enumerate(terms) if not isinstance(term.value, (str, Stored))
    ]
    vectors = np.empty((len(terms), encoder.dim), dtype=np.float32)
    for row, term in enumerate(terms):
        if isinstance(term.value, Stored):
            # At unit length like the others, or its weight would mean something else.
            vectors[row] = term.value.vector / max(float(np.linalg.norm(term.value.vector)), 1e-12)
    if texts:
        encoded = encoder.encode_texts([text for _, text in texts])
        for (row, text), vector in zip(texts, encoded, strict=True):
            if not readable(vector):
                raise UnreadableQuery(encoder.name, text, is_whole=len(terms) == 1)
            vectors[row] = vector
    if images:
        vectors[[row for row, _ in images]] = encoder.encode_images([image for _, image in images])
    if len(terms) == 1 and terms[0].weight > 0:
        first: NDArray[np.float32] = vectors[0]
        return first
    weights = np.array([term.weight for term in terms])
    total = weights @ vectors.astype(np.float64)
    norm = float(np.linalg.norm(total))
    if norm < 1e-6 * np.abs(weights).sum():
        raise SearchError("the terms of the query cancel each other out: change a weight")
    return (total / norm).astype(np.float32)
