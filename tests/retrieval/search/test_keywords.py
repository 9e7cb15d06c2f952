"""Keyword search beside an engine that has none: the oracle's hits, whatever happens to index and engine."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock

from backends import connect
from backends.base import And, Backend, CollectionSpec, Compare, Not, Record, Unavailable
from backends.conformance import Sizes
from backends.conformance.adversarial import HostileChecks
from backends.conformance.collections import CollectionChecks
from backends.conformance.keyword import QUERIES, KeywordChecks
from backends.conformance.lifetime import LifetimeChecks
from backends.conformance.store import Suite
from backends.conformance.threads import ThreadChecks
from backends.exact.backend import ExactBackend
from backends.text import file_name, searched_text, tokenize
from retrieval.search.keyword_index import KeywordIndex
from retrieval.search.keywords import KeywordSidecar, with_keywords
from tests.support.repository import ROOT
from tests.support.sample_engines import DurableBackend, LimitedBackend

SPEC = CollectionSpec("c", 4)
ROW = np.eye(4, dtype=np.float32)[0]


class Wordless(ExactBackend):
    """An engine without keyword search, which counts how often it is scanned."""

    capabilities = replace(ExactBackend.capabilities, keyword=False)
    scans = 0

    def scan(self, name, **options):
        self.scans += 1
        return super().scan(name, **options)

    def search_text(self, name, query, k, *, where=None):
        raise AssertionError("this engine has no keyword search")


class DurableSidecar(KeywordSidecar):
    """An index of words beside an engine in the same folder, for the conformance suite."""

    capabilities = DurableBackend.capabilities

    @classmethod
    def connect(cls, url):
        inner = DurableBackend.connect(url)
        return cls(inner, inner.folder / "keywords")


class TestSidecar(CollectionChecks, KeywordChecks, HostileChecks, ThreadChecks, LifetimeChecks, Suite):
    url = "durable:///{dir}"
    engine = DurableSidecar
    sizes = Sizes(
        filter_trees=20, records=60, crowd=1_000, wide=100, indexed=300, kills=3, searchers=4, write_batches=8
    )


def record(record_id: str, text: str | None, modality="image", uri: str | None = None, **metadata) -> Record:
    return Record(record_id, ROW, modality, text, uri, metadata)


def corpus(count: int = 400, seed: int = 1) -> list[Record]:
    """Records of few and many words, common and rare ones, with hostile texts among them."""
    draw = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(200)]
    weights = [1 / (i + 1) for i in range(200)]
    texts = [" ".join(draw.choices(vocabulary, weights, k=draw.randint(0, 12))) for _ in range(count)]
    texts[: len(QUERIES)] = [text[:2_000] for text in QUERIES]
    return [
        record(
            f"r{i:03}",
            None if i % 17 == 5 else text,
            "text" if i % 3 else "image",
            f"file:///p%20x/img_{i % 40}.w{i % 9}.jpg" if i % 2 else None,
            n=i,
            tags=["even"] if i % 2 == 0 else ["odd", f"t{i % 5}"],
            **({"rare": True} if i % 101 == 7 else {}),
        )
        for i, text in enumerate(texts)
    ]


FILTERS = (
    None,
    Compare("modality", "eq", "image"),
    Compare("rare", "eq", True),
    And((Compare("n", "gte", 300), Not(Compare("tags", "contains", "odd")))),
    Compare("missing", "exists", True),
)


@pytest.fixture
def oracle() -> ExactBackend:
    backend = ExactBackend()
    backend.create(SPEC)
    return backend


@pytest.fixture
def wordless() -> Wordless:
    backend = Wordless()
    backend.create(SPEC)
    return backend


def ids(backend: Backend, query: str, k: int = 50, **options) -> list[str]:
    return [hit.id for hit in backend.search_text("c", query, k, **options)]


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_hits_scores_and_filters_are_the_oracles(wordless, oracle, tmp_path, where):
    oracle.upsert("c", corpus())
    backend = KeywordSidecar(wordless, tmp_path)
    backend.upsert("c", corpus())
    asked = 0
    for query in (*QUERIES, "w0", "w0 w1 w2", "w150 w3", "img", "img_7", "jpg w199", "p x", "w0 " * 50):
        for k in (2, 400):
            found = backend.search_text("c", query, k, where=where)
            wanted = oracle.search_text("c", query, k, where=where)
            assert [h.id for h in found] == [h.id for h in wanted], query
            np.testing.assert_allclose([h.score for h in found], [h.score for h in wanted], rtol=1e-12)
            assert [replace(h, score=0.0) for h in found] == [replace(h, score=0.0) for h in wanted]
            asked += len(wanted)
    assert asked or where == FILTERS[-1]
    assert wordless.scans == 1


def test_it_follows_every_write(wordless, oracle, tmp_path):
    backend = KeywordSidecar(wordless, tmp_path)
    draw = random.Random(4)

    def change(target: Backend, step: int, some: list[Record]) -> int | None:
        match step % 4:
            case 0 | 1:
                return target.upsert("c", [*some, replace(some[0], text="twice w3")])
            case 2:
                return target.delete("c", ids=[r.id for r in some[:25]] + ["no such", "\ud800", "a\0b"])
        return target.delete("c", where=Compare("n", "lt", step * 5))

    for step in range(30):
        some = draw.sample(corpus(seed=step), 40)
        assert change(backend, step, some) == change(oracle, step, some)
        for query in ("w0 w1", "w3 twice", "img_3"):
            assert ids(backend, query) == ids(oracle, query)
    assert wordless.scans == 1
    assert backend.refresh("c") == 0


def test_an_engine_with_keyword_search_keeps_its_own(tmp_path):
    native = connect("exact://")
    assert with_keywords(native, tmp_path) is native
    limited = with_keywords(LimitedBackend(), tmp_path)
    assert isinstance(limited, KeywordSidecar)
    assert limited.capabilities == replace(LimitedBackend.capabilities, keyword=True)
    assert LimitedBackend.capabilities.keyword is False


class TestOtherWriters:
    """Writes to the engine that the index was not told of."""

    @pytest.fixture
    def backend(self, wordless, tmp_path) -> KeywordSidecar:
        backend = KeywordSidecar(wordless, tmp_path)
        backend.upsert("c", [record("a", "red dog"), record("b", "blue cat"), record("d", "green dog")])
        assert ids(backend, "dog") == ["a", "d"]
        return backend

    def test_a_new_record(self, backend, wordless):
        wordless.upsert("c", [record("e", "dog")])
        assert sorted(ids(backend, "dog")) == ["a", "d", "e"]

    def test_a_deleted_record(self, backend, wordless):
        wordless.delete("c", ids=["a"])
        assert ids(backend, "dog") == ["d"]

    def test_one_for_another(self, backend, wordless):
        wordless.delete("c", ids=["a"])
        wordless.upsert("c", [record("e", "dog")])
        assert sorted(ids(backend, "dog")) == ["d", "e"]

    def test_a_found_record_that_changed(self, backend, wordless):
        wordless.upsert("c", [record("a", "red bird", n=1)])
        assert ids(backend, "dog", where=Not(Compare("n", "eq", 1))) == ["d"]
        assert ids(backend, "bird") == ["a"]

    def test_a_collection_made_anew(self, backend, wordless):
        wordless.drop("c")
        wordless.create(replace(SPEC, encoder="another"))
        wordless.upsert("c", [record(i, "fish") for i in "abd"])
        assert ids(backend, "dog") == []
        assert ids(backend, "fish") == ["a", "b", "d"]

    def test_what_nothing_shows_is_found_by_a_refresh(self, backend, wordless):
        wordless.upsert("c", [record("b", "blue dog")])
        assert backend.refresh("c") == 1
        assert sorted(ids(backend, "dog")) == ["a", "b", "d"]

    def test_on_a_server_it_is_found_in_time(self, wordless, tmp_path):
        class Server(Wordless):
            capabilities = replace(Wordless.capabilities, server=True)

        server = Server()
        server.create(SPEC)
        server.upsert("c", [record("b", "blue cat")])
        assert ids(KeywordSidecar(server, tmp_path, max_age_s=1000), "dog") == []
        server.upsert("c", [record("b", "blue dog")])
        assert ids(KeywordSidecar(server, tmp_path, max_age_s=1000), "dog") == []
        assert ids(KeywordSidecar(server, tmp_path, max_age_s=0), "dog") == ["b"]


def test_dropped_and_recreated_through_it(wordless, tmp_path):
    backend = KeywordSidecar(wordless, tmp_path)
    backend.upsert("c", [record("a", "dog")])
    backend.drop("c")
    backend.create(SPEC)
    assert ids(backend, "dog") == []
    backend.create(replace(SPEC, name="C"))
    backend.upsert("C", [record("a", "cat")])
    assert ids(backend, "cat") == []
    assert [hit.id for hit in backend.search_text("C", "cat", 1)] == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"this is not a database" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: sqlite3.connect(path).execute("PRAGMA user_version = 77").connection.close(),
        lambda path: (
            sqlite3.connect(path, isolation_level=None).execute("UPDATE state SET spec = NULL").connection.close()
        ),
    ],
    ids=["gone", "not a database", "cut off", "another format", "in doubt"],
)
def test_a_lost_or_damaged_index_is_made_anew(wordless, tmp_path, damage):
    first = KeywordSidecar(wordless, tmp_path)
    first.upsert("c", corpus())
    wanted = ids(first, "w0 w1")
    (path,) = tmp_path.glob("*.sqlite")
    for copy in first._copies.values():
        copy.index.close()
    damage(path)
    assert ids(KeywordSidecar(wordless, tmp_path), "w0 w1") == wanted


def test_a_page_that_is_damaged_is_reported_and_made_anew(wordless, tmp_path):
    first = KeywordSidecar(wordless, tmp_path)
    first.upsert("c", corpus())
    wanted = ids(first, "w0 w1")
    first._copies["c"].index.close()
    (path,) = tmp_path.glob("*.sqlite")
    data = bytearray(path.read_bytes())
    # All but the first pages, which hold the schema and the state.
    data[4096 * 3 :] = os.urandom(len(data) - 4096 * 3)
    path.write_bytes(data)
    backend = KeywordSidecar(wordless, tmp_path)
    with pytest.raises(Unavailable, match="made anew"):
        ids(backend, "w0 w1")
    assert ids(backend, "w0 w1") == wanted


CRASH = """
import os, sys
import numpy as np
sys.path.insert(0, {root!r})
from backends import connect
from backends.base import CollectionSpec, Record
from retrieval.search.keyword_index import KeywordIndex
from retrieval.search.keywords import KeywordSidecar

