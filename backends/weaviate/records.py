"""How a record is stored as a Weaviate object, and back.

An object's id is the UUIDv5 of the record's id. Its properties:

- ``record_id``, ``modality``, ``text``, ``uri``: the record's own, absent where `None`;
- ``metadata``: one JSON string, so that numbers keep type and digits;
- ``words``: the folded words of text and file name, which BM25 searches;
- ``has``: keywords that filters look for, see `tokens`;
- ``n_FIELD``: the number in a metadata field, for quick ranges, see `number_property`.

Besides its vector, if the record has one, an object has ``stamp``, a vector of two random numbers, new at each write.
Weaviate stores an object before it indexes its vector, and when it is killed in between, or the client is,
takes the same object later for one that it knows and never indexes it; with another stamp it does.

Weaviate trims white space from keywords and reads ``*`` and ``?`` in patterns, so values are spelled in
the digits 0 to 3, which also makes order a matter of prefixes: see `backends.weaviate.filters`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
from google.protobuf.struct_pb2 import Struct, Value
from numpy.typing import NDArray
from weaviate.proto.v1 import base_pb2, batch_pb2, search_get_pb2

from backends.base import NO_VECTOR, Hit, Record, Scalar
from backends.checks import plain_metadata
from backends.errors import Corrupt
from backends.filters import MetadataValue, kind_of
from backends.kit.field_names import ascii_name
from backends.kit.json_text import decode_metadata, encode
from backends.kit.number_keys import double_below, number_parts
from backends.kit.record_ids import id_uuid, storable_ids
from backends.text import searched_text, tokenize

STORED = ("record_id", "modality", "text", "uri", "metadata")
WORDS, HAS, NUMBER_PREFIX, STAMP = "words", "has", "n_", "stamp"
KINDS = "nsbl"
# The keyword of a record without a vector; those of fields have "=" or ":" in them.
BARE = "bare"
# Strings are spelled out up to here, four digits a byte; the rest of longer ones is hashed.
SPELLED_BYTES = 48
NUMBER_DIGITS = 32
# Weaviate's longest name of a property. Keywords do for a field whose name is longer than that once it is ASCII.
MAX_PROPERTY = 230
SAFE_INTEGER = 2**53

NAMESPACE = uuid5(NAMESPACE_URL, "https://weaviate.io/sightline")
# The cursor that stands before every object.
BEFORE_FIRST = str(UUID(int=0))
_OTHERS = re.compile(r"[^a-z0-9]")
_DIGITS = ["".join(str(byte >> shift & 3) for shift in (6, 4, 2, 0)) for byte in range(256)]


def object_id(record_id: str) -> str:
    """The UUID of a record's object."""
    return id_uuid(NAMESPACE, record_id)


def object_ids(ids: Iterable[str]) -> list[str]:
    """The objects of the ids that a record can have."""
    return [object_id(record_id) for record_id in storable_ids(ids)]


def spell(data: bytes) -> str:
    """Bytes in base 4, four digits each, in the same order as the bytes."""
    return "".join([_DIGITS[byte] for byte in data])


def number_digits(value: float) -> str:
    """Digits that order as 64-bit integers and doubles do: a prefix of another's comes first.

    32 digits for the bits of the greatest double not above the value, five for what is missing to an integer
    beyond 2^53; without zeros at the end.
    """
    ordered, missing = number_parts(value)
    tail = "".join(str(missing >> shift & 3) for shift in (8, 6, 4, 2, 0)) if missing else ""
    return (spell(ordered.to_bytes(8, "big")) + tail).rstrip("0")


def spelled_string(value: str) -> str:
    """A string's part of its keyword: its digits, and for what is beyond 48 bytes a hash (BLAKE2b, 128 bits)."""
    data = value.encode("utf-8")
    if len(data) <= SPELLED_BYTES:
        return spell(data) + ";"
    return f"{spell(data[:SPELLED_BYTES])}+{blake2b(data, digest_size=16).hexdigest()};"


def token(field: str, kind: str, value: Scalar) -> str:
    """The keyword that says that `field` is, or as a list (kind ``l``) contains, `value`."""
    name = ascii_name(field)
    if kind == "n":
        return f"{name}=n{number_digits(value)};"  # type: ignore[arg-type]
    if kind == "b":
        return f"{name}=b{int(value)};"
    return f"{name}={kind}{spelled_string(str(value))}"


def kind_token(field: str, kind: str) -> str:
    """The keyword that says that `field` is there and what it is: a number, string, boolean or list."""
    return f"{ascii_name(field)}:{kind}"


def modality_token(modality: str) -> str:
    """The keyword for a record's modality; no metadata field has that name."""
    return f"modality={modality}"


