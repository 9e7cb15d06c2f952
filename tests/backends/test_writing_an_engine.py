"""The engine of docs/writing-an-engine.md, taken from the document: its length, and the whole suite over it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from backends.base import CollectionSpec, Compare, Record, Unavailable
from backends.conformance import BackendSuite, Sizes
from backends.conformance.samples import clustered
from tests.support.documents import runnable
from tests.support.repository import ROOT

pytest.importorskip("usearch", reason="the engine of the document needs usearch: pip install 'sightline[test]'")

PAGE = ROOT / "docs" / "writing-an-engine.md"
MODULE = "usearch_backend"
ENGINE, SUITE = (block.code for block in runnable(PAGE.read_text(encoding="utf-8")))

# A folder on the path, not only a module in memory: the suite's second process imports the engine too.
_folder = tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True)
Path(_folder.name, f"{MODULE}.py").write_text(ENGINE, encoding="utf-8")
sys.path.append(_folder.name)
engine = importlib.import_module(MODULE)
_document: dict[str, object] = {"__name__": __name__}
exec(compile(SUITE, str(PAGE), "exec"), _document)  # the document's own suite, as it stands there
TestUsearch = pytest.mark.slow(_document["TestUsearch"])


def test_the_engine_has_no_more_than_160_lines() -> None:
    assert len(ENGINE.splitlines()) <= 160


def test_the_suite_class_is_the_whole_suite_in_three_lines() -> None:
    (found,) = [node for node in ast.parse(SUITE).body if isinstance(node, ast.ClassDef)]
    assert found.end_lineno - found.lineno + 1 == 3
    assert issubclass(TestUsearch, BackendSuite)
    assert TestUsearch.engine is engine.UsearchBackend
    assert TestUsearch.sizes == Sizes()


def test_the_engine_is_as_the_formatter_leaves_it() -> None:
    command = [sys.executable, "-m", "ruff", "format", "--config", str(ROOT / "pyproject.toml"), "-"]
    done = subprocess.run(command, input=ENGINE, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ENGINE
    assert "fmt:" not in ENGINE
    assert max(map(len, ENGINE.splitlines())) <= 120


def test_the_graph_answers_what_it_can_and_a_scan_the_rest(tmp_path: Path) -> None:
    rows = clustered(12_000, 16, seed=1)
    with engine.UsearchBackend.connect(f"usearch://{tmp_path}/store.db") as backend:
        backend.create(CollectionSpec("photos", 16))
        backend.upsert("photos", [Record(f"r{i:04}", row, metadata={"i": i}) for i, row in enumerate(rows)])
        for where, exact in ((None, False), (Compare("i", "gte", 6_000), False), (Compare("i", "lt", 5), True)):
            (hits,) = backend.search("photos", rows[2:3], 5, where=where)
            assert {hit.exact for hit in hits} == {exact}
            assert len(hits) == 5
        np.testing.assert_array_equal(backend.get("photos", ["r0002"], with_vectors=True)[0].vector, rows[2])


@pytest.mark.parametrize("url", ["usearch://", "usearch://host/file.db", "usearch://file.db"])
def test_urls_that_name_no_file_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"usearch:///home/me/file\.db"):
        engine.UsearchBackend.connect(url)


def test_a_file_that_is_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("dear " * 1_000)
    for place in (file, tmp_path / "nowhere" / "store.db"):
        with pytest.raises(Unavailable, match=place.name):
            engine.UsearchBackend.connect(f"usearch://{place}")
    assert file.read_text() == "dear " * 1_000
