"""How a record is stored as a document, and back; the same on both servers.

A document's ``_id`` is the record's id. Its fields:

- ``id``: the id once more, by which scans are sorted;
- ``modality``, ``text``, ``uri``: the record's own, absent where `None`;
- ``metadata``: one JSON string, so that numbers keep type and digits;
- ``vec``: the vector's bytes in base64, so that it comes back bit for bit, and in a quarter of the digits;
- ``vector``: the same for the index, absent where there is none; it is left out of what the server stores as source;
- ``words``: the folded words of text and file name, which BM25 searches;
- ``has``: keywords that filters look for, see `tokens`.

A keyword ends in the value as it is, so that keywords of a field have the order of its values; strings go on in
others after `CHUNK` characters.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import NO_VECTOR, Hit, Record, Scalar
from backends.checks import plain_metadata
from backends.errors import Corrupt
from backends.filters import MetadataValue, kind_of
from backends.kit.json_text import decode_metadata, encode
from backends.kit.number_keys import number_parts
from backends.text import searched_text, tokenize

ID, VECTOR, BYTES, WORDS, HAS = "id", "vector", "vec", "words", "has"
#: The keyword of a record that has a vector; those of fields begin with a letter or an underscore.
WITH_VECTOR = "="
# Lucene takes no bound of a range over 1,000 bytes. A character has up to four, and a field's name 64 characters.
CHUNK = 150


def number_key(value: float) -> str:
    """Digits that order as 64-bit integers and doubles do; equal for equal numbers.

    16 for the bits of the greatest double not above the value, three for what is missing to an integer beyond 2^53.
    """
    ordered, missing = number_parts(value)
    return f"{ordered:016x}{missing:03x}" if missing else f"{ordered:016x}"


def _hashed(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def chunk_prefixes(field: str, value: str) -> Iterator[tuple[str, str]]:
    """The pieces of a string, each with what its keyword begins with: by the field, and all that stands before it."""
    before = blake2b(digest_size=16)
    for start in range(0, len(value) or 1, CHUNK):
        piece = value[start : start + CHUNK]
        yield f"{field}=s{before.hexdigest() if start else ''}:", piece
        before.update(piece.encode())


def token(field: str, kind: str, value: Scalar) -> str:
    """The keyword that says that `field` is, or as a list (kind ``l``) contains, `value`."""
    if kind == "n":
        return f"{field}=n:{number_key(value)}"  # type: ignore[arg-type]
    if kind == "b":
        return f"{field}=b:{int(value)}"
    text = str(value)
    return f"{field}={kind}:{text}" if len(text) < CHUNK else f"{field}={kind}#{_hashed(text)}"


def tokens(modality: str, metadata: Mapping[str, Any], *, has_vector: bool) -> list[str]:
    """All keywords of a record: the name of each field, and each of its values."""
    found = [f"modality=s:{modality}"]
    if has_vector:
        found.append(WITH_VECTOR)
    for field, value in metadata.items():
        found.append(field)
        if isinstance(value, list):
            found += [token(field, "l", element) for element in dict.fromkeys(value)]
            continue
        found.append(token(field, kind_of(value), value))
        if isinstance(value, str) and len(value) >= CHUNK:
            found += [prefix + piece for prefix, piece in chunk_prefixes(field, value)]
    return found


def document_of(record: Record, vector: NDArray[np.float32]) -> dict[str, Any]:
    """The document of a record, but for `VECTOR`, which `vector_json` writes."""
    metadata = plain_metadata(record.metadata) if record.metadata else {}
    document: dict[str, Any] = {ID: record.id, "modality": record.modality}
    if record.text is not None:
        document["text"] = record.text
    if record.uri is not None:
        document["uri"] = record.uri
    if metadata:
        document["metadata"] = encode(metadata)
    if found := tokenize(searched_text(record.text, record.uri)):
        document[WORDS] = " ".join(found)
    document[HAS] = tokens(record.modality, metadata, has_vector=bool(vector.size))
    if vector.size:
        document[BYTES] = b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")
    return document


def vector_json(vector: NDArray[np.float32]) -> str:
    """The vector as JSON: nine digits tell every float32, and are written in a third of the time that all take."""
    numbers = vector.tolist()
    return "[" + ",".join(["%.9g"] * len(numbers)) % tuple(numbers) + "]"


def _metadata_of(source: Mapping[str, Any]) -> dict[str, MetadataValue]:
    found = source.get("metadata")
    return decode_metadata(found) if found else {}


def vector_of(source: Mapping[str, Any]) -> NDArray[np.float32]:
    """The vector of a document, `NO_VECTOR` for none."""
    if BYTES not in source:
        return NO_VECTOR
    return np.frombuffer(b64decode(source[BYTES]), dtype="<f4").astype(np.float32)


def record_of(source: Mapping[str, Any], *, with_vector: bool) -> Record:
    """The record in a document. Raises `Corrupt` when it is none of ours."""
    try:
        return Record(
            source[ID],
            vector_of(source) if with_vector else None,
            source["modality"],
            source.get("text"),
            source.get("uri"),
            _metadata_of(source),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _not_ours(error) from error


def hit_of(source: Mapping[str, Any], score: float, *, exact: bool) -> Hit:
    """The hit in a document. Raises `Corrupt` when it is none of ours."""
    try:
        metadata = _metadata_of(source)
        return Hit(source[ID], score, source["modality"], source.get("text"), source.get("uri"), metadata, exact=exact)
    except (KeyError, ValueError) as error:
        raise _not_ours(error) from error


def _not_ours(error: Exception) -> Corrupt:
    return Corrupt(f"a document is not one that Sightline wrote: {error}")
