"""Records to and from TiDB's rows, and writing them in transactions of few rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from backends.base import NO_VECTOR, Record
from backends.checks import plain_metadata
from backends.kit.json_text import decode_metadata, encode
from backends.text import searched_text, tokenize
from backends.tidb.connection import Connection, Row, change
from backends.tidb.filters import fields_json

COLUMNS = "id, modality, text, uri, metadata"
_WRITTEN = f"{COLUMNS}, fields, terms, length, vector"
_MARKS = f"({', '.join(['%s'] * len(_WRITTEN.split(',')))})"
# One transaction. TiDB commits keys of up to 16 KiB in one step; of a longer transaction some rows become visible only
# by what comes after, which its embedded store forgets when it is killed: there, 350 rows of an acknowledged one were
# damaged and 100 never. A statement is also held well below `max_allowed_packet`.
MAX_ROWS = 100
_MAX_KEY_BYTES = 12_000
_MAX_STATEMENT_BYTES = 8 << 20
# A key is the table's prefix and the id in groups of 8 bytes, each with a byte more.
_KEY_PREFIX_BYTES = 19
Vectors = Sequence[NDArray[np.float32]]


@lru_cache(maxsize=64)
def _format(dim: int) -> str:
    # Nine digits are enough to give a float32 back.
    return "[" + ",".join(["%.9g"] * dim) + "]"


def vector_text(vector: NDArray[np.float32]) -> str:
    """A vector as TiDB reads it, (d,) float32; the same bits come back."""
    return _format(len(vector)) % tuple(vector.tolist())


def vector_of(text: str | bytes) -> NDArray[np.float32]:
    """The vector that TiDB wrote."""
    return np.fromstring(text[1:-1], dtype=np.float32, sep=",")


def key_bytes(record_id: bytes) -> int:
    """How long the key of a row is."""
    return _KEY_PREFIX_BYTES + 9 * (len(record_id) // 8 + 1)


def words_of(text: str | None, uri: str | None) -> tuple[str, int]:
    """The columns `terms` and `length`: each folded word with how often it is there, and their sum."""
    terms = Counter(tokenize(searched_text(text, uri)))
    return encode(terms), terms.total()


def _values(record: Record, vector: NDArray[np.float32]) -> tuple[object, ...]:
    return (
        record.id.encode(),
        record.modality,
        record.text,
        record.uri,
        encode(plain_metadata(record.metadata)),
        fields_json(record.metadata),
        *words_of(record.text, record.uri),
        vector_text(vector) if vector.size else None,
    )


def write(connection: Connection, table: str, records: Sequence[Record], vectors: Vectors) -> None:
    """Store the records, replacing those whose id is there, in transactions of up to `MAX_ROWS`.

    In the order of their ids, so that two writers of the same ids wait for each other instead of in a circle.
    """
    order = sorted(range(len(records)), key=lambda row: records[row].id)
    for part in _parts(_values(records[row], vectors[row]) for row in order):
        marks = ", ".join([_MARKS] * len(part))
        statement = f"REPLACE INTO {table} ({_WRITTEN}) VALUES {marks}"  # noqa: S608
        change(connection, statement, [value for values in part for value in values])


def _parts(rows: Iterator[tuple[object, ...]]) -> Iterator[list[tuple[object, ...]]]:
    """The rows in groups that may be one transaction each."""
    part: list[tuple[object, ...]] = []
    keys = size = 0
    for values in rows:
        key = key_bytes(values[0])  # type: ignore[arg-type]
        length = sum(len(value) for value in values if isinstance(value, (str, bytes)))
        full = len(part) == MAX_ROWS or keys + key > _MAX_KEY_BYTES or size + length > _MAX_STATEMENT_BYTES
        if part and full:
            yield part
            part, keys, size = [], 0, 0
        part.append(values)
        keys, size = keys + key, size + length
    if part:
        yield part


def id_parts(ids: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Ids in groups whose rows may be removed in one transaction each."""
    for part in _parts((record_id,) for record_id in ids):
        yield [values[0] for values in part]  # type: ignore[misc]


def record_of(row: Row, *, with_vector: bool) -> Record:
    """The record of a row of `COLUMNS` and, with a vector, ``vector``, NULL where the record has none."""
    vector = None
    if with_vector:
        vector = NO_VECTOR if row[5] is None else vector_of(row[5])
    return Record(row[0].decode(), vector, row[1], row[2], row[3], decode_metadata(row[4]))
