"""What differs between ClickHouse and MyScale: how tables are indexed, waited for, searched and deleted from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from backends.base import CollectionSpec, IndexKind, Metric, Quantization
from backends.clickhouse.connection import Database
from backends.errors import Unavailable, Unsupported

# Off by default: what is acknowledged must be on the disk, and so must the parts that replace it in merges.
_FSYNC = (
    "fsync_after_insert = 1, fsync_part_directory = 1, "
    "min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1"
)
INDEX = "nearest"


@dataclass(frozen=True, slots=True)
class Ordering:
    """How a search by the index is written: the distance, whether it rises, and settings of the statement."""

    distance: str
    direction: str
    settings: Mapping[str, object]


class Dialect:
    """One of the two; `table` is a table's name as SQL has it."""

    name: ClassVar[str]
    metrics: ClassVar[frozenset[Metric]]
    kinds: ClassVar[frozenset[IndexKind]]
    quantizations: ClassVar[frozenset[Quantization]]
    table_settings: ClassVar[str]
    #: Whether its servers are usually reached by TLS.
    secure: ClassVar[bool] = False
    insert_settings: ClassVar[Mapping[str, object]] = {}
    #: The most candidates of a search by the index; who asks for more is answered by a scan.
    most: ClassVar[int]
    #: What is tried at `flush`, the default first; nothing where widths mean something else.
    widths: ClassVar[tuple[int, ...]] = ()

    def check(self, database: Database) -> None:
        """Raise `Unavailable` for a server that does not answer or is too old."""
        database.rows("SELECT 1")

    def check_index(self, spec: CollectionSpec) -> None:
        """Raise `Unsupported` for an index that cannot be made."""

    def indexes(self, spec: CollectionSpec) -> bool:
        """Whether there is an index for this metric."""
        return True

    def index_ddl(self, table: str, spec: CollectionSpec, column: str) -> str:
        """The statement that adds the vector index."""
        raise NotImplementedError

    def wait(self, table: str) -> Sequence[str]:
        """The statements after which all rows are indexed, and what was deleted has gone."""
        raise NotImplementedError

    def is_settled(self, database: Database, name: str) -> bool:
        """Whether there is nothing to wait for in this table."""
        return False

    def indexed(self) -> str:
        """An expression: whether the table ``t`` of the database ``d`` has a vector index that is complete."""
        raise NotImplementedError

    def ordering(self, spec: CollectionSpec, column: str, query: str, candidates: int) -> Ordering:
        """A search by the index that looks at so many candidates."""
        raise NotImplementedError

    def exact(self, spec: CollectionSpec, column: str, query: str) -> Ordering:
        """A search that compares every row."""
        functions: dict[Metric, str] = {"cosine": "cosineDistance", "l2": "L2Distance", "dot": "dotProduct"}
        direction = "DESC" if spec.metric == "dot" else "ASC"
        return Ordering(f"{functions[spec.metric]}({column}, {query})", direction, {})

    def delete(self, table: str, condition: str) -> str:
        """The statement that deletes rows; done when it returns."""
        raise NotImplementedError


