"""Watching a folder: what comes, changes and goes, half-written files, and an end that equals a fresh index."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backends.base import Record, Unavailable
from backends.exact.backend import ExactBackend
from indexers import IndexingError, IndexReport, index
from indexers.watching import watch
from tests.support.counting_encoder import CountingEncoder

pytest.importorskip("watchfiles")
LONGEST_S = 60.0


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 12), (number % 256, number // 256, 7)).save(out, "PNG")
    return out.getvalue()


class Watched:
    """A folder that is watched into a store."""

    def __init__(self, root: Path) -> None:
        self.root, self.backend = root, ExactBackend()
        self.stop = threading.Event()
        self.reports: list[IndexReport] = []
        self.troubles: list[str] = []
        self.error: Exception | None = None
        root.mkdir(exist_ok=True)

    def write(self, name: str, data: bytes | str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def run(self) -> None:
        try:
            watch(
                self.root,
                self.backend,
                CountingEncoder(),
                "photos",
                stop=self.stop,
                told=self.reports.append,
                trouble=self.troubles.append,
                settle_s=0.2,
            )
        except Exception as error:
            self.error = error

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            self.until(lambda: bool(self.reports or self.troubles or self.error))
            yield
        finally:
            self.stop.set()
            thread.join(LONGEST_S)
            self.stop.clear()
        assert not thread.is_alive()
        assert self.error is None

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it; a generous limit, as machines are busy."""
        end = time.monotonic() + LONGEST_S
        while not condition():
            assert time.monotonic() < end, (self.names(), self.reports[-3:], self.troubles, self.error)
            time.sleep(0.02)

    def names(self) -> list[str]:
        return sorted(Path(str(r.uri)).name for r in self.stored().values() if r.modality == "image")

    def stored(self) -> dict[str, Record]:
        if "photos" not in self.backend.collections():
            return {}
        return {r.id: r for page in self.backend.scan("photos") for r in page.records}

    def fresh(self) -> dict[str, Record]:
        backend = ExactBackend()
        index(self.root, backend, CountingEncoder(), "photos")
        return {r.id: r for page in backend.scan("photos") for r in page.records}


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    made = Watched(tmp_path / "photos")
    made.write("a.png", picture(1))
    return made


def test_what_is_added_changed_moved_and_removed_is_followed(watched: Watched) -> None:
    with watched.running():
        assert watched.names() == ["a.png"]
        watched.write("below/b.png", picture(2))
        watched.write("below/b.txt", "a caption")
        watched.until(lambda: watched.names() == ["a.png", "b.png"] and len(watched.stored()) == 3)
        (watched.root / "below").rename(watched.root / "moved")
        watched.until(lambda: any("moved" in str(r.uri) for r in watched.stored().values()))
        before = set(watched.stored())
        watched.write("a.png", picture(3))
        watched.until(lambda: not before >= set(watched.stored()))
        (watched.root / "moved" / "b.png").unlink()
        watched.until(lambda: watched.names() == ["a.png"])
    assert watched.stored() == watched.fresh()


def test_a_file_that_is_written_slowly_is_stored_when_it_is_whole(watched: Watched) -> None:
    noise = io.BytesIO()
    Image.frombytes("RGB", (64, 64), random.Random(5).randbytes(64 * 64 * 3)).save(noise, "PNG")
    data = noise.getvalue()
    with watched.running():
        path = watched.root / "slow.png"
        with path.open("wb") as file:
            for start in range(0, len(data), 1500):
                file.write(data[start : start + 1500])
                file.flush()
                time.sleep(0.05)
        watched.until(lambda: watched.names() == ["a.png", "slow.png"])
    assert watched.stored() == watched.fresh()
    # It may have been met half-written, never stored so.
    assert all(report.images <= 1 for report in watched.reports)


def test_churn_ends_as_a_fresh_index_does(watched: Watched) -> None:
    drawn = random.Random(11)
    with watched.running():
        for step in range(60):
            files = sorted(watched.root.rglob("*.png"))
            what = drawn.choice(["add", "add", "copy", "change", "move", "remove", "caption", "folder"])
            if what == "add" or len(files) < 4:
                watched.write(f"{drawn.choice('xyz')}/{step}.png", picture(100 + step))
            elif what == "copy":
                shutil.copy(drawn.choice(files), watched.root / f"copy{step}.png")
            elif what == "change":
                drawn.choice(files).write_bytes(picture(500 + step))
            elif what == "move":
                drawn.choice(files).rename(watched.root / f"moved{step}.png")
            elif what == "remove":
                drawn.choice(files).unlink()
            elif what == "caption":
                drawn.choice(files).with_suffix(".txt").write_text(f"words {step}")
            elif (watched.root / "x").is_dir():
                (watched.root / "x").rename(watched.root / f"folder{step}")
            time.sleep(drawn.random() / 20)
        expected = watched.fresh()
        watched.until(lambda: watched.stored() == expected)
    assert not watched.troubles


def test_it_goes_on_where_it_was_stopped(watched: Watched) -> None:
    with watched.running():
        pass
    watched.write("b.png", picture(2))
    (watched.root / "a.png").unlink()
    with watched.running():
        watched.until(lambda: watched.names() == ["b.png"])
    assert watched.stored() == watched.fresh()


def test_an_empty_folder_may_be_a_disk_that_is_not_mounted(watched: Watched) -> None:
    with watched.running():
        (watched.root / "a.png").rename(watched.root.parent / "a.png")
        watched.until(lambda: bool(watched.troubles))
        assert "is the disk mounted?" in watched.troubles[0]
        assert watched.names() == ["a.png"]
        watched.write("b.png", picture(2))
        watched.until(lambda: watched.names() == ["b.png"])


def test_a_folder_with_nothing_left_that_is_read_is_waited_for(watched: Watched) -> None:
    watched.write("plan.bin", b"\x00\x01")
    with watched.running():
        (watched.root / "a.png").unlink()
        watched.until(lambda: bool(watched.troubles))
        assert "has nothing in it that is read" in watched.troubles[0]
        assert watched.names() == ["a.png"]
        watched.write("b.png", picture(2))
        watched.until(lambda: watched.names() == ["b.png"])


def test_a_change_of_what_is_left_out_is_followed(watched: Watched) -> None:
    watched.write("b.png", picture(2))
    with watched.running():
        watched.until(lambda: watched.names() == ["a.png", "b.png"])
        watched.write(".sightlineignore", "a.png\n")
        watched.until(lambda: watched.names() == ["b.png"])


def test_a_database_that_is_away_is_waited_for(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.watching.RETRY_S", (0.05,))
    upsert, failures = ExactBackend.upsert, 2

    def flaky(self: ExactBackend, *arguments: Any) -> None:
        nonlocal failures
        if watched.reports and failures:
            failures -= 1
            raise Unavailable("it is away")
        upsert(self, *arguments)

    monkeypatch.setattr(ExactBackend, "upsert", flaky)
    with watched.running():
        watched.write("b.png", picture(2))
        watched.until(lambda: watched.names() == ["a.png", "b.png"])
    assert len(watched.troubles) == 2


def test_what_cannot_be_watched_says_so(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(path: Path) -> None:
        watch(path, watched.backend, CountingEncoder(), "photos", stop=watched.stop)

    with pytest.raises(IndexingError, match="only folders can be watched"):
        run(watched.root / "a.png")
    with pytest.raises(IndexingError, match="no such file"):
        run(watched.root / "nowhere")

    def refusing(*_: Any, **__: Any) -> Iterator[Any]:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.watch", refusing)
    with pytest.raises(IndexingError, match="watch limit reached; where its changes are not told"):
        run(watched.root)
