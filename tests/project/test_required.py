"""A run that must have tested an engine fails where all that it did with it was to skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.local_server import untested
from tests.support.repository import ROOT

CONFTEST = """
import pytest
from tests.conftest import *

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    if not item.name.startswith("{passes}"):
        pytest.skip("not today")
"""
SUITE = """
from backends.conformance import BackendSuite

class TestExact(BackendSuite):
    url = "exact://"
"""


def test_an_engine_is_tested_by_what_passed() -> None:
    outcomes = {"faiss": {"passed": 3, "skipped": 1}, "chroma": {"skipped": 200}, "tidb": {"failed": 2, "skipped": 1}}
    assert untested(["faiss", "chroma", "tidb", "milvus"], outcomes) == {"chroma", "tidb", "milvus"}


@pytest.mark.parametrize(("passes", "code"), [("nothing", 1), ("test_with_closes", 0)])
def test_skipping_every_check_of_a_required_engine_fails_the_run(tmp_path: Path, passes: str, code: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(passes=passes))
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -q -p no:cacheprovider\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SIGHTLINE_TEST_REQUIRE": "exact"},
        check=False,
    )
    assert done.returncode == code, done.stdout[-2000:]
    assert ("exact: REQUIRED, but not tested" in done.stdout) == bool(code)
