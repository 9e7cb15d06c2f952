"""ClickHouse, chDB (its engine in process) and MyScale."""

from pathlib import Path

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="chdb",
        backend="backends.clickhouse.embedded:ChdbBackend",
        example="chdb:///dir",
        summary="ClickHouse's engine in process, in a folder",
        extra="chdb",
        client="chdb",
        packages=("clickhouse-connect",),
        library_version="backends.clickhouse.version:of_library",
        native="backends.clickhouse.native:NativeClickHouse",
        bench=Path(__file__).with_name("bench.toml"),
    ),
    EngineInfo(
        scheme="clickhouse",
        backend="backends.clickhouse.backend:ClickHouseBackend",
        example="clickhouse://user@host:8123/database",
        summary="a ClickHouse server, 25.8 or later",
        extra="clickhouse",
        client="clickhouse-connect",
        tested="the real engine (chDB), over HTTP of our own",
        default_url="clickhouse://default@127.0.0.1:8123/default",
        harmless=frozenset({"secure"}),
        names_database=True,
        key_variable="SIGHTLINE_CLICKHOUSE_PASSWORD",
        server_version="backends.clickhouse.version:of_server",
        native="backends.clickhouse.native:NativeClickHouse",
        bench=Path(__file__).with_name("bench.toml"),
    ),
    EngineInfo(
        scheme="myscale",
        backend="backends.clickhouse.backend:MyScaleBackend",
        example="myscale://user@host:8443/database",
        summary="MyScale, in its cloud or its own server",
        extra="clickhouse",
        client="clickhouse-connect",
        tested="a stand-in: chDB with its functions",
        default_url="myscale://default@127.0.0.1:8123/default",
        harmless=frozenset({"secure"}),
        names_database=True,
        key_variable="SIGHTLINE_MYSCALE_PASSWORD",
        server_version="backends.clickhouse.version:of_server",
        bench=Path(__file__).with_name("bench.toml"),
    ),
)
