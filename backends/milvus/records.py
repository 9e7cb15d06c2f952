"""How a record is stored in Milvus, and back; how collections are named and described.

Milvus's columns are ``id`` (primary key), ``vector``, ``modality``, ``text``, ``uri``, ``payload`` and the
dynamic fields of `backends.milvus.filters`. ``payload`` is one digit, 1 for no text plus 2 for no uri,
since 2.3 has no nulls; then the metadata as JSON, as it was given.

Milvus wants a vector in every row. A record that has none gets a random one, and its modality is one of `BARE`,
by which every search leaves it out. A random one, since thousands of equal vectors would be a trap in a graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import MODALITIES, NO_VECTOR, CollectionSpec, Hit, Metric, Modality, Record
from backends.checks import plain_metadata
from backends.errors import Corrupt, Unsupported
from backends.filters import MetadataValue
from backends.kit.json_text import decode_metadata, encode
from backends.kit.parts import in_parts
from backends.milvus.filters import BARE, Dialect
from backends.text import WORDS_VERSION, searched_text, tokenize

PREFIX = "sightline_"
MARK = "sightline:1:"
# The version of the words, once they have been taken anew; before, it is in the description.
WORDS_PROPERTY = "sightline_words"
WIDTH_PROPERTY = "sightline_width"
WORDS, WORDS_VECTOR = "words", "words_vector"
Floats = NDArray[np.float32]
MAX_DYNAMIC_BYTES = 65_536
MAX_VARCHAR_BYTES = 65_535
BATCH_ROWS, BATCH_BYTES = 5_000, 20 << 20
_PLAIN = re.compile(r"\w+")
STORED = ["modality", "text", "uri", "payload"]
_MODALITY: dict[str, Modality] = {stored: modality for modality in MODALITIES for stored in (modality, BARE[modality])}


def stored_name(name: str) -> str:
    """The Milvus collection of one of ours: Milvus takes no hyphens, so ``_`` is ``__`` and ``-`` is ``_d``."""
    return PREFIX + name.replace("_", "__").replace("-", "_d")


def own_name(stored: str) -> str | None:
    """The name behind `stored_name`, `None` for a collection that is not ours."""
    if not stored.startswith(PREFIX):
        return None
    return re.sub("_(.)", lambda pair: "-" if pair[1] == "d" else "_", stored[len(PREFIX) :])


def description_of(spec: CollectionSpec, creation: str, words: int = WORDS_VERSION) -> str:
    """What is stored with a collection to know it by: its spec, and the version of the words that its rows have.

    `creation`, one word, tells it from others of the same spec.
    """
    return f"{MARK}{spec.to_json()}\n{creation}\n{words}"


def spec_of(description: Mapping[str, Any]) -> CollectionSpec | None:
    """The spec in what Milvus says of a collection; `None` where Sightline did not make it."""
    for text in (description.get("properties", {}).get("sightline", ""), description.get("description", "")):
        if text.startswith(MARK):
            return CollectionSpec.from_json(text.removeprefix(MARK).partition("\n")[0])
    return None


def words_version(description: Mapping[str, Any]) -> int:
    """The version of the words that a collection's rows have, 1 where Milvus says nothing of it."""
    properties = description.get("properties", {})
    for text in (properties.get("sightline", ""), description.get("description", "")):
        if text.startswith(MARK):
            made = text.split("\n")[2:]
            return int(properties.get(WORDS_PROPERTY) or (made[0] if made else 1))
    return 1


def words_of(words: Sequence[str]) -> str:
    """Words between single spaces, as the BM25 function takes them.

    Milvus Lite takes words apart at whatever is no letter or digit, so those with vowel signs and emoji are spelled in
    hexadecimal, behind a letter that folding leaves in no word. What does not fit is left out: first the repetitions.
    """
    joined = " ".join([word if _PLAIN.fullmatch(word) else f"ſ{word.encode().hex()}" for word in words])
    if len(joined) * 4 > MAX_VARCHAR_BYTES and len(joined.encode()) > MAX_VARCHAR_BYTES:
        joined = " ".join(dict.fromkeys(joined.split(" ")))
        if len(joined.encode()) > MAX_VARCHAR_BYTES:
            joined = joined.encode()[:MAX_VARCHAR_BYTES].decode(errors="ignore").rpartition(" ")[0]
    return joined


def placeholder(record_id: str, dim: int) -> Floats:
    """A random vector of unit length, always the same for an id."""
    seed = int.from_bytes(blake2b(record_id.encode(), digest_size=8).digest())
    row = np.random.default_rng(seed).standard_normal(dim)
    return (row / np.linalg.norm(row)).astype(np.float32)


