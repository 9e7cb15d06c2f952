"""Records as they come out of a store, where what was checked when they went in is not checked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.base import Modality, Record
from backends.filters import MetadataValue

_new, _set = Record.__new__, object.__setattr__


def stored_record(
    record_id: str,
    vector: Any,
    modality: Modality,
    text: str | None,
    uri: str | None,
    metadata: Mapping[str, MetadataValue],
) -> Record:
    """The record of these values, which must be those of one that was stored: reading is mostly this."""
    record = _new(Record)
    _set(record, "id", record_id)
    _set(record, "vector", vector)
    _set(record, "modality", modality)
    _set(record, "text", text)
    _set(record, "uri", uri)
    _set(record, "metadata", metadata)
    return record


def with_vector(record: Record, vector: Any) -> Record:
    """The same record with another vector."""
    return stored_record(record.id, vector, record.modality, record.text, record.uri, record.metadata)
