"""What is pgvector's own: types, indexes and settings. A database that speaks its SQL with other DDL is a subclass.

The float32 vector always stays in the table. Quantization concerns the index only: its candidates are
scored again with the stored vector, so scores are exact and vectors come back bit for bit.

- Up to 2,000 dimensions an index holds the vectors themselves; ``half`` halves its size.
- From 2,001 to 4,000 pgvector indexes only ``halfvec``, so cosine collections get that by themselves;
  for dot and l2, whose components may exceed half precision's 65,504, ``half`` must be asked for.
- ``binary`` indexes the signs (Hamming distance, cosine only, up to 64,000 dimensions).
- Beyond that, ``auto`` and ``flat`` search exactly.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

from psycopg import errors

from backends.base import CollectionSpec
from backends.errors import Unavailable, Unsupported
from backends.pgvector.connection import Connection

# Session settings: what a search with default effort needs, so that it is one statement.
SETTINGS = {
    "hnsw.ef_search": "200",
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": "100000",
    "hnsw.scan_mem_multiplier": "8",
    "ivfflat.iterative_scan": "relaxed_order",
}
DEFAULT_EFFORT = 0.65
#: pgvector's widest. A wider search asks for as many rows: an iterative scan goes on until it has them.
MAX_EF = 1_000
#: What is tried at `flush`, the default first.
WIDTHS = (200, 400, 800, 1_600, 3_200, 6_400)
#: pgvector's operators, lower better. Cosine collections hold unit vectors: their dot product is the cosine.
DISTANCES = {"cosine": "<#>", "dot": "<#>", "l2": "<->"}
_CLASSES = {"<#>": "ip_ops", "<->": "l2_ops"}
_MIN_VERSION = (0, 5)
_MAX_DIM = {"none": 2_000, "half": 4_000, "binary": 64_000}
_MAX_LISTS = 32_768


@dataclass(frozen=True, slots=True)
class Installed:
    """The vectors of one database: version, the schema that their type lives in, and its number.

    iterative: whether an index scan goes on until the filter has let enough rows through.
    quantizes: whether there are ``halfvec`` and ``bit`` indexes.
    """

    version: tuple[int, ...]
    namespace: str
    vector_oid: int
    iterative: bool
    quantizes: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """An index to be: ``hnsw`` or ``ivfflat``, and how vectors are held in it."""

    method: str
    quantization: str

    def ordering(self, spec: CollectionSpec) -> str:
        """The expression to order by, with the placeholder ``query``, which the index answers."""
        dim, distance = spec.dim, DISTANCES[spec.metric]
        if self.quantization == "half":
            return f"vector::halfvec({dim}) {distance} %(query)s::halfvec({dim})"
        if self.quantization == "binary":
            return f"binary_quantize(vector)::bit({dim}) <~> binary_quantize(%(query)s)::bit({dim})"
        return f"vector {distance} %(query)s"

    def columns(self, spec: CollectionSpec) -> str:
        """What is indexed, with its operator class."""
        dim, operators = spec.dim, _CLASSES[DISTANCES[spec.metric]]
        if self.quantization == "half":
            return f"((vector::halfvec({dim})) halfvec_{operators})"
        if self.quantization == "binary":
            return f"((binary_quantize(vector)::bit({dim})) bit_hamming_ops)"
        return f"(vector vector_{operators})"


def default_lists(rows: int) -> int:
    """IVF lists for a number of rows: its square root, so that lists and centroids cost the same to scan."""
    return min(_MAX_LISTS, max(1, math.isqrt(rows)))


def ef_search(effort: float) -> int:
    """HNSW's candidate list for an effort: 10 at 0, 100 at a half, 200 at the default, 1000, pgvector's most, at 1."""
    return min(MAX_EF, round(10 * math.pow(100, effort)))


def probes(effort: float, lists: int) -> int:
    """IVF lists to look into: the cube of the effort, 27% at the default, and up to a dozen more.

    The dozen is for small collections, whose few lists cut every neighbourhood: without it the recall at
    31 lists was 0.92 for some of pgvector's random clusterings.
    """
    return max(1, min(lists, math.ceil(lists * effort**3 + 12 * effort)))


class Dialect:
    """PostgreSQL with pgvector."""

    name: ClassVar[str] = "pgvector"
    max_dim: ClassVar[int] = 16_000
    hnsw_m: ClassVar[int] = 16
    hnsw_ef_construction: ClassVar[int] = 128
    #: The range of each build parameter.
    ranges: ClassVar[dict[str, tuple[int, int]]] = {
        "m": (2, 100),
        "ef_construction": (4, 1_000),
        "nlist": (1, _MAX_LISTS),
    }
    #: After how many executions psycopg prepares a statement; None for never.
    prepare_threshold: ClassVar[int | None] = 5
    #: How a ``WITH`` query is kept from being merged into the one that uses it.
    materialized: ClassVar[str] = "AS MATERIALIZED"
    #: What makes an index build use one process; None where nothing does.
    serial_build: ClassVar[str | None] = "SET LOCAL max_parallel_maintenance_workers = 0"
    #: The most rows that one index scan may be asked for.
    max_candidates: ClassVar[int | None] = None
    #: Whether indexes of single fields are made, and widths of the graph are tried and kept.
    tunes: ClassVar[bool] = True

    def migrations(self) -> tuple[str, ...]:
        """One entry per version of the schema, never edited once released: a change is a new entry."""
        return (
            """
            CREATE TABLE sightline.collections (
                number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                name text COLLATE "C" NOT NULL UNIQUE,
                spec text NOT NULL
            )
            """,
            # The version of the words in `terms`, see `backends.text.WORDS_VERSION`.
            "ALTER TABLE sightline.collections ADD COLUMN words integer NOT NULL DEFAULT 1",
        )

    def find(self, connection: Connection) -> Installed | None:
        """What the database has of vectors; None where it has to be installed."""
        row = connection.execute(
            "SELECT e.extversion, quote_ident(n.nspname), t.oid FROM pg_extension e "
            "JOIN pg_namespace n ON n.oid = e.extnamespace "
            "JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector' WHERE e.extname = 'vector'"
        ).fetchone()
        if row is None:
            return None
        version = tuple(int(part) for part in re.findall(r"\d+", row[0]))
        return Installed(version, row[1], row[2], iterative=version >= (0, 8), quantizes=version >= (0, 7))

    def install(self, connection: Connection, address: str) -> None:
        """Install it. Raises `Unavailable` where that cannot be, and says who can."""
        try:
            connection.execute("CREATE EXTENSION vector")
        except (errors.FeatureNotSupported, errors.UndefinedFile) as error:
            raise Unavailable(
                f"{address} has no pgvector to offer: install it on that machine "
                "(Debian: apt install postgresql-18-pgvector), then connect again"
            ) from error
        except errors.InsufficientPrivilege as error:
            raise Unavailable(
                f"{address}: this user may not install pgvector: ask an administrator for CREATE EXTENSION vector"
            ) from error

    def check_installed(self, installed: Installed | None, address: str) -> Installed:
        """What was found. Raises `Unavailable` where it is missing or too old."""
        if installed is None or installed.version < _MIN_VERSION:
            has = "no pgvector" if installed is None else f"pgvector {'.'.join(map(str, installed.version))}"
            raise Unavailable(f"{address} has {has}; 0.5 or later is needed: ALTER EXTENSION vector UPDATE")
        return installed

    def distributed(self, column: str) -> str:
        """What a CREATE TABLE ends with, so that rows are spread over machines by this column of its unique key."""
        return ""

    def session(self, installed: Installed) -> dict[str, str]:
        """The settings of every connection. jit costs more than it gives on queries of milliseconds.

        A plan for any values cannot use the index of a field, whose name is one of them; to plan takes 0.1 ms.
        """
        search = SETTINGS if installed.iterative else {"hnsw.ef_search": SETTINGS["hnsw.ef_search"]}
        return {"jit": "off", "plan_cache_mode": "force_custom_plan", "search_path": installed.namespace, **search}

    def search_settings(
        self, layout: Layout, effort: float | None, lists: int, candidates: int, width: int
    ) -> dict[str, str]:
        """What one search on an index needs beside them; `width` is the list of a graph's candidates."""
        if layout.method == "ivfflat":
            return {"ivfflat.probes": str(probes(effort or DEFAULT_EFFORT, lists))}
        ef = str(min(MAX_EF, width))
        return {} if ef == SETTINGS["hnsw.ef_search"] else {"hnsw.ef_search": ef}

    def layout(self, spec: CollectionSpec) -> Layout | None:
        """The index this spec asks for or allows, whatever the size of the collection; `None` is exact search."""
        if spec.index.kind == "flat":
            return None
        quantization = spec.index.quantization
        if quantization == "none" and spec.dim > _MAX_DIM["none"] and spec.metric == "cosine":
            quantization = "half"
        if spec.dim > _MAX_DIM[quantization]:
            return None
        return Layout("ivfflat" if spec.index.kind == "ivf" else "hnsw", quantization)

    def check_layout(self, spec: CollectionSpec, installed: Installed) -> None:
        """Raise `Unsupported` for a spec that this database cannot index as asked, naming what it can."""
        self.check_ranges(spec)
        _check_quantization(spec, self.layout(spec), installed)
        params = spec.index.params
        if spec.index.kind == "hnsw" and params.get("ef_construction", 1000) < 2 * params.get("m", self.hnsw_m):
            raise Unsupported("pgvector needs an ef_construction of at least twice m")

    def check_ranges(self, spec: CollectionSpec) -> None:
        """Raise `Unsupported` for more dimensions, or other build parameters, than this database takes."""
        if spec.dim > self.max_dim:
            raise Unsupported(f"{self.name} stores vectors of up to {self.max_dim} dimensions, not {spec.dim}")
        params = spec.index.params
        for name, (low, high) in self.ranges.items():
            if name in params and not low <= params[name] <= high:
                raise Unsupported(f"{self.name} takes {name} from {low} to {high}, not {params[name]}")

    def create_index(self, name: str, table: str, spec: CollectionSpec, rows: int) -> str:
        """The statement that builds the vector index over this many rows."""
        layout = self.layout(spec)
        if layout is None:
            raise AssertionError("an index that is to be built has a layout")
        params = spec.index.params
        if layout.method == "hnsw":
            m, ef_construction = self.graph(spec)
            options = f"m = {m}, ef_construction = {ef_construction}"
        else:
            options = f"lists = {params.get('nlist', default_lists(rows))}"
        return f"CREATE INDEX {name} ON {table} USING {layout.method} {layout.columns(spec)} WITH ({options})"

    def graph(self, spec: CollectionSpec) -> tuple[int, int]:
        """A graph's neighbours and build candidates."""
        m = spec.index.params.get("m", self.hnsw_m)
        return m, max(spec.index.params.get("ef_construction", self.hnsw_ef_construction), 2 * m)


def _check_quantization(spec: CollectionSpec, layout: Layout | None, installed: Installed) -> None:
    index = spec.index
    if index.quantization != "none" and index.kind == "flat":
        raise Unsupported("pgvector quantizes its indexes only: take index kind hnsw or ivf, or no quantization")
    if index.quantization == "binary" and spec.metric != "cosine":
        raise Unsupported(f"pgvector's binary quantization keeps angles only: it has no metric {spec.metric!r}")
    if index.kind in ("hnsw", "ivf") and layout is None:
        raise Unsupported(
            f"pgvector has no {index.kind} index for {spec.dim} dimensions with quantization {index.quantization!r} "
            f"and metric {spec.metric!r}: half goes up to 4,000, binary (cosine) to 64,000, flat has no limit"
        )
    if layout is not None and layout.quantization != "none" and not installed.quantizes:
        version = ".".join(map(str, installed.version))
        raise Unsupported(f"pgvector {version} has no {layout.quantization} index: 0.7 or later has")


PGVECTOR = Dialect()