class ClickHouse(Dialect):
    """ClickHouse 25.8 or later, and chDB."""

    name = "ClickHouse"
    metrics = frozenset({"cosine", "l2", "dot"})
    kinds = frozenset({"auto", "flat", "hnsw"})
    quantizations = frozenset({"none", "half", "int8"})
    most = 10_000
    widths = (256, 512, 1_024, 2_048, 4_096)
    # The first two let a deletion write a patch; without them it would build the parts anew, with their indexes.
    table_settings = (
        f"index_granularity = 1024, enable_block_number_column = 1, enable_block_offset_column = 1, {_FSYNC}"
    )
    # Rows are indexed when parts are merged; until then they are compared one by one.
    insert_settings: ClassVar[Mapping[str, object]] = {"materialize_skip_indexes_on_insert": 0, "async_insert": 0}
    _functions: ClassVar[Mapping[Metric, str]] = {"cosine": "cosineDistance", "l2": "L2Distance"}
    _stored: ClassVar[Mapping[Quantization, str]] = {"none": "f32", "half": "f16", "int8": "i8"}

    def check(self, database: Database) -> None:
        ((said,),) = database.rows("SELECT version()")
        version = tuple(int(part) for part in str(said).split(".")[:2])
        if version < (25, 8):
            raise Unavailable(f"{database.address} is ClickHouse {said}; 25.8 or later is needed for its vector index")

    def check_index(self, spec: CollectionSpec) -> None:
        index = spec.index
        if spec.metric not in self._functions and (index.kind == "hnsw" or index.quantization != "none"):
            raise Unsupported("ClickHouse's vector index finds by cosine and l2: take index kind auto or flat for dot")
        if index.quantization != "none" and index.kind == "flat":
            raise Unsupported("ClickHouse quantizes its index only: take index kind hnsw or auto, or no quantization")
        if index.quantization == "int8" and spec.metric != "cosine":
            raise Unsupported("ClickHouse's int8 holds components from -1 to 1: it has the metric cosine only")
        if index.params.get("m", 2) < 2:
            raise Unsupported("ClickHouse takes m from 2")

    def indexes(self, spec: CollectionSpec) -> bool:
        return spec.metric in self._functions

    def index_ddl(self, table: str, spec: CollectionSpec, column: str) -> str:
        m, width = spec.index.params.get("m", 32), spec.index.params.get("ef_construction", 200)
        kind = f"'hnsw', '{self._functions[spec.metric]}', {spec.dim}, '{self._stored[spec.index.quantization]}'"
        return (
            f"ALTER TABLE {table} ADD INDEX IF NOT EXISTS {INDEX} {column} "
            f"TYPE vector_similarity({kind}, {m}, {width}) GRANULARITY 100000000"
        )

    def wait(self, table: str) -> Sequence[str]:
        return [f"OPTIMIZE TABLE {table} FINAL"]

    def is_settled(self, database: Database, name: str) -> bool:
        # A merge takes the patches of deletions up, and they stay beside it for a while.
        patch = "startsWith(name, 'patch')"
        statement = (
            f"SELECT countIf(NOT {patch}), minIf(data_version, NOT {patch}) >= maxIf(data_version, {patch}) "  # noqa: S608
            "FROM system.parts WHERE database = {d:String} AND table = {t:String} AND active"
        )
        ((parts, merged),) = database.rows(statement, {"d": database.name, "t": name})
        return int(parts) == 0 or (int(parts) == 1 and bool(merged))

    def indexed(self) -> str:
        where = f"database = {{d:String}} AND table = {{t:String}} AND name = '{INDEX}'"
        return f"(SELECT count() FROM system.data_skipping_indices WHERE {where})"  # noqa: S608

    def ordering(self, spec: CollectionSpec, column: str, query: str, candidates: int) -> Ordering:
        settings: dict[str, object] = {
            "hnsw_candidate_list_size_for_search": candidates,
            "max_limit_for_vector_search_queries": max(1000, candidates),
        }
        if spec.index.quantization != "none":
            settings["vector_search_with_rescoring"] = 1
        return Ordering(f"{self._functions[spec.metric]}({column}, {query})", "ASC", settings)

    def exact(self, spec: CollectionSpec, column: str, query: str) -> Ordering:
        found = super().exact(spec, column, query)
        return Ordering(found.distance, found.direction, {"use_skip_indexes": 0})

    def delete(self, table: str, condition: str) -> str:
        settings = "lightweight_delete_mode = 'lightweight_update_force'"
        return f"DELETE FROM {table} WHERE {condition} SETTINGS {settings}"  # noqa: S608


class MyScale(Dialect):
    """MyScale, as its documentation has it: vector indexes of its own, built in the background, and no patches."""

    name = "MyScale"
    metrics = frozenset({"cosine", "l2", "dot"})
    kinds = frozenset({"auto", "flat", "hnsw"})
    quantizations = frozenset({"none"})
    secure = True
    most = 1_000
    table_settings = _FSYNC
    _metrics: ClassVar[Mapping[Metric, str]] = {"cosine": "Cosine", "l2": "L2", "dot": "IP"}

    def check_index(self, spec: CollectionSpec) -> None:
        for name, low, high in (("m", 8, 128), ("ef_construction", 16, 1024)):
            if not low <= spec.index.params.get(name, low) <= high:
                raise Unsupported(f"MyScale takes {name} from {low} to {high}, not {spec.index.params[name]}")

    def index_ddl(self, table: str, spec: CollectionSpec, column: str) -> str:
        kind = "HNSWFLAT" if spec.index.kind == "hnsw" else "MSTG"
        names = {"m": "m", "ef_construction": "ef_c"}
        params = [f"metric_type={self._metrics[spec.metric]}"]
        params += [f"{names[name]}={value}" for name, value in spec.index.params.items()]
        given = ", ".join(f"'{param}'" for param in params)
        return f"ALTER TABLE {table} ADD VECTOR INDEX {INDEX} {column} TYPE {kind}({given})"

    def wait(self, table: str) -> Sequence[str]:
        return [f"OPTIMIZE TABLE {table} FINAL", f"SYSTEM WAIT BUILDING VECTOR INDICES {table}"]

    def indexed(self) -> str:
        where = f"database = {{d:String}} AND table = {{t:String}} AND name = '{INDEX}' AND status = 'Built'"
        return f"(SELECT count() FROM system.vector_indices WHERE {where})"  # noqa: S608

    def ordering(self, spec: CollectionSpec, column: str, query: str, candidates: int) -> Ordering:
        if spec.index.kind == "hnsw":
            param = f"ef_s={min(1024, max(16, candidates))}"
        else:
            # From 1 to 4 is how far MyScale's own index looks: 3 for the usual 256 candidates.
            param = f"alpha={min(4.0, max(1.0, round(candidates / 85, 1))):g}"
        # The inner product is a similarity, and any other direction an error.
        return Ordering(f"distance('{param}')({column}, {query})", "DESC" if spec.metric == "dot" else "ASC", {})

    def delete(self, table: str, condition: str) -> str:
        return f"DELETE FROM {table} WHERE {condition} SETTINGS mutations_sync = 1"  # noqa: S608
