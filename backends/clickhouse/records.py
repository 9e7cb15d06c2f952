"""Records as columns of a table, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from backends.base import NO_VECTOR, CollectionSpec, Record
from backends.checks import plain_metadata
from backends.clickhouse.filters import field_maps
from backends.kit.json_text import decode_metadata, encode
from backends.text import searched_text, tokenize

#: What a record is made of when it is read.
COLUMNS = "id, modality, text, uri, metadata, has_vector"
#: No record has it: the row of an upsert that has rows to replace, which goes with them.
MARKER = ""

TYPES = {
    "id": "String",
    "modality": "LowCardinality(String)",
    "text": "Nullable(String)",
    "uri": "Nullable(String)",
    "metadata": "String",
    "fields": "Map(LowCardinality(String), String)",
    "lists": "Map(LowCardinality(String), Array(String))",
    "terms": "Map(String, UInt32)",
    "length": "UInt32",
    "has_vector": "UInt8",
    "seq": "UInt64",
}


def vector_column(spec: CollectionSpec) -> str:
    """Its column, which says what the vectors are: a statement for a collection that was made anew otherwise fails."""
    return f"{spec.metric}_{spec.dim}"


def rows_of(
    records: Sequence[Record], vectors: Sequence[NDArray[np.float32]], spec: CollectionSpec, seqs: Sequence[int]
) -> list[bytes]:
    """Rows of `TYPES` and the vector in ClickHouse's format RowBinary: the client's own takes three times as long."""
    dim = _length(spec.dim)
    rows = []
    for record, vector, seq in zip(records, vectors, seqs, strict=True):
        counted = Counter(tokenize(searched_text(record.text, record.uri)))
        scalars, lists = field_maps(record.metadata)
        parts = [
            _string(record.id),
            _string(record.modality),
            _nullable(record.text),
            _nullable(record.uri),
            _string(encode(plain_metadata(record.metadata))),
            _length(len(scalars)),
            *(_string(key) + _string(value) for key, value in scalars.items()),
            _length(len(lists)),
            *(_string(k) + _length(len(v)) + b"".join(map(_string, v)) for k, v in lists.items()),
            _length(len(counted)),
            *(_string(word) + number.to_bytes(4, "little") for word, number in counted.items()),
            counted.total().to_bytes(4, "little"),
            b"\1" if vector.size else b"\0",
            seq.to_bytes(8, "little"),
            dim,
            (vector if vector.size else _stand_in(record.id, spec.dim)).astype("<f4", copy=False).tobytes(),
        ]
        rows.append(b"".join(parts))
    return rows


def marker_row(spec: CollectionSpec, seq: int) -> bytes:
    """The row of `MARKER`: all is empty but its number, and the vector that every row has."""
    vector = _stand_in(MARKER, spec.dim).astype("<f4", copy=False).tobytes()
    text = _string("{}")
    return b"".join(
        [
            _string(MARKER),
            _string(""),
            b"\1\1",
            text,
            bytes(3 + 4 + 1),
            seq.to_bytes(8, "little"),
            _length(spec.dim),
            vector,
        ]
    )


def _length(number: int) -> bytes:
    """A length, seven bits a byte, the lowest first."""
    if number < 128:
        return _SHORT[number]
    return bytes((number & 127 | 128,)) + _length(number >> 7)


_SHORT = [bytes((number,)) for number in range(128)]


def _string(text: str) -> bytes:
    data = text.encode()
    return _length(len(data)) + data


def _nullable(text: str | None) -> bytes:
    return b"\1" if text is None else b"\0" + _string(text)


def _stand_in(record_id: str, dim: int) -> NDArray[np.float32]:
    """What is stored for a record without a vector, as the index takes no row without one: some direction, no two the
    same, since many equal ones would be a knot in its graph."""
    vector = np.random.default_rng(crc32(record_id.encode())).standard_normal(dim)
    unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


def record_of(row: Sequence[Any], *, with_vector: bool) -> Record:
    """A record from `COLUMNS`, then the vector where it is wanted."""
    vector = None
    if with_vector:
        vector = np.asarray(row[6], dtype=np.float32) if row[5] else NO_VECTOR
    return Record(row[0], vector, row[1], row[2], row[3], decode_metadata(row[4]))
