"""``analyticdb://``: AnalyticDB for PostgreSQL, a dialect of pgvector.

It has pgvector's type and operators without its extension: its own engine, FastANN, comes with the instance's option
"vector search engine optimization". V6.0 is Greenplum on PostgreSQL 9.4, so every statement is one that 9.4 takes.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn, Self

from backends.base import Capabilities, CollectionSpec
from backends.errors import Unavailable
from backends.pgvector.backend import PostgresBackend
from backends.pgvector.connection import Connection, Database, parse_url
from backends.pgvector.dialect import DEFAULT_EFFORT, Dialect, Installed, Layout, ef_search

_MEASURES = {"cosine": "IP", "dot": "IP", "l2": "L2"}


class AnalyticDialect(Dialect):
    """AnalyticDB's tables, index and settings, as its documentation has them."""

    name = "AnalyticDB"
    max_dim = 8_192
    # Its documented defaults.
    hnsw_m = 32
    hnsw_ef_construction = 600
    ranges: ClassVar[dict[str, tuple[int, int]]] = {"m": (10, 1_000), "ef_construction": (1, 4_000)}
    # A plan made for any value may leave the filter out, so each statement is planned for its own.
    prepare_threshold = None
    # 9.4 never merges them, and has no word for it.
    materialized = "AS"
    serial_build = None
    max_candidates = 1_000
    tunes = False

    def migrations(self) -> tuple[str, ...]:
        # A unique key must hold the column that rows are spread by, so there is one: the name.
        return (
            f"""
            CREATE TABLE sightline.collections (
                number serial NOT NULL,
                name text COLLATE "C" PRIMARY KEY,
                spec text NOT NULL,
                words integer NOT NULL DEFAULT 1
            ){self.distributed("name")}
            """,
        )

    def find(self, connection: Connection) -> Installed | None:
        # A table may be called vector as well, and has a type of its name.
        row = connection.execute(
            "SELECT quote_ident(n.nspname), t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
            "WHERE t.typname = 'vector' AND t.typtype = 'b' AND EXISTS (SELECT 1 FROM pg_am WHERE amname = 'ann')"
        ).fetchone()
        return None if row is None else Installed((), row[0], row[1], iterative=True, quantizes=False)

    def install(self, connection: Connection, address: str) -> NoReturn:
        raise Unavailable(
            f"{address} has no vector engine: switch vector search engine optimization on for this instance "
            "(V6.0 of minor version 6.6.1.0 or later), then connect again"
        )

    def check_installed(self, installed: Installed | None, address: str) -> Installed:
        if installed is None:
            raise Unavailable(f"{address} has lost its vector engine: is vector search engine optimization still on?")
        return installed

    def distributed(self, column: str) -> str:
        return f" DISTRIBUTED BY ({column})"

    def session(self, installed: Installed) -> dict[str, str]:
        return {
            "search_path": installed.namespace,
            # Only the planner of PostgreSQL uses the vector index.
            "optimizer": "off",
            "fastann.hnsw_ef_search": str(ef_search(DEFAULT_EFFORT)),
            "fastann.hnsw_max_scan_points": "100000",
        }

    def search_settings(
        self, layout: Layout, effort: float | None, lists: int, candidates: int, width: int
    ) -> dict[str, str]:
        width = max(width, candidates)
        return {} if width == ef_search(DEFAULT_EFFORT) else {"fastann.hnsw_ef_search": str(width)}

    def layout(self, spec: CollectionSpec) -> Layout | None:
        return None if spec.index.kind == "flat" else Layout("hnsw", "none")

    def check_layout(self, spec: CollectionSpec, installed: Installed) -> None:
        self.check_ranges(spec)

    def create_index(self, name: str, table: str, spec: CollectionSpec, rows: int) -> str:
        m, ef_construction = self.graph(spec)
        return (
            f"CREATE INDEX {name} ON {table} USING ann(vector) WITH (dim = {spec.dim}, "
            f"distancemeasure = {_MEASURES[spec.metric]}, hnsw_m = {m}, hnsw_ef_construction = {ef_construction}, "
            "pq_enable = 0, external_storage = 0)"
        )


class AnalyticBackend(PostgresBackend):
    """`PostgresBackend` over AnalyticDB: an HNSW index or none, without quantization."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True,
        persistent=True,
        server=True,
        concurrent_writers=True,
        effort=True,
        index_kinds=frozenset({"auto", "flat", "hnsw"}),
        quantizations=frozenset({"none"}),
    )
    dialect: ClassVar[Dialect] = AnalyticDialect()

    @classmethod
    def connect(cls, url: str) -> Self:
        """Open an instance's database and bring the schema up to date; the URL is libpq's but for its scheme."""
        return cls(Database(*parse_url(url, "analyticdb")))