def row_of(record: Record, vector: Floats, dim: int, dialect: Dialect, keyword: bool) -> dict[str, Any]:
    """The row of a record. Raises `Unsupported` where its metadata is more than Milvus filters."""
    metadata = plain_metadata(record.metadata) if record.metadata else {}
    missing = (record.text is None) + 2 * (record.uri is None)
    payload = f"{missing}{encode(metadata)}" if metadata else str(missing)
    row = {
        "id": record.id,
        "vector": vector if vector.size else placeholder(record.id, dim),
        "modality": record.modality if vector.size else BARE[record.modality],
        "text": record.text or "",
        "uri": record.uri or "",
        "payload": payload,
    }
    if keyword:
        row[WORDS] = words_of(tokenize(searched_text(record.text, record.uri)))
    dynamic = dialect.fields(metadata)
    # A field's key takes at most 15 bytes, and its JSON at least 8, of which the value is part.
    if len(payload) > MAX_DYNAMIC_BYTES // 6 and not dialect.lists_as_text:
        size_bytes = len(encode(dynamic).encode())
        if size_bytes > MAX_DYNAMIC_BYTES:
            raise Unsupported(
                f"record {record.id!r}: its metadata takes {size_bytes} bytes in the form that Milvus filters, "
                f"which is limited to {MAX_DYNAMIC_BYTES}: use fewer fields"
            )
    row.update(dynamic)
    return row


def with_words_anew(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was read, all of it but its words, which are taken anew."""
    text, uri, _ = _parts(row)
    kept = {name: value for name, value in row.items() if name != WORDS_VECTOR}
    return kept | {WORDS: words_of(tokenize(searched_text(text, uri)))}


def batches(rows: list[dict[str, Any]], dim: int) -> Iterator[list[dict[str, Any]]]:
    """Rows in batches that one request takes."""

    def bytes_of(row: dict[str, Any]) -> int:
        # Text counts up to three bytes a character; the dynamic fields are about as long as the payload.
        return 4 * dim + 3 * (2 * len(row["text"]) + len(row["uri"]) + 3 * len(row["payload"])) + 600

    return in_parts(rows, bytes_of, most=BATCH_ROWS, most_bytes=BATCH_BYTES)


def _parts(row: Mapping[str, Any]) -> tuple[str | None, str | None, dict[str, MetadataValue]]:
    try:
        payload = row["payload"]
        missing = int(payload[0])
        metadata = decode_metadata(payload, 1) if len(payload) > 1 else {}
        return None if missing & 1 else row["text"], None if missing & 2 else row["uri"], metadata
    except (KeyError, IndexError, ValueError) as error:
        raise Corrupt(f"row {row.get('id')!r} is not one that Sightline wrote: {error}") from error


def is_bare(row: Mapping[str, Any]) -> bool:
    """Whether the row is that of a record without a vector."""
    return row["modality"] in BARE.values()


def _modality(row: Mapping[str, Any]) -> Modality:
    try:
        return _MODALITY[row["modality"]]
    except KeyError as error:
        raise Corrupt(f"row {row.get('id')!r} is not one that Sightline wrote: {error}") from error


def record_of(row: Mapping[str, Any]) -> Record:
    """The record of a row, with its vector where the row has it."""
    text, uri, metadata = _parts(row)
    vector = None
    if "vector" in row:
        vector = NO_VECTOR if is_bare(row) else np.array(row["vector"], np.float32)
    return Record(row["id"], vector, _modality(row), text, uri, metadata)


def hit_of(record_id: str, row: Mapping[str, Any], score: float, *, exact: bool) -> Hit:
    """The hit of a row."""
    text, uri, metadata = _parts(row)
    return Hit(record_id, score, _modality(row), text, uri, metadata, exact=exact)


def scores_of(query: Floats, vectors: Floats, metric: Metric) -> list[float]:
    """The scores of (n, d) vectors for one query, from float64 sums, as `Hit` has them."""
    wide = vectors.astype(np.float64)
    if metric == "l2":
        found = -np.sqrt(((wide - query) ** 2).sum(axis=1))
    else:
        found = wide @ query.astype(np.float64)
        if metric == "cosine":
            found = np.clip(found, -1.0, 1.0)
    # Equal vectors may differ in the last bits of their sums; as float32 they tie again.
    scores: list[float] = (found.astype(np.float32).astype(np.float64) + 0.0).tolist()
    return scores
