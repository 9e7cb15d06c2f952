"""Tests that run in several processes side by side: what must stay together does, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from tests.support import local_server
from tests.support.local_server import LocalServer
from tests.support.repository import ROOT

CONFTEST = """
import os, pathlib, pytest
from tests.support import workers

def pytest_xdist_make_scheduler(config, log):
    return workers.Scheduling(config, log)

def pytest_collection_modifyitems(config, items):
    if workers.is_worker(config):
        workers.arrange(config, items)

@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    return workers.sendable((yield))

@pytest.fixture(autouse=True)
def told(request):
    group = workers.group_of(request.node)
    line = f"{os.environ['PYTEST_XDIST_WORKER']}\\t{group}\\t{request.node.nodeid}\\n"
    with pathlib.Path(__file__).with_name("told").open("a") as stream:
        stream.write(line)
"""
SUITE = """
import logging, pytest

def test_what_is_no_unicode_is_reported():
    logging.warning("a name with \\ud800 in it")

@pytest.mark.server("one")
@pytest.mark.parametrize("n", range(5))
def test_of_one(n): pass

@pytest.mark.parametrize(
    "pair", [pytest.param("a", marks=pytest.mark.server("one")), pytest.param("b", marks=pytest.mark.server("two"))]
)
@pytest.mark.server("two")
def test_of_pairs(pair): pass

class TestTogether:
    @pytest.mark.parametrize("text", ["a@b", "a::b", "[", "]@one"])
    def test_odd_names(self, text): pass

@pytest.mark.server
def test_a_server_without_a_name(): pass
"""


def test_what_belongs_together_runs_in_one_process_and_everything_runs(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name in ("first", "second"):
        (tmp_path / f"test_{name}.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = server\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "26 passed" in done.stdout
    ran = [line.split("\t") for line in (tmp_path / "told").read_text().splitlines()]
    assert len({test for _, _, test in ran}) == len(ran) == 26
    places = defaultdict(set)
    for worker, group, _ in ran:
        places[group].add(worker)
    assert all(len(workers) == 1 for workers in places.values()), places
    assert set(places) == {
        "server one",
        "server two",
        "several servers",
        "test_first.py::TestTogether",
        "test_second.py::TestTogether",
        "test_first.py",
        "test_second.py",
    }


def test_a_process_that_waits_for_a_server_keeps_none_that_others_may_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "LOCKS", tmp_path)
    monkeypatch.setattr(local_server, "TURN_S", 0.01)
    monkeypatch.setattr(LocalServer, "_all", [])
    monkeypatch.setattr(LocalServer, "marked", frozenset({"wanted", "needed"}))
    earlier, needed, wanted = LocalServer("earlier"), LocalServer("needed"), LocalServer("wanted")
    earlier._take()
    needed._take()
    with FileLock(tmp_path / "wanted.lock"), pytest.raises(Timeout):
        wanted._take()
    with FileLock(tmp_path / "earlier.lock", timeout=0):
        pass
    with pytest.raises(Timeout):
        FileLock(tmp_path / "needed.lock", timeout=0).acquire()
    wanted._take()
    for server in (needed, wanted):
        server.give_up()
