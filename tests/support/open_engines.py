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


def milvus(_folder: Path, _stack: ExitStack) -> str:
    return helper("milvus_server", "milvus").url()


def weaviate(_folder: Path, _stack: ExitStack) -> str:
    return helper("weaviate_server", "weaviate").server().url


def opensearch(_folder: Path, _stack: ExitStack) -> str:
    return helper("opensearch_server", "opensearch").server().url


def elasticsearch(_folder: Path, _stack: ExitStack) -> str:
    return helper("elasticsearch_server", "elasticsearch").server().url


OPEN: dict[str, Callable[[Path, ExitStack], str]] = {
    **{info.scheme: in_process(info) for info in backends.engines().values() if info.library_version},
    "postgresql": postgres,
    "milvus": milvus,
    "weaviate": weaviate,
    "opensearch": opensearch,
    "elasticsearch": elasticsearch,
}
