"""The types every backend shares, what they promise, and the protocol an engine implements.

This module imports no database client and no torch. Filters live in `backends.filters`, checks of
arguments in `backends.checks`, errors in `backends.errors`; the public names are re-exported here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.checks import (
    NO_VECTOR,
    check_collection_name,
    check_metadata,
    payload,
    prepare_queries,
    prepare_records,
)
from backends.errors import (
    BackendError,
    CollectionExists,
    CollectionNotFound,
    Corrupt,
    DimensionMismatch,
    Unavailable,
    Unsupported,
)
from backends.facets import Facet, check_facets, count_facets
from backends.filters import (
    MODALITIES,
    OPERATORS,
    And,
    Compare,
    MetadataValue,
    Modality,
    Not,
    Operator,
    Or,
    Scalar,
    Where,
    check_string,
    check_where,
    format_where,
    matches,
    parse_where,
    plain,
)
from backends.kit.scores import similarity
from backends.plans import Plan, explain, explained
from backends.processes import refused_after_fork, refused_page_by_page, silent_after_fork

__all__ = [
    "MODALITIES",
    "NO_VECTOR",
    "And",
    "Backend",
    "BackendError",
    "Capabilities",
    "CollectionExists",
    "CollectionNotFound",
    "CollectionSpec",
    "Compare",
    "Corrupt",
    "DimensionMismatch",
    "Hit",
    "IndexSpec",
    "Metric",
    "Modality",
    "Not",
    "Operator",
    "Or",
    "Page",
    "Plan",
    "Record",
    "Scalar",
    "Unavailable",
    "Unsupported",
    "Where",
    "check_where",
    "explain",
    "format_where",
    "matches",
    "parse_where",
    "prepare_queries",
    "prepare_records",
    "similarity",
]

Metric: TypeAlias = Literal["cosine", "dot", "l2"]
IndexKind: TypeAlias = Literal["auto", "flat", "hnsw", "ivf"]
Quantization: TypeAlias = Literal["none", "half", "int8", "binary"]
Vector: TypeAlias = NDArray[np.float32]

METRICS: tuple[Metric, ...] = get_args(Metric)
_TEXTS = frozenset({str, type(None)})
MAX_ID_BYTES = 512
MAX_TEXT_BYTES = 65_535
MAX_URI_BYTES = 8_192
MAX_DIM = 16_384


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One item of one modality: id, vector, text, where its bytes are, and metadata.

    `vector` is float32 of shape (d,); `NO_VECTOR`, of shape (0,), for an item that has none, which everything finds but
    `search`; or `None` on records read without vectors. `text` is the
    passage of a text item, an image's caption or OCR words otherwise; keyword search reads it and the
    name of the file that `uri` ends with.
    Metadata values are str, int, float, bool or a list of str. Subclasses of them, such as enums, and NumPy's
    scalars and arrays of strings are made the plain values that they hold. Field names are up to 64 letters and
    digits of any script and underscores, the first no digit; they are kept in Unicode's form NFC.

        Record("cat-1", vector, text="a cat on a sofa", uri="photos/cat.jpg", metadata={"year": 2024, "tags": ["cat"]})

    Raises:
        ValueError: an empty id or one over 512 bytes of UTF-8, NUL or lone surrogates in any string, an unknown
            modality, a metadata field called ``modality``, or metadata over 64 KiB.
    """

    id: str
    vector: Vector | None
    modality: Modality = "image"
    text: str | None = None
    uri: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not {type(self.id), type(self.modality), type(self.text), type(self.uri)} <= _TEXTS:
            self._make_plain()
        if not isinstance(self.id, str) or not self.id:
            raise ValueError(f"an id must be a non-empty string, not {self.id!r}")
        check_string(self.id, f"id {self.id[:80]!r}", limit_bytes=MAX_ID_BYTES)
        if self.modality not in MODALITIES:
            raise ValueError(f"record {self.id!r}: modality must be 'image' or 'text', not {self.modality!r}")
        if self.text is not None:
            check_string(self.text, f"record {self.id!r}: text", limit_bytes=MAX_TEXT_BYTES)
        if self.uri is not None:
            check_string(self.uri, f"record {self.id!r}: uri", limit_bytes=MAX_URI_BYTES)
        if self.metadata:
            object.__setattr__(self, "metadata", check_metadata(self.id, self.metadata))

    @property
    def has_vector(self) -> bool:
        """Whether there is a vector here: the record has one, and was read with it."""
        return self.vector is not None and np.shape(self.vector) != NO_VECTOR.shape

    def _make_plain(self) -> None:
        for name in ("id", "modality", "text", "uri"):
            value = plain(getattr(self, name))
            if name in ("text", "uri") and value is not None and not isinstance(value, str):
                raise ValueError(f"record {self.id!r}: {name} must be a string or None, not {type(value).__name__}")
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        mine, theirs = self.vector, other.vector
        same_vector = mine is theirs or (
            mine is not None and theirs is not None and np.array_equal(np.asarray(mine), np.asarray(theirs))
        )
        return same_vector and self.id == other.id and payload(self) == payload(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Hit:
    """One result. Higher `score` is always better and means the same on every engine.

    The score is the cosine in [-1, 1], the dot product, or minus the Euclidean distance; for keyword
    search the engine's BM25. `exact` says that the whole result list it belongs to was found by an
    exact scan, so nothing was missed.
    """

    id: str
    score: float
    modality: Modality
    text: str | None
    uri: str | None
    metadata: Mapping[str, MetadataValue]
    exact: bool


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """How vectors are indexed: kind, quantization, and build parameters of that kind.

    ``auto`` lets the engine choose by size. Parameters: ``m`` and ``ef_construction`` for hnsw,
    ``nlist`` for ivf. A kind, quantization or parameter that an engine lacks raises `Unsupported`
    at `create`.
    """

    kind: IndexKind = "auto"
    quantization: Quantization = "none"
    params: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in get_args(IndexKind):
            raise ValueError(f"index kind must be one of {get_args(IndexKind)}, not {self.kind!r}")
        if self.quantization not in get_args(Quantization):
            raise ValueError(f"quantization must be one of {get_args(Quantization)}, not {self.quantization!r}")
        known = {"hnsw": {"m", "ef_construction"}, "ivf": {"nlist"}}.get(self.kind, set())
        for name, value in self.params.items():
            if name not in known:
                raise ValueError(f"index parameter {name!r} does not belong to {self.kind}; known: {sorted(known)}")
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65_536:
                raise ValueError(f"index parameter {name} must be an integer from 1 to 65,536, not {value!r}")


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection is: name, vector length, metric, the encoder that filled it, and its index.

    `encoder` is the fingerprint of model, weights and preprocessing; it is stored and given back by
    `describe`, so that a search with another encoder can be refused.
    """

    name: str
    dim: int
    metric: Metric = "cosine"
    encoder: str = ""
    index: IndexSpec = field(default_factory=IndexSpec)

    def __post_init__(self) -> None:
        check_collection_name(self.name)
        for name in ("name", "metric", "encoder"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or not 1 <= self.dim <= MAX_DIM:
            raise ValueError(f"dim must be an integer from 1 to {MAX_DIM}, not {self.dim!r}")
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {METRICS}, not {self.metric!r}")
        check_string(self.encoder, "the encoder fingerprint", limit_bytes=MAX_TEXT_BYTES)

    def to_json(self) -> str:
        """The spec as one line of JSON, for an engine to store beside the collection."""
        index = {"kind": self.index.kind, "quantization": self.index.quantization, "params": dict(self.index.params)}
        fields = {"name": self.name, "dim": self.dim, "metric": self.metric, "encoder": self.encoder, "index": index}
        return json.dumps(fields, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote. Raises `Corrupt` for anything else."""
        try:
            data = json.loads(text)
            return cls(**{**data, "index": IndexSpec(**data["index"])})
        except (ValueError, TypeError, KeyError) as error:
            raise Corrupt(f"a stored collection description is not readable: {error}") from error


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do beyond the protocol's core; what it cannot raises `Unsupported` when asked.

    The conformance suite tests both: what is declared works, what is not is refused.

    - `keyword`: `search_text` works.
    - `persistent`: what is stored outlives the handle and the process.
    - `server`: the store is another process, shared with others, which may be away.
    - `concurrent_writers`: several processes may write at once; otherwise the second one's call raises
      `Unavailable`, and no one's data suffers.
    - `effort`: the knob of `search` moves recall. An engine whose every search is exact declares
      ``False`` and ignores the argument, once checked, since it could not change the result; an
      approximate engine without such a knob raises `Unsupported` for any effort but ``None``.
    - `metrics`, `index_kinds`, `quantizations`: what `create` takes.
    - `operators`: the comparisons that are honoured; every engine has ``eq``, ``in`` and the orderings
      of numbers, and `And`, `Or` and `Not`. `string_order`: strings can be ordered, by code point.
    - `max_k`: the most hits a search returns, `None` where there is no limit.
    - `vector_tolerance`: how far, absolutely and relatively, a component read back may be from the one
      stored; 0 means the same bits.
    """

    keyword: bool
    persistent: bool
    server: bool
    concurrent_writers: bool
    effort: bool
    metrics: frozenset[Metric] = frozenset(METRICS)
    operators: frozenset[Operator] = frozenset(OPERATORS)
    string_order: bool = True
    index_kinds: frozenset[IndexKind] = frozenset({"auto", "flat"})
    quantizations: frozenset[Quantization] = frozenset({"none"})
    max_k: int | None = None
    vector_tolerance: float = 0.0


_REFUSED = (
    "collections",
    "describe",
    "create",
    "set_encoder",
    "drop",
    "upsert",
    "get",
    "delete",
    "count",
    "facets",
    "search_text",
    "flush",
)
_GUARDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_REFUSED, refused_after_fork),
    "search": lambda search: refused_after_fork(explained(search)),
    "scan": refused_page_by_page,
    "close": silent_after_fork,
}


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a scan: its records, and the cursor that continues after them."""

    records: list[Record]
    cursor: str


class Backend:
    """A vector database behind one interface: synchronous, thread-safe, a context manager.

    `where` is a `Where` tree everywhere; JSON filters go through `parse_where` first. Errors are
    `BackendError`s, ValueError for arguments that no engine could take.

    A store is of the process that opened it, `opened_by`. In a process forked from that, every call raises
    `BackendError` before it reaches the engine, and `close` does nothing; see `backends.processes`.
    """

    capabilities: ClassVar[Capabilities]
    #: Which store it is, by the URL that `backends.connect` opened; None for one that was opened in another way.
    place: str | None = None
    opened_by: int

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Remember which process this is."""
        backend = super().__new__(cls)
        backend.opened_by = os.getpid()
        return backend

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, guard in _GUARDS.items():
            if name in cls.__dict__:
                setattr(cls, name, guard(cls.__dict__[name]))

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open the store that `url` names.

        Raises:
            ValueError: the URL is not one of this engine's.
            Unavailable: with the address and what to start.
        """
        raise NotImplementedError

    def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        raise NotImplementedError

    def describe(self, name: str) -> CollectionSpec:
        """The spec that `create` was given, with the encoder that `set_encoder` was given last.

        Raises:
            CollectionNotFound: as every method that takes a name does, but `create` and `drop`.
        """
        raise NotImplementedError

    def resolved(self, name: str) -> str:
        """The name of the collection that `name` stands for: itself, except where there are aliases.

        See `backends.wrappers.aliases`. Whoever asks for that name is not touched when the alias is pointed elsewhere.
        """
        return name

    def create(self, spec: CollectionSpec) -> None:
        """Make an empty collection; of several who make one name at once, one succeeds.

        Raises:
            CollectionExists: there is one of that name.
            Unsupported: the engine lacks the index, the quantization or the metric.
        """
        raise NotImplementedError

    def set_encoder(self, name: str, fingerprint: str) -> None:
        """Say which encoder the collection's vectors are of: `describe` gives this fingerprint from now on.

        Nothing else changes. Durable when it returns, and seen by other handles and processes at their next `describe`.

        Raises:
            ValueError: a fingerprint that no spec could have.
        """
        raise NotImplementedError

    def drop(self, name: str) -> None:
        """Remove a collection and all it holds; silent when it is not there."""
        raise NotImplementedError

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        """Store the records, replacing those whose id is there.

        Durable and visible to `get`, `count` and `search` when it returns. All are checked first: what is
        refused for its content stores none.

        Args:
            records: with vectors of the collection's length, or `NO_VECTOR`. Later ones win over earlier ones of the
                same id: where one without a vector replaces one that has it, `search` finds the record no more.

        Raises:
            ValueError: a record whose vector is None, or is not finite (or zero, for cosine).
            DimensionMismatch: a vector of another length.
        """
        raise NotImplementedError

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        """The records of these ids, in the order of `ids`; missing ones are skipped."""
        raise NotImplementedError

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        """Delete by id or by filter, one of the two.

        Args:
            ids: those that are not there are passed over; an empty sequence deletes nothing.
            where: all that match go.

        Returns:
            How many records went.

        Raises:
            ValueError: both or neither is given, or the filter matches whatever there is (``{}``): `drop`
                is the way to remove everything.
        """
        raise NotImplementedError

    def count(self, name: str, where: Where | None = None) -> int:
        """How many records there are, or match `where`; exact."""
        raise NotImplementedError

    def facets(
        self, name: str, fields: Sequence[str], *, where: Where | None = None, top: int = 10
    ) -> dict[str, Facet]:
        """How often each value of these metadata fields is there among the records that match `where`; exact.

        Here by reading every record; an engine that can count where the data is does that instead.

        Args:
            fields: their names; ``modality`` is a field too.
            top: how many values of each field are given, the most frequent ones.

        Raises:
            ValueError: a field name that no record can have, or a top below 1.
        """
        wanted = check_facets(fields, top)
        check_where(where)
        items = ((r.metadata, r.modality) for page in self.scan(name, with_vectors=False) for r in page.records)
        return count_facets((item for item in items if matches(where, *item)), wanted, top)

    def search(
        self,
        name: str,
        vectors: ArrayLike,
        k: int,
        *,
        where: Where | None = None,
        effort: float | None = None,
    ) -> list[list[Hit]]:
        """The k best records for each query vector, best first, ties by id.

            hits = backend.search("photos", vectors, 10, where=parse_where({"year": {"$gte": 2020}}))[0]

        Args:
            vectors: (q, d) float32.
            k: at most `Capabilities.max_k`.
            where: only records that match. Those without a vector never do.
            effort: in (0, 1], trades speed for recall; None is the engine's default, 1 its most thorough.

        Returns:
            q lists of min(k, matching) hits with recall@k >= 0.95 under any filter; where the index cannot
            keep that promise the scan is exact and the hits say so. `backends.plans.explain` tells how each was found.

        Raises:
            DimensionMismatch: the vectors are of another length than the collection's.
            Unsupported: an operator of the filter, an effort or a k that the engine does not have.
        """
        raise NotImplementedError

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        """The k best records by keyword: those with at least one word of the query in text or file name.

        What a word is, which a record has, and which a query looks for, says `backends.text`.

        Returns:
            Hits by the engine's BM25 (Robertson and Zaragoza, 2009), best first, ties by id.

        Raises:
            Unsupported: the engine has no keyword search; `Capabilities.keyword` says so before.
        """
        raise NotImplementedError

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        """Every record once, in pages of up to `batch`; a page's cursor resumes after it.

        Records that are there from beginning to end are given exactly once, whatever is written
        meanwhile; those that come or go may or may not be.

        Args:
            with_vectors: False leaves the vectors out, which many engines read faster.
            cursor: of an earlier page, perhaps of another process.
            batch: records a page, at least 1.

        Raises:
            ValueError: a batch below 1.
        """
        raise NotImplementedError

    def flush(self, name: str) -> None:
        """Return when all writes are indexed, space of deleted records is given back where possible."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files, locks and connections; twice is fine, any other call then raises `BackendError`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
