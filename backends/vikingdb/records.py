"""From a `Record` to a row of VikingDB, and back.

A row has

- ``id``: a digest of the record's id, which may be longer than VikingDB's 256 bytes;
- ``body``: the record as JSON, without its vector. What does not fit into a row goes into rows of its own before it,
  whose ids hold the row's ``stamp``, so that parts of two writes are never put together;
- ``has``: keywords, one for each thing that a filter may ask for. Every one but those of one letter is a digest;
- ``high0``, ``low0`` ..: the numbers of up to `SLOTS` fields, as integers in the order of the numbers. Which slot a
  field is in differs from row to row, and a keyword says it: a field has `CHOICES` slots that it may be in;
- ``position``: where it stands in a scan, and ``stamp``: which write it is of.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import NO_VECTOR, Record
from backends.checks import plain_metadata
from backends.errors import Corrupt, Unsupported
from backends.filters import MetadataValue, Scalar, kind_of
from backends.kit.json_text import decode, encode
from backends.kit.number_keys import number_parts

ID, VECTOR, BODY, HAS, POSITION, STAMP, PARTS = "id", "vector", "body", "has", "position", "stamp", "parts"
HIGH, LOW = "high", "low"
SLOTS, CHOICES, UNPLACED = 32, 4, -1
#: Keywords of one letter: a record, a record that has a vector, a part of one, and what is known of the collection.
RECORD, HAS_VECTOR, PART, META = "r", "v", "p", "m"
ROW_BYTES = 65_000
META_KEY, ENCODER_KEY = "m", "e"
SCALARS = [BODY, STAMP, PARTS]


def digest(text: str, size: int = 8) -> str:
    """A digest in letters, digits, ``-`` and ``_``: 11 characters, or more."""
    return base64.urlsafe_b64encode(blake2b(text.encode(), digest_size=size).digest()).rstrip(b"=").decode()


def key_of(record_id: str) -> str:
    """The primary key of a record: a digest of 160 bits."""
    return "r" + digest(record_id, 20)


def position_of(key: str) -> int:
    """Where a row stands in a scan: below 2^52, which every reader of JSON keeps exactly."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 12


def new_stamp() -> str:
    """What tells one write from all others; they sort by the time at which they began."""
    return f"{time.time_ns():016x}{os.urandom(6).hex()}"


def stamp_ns(stamp: str) -> int:
    """When a write began, in ns since the epoch."""
    return int(stamp[:16], 16)


@lru_cache(maxsize=65_536)
def presence_token(field: str) -> str:
    """The keyword of a row whose record has this field."""
    return digest(f"k:{field}")


def value_token(field: str, kind: str, value: Scalar) -> str:
    """The keyword of a value; kind ``l`` is an element of a list, others as `backends.filters.kind_of`."""
    text = "{}+{}".format(*number_parts(value)) if kind == "n" else str(value)  # type: ignore[arg-type]
    return digest(f"{kind}:{field}\0{text}")


@lru_cache(maxsize=65_536)
def slot_token(field: str, slot: int) -> str:
    """The keyword of a row that has the number of this field in that slot."""
    return digest(f"o{slot}:{field}")


@lru_cache(maxsize=65_536)
def slots_of(field: str) -> tuple[int, ...]:
    """The slots that a field may be in."""
    number, free, chosen = int.from_bytes(blake2b(field.encode(), digest_size=16).digest()), list(range(SLOTS)), []
    for _ in range(CHOICES):
        number, at = divmod(number, len(free))
        chosen.append(free.pop(at))
    return tuple(chosen)


def halves(value: float) -> tuple[int, int]:
    """The order of the double not above a number as two integers of 32 bits."""
    return divmod(number_parts(value)[0], 1 << 32)


def place(fields: Sequence[str]) -> dict[str, int]:
    """A slot for each of these fields, `UNPLACED` for those that find none: the largest matching."""
    owner: dict[int, str] = {}

    def take(field: str, seen: set[int]) -> bool:
        for slot in slots_of(field):
            if slot not in seen:
                seen.add(slot)
                if slot not in owner or take(owner[slot], seen):
                    owner[slot] = field
                    return True
        return False

    for field in fields:
        # Where all slots are taken nothing can be moved any more.
        if len(owner) < SLOTS:
            take(field, set())
    placed = {field: slot for slot, field in owner.items()}
    return {field: placed.get(field, UNPLACED) for field in fields}


