"""The checks every backend makes before it touches storage, so that all refuse the same input alike."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.errors import DimensionMismatch, Unsupported
from backends.filters import MetadataValue, Where, as_list, check_field_name, check_string, plain, plain_scalar
from backends.fold import is_everything

if TYPE_CHECKING:
    from backends.base import Capabilities, CollectionSpec, Record

MAX_METADATA_BYTES = 65_535
UNIT_TOLERANCE = 1e-6
#: The vector of a record that has none, such as a text that its encoder cannot read: float32 of shape (0,), read-only.
NO_VECTOR: NDArray[np.float32] = np.empty(0, dtype=np.float32)
NO_VECTOR.flags.writeable = False
COLLECTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}\Z")


def check_collection_name(name: str) -> None:
    """Raise ValueError unless `name` works on every engine: a letter, then up to 62 of ``A-Za-z0-9_-``."""
    if not isinstance(name, str) or not COLLECTION_NAME.match(name):
        raise ValueError(
            f"collection name {name!r} is not usable: start with an ASCII letter, then up to 62 "
            "letters, digits, '_' or '-'"
        )


def check_search(k: int, effort: float | None, capabilities: Capabilities) -> None:
    """Raise ValueError for a k below 1 or an effort outside (0, 1], `Unsupported` for k beyond the engine."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be a positive integer, not {k!r}")
    if capabilities.max_k is not None and k > capabilities.max_k:
        raise Unsupported(f"this engine returns at most {capabilities.max_k} hits a search, not {k}")
    if effort is not None and not 0 < effort <= 1:
        raise ValueError(f"effort must be in (0, 1], not {effort!r}")


def check_batch(batch: int) -> None:
    """Raise ValueError for a page size below 1, which would end a scan before its first record."""
    if isinstance(batch, bool) or not isinstance(batch, (int, np.integer)) or batch < 1:
        raise ValueError(f"batch must be a positive integer, not {batch!r}")


def check_ids(ids: Sequence[str]) -> list[str]:
    """The ids as plain strings.

    Raises ValueError for what is no string, and for one string where a list of ids belongs: its letters would
    be taken for ids.
    """
    if isinstance(ids, str):
        raise ValueError(f"ids must be a list of strings, not the string {ids!r}")
    found = [plain(record_id) for record_id in ids]
    for record_id in found:
        if not isinstance(record_id, str):
            raise ValueError(f"an id is a string, not {record_id!r}")
    return found


def check_selection(ids: Sequence[str] | None, where: Where | None) -> list[str] | None:
    """The ids as plain strings, or None for a `where`.

    Raises ValueError unless exactly one of `ids` and a `where` that leaves something out is given.
    """
    if (ids is None) == (where is None):
        raise ValueError("delete takes exactly one of ids and where; to remove everything use drop")
    if where is not None and is_everything(where):
        raise ValueError("delete refuses a filter that is true of every record; to remove everything use drop")
    return None if ids is None else check_ids(ids)


def plain_metadata(metadata: Mapping[str, MetadataValue]) -> dict[str, Any]:
    """Metadata as a plain dict with lists, the one form in which engines return it."""
    scalars = (str, int, float, bool)
    return {key: value if isinstance(value, scalars) else list(value) for key, value in metadata.items()}


def payload(record: Record) -> tuple[Any, ...]:
    """All of a record but its id and vector, in the one form in which it is compared."""
    return record.modality, record.text, record.uri, plain_metadata(record.metadata)


def check_metadata(record_id: str, metadata: Mapping[str, MetadataValue]) -> Mapping[str, MetadataValue]:
    """The metadata with plain values; the same object where they are.

    Raises ValueError, naming record and field, for metadata that some engine could not store and filter.
    """
    changed: dict[str, Any] = {}
    same = True
    for key, value in metadata.items():
        what = f"record {record_id!r}: metadata field {key!r}"
        try:
            field = check_field_name(key)
        except ValueError as error:
            raise ValueError(f"record {record_id!r}: {error}") from None
        if field == "modality":
            raise ValueError(f"{what} is reserved: 'modality' is a field of every record")
        if field in changed:
            raise ValueError(f"{what} is there twice, in two spellings: keep one")
        changed[field] = kept = _plain_value(value, what)
        same = same and kept is value and type(key) is str and key == field
    if not same:
        metadata = changed
    if _is_small(metadata):
        return metadata
    size_bytes = len(json.dumps(plain_metadata(metadata), ensure_ascii=False).encode("utf-8"))
    if size_bytes > MAX_METADATA_BYTES:
        raise ValueError(f"record {record_id!r}: metadata has {size_bytes} bytes; the limit is {MAX_METADATA_BYTES}")
    return metadata


def _is_small(metadata: Mapping[str, MetadataValue]) -> bool:
    """Whether its JSON is within the limit whatever its characters, each of which takes up to six bytes there."""
    characters = 0
    for key, value in metadata.items():
        characters += len(key) + 40
        if type(value) is str:
            characters += len(value)
        elif isinstance(value, (list, tuple)):
            characters += sum(map(len, value)) + 4 * len(value)
    return 6 * characters <= MAX_METADATA_BYTES


