"""Data sets: vectors to store, queries, captions and pictures where there are any; chosen by one string.

clustered:20000x512[@SEED]   a crowded mixture of low dimension in noise, queries from beside it
uniform:20000x512[@SEED]     independent directions: the hardest there is
blobs:20000x512[@SEED]       clusters as wide as they lie apart, queries among them: easy, so that speed is compared
photos:DIR[@ENCODER]         a folder with captions, encoded here; or photos:URL#COLLECTION, as indexed
PATH.hdf5 | .fvecs | .bvecs | .ivecs | .parquet
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Metric, Record
from benchmarks.suite.selectivity import CAMERAS, TAGS, buckets

Floats = NDArray[np.float32]
MAX_VECTOR_BYTES = 16 << 30


class DataError(Exception):
    """A data set cannot be had: one line that says why and what to do."""


@dataclass(eq=False)
class DataSet:
    """Vectors to store and queries over them.

    vectors: (n, d), queries: (q, d); of unit length when `metric` is cosine. `texts[i]` is what keyword
    search reads of row i. Of captioned pictures, `uris[i]` says where row i's bytes are, `captions` are the
    texts of the first ``len(captions)`` queries, and `answers[j]` is the row that query j describes or shows.
    `origin` says how it was made; `random` and `near` are the metadata columns that filters select by.
    """

    name: str
    vectors: Floats
    queries: Floats
    metric: Metric = "cosine"
    texts: list[str] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    answers: NDArray[np.int64] | None = None
    encoder: str = ""
    origin: dict[str, Any] = field(default_factory=dict)
    seed: int = 1

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.queries.ndim != 2 or self.vectors.shape[1] != self.queries.shape[1]:
            raise DataError(
                f"{self.name}: vectors {self.vectors.shape} and queries {self.queries.shape} do not fit together"
            )
        if not len(self.vectors) or not len(self.queries):
            raise DataError(
                f"{self.name}: there must be vectors and queries, not {self.vectors.shape[0]} and "
                f"{self.queries.shape[0]}"
            )
        if not (np.isfinite(self.vectors).all() and np.isfinite(self.queries).all()):
            raise DataError(f"{self.name}: vectors and queries must be finite numbers")
        self.vectors = np.ascontiguousarray(self.vectors, np.float32)
        self.queries = np.ascontiguousarray(self.queries, np.float32)
        if self.metric == "cosine":
            self.vectors, self.queries = unit(self.vectors, self.name), unit(self.queries, self.name)
        self.random, self.near = buckets(self.vectors, self.seed)
        if not self.texts:
            self.texts = made_texts(len(self.vectors), self.seed)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return int(self.vectors.shape[1])

    def digest(self) -> str:
        """Identity of the data: 16 hex digits over vectors, queries, metric, texts and filter columns."""
        state = hashlib.blake2b(f"{self.metric} {self.vectors.shape} {self.queries.shape}".encode(), digest_size=8)
        for part in (self.vectors, self.queries, self.random, self.near):
            state.update(np.ascontiguousarray(part).data)
        state.update("\n".join(self.texts).encode())
        return state.hexdigest()

    def records(self, start: int = 0, stop: int | None = None, vectors: Floats | None = None) -> Iterator[Record]:
        """Rows as an image index has them: a text, a location, and six metadata fields. The id is the row number."""
        chosen = self.vectors if vectors is None else vectors
        for row in range(start, len(self.vectors) if stop is None else min(stop, len(self.vectors))):
            yield Record(
                row_id(row),
                chosen[row],
                "image",
                self.texts[row],
                self._uri(row),
                {
                    "random": int(self.random[row]),
                    "near": int(self.near[row]),
                    "year": 1990 + row % 35,
                    "camera": CAMERAS[row % len(CAMERAS)],
                    "favourite": row % 9 == 0,
                    "tags": [TAGS[row % len(TAGS)]],
                },
            )

    def _uri(self, row: int) -> str:
        return self.uris[row] if self.uris else f"file:///photos/{row // 1000}/{row}.jpg"


def row_id(row: int) -> str:
    """The record id of a row."""
    return f"row-{row:09}"


def row_of(record_id: str) -> int:
    """The row of a record id; -2 for an id that no row has."""
    number = record_id.removeprefix("row-")
    return int(number) if number.isdecimal() and record_id == row_id(int(number)) else -2


def unit(rows: Floats, name: str) -> Floats:
    """The rows at unit length. Raises DataError for a row of length 0."""
    lengths: Floats = np.linalg.norm(rows, axis=1, keepdims=True)
    if not lengths.all():
        raise DataError(f"{name}: row {int(np.argmin(lengths))} has length 0, which has no cosine")
    return (rows / lengths).astype(np.float32)


def clustered(n: int, dim: int, seed: int, queries: int) -> tuple[Floats, Floats]:
    """A crowded mixture: many overlapping clusters of uneven size in a subspace, and noise all around.

    The queries are new draws moved aside along one common direction and each along one of its own, as texts lie
    beside images in a CLIP space (Liang et al., Mind the Gap, NeurIPS 2022). So the nearest neighbours of a query
    are hardly nearer than many others, which is what makes graphs lose their way.
    """
    rng = np.random.default_rng(seed)
    latent = min(dim, LATENT)
    count = max(8, n // 500)
    centres = rng.standard_normal((count, latent), dtype=np.float32)
    shares = 1 / np.sqrt(np.arange(1, count + 1))
    shares /= shares.sum()
    lift = rng.standard_normal((latent, dim), dtype=np.float32) / np.sqrt(latent, dtype=np.float32)

    def draw(rows: int) -> Floats:
        inner = centres[rng.choice(count, rows, p=shares)] + rng.standard_normal((rows, latent), dtype=np.float32)
        noise = rng.standard_normal((rows, dim), dtype=np.float32)
        return unit(inner @ lift + np.float32(NOISE) * noise, "clustered")

    vectors, asked = draw(n), draw(queries)
    common = unit(rng.standard_normal((1, dim), dtype=np.float32), "clustered")
    own = unit(rng.standard_normal((queries, dim), dtype=np.float32), "clustered")
    return vectors, unit(asked + np.float32(GAP) * common + np.float32(GAP / 2) * own, "clustered")


# Measured on 20,000 x 512: FAISS's HNSW of M 32 and efConstruction 40 has recall@10 0.65 at its default efSearch of
# 16, 0.89 at 128 and 0.98 at 400.
LATENT, NOISE, GAP = 64, 2.5, 0.8


def uniform(n: int, dim: int, seed: int, queries: int) -> tuple[Floats, Floats]:
    """Independent directions, evenly over the sphere; the queries too."""
    rng = np.random.default_rng(seed)
    rows = unit(rng.standard_normal((n + queries, dim), dtype=np.float32), "uniform")
    return rows[:n], rows[n:]


def blobs(n: int, dim: int, seed: int, queries: int) -> tuple[Floats, Floats]:
    """Gaussian clusters as wide as their centres lie apart; the queries are new draws.

    On 100,000 x 512 FAISS's HNSW of M 32 has recall@10 0.997 at the adapter's default effort.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(8, n // 2_000), dim), dtype=np.float32)

    def draw(rows: int) -> Floats:
        near = centres[rng.integers(len(centres), size=rows)]
        return unit(near + rng.standard_normal((rows, dim), dtype=np.float32), "blobs")

    return draw(n), draw(queries)


def made_texts(n: int, seed: int) -> list[str]:
    """Captions of five words, drawn by Zipf's law from 5,000 made ones."""
    rng = np.random.default_rng(seed + 7)
    syllables = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "ru")
    words = ["".join(syllables[int(digit)] for digit in f"{number:04}") for number in range(5_000)]
    shares = 1 / np.arange(1, len(words) + 1)
    drawn = rng.choice(len(words), (n, 5), p=shares / shares.sum())
    return [" ".join(words[word] for word in row) for row in drawn.tolist()]