def tokens(modality: str, metadata: Mapping[str, Any]) -> list[str]:
    """Keywords of a record's fields: the kind of each field, and each of its values."""
    found = [modality_token(modality)]
    for field, value in metadata.items():
        if isinstance(value, list):
            found.append(kind_token(field, "l"))
            found.extend(token(field, "l", element) for element in dict.fromkeys(value))
        else:
            kind = kind_of(value)
            found.append(kind_token(field, kind))
            found.append(token(field, kind, value))
    return found


def fold_case(name: str) -> str:
    """A name in small letters, digits and ``_``: for Weaviate, names that differ by case only are the same."""
    return _OTHERS.sub(lambda m: {"_": "__", "-": "_0"}.get(m[0], "_" + m[0].lower()), name)


def number_property(field: str) -> str:
    """The property that holds a field's numbers."""
    return NUMBER_PREFIX + fold_case(ascii_name(field))


def number_properties(records: Iterable[Record]) -> dict[str, str]:
    """The metadata fields that hold a number somewhere, with their properties; not those whose names are too long."""
    fields = {field for record in records for field, value in record.metadata.items() if _is_number(value)}
    properties = {field: number_property(field) for field in fields}
    return {field: name for field, name in properties.items() if len(name) <= MAX_PROPERTY}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def object_of(
    record: Record,
    vector: NDArray[np.float32],
    stamp: NDArray[np.float32],
    collection: str,
    vector_name: str,
    numbers: Mapping[str, str],
) -> batch_pb2.BatchObject:
    """The object of a record. `numbers`: the fields that have a property of their own, with it."""
    metadata = plain_metadata(record.metadata) if record.metadata else {}
    fields = {"record_id": Value(string_value=record.id), "modality": Value(string_value=record.modality)}
    if record.text is not None:
        fields["text"] = Value(string_value=record.text)
    if found := tokenize(searched_text(record.text, record.uri)):
        fields[WORDS] = Value(string_value=" ".join(found))
    if record.uri is not None:
        fields["uri"] = Value(string_value=record.uri)
    if metadata:
        fields["metadata"] = Value(string_value=encode(metadata))
        for field, value in metadata.items():
            if field in numbers and _is_number(value):
                fields[numbers[field]] = Value(number_value=double_below(value))
    keywords = tokens(record.modality, metadata)
    if not vector.size:
        keywords.append(BARE)
    return batch_pb2.BatchObject(
        uuid=object_id(record.id),
        collection=collection,
        properties=batch_pb2.BatchObject.Properties(
            non_ref_properties=Struct(fields=fields),
            text_array_properties=[base_pb2.TextArrayProperties(prop_name=HAS, values=keywords)],
        ),
        vectors=[
            base_pb2.Vectors(name=name, vector_bytes=row.astype("<f4", copy=False).tobytes())
            for name, row in ((vector_name, vector), (STAMP, stamp))
            if row.size
        ],
    )


def new_stamp() -> NDArray[np.float32]:
    """Two random numbers that differ from those of other writes."""
    return np.random.default_rng().random(2, dtype=np.float32)


def size_bytes(record: Record) -> int:
    """About what a record's object weighs in a request, without its vector."""
    metadata = sum(len(str(value)) for value in record.metadata.values())
    return 2 * len(record.text or "") + len(record.uri or "") + 6 * metadata + 200


def _payload(result: search_get_pb2.SearchResult) -> tuple[str, str, str | None, str | None, dict[str, MetadataValue]]:
    found = result.properties.non_ref_props.fields
    try:
        texts = [
            found[name].text_value if name in found and found[name].HasField("text_value") else None for name in STORED
        ]
        record_id, modality, text, uri, metadata = texts
        if not record_id or modality not in ("image", "text"):
            raise ValueError("it has no id and modality")
        return record_id, modality, text, uri, decode_metadata(metadata) if metadata else {}
    except ValueError as error:
        raise Corrupt(f"object {result.metadata.id} is not one that Sightline wrote: {error}") from None


def vector_of(result: search_get_pb2.SearchResult) -> NDArray[np.float32]:
    """The vector of an object. Raises `Corrupt` when it has none."""
    if not result.metadata.vectors:
        raise Corrupt(f"object {result.metadata.id} has lost its vector")
    return np.frombuffer(result.metadata.vectors[0].vector_bytes, dtype="<f4").astype(np.float32)


def record_of(result: search_get_pb2.SearchResult, *, with_vector: bool) -> Record:
    """The record in an object. Raises `Corrupt` when it is none of ours."""
    record_id, modality, text, uri, metadata = _payload(result)
    vector = None
    if with_vector:
        vector = vector_of(result) if result.metadata.vectors else NO_VECTOR
    return Record(record_id, vector, modality, text, uri, metadata)  # type: ignore[arg-type]


def hit_of(result: search_get_pb2.SearchResult, score: float, *, exact: bool) -> Hit:
    """The hit in an object."""
    record_id, modality, text, uri, metadata = _payload(result)
    return Hit(record_id, score, modality, text, uri, metadata, exact=exact)  # type: ignore[arg-type]
