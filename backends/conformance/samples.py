"""Records and vectors that the checks are made of; the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import NO_VECTOR, Record
from backends.filters import MetadataValue

POUR_BATCH = 40
POUR_DIM = 8
LANGUAGES = ("de", "en", "fr", "日本語")

HOSTILE = (
    "'",
    '"',
    "`",
    "''; DROP TABLE records; --",
    '" OR 1=1 --',
    "'); --",
    "a'b\"c`d",
    "$$",
    "$1",
    "%s",
    "%(id)s",
    "%",
    "_",
    "a%b_c",
    "?",
    ":name",
    "@x",
    "{}",
    "{dir}",
    "${HOME}",
    '{"$ne": null}',
    '{"id": "a"}',
    "[1, 2]",
    "[]",
    "null",
    "None",
    "true",
    "0",
    "1",
    "01",
    "1.0",
    "-1",
    "1e5",
    "/",
    "//",
    "/etc/passwd",
    "../../etc/passwd",
    ".",
    "..",
    "a/b",
    "a\\b",
    "\\",
    "\\\\",
    "\\n",
    "\\u0041",
    "C:\\x",
    "con",
    "http://x/y?z=1&w=2#f",
    "a b",
    " a",
    "a ",
    " ",
    "\t",
    "\n",
    "a\nb",
    "a\r\nb",
    "\r",
    "\x01",
    "\x1b[31m",
    "\x7f",
    "\u0085",
    "\u2028",
    "\ufeff",
    "\u200b",
    "\ue000",
    "\ufffd",
    "\uffff",
    "😀",
    "👩‍👩‍👧‍👦",
    "\U0010ffff",
    "𝔘",
    "שלום",
    "مرحبا بالعالم",
    "\u202eabc",
    "日本語",
    "é",
    "e\u0301",
    "ﬁ",
    "fi",
    "ß",
    "SS",
    "ss",
    "İ",
    "i",
    "I",
    "ı",
    "A",
    "a",
    "Z\u0351\u0342\u0329a\u0300l\u0489go",
    "<script>x</script>",
    "&amp;",
    "a,b",
    "a;b",
    "a=b",
    "a|b",
    "a:b",
    "a*b",
    "#",
    "!",
    "~",
    "^",
    "(",
    ")",
    "a\u00a0b",
    "00000000-0000-0000-0000-000000000000",
    "x" * 512,
    "ü" * 256,
    "😀" * 128,
)


def vectors(n: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """(n, dim) standard normal rows; not of unit length, on purpose."""
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def unit(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows scaled to unit length."""
    scaled: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def metadata_of(i: int) -> dict[str, MetadataValue]:
    """Metadata with every type, and a field missing here and there."""
    fields: dict[str, MetadataValue] = {"n": i, "lang": LANGUAGES[i % 4], "flag": i % 2 == 0, "tags": [f"t{i % 5}"]}
    if i % 3:
        fields["ratio"] = i / 4
    if i % 7 == 0:
        fields["tags"] = []
    return fields


def some(
    n: int,
    dim: int = 8,
    *,
    seed: int = 0,
    prefix: str = "r",
    metadata: Sequence[Mapping[str, MetadataValue]] | None = None,
) -> list[Record]:
    """`n` different records, every third one a text; `metadata` is dealt round where given."""
    return list(stream(n, dim, seed=seed, prefix=prefix, metadata=metadata))


def stream(
    n: int,
    dim: int = 8,
    *,
    seed: int = 0,
    prefix: str = "r",
    metadata: Sequence[Mapping[str, MetadataValue]] | None = None,
) -> Iterator[Record]:
    """What `some` lists, one by one."""
    rows = vectors(n, dim, seed)
    for i in range(n):
        yield Record(
            id=f"{prefix}{i:05}",
            vector=rows[i],
            modality="text" if i % 3 == 0 else "image",
            text=None if i % 5 == 0 else f"picture number {i} of {prefix}",
            uri=f"file:///pictures/{prefix}/{i}.jpg" if i % 2 else None,
            metadata=metadata[i % len(metadata)] if metadata else metadata_of(i),
        )


def clustered(n: int, dim: int, seed: int, clusters: int = 100) -> NDArray[np.float32]:
    """(n, dim) unit rows around random centres, as embeddings lie: the case where graph indexes fail filters."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    rows = centres[rng.integers(clusters, size=n)] + 0.5 * rng.standard_normal((n, dim))
    return unit(rows)


def poured(batch: int) -> list[Record]:
    """Batch number `batch` of what a process upserts until it is killed.

    New records, some of them without a vector, and one that every batch replaces.
    """
    rows = vectors(POUR_BATCH, POUR_DIM, seed=1000 + batch)
    own = [
        Record(
            f"b{batch:05}-{i:02}",
            NO_VECTOR if i % 8 == 5 else rows[i],
            "text",
            f"batch{batch}",
            metadata={"batch": batch, "i": i},
        )
        for i in range(POUR_BATCH - 1)
    ]
    return [*own, Record("shared", rows[-1], "text", f"batch{batch}", metadata={"batch": batch, "i": POUR_BATCH - 1})]
