"""Stores with words of an earlier version take them anew at their first keyword search or write."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import numpy as np
import pytest

from backends import connect
from backends.base import Backend, CollectionSpec, Record
from backends.errors import Corrupt, Denied
from backends.exact.backend import ExactBackend
from backends.faiss.keywords import Keywords
from backends.kit.words import renew_words
from backends.text import WORDS_VERSION
from backends.wrappers.keyword_index import KeywordIndex
from backends.wrappers.keywords import KeywordSidecar
from tests.support.old_words import age
from tests.support.open_engines import OPEN
from tests.support.repository import ROOT
from tests.support.sample_engines import LimitedBackend
from tests.support.tiers import tiered

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
ENGINES = ("faiss", "qdrant-edge", "qdrant-local", "milvus-lite", "opensearch", "pgvector-embedded", "weaviate")


def records() -> list[Record]:
    bare = Record("bare", ROW, "image", metadata={"n": 1, "tags": ["a"]})
    return [bare, *(Record(i, ROW, "text", text, uri=f"file:///{i}.txt") for i, text in TEXTS.items())]


def fill(backend: Backend) -> None:
    backend.drop("c")
    backend.create(SPEC)
    backend.upsert("c", records())


def ids(backend: Backend, query: str) -> set[str]:
    return {hit.id for hit in backend.search_text("c", query, 50)}


def check_renewed(backend: Backend) -> None:
    assert {query: ids(backend, query) for query in FOUND} == FOUND
    there = {r.id: r for page in backend.scan("c") for r in page.records}
    for record in records():
        found = there[record.id]
        assert (found.text, found.uri, dict(found.metadata)) == (record.text, record.uri, dict(record.metadata))
        assert np.array_equal(found.vector, ROW)
    assert len(backend.search("c", ROW[None], 50)[0]) == len(there) == len(records())


class Old:
    """A store with the words of version 1."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._kept: Backend | None = None
        with ExitStack() as stack:
            backend = stack.enter_context(connect(url))
            fill(backend)
            age(backend)
            if not backend.capabilities.persistent:
                self._kept = backend
                stack.pop_all()

    def open(self) -> AbstractContextManager[Backend]:
        return nullcontext(self._kept) if self._kept is not None else connect(self.url)


@pytest.fixture(params=tiered(ENGINES))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    with ExitStack() as stack:
        store = Old(OPEN[request.param](tmp_path, stack))
        yield store
        # A server is shared with other tests.
        with store.open() as backend:
            backend.drop("c")