def _tokens(metadata: Mapping[str, MetadataValue]) -> Iterator[str]:
    for field, value in metadata.items():
        yield presence_token(field)
        if isinstance(value, (str, bool, int, float)):
            yield value_token(field, kind_of(value), value)
        else:
            for element in value:
                yield value_token(field, "l", element)


def row_of(record: Record, vector: NDArray[np.float32], dim: int, stamp: str) -> list[dict[str, Any]]:
    """The rows of a record, the one that is found last. Raises `Unsupported` for too many keywords."""
    numbers = {f: v for f, v in record.metadata.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    has = {RECORD: None, f"modality-{record.modality}": None} | dict.fromkeys(_tokens(record.metadata))
    columns: dict[str, int] = {}
    for field, slot in place([*numbers]).items():
        has[slot_token(field, slot)] = None
        if slot != UNPLACED:
            columns[f"{HIGH}{slot}"], columns[f"{LOW}{slot}"] = halves(numbers[field])
    if vector.shape != NO_VECTOR.shape:
        has[HAS_VECTOR] = None
    body = encode([record.id, record.modality, record.text, record.uri, plain_metadata(record.metadata)])
    return rows_of(key_of(record.id), body, [*has], columns, vector, dim, stamp, f"record {record.id!r}")


def rows_of(
    key: str,
    body: str,
    has: Sequence[str],
    columns: Mapping[str, int],
    vector: NDArray[np.float32],
    dim: int,
    stamp: str,
    what: str,
) -> list[dict[str, Any]]:
    """The parts of a row whose body is too large for one, and the row itself, last."""
    row = {ID: key, HAS: [*has], POSITION: position_of(key), STAMP: stamp, PARTS: 0, BODY: "", **columns}
    room = ROW_BYTES - len(encode(row).encode()) - 16
    if room < 0:
        raise Unsupported(
            f"{what} has {len(has):,} keywords for filters, more than VikingDB keeps in a row of 65,535 bytes: "
            "use shorter lists and fewer fields"
        )
    pieces = _cut(body, room)
    row[BODY], row[PARTS], row[VECTOR] = pieces[0], len(pieces) - 1, padded(vector, dim)
    nowhere = padded(NO_VECTOR, dim)
    parts: list[dict[str, Any]] = [
        {ID: part, HAS: [PART], POSITION: position_of(part), STAMP: stamp, PARTS: 0, BODY: piece, VECTOR: nowhere}
        for part, piece in zip(part_keys(key, stamp, len(pieces) - 1), pieces[1:], strict=True)
    ]
    return [*parts, row]


def part_keys(key: str, stamp: str, count: int) -> list[str]:
    """The primary keys of the parts of a row."""
    return [f"p{key}.{stamp}.{number}" for number in range(count)]


def _cut(body: str, room: int) -> list[str]:
    """The text in pieces, the first of at most `room` bytes as JSON, others of as many as fit into a row."""
    if len(body) * 2 < room and body.isascii():
        return [body]
    pieces, start, used, limit = [], 0, 0, room
    for at, character in enumerate(body):
        size = len(encode(character).encode()) - 2
        if used + size > limit:
            pieces.append(body[start:at])
            start, used, limit = at, 0, ROW_BYTES - 500
        used += size
    return [*pieces, body[start:]]


def padded(vector: NDArray[np.float32], dim: int) -> list[float]:
    """A vector with zeros up to what VikingDB takes, which changes no score; some vector for none."""
    size = stored_dim(dim)
    if vector.shape == NO_VECTOR.shape:
        return [1.0] + [0.0] * (size - 1)
    return [*map(float, vector), *[0.0] * (size - dim)]


def stored_dim(dim: int) -> int:
    """The next multiple of 4."""
    return -(-dim // 4) * 4


def record_of(body: str, vector: NDArray[np.float32] | None) -> Record:
    """The record that `row_of` wrote. Raises `Corrupt` for anything else."""
    try:
        record_id, modality, text, uri, metadata = decode(body)
        return Record(record_id, vector, modality, text, uri, metadata)
    except (ValueError, TypeError) as error:
        raise Corrupt(f"a row of VikingDB is not one of ours: {error}") from error


def vector_of(fields: Mapping[str, Any], has_vector: bool, dim: int) -> NDArray[np.float32]:
    """The vector in a fetched row."""
    return np.array(fields[VECTOR][:dim], np.float32) if has_vector else NO_VECTOR
