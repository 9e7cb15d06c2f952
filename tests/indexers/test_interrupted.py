"""Runs that do not end well: failing encoders, Ctrl-C, kill -9. What is stored stays, reruns finish the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import backends
from backends.base import Backend, CollectionSpec
from backends.exact.backend import ExactBackend
from indexers import IndexingError, Progress, index, open_source
from indexers.copies import Territory
from indexers.items import Reader
from indexers.planner import Batch, Planner
from indexers.tally import Tally
from retrieval.encoders.base import EncoderError
from retrieval.images.pool import DecodePool, shared_pool
from tests.support.counting_encoder import DIM, CountingEncoder
from tests.support.repository import ROOT


def tree(root: Path, count: int) -> Path:
    for number in range(count):
        path = root / f"{number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (number, 7, 9)).save(path)
        path.with_suffix(".txt").write_text(f"caption {number}\nanother of {number}")
    (root / "notes.md").write_text("\n\n".join(f"# Part {n}\n\nWords of part {n}." for n in range(20)))
    return root


def everything(backend: Backend) -> dict[str, object]:
    """All records, vectors as lists of bytes, so that equal means bit for bit."""
    found = [record for page in backend.scan("c") for record in page.records]
    return {
        r.id: (np.asarray(r.vector).tobytes(), r.modality, r.text, r.uri, sorted(dict(r.metadata).items(), key=str))
        for r in found
    }


def test_one_image_that_breaks_the_encoder_does_not_lose_its_batch(tmp_path: Path) -> None:
    tree(tmp_path, 10)
    backend, encoder = ExactBackend(), CountingEncoder(poison=(4, 7, 9))
    report = index(tmp_path, backend, encoder, "c")
    assert [(q.path, q.reason) for q in report.quarantined] == [
        ("1/004.png", "the encoder failed on it: poisoned pixel")
    ]
    assert report.indexed == 10
    # Nor are captions embedded or stored that belong to an image which is not there.
    assert "caption 4" not in encoder.texts
    assert not any("caption 4" in str(value) for value in everything(backend).values())
    healed = CountingEncoder()
    assert index(tmp_path, backend, healed, "c").indexed == 1
    assert (healed.images, healed.texts) == ([(4, 7, 9)], ["caption 4", "another of 4"])


def test_one_text_that_breaks_the_encoder_is_quarantined(tmp_path: Path) -> None:
    tree(tmp_path, 3)
    report = index(tmp_path, ExactBackend(), CountingEncoder(poison="caption 1"), "c")
    assert [q.path for q in report.quarantined] == ["1/001.png"]
    assert report.indexed == 3


def test_an_encoder_that_always_fails_stops_the_run(tmp_path: Path) -> None:
    tree(tmp_path, 30)

    class Broken(CountingEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            raise RuntimeError("CUDA error: device lost")

    with pytest.raises(IndexingError, match="failed on 8 inputs in a row, lastly with RuntimeError: CUDA error"):
        index(tmp_path, ExactBackend(), Broken(), "c")

    class Gone(CountingEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            raise EncoderError("the weights are gone: put them back")

    with pytest.raises(IndexingError, match="the weights are gone: put them back"):
        index(tmp_path, ExactBackend(), Gone(), "c")

    class Misshapen(CountingEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            return np.ones((len(images), 3), np.float32)

    with pytest.raises(IndexingError, match=r"shape \(1, 3\) for 1 inputs, not \(1, 64\)"):
        index(tmp_path, ExactBackend(), Misshapen(), "c")


def test_vectors_that_no_backend_can_store_are_quarantined(tmp_path: Path) -> None:
    tree(tmp_path, 4)

    class Odd(CountingEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            rows = super().encode_images(images)
            rows[0], rows[1, 5] = 0, np.nan
            return rows

    report = index(tmp_path, ExactBackend(), Odd(), "c")
    assert [q.path for q in report.quarantined] == ["0/000.png", "0/003.png"]
    assert report.indexed == 3


def test_stop_finishes_the_batch_in_hand_and_a_rerun_finishes_the_rest(tmp_path: Path) -> None:
    tree(tmp_path, 40)
    stop = threading.Event()

    class Stopping(CountingEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            if len(self.calls) == 2:
                stop.set()
            return super().encode_images(images)

    backend, encoder = ExactBackend(), Stopping()
    report = index(tmp_path, backend, encoder, "c", batch_size=5, stop=stop)
    assert report.interrupted
    assert report.quarantined == []
    assert report.indexed == report.images == 15
    assert len(everything(backend)) == 45
    second = CountingEncoder()
    rest = index(tmp_path, backend, second, "c", batch_size=5)
    assert not rest.interrupted
    assert (rest.unchanged, rest.indexed) == (15, 26)
    assert len(encoder.images + second.images) == len(set(encoder.images + second.images)) == 40
    whole = ExactBackend()
    index(tmp_path, whole, CountingEncoder(), "c", batch_size=5)
    assert everything(backend) == everything(whole)


def test_a_batch_dropped_after_all_was_planned_counts_as_interrupted(tmp_path: Path) -> None:
    tree(tmp_path, 10)
    (tmp_path / "notes.md").unlink()
    stop = threading.Event()

    class Stopping(CountingEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            # Time for the second and last batch to be queued.
            time.sleep(0.5)
            stop.set()
            return super().encode_images(images)

    report = index(tmp_path, ExactBackend(), Stopping(), "c", batch_size=5, stop=stop)
    assert report.interrupted
    assert report.indexed == 5


class Gated(CountingEncoder):
    """Begins a picture when it is let to, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        for _ in images:
            self.begun.release()
            assert self.go.acquire(timeout=60)
        return super().encode_images(images)