_KINDS = {"clustered": clustered, "uniform": uniform, "blobs": blobs}
_MADE = re.compile(rf"({'|'.join(_KINDS)}):(\d+)x(\d+)(?:@(\d+))?")


def open_dataset(spec: str, *, queries: int, cache: Path, seed: int = 1) -> DataSet:
    """The data set that `spec` names, with up to `queries` queries; see the module. Raises DataError."""
    made = _MADE.fullmatch(spec)
    if made:
        kind, n, dim = made[1], int(made[2]), int(made[3])
        if not 1 <= n * dim * 4 <= MAX_VECTOR_BYTES:
            raise DataError(f"{spec}: {n:,} x {dim:,} is not a size from 1 vector to 16 GiB")
        seed = int(made[4]) if made[4] else seed
        vectors, asked = _KINDS[kind](n, dim, seed, queries)
        origin = {"kind": kind, "n": n, "dim": dim, "seed": seed}
        return DataSet(f"{kind}-{n}x{dim}", vectors, asked, origin=origin, seed=seed)
    if spec.startswith("photos:"):
        from benchmarks.suite.photos import open_photos

        return open_photos(spec.removeprefix("photos:"), queries, cache, seed)
    if ":" in spec.partition("/")[0]:
        raise DataError(f"{spec!r} names no data set: use clustered:NxD, uniform:NxD, photos:DIR or a file")
    from benchmarks.suite.files import read_file

    return read_file(Path(spec), queries, seed)


def names_differ(datasets: Sequence[DataSet]) -> None:
    """Raise DataError where two data sets have one name, under which the results of both would be stored."""
    seen: dict[str, int] = {}
    for data in datasets:
        seen[data.name] = seen.get(data.name, 0) + 1
    twice = [name for name, count in seen.items() if count > 1]
    if twice:
        raise DataError(f"two data sets are called {twice[0]}: give each once")
