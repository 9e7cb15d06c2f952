"""TiDB: a server or cluster that speaks MySQL's protocol."""

from pathlib import Path

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="tidb",
        backend="backends.tidb.backend:TidbBackend",
        example="tidb://user@host:4000/database",
        summary="a TiDB server or cluster",
        tested="the real server, without TiFlash: its vector index by contract only",
        extra="tidb",
        client="PyMySQL",
        default_url="tidb://root@127.0.0.1:4000/test",
        harmless=frozenset({"ssl", "timeout"}),
        names_database=True,
        key_variable="SIGHTLINE_TIDB_PASSWORD",
        server_version="backends.tidb.version:of_server",
        local_server="backends.tidb.local_server:SERVER",
        native="backends.tidb.native:NativeTidb",
        bench=Path(__file__).with_name("bench.toml"),
    ),
)
