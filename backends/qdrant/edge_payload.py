"""A record's own fields as one string in a point's payload, for Qdrant's engine in process.

The bindings take 5 to 9 us for each string of a payload and give as much for a list's, whatever its length.
``record`` is the JSON array of id, modality, text, uri and metadata; ``has`` and ``order`` stay as
`backends.qdrant.payload` has them. Points written before have each field by itself, and are read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.kit.json_text import decode, encode
from backends.qdrant.payload import ORDER, STORED, TOKENS, not_ours

RECORD = "record"
# What a read asks the engine for.
WANTED = [RECORD, *STORED]


def packed(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A payload of `backends.qdrant.payload.payload_of` in this form."""
    own = encode([payload["id"], payload["modality"], payload.get("text"), payload.get("uri")])
    # The metadata is JSON already.
    found = {RECORD: f"{own[:-1]},{payload.get('metadata', 'null')}]", TOKENS: payload[TOKENS]}
    if ORDER in payload:
        found[ORDER] = payload[ORDER]
    return found


def unpacked(payload: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The record's fields in a payload read back, metadata as a dict. Raises `Corrupt`."""
    if not payload or RECORD not in payload:
        return payload or {}
    try:
        fields = dict(zip(STORED, decode(payload[RECORD]), strict=True))
    except (ValueError, TypeError) as error:
        raise not_ours(error) from error
    return fields