def test_the_first_search_takes_words_anew(old: Old, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        with old.open() as backend:
            check_renewed(backend)
        with old.open() as backend:
            check_renewed(backend)
    notes = [r.getMessage() for r in caplog.records if r.name == "backends.kit.words"]
    assert len(notes) == 1
    assert "taking the words of all records anew" in notes[0]


@pytest.mark.parametrize("write", ["new", "nail", "delete"])
def test_the_first_write_takes_words_anew(old: Old, write: str) -> None:
    with old.open() as backend:
        if write == "delete":
            assert backend.delete("c", ids=["nail"]) == 1
            assert ids(backend, "कील") == set()
        else:
            backend.upsert("c", [Record(write, ROW, "text", "西湖风景")])
            assert ids(backend, "西湖") == {write}
            assert ids(backend, "कील") == {"nail"} - {write}
        backend.flush("c")
        assert ids(backend, "飞机") == {"plane"}
        assert ids(backend, "ガラス") == {"glass"}


def test_threads_and_handles_that_come_at_once(old: Old) -> None:
    with (
        old.open() as one,
        old.open() if old.url.startswith(("faiss", "opensearch", "weaviate")) else nullcontext(one) as other,
    ):
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
import importlib, os, signal, sys
from backends import connect
module = importlib.import_module(sys.argv[2])
module.BATCH = 2
real, left = getattr(module, sys.argv[3]), [4]
def dies(text):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(text)
setattr(module, sys.argv[3], dies)
connect(sys.argv[1]).search_text("c", "horse", 5)
"""


@pytest.mark.parametrize(
    ("scheme", "module", "function"),
    [("faiss", "backends.faiss.keywords", "tokenize"), ("qdrant-edge", "backends.qdrant.store", "word_weights")],
)
def test_a_kill_in_the_middle_leaves_it_to_the_next(tmp_path: Path, scheme: str, module: str, function: str) -> None:
    old = Old(f"{scheme}://{tmp_path}")
    argv = [sys.executable, "-c", KILLED, old.url, module, function]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=environment, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    if scheme == "faiss":
        with sqlite3.connect(tmp_path / "c" / "store.sqlite3") as connection:
            assert connection.execute("SELECT count(*) FROM words WHERE words MATCH 'horse'").fetchone() == (1,)
        connection.close()
    with old.open() as backend:
        check_renewed(backend)


def test_reading_alone_changes_nothing(tmp_path: Path) -> None:
    old = Old(f"faiss://{tmp_path}")
    with old.open() as backend:
        assert backend.count("c") == len(backend.search("c", ROW[None], 50)[0]) == len(records())
    with sqlite3.connect(tmp_path / "c" / "store.sqlite3") as connection:
        assert connection.execute("SELECT format FROM state").fetchone() == (2,)
    connection.close()


def test_words_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    old = Old(f"faiss://{tmp_path}")
    with sqlite3.connect(tmp_path / "c" / "store.sqlite3") as connection:
        connection.execute(f"PRAGMA user_version = {WORDS_VERSION + 1}")
    connection.close()
    with old.open() as backend, pytest.raises(Corrupt, match="upgrade"):
        ids(backend, "horse")


def test_an_index_beside_an_engine_is_made_anew(tmp_path: Path) -> None:
    inner = LimitedBackend()
    with KeywordSidecar(inner, tmp_path) as sidecar:
        fill(sidecar)
        assert ids(sidecar, "horse") == {"plain"}
        path = KeywordIndex(tmp_path / "c.sqlite").path
        with sqlite3.connect(path) as connection:
            # As the first version left it: of its own format, with its words.
            connection.execute("UPDATE vocabulary SET word = 'कल' WHERE word = 'काला'")
            connection.execute("PRAGMA user_version = 1")
        connection.close()
        with KeywordSidecar(inner, tmp_path) as anew:
            check_renewed(anew)


def test_what_others_change_meanwhile_is_done_once_more() -> None:
    backend = ExactBackend()
    fill(backend)
    written: list[dict[str, str | None]] = []

    def write(given: list[Record]) -> None:
        if not written:
            backend.upsert("c", [Record("nail", ROW, "text", "a hammer")])
            backend.delete("c", ids=["glass"])
        written.append({record.id: record.text for record in given})

    renew_words(backend.scan("c", with_vectors=False), write, lambda wanted: backend.get("c", wanted))
    assert written[0]["nail"] == TEXTS["nail"]
    assert written[1:] == [{"nail": "a hammer"}]


def test_who_may_not_write_searches_by_the_old_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        old = Old(OPEN["qdrant-local"](tmp_path, stack))
        with old.open() as backend:
            tried: list[str] = []

            def refused(*_: object) -> None:
                tried.append("")
                raise Denied("a server refuses this key to write")

            monkeypatch.setattr(backend, "_set_words", refused)
            for _ in range(2):
                assert ids(backend, "horse") == {"plain"}
            assert len(tried) == 1
            with pytest.raises(Denied):
                backend.upsert("c", records()[:1])


def test_a_renewal_that_fails_is_not_tried_at_every_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        old = Old(OPEN["faiss"](tmp_path, stack))
        tried: list[str] = []

        def full(*_: object) -> None:
            tried.append("")
            raise OSError(errno.ENOSPC, "No space left on device")

        with old.open() as backend, monkeypatch.context() as patched:
            patched.setattr(Keywords, "renew", full)
            for _ in range(3):
                assert ids(backend, "horse") == {"plain"}
            assert len(tried) == 1
        with old.open() as backend:
            check_renewed(backend)