def test_a_stop_waits_for_one_picture_and_not_for_its_batch(tmp_path: Path) -> None:
    tree(tmp_path, 40)
    backend, encoder, stop = ExactBackend(), Gated(), threading.Event()
    reports = []
    thread = threading.Thread(target=lambda: reports.append(index(tmp_path, backend, encoder, "c", stop=stop)))
    thread.start()
    assert encoder.begun.acquire(timeout=60)
    stop.set()
    encoder.go.release()
    thread.join(60)
    assert not thread.is_alive()
    (report,) = reports
    assert (report.interrupted, report.indexed, report.images, report.texts) == (True, 1, 1, 2)
    # What was embedded is stored whole, the picture with its captions.
    assert sorted(str(row[2]) for row in everything(backend).values()) == [
        "another of 0",
        "caption 0",
        "caption 0\nanother of 0",
    ]
    rest, second = index(tmp_path, backend, CountingEncoder(), "c"), ExactBackend()
    assert (rest.indexed, rest.unchanged) == (40, 1)
    index(tmp_path, second, CountingEncoder(), "c")
    assert everything(backend) == everything(second)


def test_texts_are_not_gone_through_to_the_end_either(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("\n\n".join(f"# Part {n}\n\nWords of part {n}." for n in range(100)))
    stop = threading.Event()

    class Stopping(CountingEncoder):
        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            stop.set()
            return super().encode_texts(texts)

    backend, encoder = ExactBackend(), Stopping()
    report = index(tmp_path, backend, encoder, "c", stop=stop)
    assert (report.interrupted, report.indexed, report.texts) == (True, 0, 1)
    assert backend.count("c") == 1
    rest = index(tmp_path, backend, CountingEncoder(), "c")
    assert (rest.indexed, rest.texts, backend.count("c")) == (1, 99, 100)


def test_calls_of_the_encoder_take_about_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, 20)
    now_s = 0.0

    class Clocked(CountingEncoder):
        def __init__(self, first_s: float, each_s: float, at_once: int) -> None:
            super().__init__()
            self.first_s, self.each_s, self.images_at_once = first_s, each_s, at_once

        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            nonlocal now_s
            rounds = -(-len(images) // self.images_at_once)
            now_s += self.first_s + self.each_s * rounds
            self.first_s = 0.0
            return super().encode_images(images)

    monkeypatch.setattr("indexers.embedding.time.perf_counter", lambda: now_s)
    for first_s, each_s, at_once, calls in (
        (0.0, 2.0, 1, [1] * 20),
        (0.0, 0.25, 1, [1, 4, 4, 4, 4, 3]),
        # Loading a model at its first call makes no encoder slow.
        (9.0, 0.03125, 1, [1, 1, 18]),
        (0.0, 0.0, 1, [1, 19]),
        # Cores must not stand idle.
        (0.0, 2.0, 4, [4] * 5),
        (0.0, 0.5, 4, [4, 8, 8]),
    ):
        encoder = Clocked(first_s, each_s, at_once)
        assert index(tmp_path, ExactBackend(), encoder, "c").images == 20
        assert encoder.calls == calls


def test_no_more_than_a_batch_is_decoded_ahead_of_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    lock, begun, taken, ahead, load = threading.Condition(), 0, 0, 0, DecodePool.load

    def counted(pool: DecodePool, *arguments: Any, **options: Any) -> Image.Image:
        nonlocal begun, ahead
        with lock:
            begun += 1
            ahead = max(ahead, begun - taken)
            lock.notify()
        return load(pool, *arguments, **options)

    monkeypatch.setattr(DecodePool, "load", counted)
    source, backend, batches = open_source(tmp_path), ExactBackend(), list[Batch]()
    backend.create(CollectionSpec("c", DIM))
    with shared_pool() as pool:
        listing = source.listing()
        planner = Planner(
            Reader(source, None, 100),
            backend,
            "c",
            Tally(),
            batch_size=10,
            threads=2,
            decode_size=None,
            pool=pool,
            territory=Territory(source, listing),
        )
        assert planner.run(listing.entries, batches.append, lambda: False)
        for decoding in [decoding for batch in batches for _, _, decoding in batch.images]:
            # The encoder takes one when as many are decoded ahead as may be.
            with lock:
                expected = min(40, taken + 10)
                assert lock.wait_for(lambda least=expected: begun >= least, timeout=60)
                taken += 1
            assert isinstance(decoding.result(), Image.Image)
    assert (begun, taken) == (40, 40)
    assert ahead == 10


def test_a_stop_is_heard_of_while_files_are_listed_and_while_records_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, 5)
    backend, stop = ExactBackend(), threading.Event()
    index(tmp_path, backend, CountingEncoder(), "c")
    before = everything(backend)
    (tmp_path / "0" / "000.png").unlink()
    (tmp_path / "0" / "000.txt").unlink()
    scan = backend.scan

    def stopping(*arguments: object, **options: object) -> object:
        stop.set()
        return scan(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "scan", stopping)
    assert index(tmp_path, backend, CountingEncoder(), "c", prune=True, stop=stop).interrupted
    monkeypatch.undo()
    assert everything(backend) == before
    monkeypatch.setattr("indexers.sources.read_bounded", lambda *_: pytest.fail("read a captions file"))
    report = index(tmp_path, backend, CountingEncoder(), "c", prune=True, stop=stop)
    assert (report.interrupted, report.found) == (True, 0)


