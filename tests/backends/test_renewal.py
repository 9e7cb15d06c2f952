"""Stores with words of an earlier version take them anew at their first keyword search or write."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from backends import connect
from backends.base import Backend, CollectionSpec, Record
from backends.errors import Corrupt
from backends.text import WORDS_VERSION
from tests.support.old_words import age_faiss
from tests.support.repository import ROOT

SPEC = CollectionSpec("c", 4)
ROW = np.eye(4, dtype=np.float32)[0]
TEXTS = {
    "plane": "飞机停在跑道",
    "black": "काला घोड़ा",
    "nail": "कील",
    "glass": "ガラスのコップ",
    "plain": "a black horse",
    "none": None,
}
FOUND = {"飞机": {"plane"}, "काला": {"black"}, "カラス": set(), "ガラス": {"glass"}, "horse": {"plain"}}


def records() -> list[Record]:
    return [Record(i, ROW, "text", text, uri=f"file:///{i}.txt") for i, text in TEXTS.items()]


def fill(backend: Backend) -> None:
    backend.create(SPEC)
    backend.upsert("c", records())


def ids(backend: Backend, query: str) -> set[str]:
    return {hit.id for hit in backend.search_text("c", query, 50)}


def check_renewed(backend: Backend) -> None:
    assert {query: ids(backend, query) for query in FOUND} == FOUND
    assert sorted(record.id for page in backend.scan("c") for record in page.records) == sorted(TEXTS)


@pytest.fixture
def old(tmp_path: Path) -> str:
    with connect(f"faiss://{tmp_path}") as backend:
        fill(backend)
    age_faiss(tmp_path / "c" / "store.sqlite3")
    return f"faiss://{tmp_path}"


def test_the_first_search_takes_words_anew(old, caplog):
    with connect(old) as backend, caplog.at_level(logging.WARNING):
        check_renewed(backend)
        check_renewed(backend)
    assert [r.getMessage().partition(": ")[2] for r in caplog.records] == [
        f"taking the words of {len(TEXTS)} records anew for keyword search, once"
    ]


@pytest.mark.parametrize("write", ["upsert", "replace", "delete"])
def test_the_first_write_takes_words_anew(old, write):
    with connect(old) as backend:
        if write == "delete":
            assert backend.delete("c", ids=["nail"]) == 1
            assert ids(backend, "कील") == set()
        else:
            backend.upsert("c", [Record("nail" if write == "replace" else "new", ROW, "text", "西湖风景")])
            assert ids(backend, "西湖") == {"nail" if write == "replace" else "new"}
        assert ids(backend, "飞机") == {"plane"}
        backend.flush("c")
        assert ids(backend, "ガラス") == {"glass"}


def test_reading_alone_changes_nothing(old, tmp_path):
    with connect(old) as backend:
        assert backend.count("c") == len(TEXTS)
        assert len(backend.search("c", ROW[None], 9)[0]) == len(TEXTS)
    with sqlite3.connect(tmp_path / "c" / "store.sqlite3") as connection:
        assert connection.execute("SELECT format FROM state").fetchone() == (2,)


def test_threads_and_handles_that_come_at_once(old):
    with connect(old) as one, connect(old) as other:
        found: list[set[str]] = []
        threads = [
            threading.Thread(target=lambda b=backend: found.append(ids(b, "飞机"))) for backend in (one, other) * 3
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [{"plane"}] * 6
        check_renewed(other)


KILLED = """
import os, signal, sys
from backends import connect, faiss
import backends.faiss.keywords as keywords
real, left = keywords.tokenize, [3]
def tokenize(text):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(text)
keywords.tokenize = tokenize
connect(sys.argv[1]).search_text("c", "horse", 5)
"""


def test_a_kill_in_the_middle_leaves_the_old_words(old, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, old], env=environment, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    with sqlite3.connect(tmp_path / "c" / "store.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM words WHERE words MATCH 'horse'").fetchone() == (1,)
        assert connection.execute("SELECT format FROM state").fetchone() == (2,)
    connection.close()
    with connect(old) as backend:
        check_renewed(backend)


def test_words_of_a_newer_version_are_refused(old, tmp_path):
    with sqlite3.connect(tmp_path / "c" / "store.sqlite3") as connection:
        connection.execute(f"PRAGMA user_version = {WORDS_VERSION + 1}")
    connection.close()
    with connect(old) as backend, pytest.raises(Corrupt, match="upgrade"):
        ids(backend, "horse")