backend = KeywordSidecar(connect({url!r}), __import__("pathlib").Path({folder!r}))
row = np.eye(4, dtype=np.float32)[0]
backend.create(CollectionSpec("c", 4))
backend.upsert("c", [Record(i, row, "image", "old dog") for i in "abc"])
{patch}
{write}
raise SystemExit("did not crash")
"""
BEFORE_THE_ENGINE = "backend.inner.upsert = backend.inner.delete = lambda *a, **o: os._exit(9)"
AFTER_THE_ENGINE = "KeywordIndex.replace = lambda *a: os._exit(9)"
WITHIN_THE_INDEX = """
import retrieval.search.keyword_index as k
k._numbers = lambda *a: os._exit(9)
"""
UPSERT = 'backend.upsert("c", [Record("a", row, "image", "new bird"), Record("e", row, "text", "new bird")])'
DELETE = 'backend.delete("c", ids=["a"])'


@pytest.mark.parametrize(
    ("patch", "write", "birds", "dogs"),
    [
        (BEFORE_THE_ENGINE, UPSERT, [], ["a", "b", "c"]),
        (AFTER_THE_ENGINE, UPSERT, ["a", "e"], ["b", "c"]),
        (WITHIN_THE_INDEX, UPSERT, ["a", "e"], ["b", "c"]),
        (AFTER_THE_ENGINE, DELETE, [], ["b", "c"]),
    ],
    ids=["before the engine", "after the engine", "within the index", "after a deletion"],
)
def test_a_crash_at_any_point_leaves_the_engines_truth(tmp_path, patch, write, birds, dogs):
    url, folder = f"faiss://{tmp_path}/store", tmp_path / "keywords"
    root = str(ROOT)
    code = CRASH.format(root=root, url=url, folder=str(folder), patch=patch, write=write)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 9, ended.stderr
    with KeywordSidecar(connect(url), folder) as backend:
        assert KeywordIndex(next(folder.glob("*.sqlite"))).state().pending
        assert sorted(ids(backend, "bird")) == birds
        assert sorted(ids(backend, "dog")) == dogs
        assert not KeywordIndex(next(folder.glob("*.sqlite"))).state().pending
        assert backend.refresh("c") == 0


def test_a_refused_write_leaves_nothing_behind(wordless, tmp_path):
    backend = KeywordSidecar(wordless, tmp_path)
    backend.upsert("c", [record("a", "dog")])
    with pytest.raises(ValueError):
        backend.upsert("c", [record("b", "cat"), Record("a", np.full(4, np.nan, np.float32), "image", "cat")])
    assert ids(backend, "cat") == []
    assert ids(backend, "dog") == ["a"]


def test_readers_see_whole_writes_while_one_writes(wordless, tmp_path):
    backend = KeywordSidecar(wordless, tmp_path)
    words_of_step = ["even", "odd"]
    backend.upsert("c", [record(f"r{i}", "even") for i in range(50)])
    stop = threading.Event()
    problems: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                for word in words_of_step:
                    for hit in backend.search_text("c", word, 100):
                        assert hit.text == word
        except BaseException as error:
            problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(1, 11):
        backend.upsert("c", [record(f"r{i}", words_of_step[step % 2]) for i in range(50)])
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems, problems[0]
    assert len(ids(backend, "even", 100)) == 50


def test_a_writer_that_holds_the_lock_does_not_stop_readers(wordless, tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.search.keywords.PATIENCE_S", 0.1)
    backend = KeywordSidecar(wordless, tmp_path)
    backend.upsert("c", [record("a", "dog")])
    assert ids(backend, "dog") == ["a"]
    (path,) = tmp_path.glob("*.sqlite")
    with FileLock(f"{path}.lock"):
        wordless.upsert("c", [record("b", "dog")])
        assert ids(backend, "dog") == ["a"]
    assert ids(backend, "dog") == ["a", "b"]


def test_a_folder_that_cannot_be_used_is_named(wordless, tmp_path):
    (tmp_path / "taken").write_text("a file")
    backend = KeywordSidecar(wordless, tmp_path / "taken" / "keywords")
    with pytest.raises(Unavailable, match="taken"):
        ids(backend, "dog")


def test_words_of_names():
    assert file_name("file:///a%20b/c%20d.jpg") == "c d.jpg"
    assert file_name("https://h.example/x/y.png?z=/q#/w") == "y.png"
    assert file_name("dir/sub/") == "sub"
    assert file_name("C:\\x\\y.png") == "y.png"
    assert file_name("http://[broken/x_y.png") == "x_y.png"
    assert tokenize(searched_text("A caption", "/x/My_dog-2.JPG")) == [
        "a",
        "caption",
        "my_dog",
        "2",
        "jpg",
        "my",
        "dog",
        "2",
        "jpg",
    ]
    assert searched_text(None, None) == ""