def _plain_value(value: Any, what: str) -> Any:
    """One value of metadata, plain; the same object where it is."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return plain_scalar(value, what)
    elements = value if type(value) is list else as_list(value)
    if elements is None:
        raise ValueError(f"{what} is an array of {np.ndim(value)} dimensions; a list of strings has one")
    same = type(value) is list or type(value) is tuple
    for element in elements:
        if type(element) is not str:
            same = False
            if not isinstance(element, str):
                raise ValueError(f"{what} has an element {element!r}; lists hold strings only")
        check_string(element, what)
    return value if same else [plain(element) for element in elements]


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to unit length; rows within 1e-6 of it are left bit for bit as they are.

    vectors: (n, d) float32. Leaving unit rows alone makes copying from store to store exact.
    """
    norms = np.sqrt(_squares(vectors))
    off = np.abs(norms - 1.0) > UNIT_TOLERANCE
    if not off.any():
        return vectors
    scaled = vectors.copy()
    scaled[off] = (vectors[off].astype(np.float64) / norms[off, None]).astype(np.float32)
    return scaled


def _squares(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    return squares


def _are_unit(vectors: NDArray[np.float32]) -> bool:
    """Whether all have unit length, which says that none is zero or has NaN or infinity; in few calls of NumPy."""
    squares = _squares(vectors)
    low, high = (1.0 - UNIT_TOLERANCE) ** 2, (1.0 + UNIT_TOLERANCE) ** 2
    return len(squares) > 0 and bool(squares.min() >= low and squares.max() <= high)


def _check_vectors(
    vectors: NDArray[np.float32], spec: CollectionSpec, name_of: Callable[[int], str]
) -> NDArray[np.float32]:
    if spec.metric == "cosine" and _are_unit(vectors):
        return vectors
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ValueError(f"{name_of(row)} has NaN or infinite components")
    if spec.metric == "cosine":
        zero = ~vectors.any(axis=1)
        if zero.any():
            row = int(np.flatnonzero(zero)[0])
            raise ValueError(f"{name_of(row)} is the zero vector, which has no cosine with anything")
        return unit_length(vectors)
    return vectors


def prepare_records(records: Iterable[Record], spec: CollectionSpec) -> tuple[list[Record], list[NDArray[np.float32]]]:
    """Check records against the collection and return them, last of each id, with their vectors.

    Returns the records and for each its vector: float32 (d,), for cosine of unit length, or `NO_VECTOR`.
    Raises `DimensionMismatch` or ValueError naming the first bad record, before anything is stored.
    """
    unique = {record.id: record for record in records}
    kept = list(unique.values())
    vectors = np.empty((len(kept), spec.dim), dtype=np.float32)
    # The records that have a vector, in the order of its rows.
    having: list[Record] = []
    shape = (spec.dim,)
    # What float32 cannot hold becomes infinite here and is refused below, by name.
    with np.errstate(over="ignore"):
        for record in kept:
            if record.vector is None:
                raise ValueError(
                    f"record {record.id!r} was read without its vector; NO_VECTOR is for one that has none"
                )
            vector = np.asarray(record.vector)
            if vector.shape == NO_VECTOR.shape:
                continue
            if vector.shape != shape:
                raise DimensionMismatch(
                    f"record {record.id!r} has a vector of shape {vector.shape}; "
                    f"collection {spec.name!r} holds {shape}: was another encoder used?"
                )
            vectors[len(having)] = vector
            having.append(record)
    checked = _check_vectors(vectors[: len(having)], spec, lambda row: f"record {having[row].id!r}: its vector")
    if len(having) == len(kept):
        return kept, list(checked)
    rows = iter(checked)
    return kept, [next(rows) if record.has_vector else NO_VECTOR for record in kept]


def prepare_queries(vectors: ArrayLike, spec: CollectionSpec) -> NDArray[np.float32]:
    """Check query vectors and return them as C-contiguous (q, d) float32, unit length for cosine."""
    with np.errstate(over="ignore"):
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != spec.dim:
        raise DimensionMismatch(
            f"query vectors have shape {queries.shape}; collection {spec.name!r} takes (q, {spec.dim}): "
            "was another encoder used?"
        )
    return _check_vectors(queries, spec, lambda row: f"query vector {row}")


def check_index(spec: CollectionSpec, capabilities: Capabilities, engine: str) -> None:
    """Raise `Unsupported` for a metric, index kind or quantization that the engine does not declare."""
    for what, asked, known in (
        ("metric", spec.metric, capabilities.metrics),
        ("index kind", spec.index.kind, capabilities.index_kinds),
        ("quantization", spec.index.quantization, capabilities.quantizations),
    ):
        if asked not in known:
            raise Unsupported(f"{engine} has no {what} {asked!r}; it has {', '.join(sorted(known))}")
