"""Records to and from documents."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha1
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import NO_VECTOR, Record
from backends.checks import plain_metadata
from backends.errors import Corrupt
from backends.filters import kind_of
from backends.kit.json_text import decode_metadata, encode

#: What a result needs of a document.
COLUMNS = "d.id, d.modality, d.`text`, d.uri, d.body"


def key_of(record_id: str) -> str:
    """The document's key: ids may be longer than the 250 bytes that a key may have."""
    return sha1(record_id.encode(), usedforsecurity=False).hexdigest()


def document_of(record: Record, vector: NDArray[np.float32]) -> dict[str, object]:
    """The document of a record: what it is, its metadata by kind for filters, and as text, which keeps 1.0 from 1."""
    metadata = plain_metadata(record.metadata)
    kinds: dict[str, dict[str, object]] = {"n": {}, "s": {}, "b": {}, "l": {}}
    for field, value in metadata.items():
        kind = kind_of(value) if isinstance(value, (str, int, float, bool)) else "l"
        kinds[kind][field] = value
    document: dict[str, object] = {
        "id": record.id,
        "modality": record.modality,
        "text": record.text,
        "uri": record.uri,
        "body": encode(metadata),
        "fields": [*metadata],
        **kinds,
    }
    # Without a vector there is none, and neither the index nor a search sees the document.
    return document | ({"v": vector.tolist()} if vector.size else {})


def record_of(row: Mapping[str, Any], *, with_vector: bool) -> Record:
    """The record of a row of `COLUMNS`, with ``v`` where it has a vector that is wanted. Raises `Corrupt`."""
    try:
        vector = np.asarray(row["v"], np.float32) if row.get("v") is not None else NO_VECTOR
        return Record(
            row["id"],
            vector if with_vector else None,
            row["modality"],
            row.get("text"),
            row.get("uri"),
            decode_metadata(row["body"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"a document in Couchbase's scope sightline is not what Sightline wrote: {error!r}") from error
