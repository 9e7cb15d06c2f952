"""How a record is stored as a Qdrant point, and back; the same for the server and the engine in process.

A point's id is the UUIDv5 of the record's id. Its payload:

- ``id``, ``modality``, ``text``, ``uri``: the record's own, absent where `None`;
- ``metadata``: one JSON string. Qdrant parses payload numbers with `serde_json`, whose default parser
  is off by one unit in the last place for about a third of all doubles, and a string is not;
- ``has``: keywords that equality filters look for, see `tokens`;
- ``order``: integers below 2^53 that order as the values of a field do, see `number_key`, `string_key`.

Vectors are ``vector`` (dense; records without one have none) and ``words`` (sparse, the term-frequency part of BM25).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from backends.base import NO_VECTOR, Hit, Record, Scalar
from backends.checks import plain_metadata
from backends.errors import Corrupt
from backends.filters import MetadataValue, kind_of
from backends.kit.field_names import ascii_name
from backends.kit.json_text import decode_metadata, encode
from backends.kit.number_keys import number_parts
from backends.kit.record_ids import id_uuid
from backends.text import BM25_B, BM25_K1, searched_text, tokenize

DENSE, SPARSE = "vector", "words"
TOKENS, ORDER = "has", "order"
STORED = ("id", "modality", "text", "uri", "metadata")

NAMESPACE = uuid5(NAMESPACE_URL, "https://qdrant.tech/sightline")
MAX_TOKEN = 200
CHUNK_BYTES, CHUNKS = 6, 8
RESIDUAL_BITS = 12
LOW_BITS = 28
# Words in an average text. Qdrant weighs words by the collection's own frequencies, but takes the part
# that depends on a text's length as it was when the text was stored, so this has to be a constant: it
# lies between captions (about 10) and passages (100 to 200).
AVERAGE_WORDS = 64


def point_id(record_id: str) -> str:
    """The UUID of a record's point."""
    return id_uuid(NAMESPACE, record_id)


def id_after(uuid: str) -> str | None:
    """The UUID that follows in Qdrant's order, `None` after the last one."""
    following = UUID(uuid).int + 1
    return str(UUID(int=following)) if following < 1 << 128 else None


def token(field: str, kind: str, value: Scalar) -> str:
    """The keyword that says that `field` is, or as a list (kind ``l``) contains, `value`.

    Equal numbers have one keyword whatever their type. Long values are hashed (BLAKE2b, 128 bits).
    """
    if kind == "n":
        exact = not isinstance(value, float) or value.is_integer()
        text = str(int(value)) if exact else repr(value)
    else:
        text = str(int(value)) if kind == "b" else str(value)
    if len(text) <= MAX_TOKEN:
        return f"{field}={kind}:{text}"
    return f"{field}={kind}#{blake2b(text.encode(), digest_size=16).hexdigest()}"


def tokens(modality: str, metadata: Mapping[str, Any]) -> list[str]:
    """All keywords of a record: the name of each field, and each of its values."""
    found = [token("modality", "s", modality)]
    for field, value in metadata.items():
        found.append(field)
        if isinstance(value, str):
            found.append(token(field, "s", value))
        elif isinstance(value, list):
            found += [token(field, "l", element) for element in dict.fromkeys(value)]
        else:
            found.append(token(field, kind_of(value), value))
    return found


def number_key(value: float) -> tuple[int, int]:
    """Two integers of at most 48 bits that compare, as a pair, as 64-bit integers and doubles do.

    The bits of the nearest double, and what an integer beyond 2^53 lacks to it (at most 512).
    """
    ordered, residual = number_parts(value, float)
    key = (ordered << RESIDUAL_BITS) | (residual + (1 << (RESIDUAL_BITS - 1)))
    return key >> LOW_BITS, key & ((1 << LOW_BITS) - 1)


def string_key(value: str) -> list[int]:
    """Integers that compare, as a sequence, as strings by code point: six bytes of UTF-8 in each.

    Eight at most, then a 1 that says that there is more. The empty string has the one integer 0.
    """
    data = value.encode("utf-8")
    head = data[: CHUNK_BYTES * CHUNKS]
    starts = range(0, len(head), CHUNK_BYTES)
    key = [int.from_bytes(head[i : i + CHUNK_BYTES].ljust(CHUNK_BYTES, b"\0"), "big") for i in starts]
    return [*key, 1] if len(data) > len(head) else key or [0]


