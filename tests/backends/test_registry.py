"""Engines are found by their descriptors: in the folders here, and in packages of others by an entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import backends
from backends import redaction, registry
from backends.registry import EngineInfo, named
from tests.support.repository import ROOT

PACKAGE = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tiny-engine"
version = "1.2.3"
[project.entry-points."sightline.engines"]
tiny = "tiny_engine:ENGINE"
broken = "tiny_engine:NOTHING"
[tool.setuptools]
py-modules = ["tiny_engine", "tiny_backend"]
""",
    "tiny_engine.py": """
from backends import EngineInfo

ENGINE = EngineInfo(
    scheme="tiny",
    backend="tiny_backend:TinyBackend",
    example="tiny://",
    summary="an engine of somebody else's package",
    client="tiny-engine",
    library_version="tiny_backend:version",
)
""",
    "tiny_backend.py": """
from backends.exact.backend import ExactBackend

class TinyBackend(ExactBackend):
    @classmethod
    def connect(cls, url):
        return super().connect("exact://")

def version():
    return "Tiny 7"
""",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed a package with an engine, and a broken entry point."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name, text in PACKAGE.items():
        (source / name).write_text(text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=120)
    return target


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a child process that has the package."""
    paths = os.pathsep.join([str(ROOT), str(installed), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_another_packages_engine_is_connected_to(installed: Path) -> None:
    code = (
        "import sys, backends; from backends.base import *; assert 'tiny_backend' not in sys.modules\n"
        "with backends.connect('tiny://') as b:\n"
        "    b.create(CollectionSpec('c', 2)); print(type(b).__name__, b.collections())"
    )
    done = run(installed, "-c", code)
    assert done.stdout == "TinyBackend ['c']\n"
    # A broken entry point is said and takes nothing else away.
    assert "'broken'" in done.stderr
    assert "NOTHING" in done.stderr


@pytest.mark.slow
def test_the_command_line_lists_it(installed: Path) -> None:
    done = run(installed, "-m", "app", "engines", "--json")
    assert done.returncode == 0, done.stderr
    row = {engine["scheme"]: engine for engine in json.loads(done.stdout)["engines"]}["tiny"]
    assert (row["client"], row["version"], row["installed"]) == ("tiny-engine 1.2.3", "Tiny 7", True)


@pytest.mark.slow
def test_the_benchmark_takes_it(installed: Path, tmp_path: Path) -> None:
    given = ["run", "--out", str(tmp_path / "run"), "--engines", "tiny://", "--data", "clustered:300x8", "--quick"]
    done = run(installed, "-m", "benchmarks", *given, "--cases", "frontier", "--need", "recall >= 0.9, throughput")
    assert done.returncode == 0, done.stderr
    assert "take tiny" in (tmp_path / "run" / "report.html").read_text()


def test_what_a_descriptor_names_is_there() -> None:
    for info in backends.engines().values():
        targets = (info.backend, info.library_version, info.server_version, info.local_server, info.native)
        for target in filter(None, targets):
            assert named(target) is not None
        assert info.bench is None or info.bench.is_file()
        # Each tells its version one way, and only a server has an address and a key.
        assert bool(info.library_version) != bool(info.server_version)
        assert bool(info.default_url) == bool(info.server_version)
        # Of two schemes that share one form of URL, one means a server and the other a folder.
        if info.folder_scheme is not None:
            assert info.server_version
            assert backends.engines()[info.folder_scheme].in_folder
        # In a folder means in one of its own.
        assert info.in_folder == ("{dir}" in info.template)
        assert info.server_version or not (info.key_variable or info.harmless or info.local_server)


@pytest.mark.parametrize(
    ("example", "template"),
    [
        ("faiss:///dir", "faiss://{dir}"),
        ("usearch:///dir/store.db", "usearch://{dir}/store.db"),
        ("exact://", "exact://"),
        ("qdrant://dir:6333/dir", "qdrant://dir:6333/dir"),
    ],
)
def test_an_example_says_where_a_folder_goes(example: str, template: str) -> None:
    scheme = example.partition(":")[0]
    assert EngineInfo(scheme=scheme, backend="x:X", example=example, summary="").template == template


def test_a_scheme_may_leave_its_folders_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    server = EngineInfo(
        scheme="two",
        backend="x:X",
        example="two://host:1",
        summary="",
        folder_scheme="two-here",
        harmless=frozenset("a"),
    )
    folder = EngineInfo(scheme="two-here", backend="x:Y", example="two-here:///dir", summary="")
    for info in (server, folder):
        monkeypatch.setitem(backends.engines(), info.scheme, info)
    for place in ("/a/b", "./a", "../a", "{dir}", "/"):
        assert registry.canonical(f"two://{place}") == f"two-here://{place}"
        assert registry.described(f"two://{place}") is folder
    for place in ("host:1", "host/a", "", "?a=1", "#/a", ".host/a", ":pass@/a"):
        assert registry.canonical(f"two://{place}") == f"two://{place}"
        assert registry.described(f"two://{place}") is server
    assert registry.canonical("faiss:///a") == "faiss:///a"
    assert registry.described("two") is None
    assert redaction.shown("two:///a/b") == "two:///a/b"
    assert redaction.shown("two://host/secret?a=1&b=2") == "two://host/…?a=1"


def test_a_scheme_that_is_served_is_not_taken_over() -> None:
    found: dict[str, Any] = {"exact": backends.engines()["exact"]}
    other = EngineInfo(scheme="exact", backend="elsewhere:Backend", example="exact://", summary="another")
    with pytest.warns(UserWarning, match=r"elsewhere is left out: exact:// is served already"):
        registry._add(found, [other], "elsewhere")
    assert found["exact"].backend == "backends.exact.backend:ExactBackend"


def test_engines_are_found_without_what_only_tests_need() -> None:
    code = (
        "import sys\n"
        "for name in ('hypothesis', 'pytest'): sys.modules[name] = None\n"
        "import backends\n"
        "with backends.connect('exact://') as backend: print(len(backends.engines()), backend.collections())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{len(backends.engines())} []\n", "")
