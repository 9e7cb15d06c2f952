"""How each engine is opened for a test: in a folder, in memory, or on a server that is started."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import backends
from backends import EngineInfo


def in_process(info: EngineInfo) -> Callable[[Path, ExitStack], str]:
    """An engine in a folder or in memory."""
    return lambda folder, _: info.template.replace("{dir}", str(folder))


def helper(name: str, scheme: str):
    """The module of tests/support that starts a server; a skip where there is none."""
    try:
        return importlib.import_module(f"tests.support.{name}")
    except ModuleNotFoundError as error:
        pytest.skip(f"{scheme}: no {error.name} here")


def postgres(folder: Path, stack: ExitStack) -> str:
    server = helper("postgres", "postgresql").Server(folder)
    stack.callback(server.stop, "immediate")
    return server.url(server.database())


def analyticdb(folder: Path, stack: ExitStack) -> str:
    return helper("analyticdb", "analyticdb").place(folder, stack)


def couchbase(_folder: Path, stack: ExitStack) -> str:
    fake = helper("fake_couchbase", "couchbase").FakeCouchbase()
    stack.callback(fake.stop)
    return fake.url


def milvus(_folder: Path, _stack: ExitStack) -> str:
    return helper("milvus_server", "milvus").url()


def weaviate(_folder: Path, _stack: ExitStack) -> str:
    return helper("weaviate_server", "weaviate").server().url


def chroma(_folder: Path, _stack: ExitStack) -> str:
    return helper("chroma_server", "chroma").url()


def vikingdb(_folder: Path, _stack: ExitStack) -> str:
    return helper("vikingdb_server", "vikingdb").server().url


def clickhouse(folder: Path, stack: ExitStack, *, myscale: bool = False) -> str:
    bridge = helper("clickhouse_bridge", "clickhouse").Bridge(folder, myscale=myscale)
    stack.callback(bridge.kill)
    return bridge.url()


def tidb(_folder: Path, _stack: ExitStack) -> str:
    return helper("tidb_server", "tidb").server().url


def opensearch(_folder: Path, _stack: ExitStack) -> str:
    return helper("opensearch_server", "opensearch").server().url


def elasticsearch(_folder: Path, _stack: ExitStack) -> str:
    return helper("elasticsearch_server", "elasticsearch").server().url


OPEN: dict[str, Callable[[Path, ExitStack], str]] = {
    **{info.scheme: in_process(info) for info in backends.engines().values() if info.library_version},
    "chroma": chroma,
    "analyticdb": analyticdb,
    "couchbase": couchbase,
    "postgresql": postgres,
    "milvus": milvus,
    "vikingdb": vikingdb,
    "weaviate": weaviate,
    "clickhouse": clickhouse,
    "myscale": lambda folder, stack: clickhouse(folder, stack, myscale=True),
    "tidb": tidb,
    "opensearch": opensearch,
    "elasticsearch": elasticsearch,
}
