"""The import contracts catch what they are there for: each is broken on a copy, and `lint-imports` says so."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import backends
from tests.support.repository import ROOT

HOUSES = ("backends", "retrieval", "indexers", "app", "benchmarks")
PLANTED = [
    ("backends/faiss/search.py", "from backends.milvus import filters", "Engines know nothing of each other"),
    ("backends/weaviate/native.py", "from backends.qdrant import payload", "Engines know nothing of each other"),
    ("backends/checks.py", "import psycopg", "The backend protocol imports no client and no torch"),
    (
        "backends/kit/scores.py",
        "from backends.exact import backend",
        "The protocol, the kit and the wrappers import no engine",
    ),
    (
        "backends/wrappers/keywords.py",
        "from backends.exact import backend",
        "The protocol, the kit and the wrappers import no engine",
    ),
    (
        "retrieval/search/query.py",
        "import torch",
        "The default encoder, search, the service and the demo import no torch",
    ),
    ("retrieval/encoders/weights.py", "import timm", "The default encoder, search, the service and the demo import no"),
    ("backends/base.py", "from retrieval import encoders", "Imports go from app and benchmarks"),
    ("app/http/app.py", "from app.cli import output", "The command line and the service know nothing of each other"),
    ("app/core/keys.py", "from app.cli import output", "What they share knows neither"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, without what they carry."""
    copy = tmp_path_factory.mktemp("tree")
    for house in HOUSES:
        shutil.copytree(ROOT / house, copy / house, ignore=lambda _, names: [n for n in names if n.endswith((".npz",))])
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    return subprocess.run(
        [*command, "--no-cache"],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "COLUMNS": "200", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_copy_keeps_every_contract(tree: Path) -> None:
    done = lint(tree)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(("file", "line", "contract"), PLANTED)
def test_a_planted_import_breaks_its_contract(tree: Path, file: str, line: str, contract: str) -> None:
    path = tree / file
    before = path.read_text("utf-8")
    path.write_text(f"{before}\n{line}\n", "utf-8")
    try:
        done = lint(tree)
    finally:
        path.write_text(before, "utf-8")
    assert done.returncode == 1
    broken = " ".join(done.stdout.partition("Broken contracts")[2].split())
    assert contract in broken


def test_every_engine_is_in_the_contracts() -> None:
    folders = {".".join(info.backend.split(".")[:2]) for info in backends.engines().values()}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    by_name = {contract["name"]: contract for contract in contracts}
    assert set(by_name["Engines know nothing of each other"]["modules"]) == folders
    assert set(by_name["The protocol, the kit and the wrappers import no engine"]["forbidden_modules"]) == folders
