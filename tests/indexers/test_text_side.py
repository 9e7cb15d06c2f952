"""A new text side of the encoder: stored texts are encoded anew, images are not, and a kill loses nothing."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends import connect
from backends.base import Backend, Record
from backends.errors import ReadOnly
from backends.exact.backend import ExactBackend
from backends.wrappers.base import Wrapper
from indexers import IndexingError, Progress, index
from retrieval.search.retriever import EncoderMismatch, Retriever
from tests.support.readers import LatinReader
from tests.support.repository import ROOT

WORDS = ["a red square", "water and flour", "two cats", "แมว"]


@pytest.fixture(params=["exact", "faiss"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with connect("exact://" if request.param == "exact" else f"faiss://{tmp_path}/store") as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A picture with a caption for each of `WORDS`, and a document with a heading."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number, words in enumerate(WORDS):
        Image.new("RGB", (12, 8), (40 * number, 0, 200)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(words, encoding="utf-8")
    (folder / "bread.md").write_text("# Bread\n\nFlour and water.\n", encoding="utf-8")
    return folder


def stored(backend: Backend) -> dict[str, Record]:
    return {record.id: record for page in backend.scan("c") for record in page.records}


def same(mine: dict[str, Record], other: dict[str, Record]) -> bool:
    return mine.keys() == other.keys() and all(
        np.allclose(mine[name].vector, other[name].vector, atol=1e-6)  # type: ignore[arg-type]
        for name in mine
    )


def anew(source: Path, encoder: LatinReader) -> dict[str, Record]:
    """What a first run with this encoder stores."""
    backend = ExactBackend()
    index(source, backend, encoder, "c")
    return stored(backend)


@pytest.mark.parametrize("before", ["", "first"])
def test_texts_are_encoded_anew_and_images_are_not(backend: Backend, source: Path, before: str) -> None:
    index(source, backend, LatinReader(side=before), "c")
    encoder, told = LatinReader(side="second"), list[Progress]()
    report = index(source, backend, encoder, "c", progress=told.append)
    assert (report.reencoded, report.unchanged, report.indexed, report.unreadable) == (5, 5, 0, 1)
    assert encoder.images == 0
    assert backend.describe("c").encoder == encoder.fingerprint
    assert same(stored(backend), anew(source, encoder))
    of_texts = [progress for progress in told if progress.stage == "encoding texts anew"]
    assert (of_texts[0].done, of_texts[-1].done, of_texts[-1].total) == (0, 5, 5)
    again = index(source, backend, encoder, "c")
    assert (again.reencoded, again.unchanged) == (0, 5)


def test_the_source_need_not_be_there_any_more(backend: Backend, source: Path, tmp_path: Path) -> None:
    index(source, backend, LatinReader(), "c")
    wanted = anew(source, LatinReader(side="new"))
    (tmp_path / "empty").mkdir()
    report = index(tmp_path / "empty", backend, LatinReader(side="new"), "c")
    assert (report.found, report.reencoded) == (0, 5)
    assert same(stored(backend), wanted)


def test_a_search_before_that_is_allowed_and_says_what_to_do(
    backend: Backend, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index(source, backend, LatinReader(), "c")
    encoder = LatinReader(side="new")
    with caplog.at_level(logging.INFO):
        retriever = Retriever(backend, encoder, "c")
        retriever.search("a red square")
        retriever._checked_at = -1e9
        retriever.search("a red square")
    (notice,) = retriever.notices
    assert "the texts of collection 'c' were encoded by an earlier version of latin" in notice
    assert "sightline index on what it holds, or on an empty folder" in notice
    assert [record.message for record in caplog.records].count(notice) == 1
    index(source, backend, encoder, "c")
    assert Retriever(backend, encoder, "c").notices == ()
    retriever._checked_at = -1e9
    retriever.search("a red square")
    assert retriever.notices == ()


@pytest.mark.parametrize("fingerprint", ["other:1", "toy:12", "toy:1x+new", "toy:", "to"])
def test_every_other_encoder_is_refused_as_before(backend: Backend, source: Path, fingerprint: str) -> None:
    encoder = LatinReader()
    encoder.fingerprint = fingerprint
    index(source, backend, encoder, "c")
    with pytest.raises(EncoderMismatch):
        Retriever(backend, LatinReader(side="new"), "c")
    with pytest.raises(IndexingError, match="was filled by encoder"):
        index(source, backend, LatinReader(side="new"), "c")


class Failing(LatinReader):
    """Fails on a text once or for good."""

    def __init__(self, words: str) -> None:
        super().__init__(side="new")
        self.words = words

    def encode_texts(self, texts: Sequence[str]) -> Any:
        if self.words in texts:
            raise RuntimeError("out of luck")
        return super().encode_texts(texts)


def test_a_text_on_which_the_encoder_fails_is_tried_again(backend: Backend, source: Path) -> None:
    index(source, backend, LatinReader(), "c")
    before = stored(backend)
    report = index(source, backend, Failing("two cats"), "c")
    assert (report.reencoded, report.interrupted) == (4, False)
    told = {item.path: item.reason for item in report.quarantined}
    assert "the encoder failed on it: out of luck" in told.values()
    assert told["c"].startswith("1 of its stored texts keep their earlier vectors")
    assert backend.describe("c").encoder == LatinReader().fingerprint
    now = stored(backend)
    (failed,) = (name for name, record in now.items() if record.text == "two cats" and record.modality == "text")
    assert same({failed: now[failed]}, {failed: before[failed]})
    assert Retriever(backend, LatinReader(side="new"), "c").notices
    report = index(source, backend, LatinReader(side="new"), "c")
    assert (report.reencoded, report.quarantined) == (5, [])
    assert backend.describe("c").encoder == LatinReader(side="new").fingerprint
    assert same(stored(backend), anew(source, LatinReader(side="new")))


def test_an_empty_text_is_a_text(backend: Backend, source: Path) -> None:
    index(source, backend, LatinReader(), "c")
    vector = LatinReader().encode_texts(["x"])[0]
    backend.upsert("c", [Record("empty", vector, "text", "", "file:///empty", {})])
    report = index(source, backend, LatinReader(side="new"), "c")
    assert report.reencoded == 6
    assert not stored(backend)["empty"].has_vector


class Stopping(LatinReader):
    """Sets an event after so many texts."""

    def __init__(self, after: int, stop: threading.Event) -> None:
        super().__init__(side="new")
        self._after, self._stop = after, stop

    def encode_texts(self, texts: Sequence[str]) -> Any:
        rows = super().encode_texts(texts)
        if self.texts >= self._after:
            self._stop.set()
        return rows


def test_a_run_that_is_stopped_keeps_the_old_fingerprint_and_the_next_one_ends_it(
    backend: Backend, source: Path
) -> None:
    index(source, backend, LatinReader(), "c")
    stop = threading.Event()
    report = index(source, backend, Stopping(1, stop), "c", stop=stop)
    assert report.interrupted
    assert backend.describe("c").encoder == LatinReader().fingerprint
    report = index(source, backend, LatinReader(side="new"), "c")
    assert (report.interrupted, report.reencoded) == (False, 5)
    assert same(stored(backend), anew(source, LatinReader(side="new")))


KILLED = """
import os, signal, sys
from backends import connect
from indexers import index
from tests.support.readers import LatinReader