def test_an_interrupted_run_removes_nothing(tmp_path: Path) -> None:
    tree(tmp_path, 5)
    backend, stop = ExactBackend(), threading.Event()
    index(tmp_path, backend, CountingEncoder(), "c")
    before = everything(backend)
    (tmp_path / "0" / "000.png").unlink()
    (tmp_path / "0" / "000.txt").unlink()
    stop.set()
    report = index(tmp_path, backend, CountingEncoder(), "c", prune=True, stop=stop)
    assert report.interrupted
    assert everything(backend) == before


def test_a_failing_progress_function_ends_the_run(tmp_path: Path) -> None:
    tree(tmp_path, 10)
    running = threading.active_count()

    class Slow(CountingEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            time.sleep(0.3)
            return super().encode_images(images)

    def failing(progress: Progress) -> None:
        if progress.stage == "indexing":
            raise BrokenPipeError("nobody reads this")

    with pytest.raises(BrokenPipeError):
        index(tmp_path, ExactBackend(), Slow(), "c", batch_size=1, progress=failing)
    assert threading.active_count() <= running + 2  # idle decoders may still be ending


CHILD = """
import sys, time
from pathlib import Path
import backends
from indexers import index
from tests.support.counting_encoder import CountingEncoder

class Slow(CountingEncoder):
    def encode_images(self, images):
        rows = super().encode_images(images)
        print(*(f"i{r}" for r, _, _ in self.images), flush=True)
        self.images.clear()
        # Long enough for whoever reads this to act before the last batch, on a busy machine too.
        time.sleep(0.2)
        return rows

    def encode_texts(self, texts):
        print(len(texts), flush=True)
        return super().encode_texts(texts)

url, root, ledger = sys.argv[1:]
with backends.connect(url) as backend:
    report = index(root, backend, Slow(), "c", ledger=Path(ledger), batch_size=4)
    print("interrupted" if report.interrupted else "complete", report.indexed, flush=True)
"""


def start(url: str, root: Path, ledger: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(root), str(ledger)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def read_batches(child: subprocess.Popen[str], count: int) -> None:
    assert child.stdout is not None
    seen = 0
    while seen < count:
        line = child.stdout.readline()
        assert line, "the child ended early"
        seen += line.startswith("i")


def test_ctrl_c_stores_the_batch_in_hand_and_reports(tmp_path: Path) -> None:
    root, url = tree(tmp_path / "root", 60), f"faiss://{tmp_path}/store"
    child = start(url, root, tmp_path / "ledger.db")
    read_batches(child, 3)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    word, indexed = out.splitlines()[-1].split()
    assert word == "interrupted"
    assert 12 <= int(indexed) < 60
    with backends.connect(url) as backend:
        assert backend.count("c") == 3 * int(indexed)


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_and_embeds_only_what_is_missing(tmp_path: Path) -> None:
    root, url, ledger = tree(tmp_path / "root", 60), f"faiss://{tmp_path}/store", tmp_path / "ledger.db"
    # When the fifth batch is embedded, the queues between have room only if the second is stored.
    for batches in (1, 5, 2):
        child = start(url, root, ledger)
        read_batches(child, batches)
        time.sleep(0.013 * batches)
        child.kill()
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL
    with backends.connect(url) as backend:
        stored = {r.id for page in backend.scan("c") for r in page.records}
        encoder = CountingEncoder()
        report = index(root, backend, encoder, "c", ledger=ledger, batch_size=4)
        assert len(stored) > 0
        assert report.images + report.texts == len(everything(backend)) - len(stored)
        assert (report.found, report.quarantined) == (61, [])
        after = everything(backend)
    whole = ExactBackend()
    index(root, whole, CountingEncoder(), "c", batch_size=4)
    assert after == everything(whole)
