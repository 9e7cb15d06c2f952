"""Documents of LangChain and records of Sightline, one from the other, with any JSON metadata kept whole."""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from langchain_core.documents import Document

from backends.base import Hit, Modality, Record
from backends.filters import MetadataValue, check_field_name

T = TypeVar("T")

#: The field of a record that holds, as JSON, what is not portable.
RESERVED_FIELD = "_langchain"
_NESTING = 64


def portable_metadata(metadata: Mapping[str, Any]) -> dict[str, MetadataValue]:
    """The metadata of a document as that of a record, with nothing lost: `original_metadata` gives it back.

    Entries that every engine stores and filters stay fields of their own: a portable name (1-64 letters
    and digits of any script, underscores) with a str, bool, 64-bit int, finite float or list of str. All others
    (None, nested objects, lists of numbers, names of any spelling, ``modality``) are kept together as JSON
    in the field ``_langchain`` and cannot be filtered by. Tuples become lists, NumPy scalars plain numbers.

    Raises ValueError, naming the place, for what JSON cannot hold: dates, sets, keys that are no strings.
    """
    fields: dict[str, MetadataValue] = {}
    rest: dict[str, Any] = {}
    for name, value in metadata.items():
        plain = _plain(value, f"metadata[{name!r}]", depth=1)
        if not isinstance(name, str):
            raise ValueError(f"metadata key {name!r} is a {type(name).__name__}: use a string, as JSON does")
        if _is_field_name(name) and name not in ("modality", RESERVED_FIELD) and _is_portable(plain):
            fields[name] = plain
        else:
            rest[name] = plain
    if rest:
        # Escaped to ASCII: NUL and lone surrogates, which no engine stores, come through as well.
        fields[RESERVED_FIELD] = json.dumps(rest)
    return fields


def _is_field_name(name: str) -> bool:
    """Whether a record keeps this name, and keeps it as it is spelled."""
    try:
        return check_field_name(name) == name
    except ValueError:
        return False


def original_metadata(fields: Mapping[str, MetadataValue]) -> dict[str, Any]:
    """The metadata that `portable_metadata` was given; that of records which came another way, as it is."""
    metadata: dict[str, Any] = {
        name: value if isinstance(value, str | int | float | bool) else list(value) for name, value in fields.items()
    }
    try:
        rest = json.loads(metadata[RESERVED_FIELD])
    except (KeyError, TypeError, ValueError):
        # Not there, or a field of somebody else's with that name: left alone.
        return metadata
    if isinstance(rest, dict):
        del metadata[RESERVED_FIELD]
        metadata.update(rest)
    return metadata


def _plain(value: Any, place: str, *, depth: int) -> Any:
    """The value in the types of JSON."""
    if depth > _NESTING:
        raise ValueError(f"{place} is nested deeper than {_NESTING} levels")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [_plain(element, f"{place}[{i}]", depth=depth + 1) for i, element in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{place} has the key {key!r}, a {type(key).__name__}: use a string, as JSON does")
        return {key: _plain(inner, f"{place}[{key!r}]", depth=depth + 1) for key, inner in value.items()}
    raise ValueError(f"{place} is a {type(value).__name__}, which JSON cannot hold: store it as a string or number")


def _is_portable(value: Any) -> bool:
    if isinstance(value, str):
        return _is_storable(value)
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, list) and all(isinstance(element, str) and _is_storable(element) for element in value)


def _is_storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def records_of(
    texts: Sequence[str | None],
    metadatas: Sequence[Mapping[str, Any]] | None,
    ids: Sequence[str | None] | None,
    *,
    modality: Modality = "text",
    uris: Sequence[str | None] | None = None,
) -> list[Record]:
    """Records that still lack their vectors; an id that is None becomes a random UUID.

    Raises ValueError for what no engine stores, for lists of another length than `texts`, and for an id that is given
    twice: only one of the two would be stored.
    """
    count = len(texts)
    twice = [name for name, times in Counter(name for name in ids or () if name is not None).items() if times > 1]
    if twice and not isinstance(ids, str):
        raise ValueError(f"the id {twice[0]!r:.200} is given twice: give each item an id of its own, or None")
    columns = zip(
        as_many(ids, count, name="ids"),
        texts,
        as_many(uris, count, name="uris"),
        as_many(metadatas, count, name="metadatas"),
        strict=True,
    )
    return [
        Record(
            str(uuid.uuid4()) if i is None else i,
            vector=None,
            modality=modality,
            text=text,
            uri=uri,
            metadata=portable_metadata(metadata or {}),
        )
        for i, text, uri, metadata in columns
    ]


def as_many(values: Sequence[T] | None, count: int, *, name: str) -> Sequence[T | None]:
    """`count` values, None each where there are none. Raises ValueError for any other number of them."""
    if values is None:
        return [None] * count
    if isinstance(values, str) or len(values) != count:
        given = "one string" if isinstance(values, str) else str(len(values))
        raise ValueError(f"{name} must be a list of {count}, one for each item, not {given}")
    return values


def as_texts(texts: Iterable[str]) -> list[str]:
    """The texts as a list. Raises ValueError for a single string."""
    if isinstance(texts, str):
        raise ValueError("texts must be a list of strings, not one string")
    return list(texts)


def batches(texts: list[str], size: int | None) -> list[list[str]]:
    """The texts, `size` at a time; all at once without. Raises ValueError for a size below 1."""
    if size is not None and size < 1:
        raise ValueError(f"batch_size must be at least 1, not {size}")
    step = size or len(texts) or 1
    return [texts[start : start + step] for start in range(0, len(texts), step)]


def document_of(item: Hit | Record) -> Document:
    """The document of a record or hit: its own metadata, and what it is and where its bytes are.

    An image has ``modality`` besides, and whatever has a uri ``uri``, unless its own metadata say otherwise.
    """
    metadata = original_metadata(item.metadata)
    if item.modality == "image":
        metadata.setdefault("modality", "image")
    if item.uri is not None:
        metadata.setdefault("uri", item.uri)
    return Document(item.text or "", id=item.id, metadata=metadata)