class Killing(LatinReader):
    def encode_texts(self, texts):
        rows = super().encode_texts(texts)
        if self.texts >= int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

with connect(sys.argv[1]) as backend:
    index(sys.argv[2], backend, Killing(side="new"), "c")
"""


@pytest.mark.parametrize("after", [1, 270, 301])
def test_a_kill_in_the_middle_loses_nothing(tmp_path: Path, after: int) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for number in range(300):
        (notes / f"{number:03}.txt").write_text(f"note {number} of colour {number % 7}")
    url = f"faiss://{tmp_path}/store"
    with connect(url) as backend:
        index(notes, backend, LatinReader(), "c")
    (notes / "late.txt").write_text("a late note")
    program = [sys.executable, "-c", KILLED, url, str(notes), str(after)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    with connect(url) as backend:
        # The last kill comes when all was encoded anew, before the late note.
        done = after > 300
        assert (backend.describe("c").encoder == LatinReader(side="new").fingerprint) == done
        assert backend.count("c") == 300
        report = index(notes, backend, LatinReader(side="new"), "c")
        assert (report.reencoded, report.indexed) == (0 if done else 300, 1)
        assert same(stored(backend), anew(notes, LatinReader(side="new")))


def test_what_was_changed_meanwhile_stays_changed(source: Path) -> None:
    backend = ExactBackend()
    index(source, backend, LatinReader(), "c")
    captions = {record.text: record for record in stored(backend).values() if record.modality == "text"}
    gone, changed = captions["two cats"], captions["a red square"]

    class Busy(LatinReader):
        def encode_texts(self, texts: Sequence[str]) -> Any:
            backend.delete("c", ids=[gone.id])
            vector = super().encode_texts(["other words"])[0]
            backend.upsert("c", [Record(changed.id, vector, "text", "other words", changed.uri, changed.metadata)])
            return super().encode_texts(texts)

    (source / "empty").mkdir()
    report = index(source / "empty", backend, Busy(side="new"), "c")
    assert report.reencoded == 3
    now = stored(backend)
    assert gone.id not in now
    assert now[changed.id].text == "other words"


def test_two_at_once_end_as_one(tmp_path: Path, source: Path) -> None:
    backend = ExactBackend()
    index(source, backend, LatinReader(), "c")
    meeting = threading.Barrier(2, timeout=60)

    class Meeting(LatinReader):
        def encode_texts(self, texts: Sequence[str]) -> Any:
            if not self.texts:
                meeting.wait()
            return super().encode_texts(texts)

    failures: list[BaseException] = []

    def run() -> None:
        try:
            index(source, backend, Meeting(side="new"), "c")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert backend.describe("c").encoder == LatinReader(side="new").fingerprint
    assert same(stored(backend), anew(source, LatinReader(side="new")))


def test_a_third_text_side_that_comes_meanwhile_is_not_overwritten(source: Path) -> None:
    backend = ExactBackend()
    index(source, backend, LatinReader(), "c")

    class Overtaken(LatinReader):
        def encode_texts(self, texts: Sequence[str]) -> Any:
            backend.set_encoder("c", "toy:1+third")
            return super().encode_texts(texts)

    with pytest.raises(IndexingError, match="by another process"):
        index(source, backend, Overtaken(side="new"), "c")
    assert backend.describe("c").encoder == "toy:1+third"


class ReadOnlyStore(Wrapper):
    """A store that may only be read, as one in a folder without the right to write."""

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        raise ReadOnly("the store lies where nothing may be written")


def test_a_store_that_may_only_be_read_is_searched_and_says_why_it_cannot_be_indexed(source: Path) -> None:
    backend = ExactBackend()
    index(source, backend, LatinReader(), "c")
    store, encoder = ReadOnlyStore(backend), LatinReader(side="new")
    retriever = Retriever(store, encoder, "c")
    assert retriever.search("a red square", modality="image")
    assert retriever.notices
    with pytest.raises(IndexingError, match="nothing may be written"):
        index(source, store, encoder, "c")
    assert backend.describe("c").encoder == LatinReader().fingerprint