def order_path(field: str, kind: str, position: int) -> str:
    """The payload key of one integer of a field's order: ``order.year-n0``."""
    # In Qdrant's paths keys of other characters would have to be quoted.
    return f"{ORDER}.{ascii_name(field)}-{kind}{position}"


def _order(metadata: Mapping[str, Any]) -> dict[str, int]:
    # One flat object: an object for each field took the bindings 75 us a payload, this 54.
    keys: dict[str, int] = {}
    for field, value in metadata.items():
        name = ascii_name(field)
        if isinstance(value, str):
            for i, part in enumerate(string_key(value)):
                keys[f"{name}-s{i}"] = part
        elif not isinstance(value, (list, bool)):
            keys[f"{name}-n0"], keys[f"{name}-n1"] = number_key(value)
    return keys


def payload_of(record: Record) -> dict[str, Any]:
    """The payload of a record's point."""
    payload: dict[str, Any] = {"id": record.id, "modality": record.modality}
    if record.text is not None:
        payload["text"] = record.text
    if record.uri is not None:
        payload["uri"] = record.uri
    metadata = plain_metadata(record.metadata) if record.metadata else {}
    payload[TOKENS] = tokens(record.modality, metadata)
    if metadata:
        payload["metadata"] = encode(metadata)
        if order := _order(metadata):
            payload[ORDER] = order
    return payload


def metadata_of(payload: Mapping[str, Any]) -> dict[str, MetadataValue]:
    """The metadata in a payload, JSON or read already. Raises `Corrupt` when it is none of ours."""
    found = payload.get("metadata") or {}
    try:
        if isinstance(found, str):
            found = decode_metadata(found)
        if not isinstance(found, dict):
            raise ValueError("its metadata are not an object")
    except ValueError as error:
        raise not_ours(error) from error
    return found


def not_ours(error: Exception) -> Corrupt:
    """What to raise where a payload cannot be read."""
    return Corrupt(f"a point's payload is not one that Sightline wrote: {error}")


def record_of(payload: Mapping[str, Any], vector: Any, *, with_vector: bool) -> Record:
    """The record in a payload, with the point's vector, None for none. Raises `Corrupt` when it is none of ours."""
    found = NO_VECTOR if vector is None else np.asarray(vector, dtype=np.float32)
    try:
        return Record(
            payload["id"],
            found if with_vector else None,
            payload["modality"],
            payload.get("text"),
            payload.get("uri"),
            metadata_of(payload),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise not_ours(error) from error


def hit_of(payload: Mapping[str, Any], score: float, *, exact: bool) -> Hit:
    """The hit in a payload. Raises `Corrupt` when it is none of ours."""
    metadata = metadata_of(payload)
    try:
        return Hit(
            payload["id"], score, payload["modality"], payload.get("text"), payload.get("uri"), metadata, exact=exact
        )
    except KeyError as error:
        raise not_ours(error) from error


def words_of(payload: Mapping[str, Any]) -> list[str]:
    """The words that keyword search knows a stored point by."""
    return tokenize(searched_text(payload.get("text"), payload.get("uri")))


@lru_cache(maxsize=65_536)
def word_index(word: str) -> int:
    """The dimension of a word in the sparse vector: 32 bits of BLAKE2b."""
    return int.from_bytes(blake2b(word.encode(), digest_size=4).digest(), "big")


def word_weights(text: str) -> dict[int, float]:
    """The sparse vector of a text: for each word BM25's term-frequency part (Robertson and Zaragoza 2009).

    The inverse document frequency is Qdrant's (modifier ``idf``).
    """
    found = tokenize(text)
    length = BM25_K1 * (1 - BM25_B + BM25_B * len(found) / AVERAGE_WORDS)
    weights: dict[int, float] = {}
    for word, n in Counter(found).items():
        index = word_index(word)
        weights[index] = weights.get(index, 0.0) + n * (BM25_K1 + 1) / (n + length)
    return weights


def query_indices(wanted: Iterable[str]) -> list[int]:
    """The dimensions of a query's words."""
    return sorted({word_index(word) for word in wanted})
