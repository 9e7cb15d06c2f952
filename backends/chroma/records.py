"""How a record is stored in Chroma, and back; the same in a folder and on a server.

The record's id is Chroma's. Its metadata there:

- ``record``: modality, text, uri and metadata as one JSON string, which keeps their types;
- ``has``: a list of keywords that filters look for, see `tokens`;
- ``=FIELD``: the field's value where it is a string, or its hash where it is a long one;
- ``<FIELD``: an integer that orders as the field's numbers do, and ``+FIELD`` where that is not enough.

Chroma compares an integer with a fraction wrongly, and a list with nothing, so filters never see the values as they
are. An upsert there leaves the keys that the new metadata lacks. A key of a field therefore counts only where ``has``,
which every upsert replaces, says that it is current.

A vector is compulsory there. Records without one have a vector that means nothing, and the keyword `BARE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import NO_VECTOR, Hit, Record
from backends.checks import plain_metadata
from backends.errors import Corrupt
from backends.kit.json_text import decode, encode
from backends.kit.number_keys import number_parts
from backends.kit.parts import in_parts

HAS, RECORD = "has", "record"
#: The keyword of a record without a vector. No field is called so.
BARE = "!"
#: From this integer on, two numbers may be different and have one double.
EXACT = 1 << 53
MAX_STRING = 200
BATCH_BYTES = 8 << 20

Floats = NDArray[np.float32]
Row = tuple[str, Floats, dict[str, Any]]


def string_key(value: str) -> str:
    """What stands for a string in filters: itself, or the hash of a long one (BLAKE2b, 128 bits)."""
    if len(value) <= MAX_STRING:
        return "=" + value
    return "#" + blake2b(value.encode(), digest_size=16).hexdigest()


def number_key(value: float) -> tuple[int, int]:
    """Two integers of 64 bits that compare, as a pair, as numbers do; the second is 0 for all below `EXACT`."""
    ordered, residual = number_parts(value)
    return ordered - (1 << 63), residual


def kind_token(field: str, kind: str) -> str:
    """The keyword that says of what kind the field is: ``s`` string, ``n`` number, ``l`` list."""
    return f"{field}={kind}"


def value_token(field: str, kind: str, value: str | bool) -> str:
    """The keyword that says that the field is this boolean, or as a list contains this string."""
    return f"{field}={kind}{string_key(value) if isinstance(value, str) else int(value)}"


def modality_token(modality: str) -> str:
    """The keyword of a modality."""
    return value_token("modality", "m", modality)


def metadata_row(record: Record, *, bare: bool) -> dict[str, Any]:
    """What Chroma stores of a record beside its id and vector."""
    metadata = plain_metadata(record.metadata) if record.metadata else {}
    has = [modality_token(record.modality)]
    row: dict[str, Any] = {RECORD: encode([record.modality, record.text, record.uri, metadata]), HAS: has}
    if bare:
        has.append(BARE)
    for field, value in metadata.items():
        has.append(field)
        if isinstance(value, str):
            has.append(kind_token(field, "s"))
            row["=" + field] = string_key(value)
        elif isinstance(value, list):
            has.append(kind_token(field, "l"))
            has += [value_token(field, "l", element) for element in dict.fromkeys(value)]
        elif isinstance(value, bool):
            has.append(value_token(field, "b", value))
        else:
            has.append(kind_token(field, "n"))
            row["<" + field], residual = number_key(value)
            if abs(value) >= EXACT:
                row["+" + field] = residual
    return row


def rows_of(records: Iterable[Record], vectors: Iterable[Floats], dim: int) -> Iterator[Row]:
    """Id, vector and metadata of each record, as Chroma stores them."""
    for record, vector in zip(records, vectors, strict=True):
        bare = not vector.size
        yield record.id, filler(record.id, dim) if bare else vector, metadata_row(record, bare=bare)


def filler(record_id: str, dim: int) -> Floats:
    """The vector of a record that has none: a direction of its own, so that the graph has no heap of equal ones."""
    seed = int.from_bytes(blake2b(record_id.encode(), digest_size=8).digest(), "big")
    vector = np.random.default_rng(seed).standard_normal(dim, dtype=np.float32)
    vector /= np.float32(np.linalg.norm(vector) or 1.0)
    return vector


def is_bare(row: Mapping[str, Any]) -> bool:
    """Whether a stored record has no vector."""
    return BARE in row.get(HAS, ())


def batches(rows: Iterable[Row], most: int) -> Iterator[list[Row]]:
    """Rows in lists of up to `most`, and of no more than about `BATCH_BYTES`."""
    # Base64 makes four bytes of three; the keywords are about as long as the record.
    return in_parts(
        rows, lambda row: row[1].nbytes * 4 // 3 + 3 * len(row[2][RECORD]), most=most, most_bytes=BATCH_BYTES
    )


def _content(row: Mapping[str, Any]) -> list[Any]:
    try:
        modality, text, uri, metadata = decode(row[RECORD])
        return [modality, text, uri, dict(metadata)]
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"a record's metadata in Chroma is not what Sightline wrote: {error!r}") from error


def record_of(record_id: str, row: Mapping[str, Any], vector: Sequence[float] | Floats | None) -> Record:
    """The stored record, with this vector, or `NO_VECTOR` if it has none; None leaves it out."""
    content = _content(row)
    if vector is not None:
        vector = NO_VECTOR if is_bare(row) else np.asarray(vector, np.float32)
    return Record(record_id, vector, *content)


def hit_of(record_id: str, row: Mapping[str, Any], score: float, *, exact: bool) -> Hit:
    """The stored record as a hit."""
    modality, text, uri, metadata = _content(row)
    return Hit(record_id, score, modality, text, uri, metadata, exact=exact)
