"""Indexing a folder: what is stored, what is embedded again (nothing), and what happens when files change."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.base import CollectionSpec, Compare, IndexSpec, Record, Unavailable
from backends.exact.backend import ExactBackend
from indexers import IndexingError, IndexReport, Progress, index
from indexers.files import Stamp
from tests.support.counting_encoder import DIM, CountingEncoder


class World:
    """A folder, a backend, an encoder and a ledger, and one word to index them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "photos"
        self.root.mkdir()
        self.ledger: Path | None = folder / "ledger.db"
        self.backend, self.encoder = ExactBackend(), CountingEncoder()

    def image(self, path: str, colour: object = "red", size: tuple[int, int] = (40, 30)) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(target)  # type: ignore[arg-type]
        return target

    def write(self, path: str, text: str | bytes) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
        return target

    def index(self, source: str | Path | None = None, **options: object) -> IndexReport:
        self.encoder.reset()
        options = {"ledger": self.ledger, **options}
        report = index(source or self.root, self.backend, self.encoder, "photos", **options)  # type: ignore[arg-type]
        assert (report.images, report.texts) == (len(self.encoder.images), len(self.encoder.texts))
        return report

    def records(self) -> dict[str, object]:
        if "photos" not in self.backend.collections():
            return {}
        return {record.id: record for page in self.backend.scan("photos") for record in page.records}

    def paths(self, modality: str = "image") -> list[str]:
        """All places of all items of a modality."""
        found: list[Any] = [r.metadata["path"] for r in self.records().values() if r.modality == modality]  # type: ignore[attr-defined]
        return sorted(path for each in found for path in ([each] if isinstance(each, str) else each))

    def texts(self) -> list[str]:
        return sorted(r.text for r in self.records().values() if r.modality == "text")  # type: ignore[attr-defined]


def outcome(report: IndexReport) -> dict[str, int]:
    """The counts of a report that are not zero."""
    names = ("found", "indexed", "unchanged", "renamed", "duplicates", "updated", "pruned", "missing")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that trusts files written just now, which it otherwise reads again."""
    monkeypatch.setattr("indexers.ledger.RACY_NS", -(10**18))


def test_image_with_captions_becomes_one_image_and_one_text_record_each(world: World) -> None:
    world.image("trip/a b.jpg", "blue")
    world.write("trip/a b.txt", "a blue sea\r\n\n  the   sky \n")
    report = world.index()
    assert outcome(report) == {"found": 1, "indexed": 1}
    records = list(world.records().values())
    image = next(r for r in records if r.modality == "image")
    assert image.id.startswith("img-")
    assert len(image.id) == 36
    assert image.text == "a blue sea\nthe sky"
    assert image.uri == (world.root / "trip" / "a b.jpg").resolve().as_uri()
    size = (world.root / "trip" / "a b.jpg").stat().st_size
    place = {"path": "trip/a b.jpg", "folder": "trip", "source": str(world.root.resolve())}
    assert image.metadata == {**place, "width": 40, "height": 30, "bytes": size, "format": "jpeg"}
    captions = [r for r in records if r.modality == "text"]
    assert {r.text for r in captions} == {"a blue sea", "the sky"}
    for caption in captions:
        assert caption.id.startswith("cap-")
        assert caption.uri == image.uri
        assert caption.metadata == {**place, "image": image.id}
    vector = world.encoder.encode_images([Image.open(world.root / "trip" / "a b.jpg")])[0]
    assert np.allclose(image.vector, vector, atol=1e-6)


def test_three_hundred_files_twice_embed_and_read_nothing_again(
    world: World, trusting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(290):
        world.image(f"{number % 7}/{number:03}.png", (number % 256, number // 256, 7))
    for number in range(10):
        world.write(f"notes/{number}.md", f"# Note {number}\n\nSome words about {number}.")
    first = world.index(batch_size=32)
    assert outcome(first) == {"found": 300, "indexed": 300}
    assert (first.images, first.texts) == (290, 10)
    assert max(world.encoder.calls) == 32
    before = world.records()
    monkeypatch.setattr("indexers.items.read_photo", lambda *_, **__: pytest.fail("read a known image again"))
    monkeypatch.setattr(ExactBackend, "upsert", lambda *_: pytest.fail("wrote an unchanged record"))
    second = world.index()
    assert outcome(second) == {"found": 300, "unchanged": 300}
    assert world.records() == before


def test_without_or_with_a_lost_ledger_nothing_is_embedded_again(world: World) -> None:
    for number in range(5):
        world.image(f"{number}.png", (number, 0, 0))
    world.index()
    assert world.ledger is not None
    world.ledger.unlink()
    for ledger in (world.ledger, None):
        assert outcome(world.index(ledger=ledger)) == {"found": 5, "unchanged": 5}
        assert world.encoder.images == []


def test_a_dropped_collection_is_filled_again_whatever_the_ledger_says(world: World, trusting: None) -> None:
    world.image("a.png")
    world.index()
    before = world.records()
    world.backend.drop("photos")
    assert outcome(world.index()) == {"found": 1, "indexed": 1}
    assert world.records() == before


def test_one_ledger_serves_two_collections(world: World, trusting: None) -> None:
    world.image("a.png", "red")
    world.index()
    index(world.root, world.backend, world.encoder, "other", ledger=world.ledger)
    world.image("a.png", "blue", (41, 30))
    world.index()
    assert outcome(index(world.root, world.backend, world.encoder, "other", ledger=world.ledger)) == {
        "found": 1,
        "indexed": 1,
    }
    assert world.backend.count("other") == world.backend.count("photos") == 1


def test_renamed_and_moved_files_keep_their_vectors(world: World) -> None:
    world.image("a.png", "red")
    world.write("a.txt", "red thing")
    world.write("doc.md", "# Title\n\nwords")
    world.index()
    before = {r.id: r.vector for r in world.records().values()}
    (world.root / "sub").mkdir()
    for name, moved in (("a.png", "sub/b.png"), ("a.txt", "sub/b.txt"), ("doc.md", "sub/renamed.md")):
        (world.root / name).rename(world.root / moved)
    report = world.index()
    assert outcome(report) == {"found": 2, "renamed": 2}
    assert world.encoder.images == []
    assert world.encoder.texts == []
    after = world.records()
    assert {i: r.vector.tolist() for i, r in after.items()} == {i: v.tolist() for i, v in before.items()}
    assert {r.metadata["path"] for r in after.values()} == {"sub/b.png", "sub/renamed.md"}
    assert all("sub/" in r.uri for r in after.values())
    assert outcome(world.index()) == {"found": 2, "unchanged": 2}


def test_edited_image_replaces_its_old_records(world: World) -> None:
    world.image("a.png", "red")
    world.write("a.txt", "a caption")
    world.index()
    old = set(world.records())
    world.image("a.png", "blue", (50, 50))
    report = world.index()
    assert outcome(report) == {"found": 1, "indexed": 1}
    assert not old & set(world.records())
    assert (world.paths(), world.texts()) == (["a.png"], ["a caption"])


def test_edited_image_whose_old_content_lives_on_elsewhere_keeps_it(world: World) -> None:
    world.image("a.png", "red")
    world.image("b.png", "red")
    assert outcome(world.index()) == {"found": 2, "indexed": 1, "duplicates": 1}
    assert [r.metadata["path"] for r in world.records().values()] == [["a.png", "b.png"]]  # type: ignore[attr-defined]
    world.image("a.png", "blue")
    assert outcome(world.index()) == {"found": 2, "indexed": 1, "updated": 1}
    assert sorted(r.metadata["path"] for r in world.records().values()) == ["a.png", "b.png"]  # type: ignore[attr-defined]
    assert world.encoder.images == [(0, 0, 255)]


def test_edited_caption_updates_text_without_embedding_the_image(world: World) -> None:
    world.image("a.png")
    world.write("a.txt", "one\ntwo")
    world.index()
    world.write("a.txt", "one\nthree")
    report = world.index()
    assert outcome(report) == {"found": 1, "updated": 1}
    assert world.encoder.images == []
    assert world.encoder.texts == ["three"]
    assert world.texts() == ["one", "three"]
    image = next(r for r in world.records().values() if r.modality == "image")
    assert image.text == "one\nthree"
    (world.root / "a.txt").unlink()
    assert outcome(world.index()) == {"found": 1, "updated": 1}
    assert world.texts() == []
    assert next(iter(world.records().values())).text is None


def test_edited_metadata_updates_image_and_captions_without_embedding(world: World) -> None:
    world.image("a.png")
    world.write("captions.csv", "file,caption,year\na.png,hello,1990\n")
    world.index()
    world.write("captions.csv", "file,caption,year\na.png,hello,1991\n")
    assert outcome(world.index()) == {"found": 1, "updated": 1}
    assert (world.encoder.images, world.encoder.texts) == ([], [])
    assert [r.metadata["year"] for r in world.records().values()] == [1991, 1991]


def test_edited_document_replaces_its_passages(world: World) -> None:
    world.write("a.md", "# One\n\n" + "word " * 140 + "\n\n" + "other " * 140)
    assert world.index().texts == 2
    world.write("a.md", "# One\n\nshort")
    assert outcome(world.index()) == {"found": 1, "indexed": 1}
    assert world.texts() == ["short"]


def test_deleted_files_stay_until_pruned(world: World) -> None:
    world.image("keep.png", "red")
    world.image("gone.png", "blue")
    world.write("gone.txt", "caption one\ncaption two")
    world.write("gone.md", "words")
    world.index()
    for name in ("gone.png", "gone.txt", "gone.md"):
        (world.root / name).unlink()
    assert outcome(world.index()) == {"found": 1, "unchanged": 1, "missing": 2}
    assert world.backend.count("photos") == 5
    assert outcome(world.index(prune=True)) == {"found": 1, "unchanged": 1, "pruned": 2}
    assert world.backend.count("photos") == 1
    assert outcome(world.index(prune=True)) == {"found": 1, "unchanged": 1}


def test_prune_touches_only_its_own_source(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (9, 9), "green").save(other / "g.png")
    world.image("a.png")
    world.image("b.png", "blue")
    world.index()
    world.index(other)
    (world.root / "b.png").unlink()
    assert outcome(world.index(prune=True)) == {"found": 1, "unchanged": 1, "pruned": 1}
    assert world.paths() == ["a.png", "g.png"]


def test_prune_of_an_empty_source_is_refused_unless_meant(world: World) -> None:
    path = world.image("a.png")
    world.index()
    path.unlink()
    with pytest.raises(IndexingError, match="is the disk mounted"):
        world.index(prune=True)
    assert world.backend.count("photos") == 1
    assert outcome(world.index()) == {"missing": 1}
    assert outcome(world.index(prune=True, prune_empty=True)) == {"pruned": 1}
    assert world.backend.count("photos") == 0


def test_files_that_cannot_be_read_now_keep_what_is_stored(world: World) -> None:
    world.image("a.png")
    world.write("a.txt", "caption")
    world.image("b.png", "blue")
    world.index()
    world.write("a.png", b"\x89PNG broken")
    report = world.index(prune=True)
    assert [q.path for q in report.quarantined] == ["a.png"]
    assert outcome(report) == {"found": 2, "unchanged": 1}
    assert world.paths() == ["a.png", "b.png"]
    assert world.texts() == ["caption"]


def test_unreadable_folders_are_not_taken_for_deleted_ones(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.image("sub/a.png")
    world.image("b.png", "blue")
    world.index()
    scandir = os.scandir

    def refusing(path: os.PathLike[str]) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    # Not chmod: the superuser, who runs tests in containers, may read anything.
    monkeypatch.setattr(os, "scandir", refusing)
    report = world.index(prune=True)
    assert outcome(report) == {"found": 1, "unchanged": 1}
    assert [(q.path, q.reason) for q in report.quarantined] == [
        ("sub", "the folder is not readable: permission denied")
    ]
    assert world.paths() == ["b.png", "sub/a.png"]


def test_a_manifest_that_cannot_be_read_removes_nothing(world: World) -> None:
    world.image("a.png")
    world.write("x.bin", "?")
    world.write("captions.jsonl", '{"file": "a.png", "caption": "hello"}\n{"text": "a text item"}')
    world.index()
    world.write("captions.jsonl", b"\xff\xfe\xff")
    report = world.index(prune=True)
    assert [q.path for q in report.quarantined] == ["captions.jsonl"]
    assert world.texts() == ["a text item", "hello"]


def test_duplicates_give_one_record_with_all_paths(world: World) -> None:
    for path in ("b/1.png", "a/2.png", "a/1.png"):
        world.image(path)
    world.write("x.md", "same words")
    world.write("y.md", "same words")
    report = world.index()
    assert outcome(report) == {"found": 5, "indexed": 2, "duplicates": 3}
    assert len(world.records()) == 2
    assert world.paths() == ["a/1.png", "a/2.png", "b/1.png"]
    assert world.paths("text") == ["x.md", "y.md"]
    before = world.records()
    assert outcome(world.index()) == {"found": 5, "unchanged": 2, "duplicates": 3}
    assert world.records() == before


def test_an_existing_collection_of_another_encoder_is_refused_before_any_work(world: World) -> None:
    world.image("a.png")
    world.backend.create(CollectionSpec("photos", DIM, encoder="another/7"))
    with pytest.raises(IndexingError, match=r"'another/7'.*'counting/1'"):
        world.index()
    world.backend.drop("photos")
    world.backend.create(CollectionSpec("photos", 3, encoder="counting/1"))
    with pytest.raises(IndexingError, match=r"3 dimensions.*64 dimensions"):
        world.index()
    assert world.encoder.images == []
    assert not (world.ledger and world.ledger.exists())


def test_a_new_collection_gets_fingerprint_metric_and_index(world: World) -> None:
    world.image("a.png")
    world.index(metric="dot", index=IndexSpec("flat"))
    assert world.backend.describe("photos") == CollectionSpec("photos", DIM, "dot", "counting/1", IndexSpec("flat"))


def test_nothing_found_makes_no_collection(world: World) -> None:
    world.write("movie.mkv", "x")
    report = world.index()
    assert (report.found, report.ignored) == (0, 1)
    assert world.backend.collections() == []


def test_report_is_plain_json_and_adds_up(world: World) -> None:
    world.image("a.png")
    world.write("broken.jpg", "nope")
    plain = world.index().to_dict()
    assert plain["quarantined"][0]["path"] == "broken.jpg"
    assert set(plain["seconds"]) == {
        "list",
        "hash",
        "check",
        "decode",
        "encode",
        "upsert",
        "remove",
        "flush",
        "wall",
    }
    assert plain["found"] == plain["indexed"] + len(plain["quarantined"]) == 2
    assert plain["interrupted"] is False
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.index().found = 3  # type: ignore[misc]


def test_progress_counts_up_to_the_total(world: World) -> None:
    for number in range(20):
        world.image(f"{number:02}.png", (number, 1, 1))
    world.write("broken.png", "x")
    seen: list[Progress] = []
    world.index(progress=seen.append)
    assert seen[0].stage == "listing"
    assert seen[0].total is None
    last = seen[-1]
    assert (last.stage, last.done, last.total, last.quarantined, last.remaining_s) == ("done", 21, 21, 1, 0.0)
    assert [p.done for p in seen] == sorted(p.done for p in seen)


def test_results_do_not_depend_on_chance(world: World) -> None:
    for number in range(60):
        world.image(f"{number:02}.png", (number, 1, 1), (8 + number, 9))
        world.write(f"{number:02}.txt", f"caption {number}\nanother")
    runs = []
    for _ in range(2):
        world.backend = ExactBackend()
        world.index(batch_size=7, ledger=None)
        runs.append((world.records(), list(world.encoder.images), list(world.encoder.texts)))
    assert runs[0] == runs[1]


def test_the_last_source_to_index_a_file_owns_it(world: World) -> None:
    world.image("sub/a.png")
    world.index()
    assert outcome(world.index(world.root / "sub")) == {"found": 1, "renamed": 1}
    assert world.encoder.images == []
    assert world.paths() == ["a.png"]
    assert outcome(world.index()) == {"found": 1, "renamed": 1}
    assert world.paths() == ["sub/a.png"]


def test_a_single_file_is_a_source_of_its_own(world: World) -> None:
    path = world.image("a.png")
    assert outcome(world.index(path)) == {"found": 1, "indexed": 1}
    world.image("a.png", "blue")
    assert outcome(world.index(path)) == {"found": 1, "indexed": 1}
    assert world.backend.count("photos", Compare("source", "eq", str(path.resolve()))) == 1


def test_an_unavailable_backend_stops_the_run_and_a_rerun_resumes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        world.image(f"{number:02}.png", (number, 1, 1))
    upsert, calls = ExactBackend.upsert, []

    def failing(self: ExactBackend, name: str, records: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Unavailable("exact://nowhere does not answer: start it")
        upsert(self, name, records)  # type: ignore[arg-type]

    monkeypatch.setattr(ExactBackend, "upsert", failing)
    threads = threading.active_count()
    with pytest.raises(IndexingError, match="nowhere does not answer: start it; what was stored stays"):
        world.index(batch_size=5)
    assert threading.active_count() <= threads + 2  # idle decoders may still be ending
    assert world.backend.count("photos") == 10
    assert outcome(world.index(batch_size=5)) == {"found": 40, "indexed": 30, "unchanged": 10}


def test_a_ledger_that_is_none_is_refused_and_left_alone(world: World) -> None:
    image = world.image("a.png")
    before = image.read_bytes()
    with pytest.raises(IndexingError, match=r"ledger .* is not usable"):
        world.index(ledger=image)
    assert image.read_bytes() == before


def test_a_file_touched_just_before_it_was_read_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = time.time_ns()
    for module in ("files", "items"):
        monkeypatch.setattr(f"indexers.{module}.stamp_of", lambda status: Stamp(status.st_size, now_ns, now_ns, 1))
    path = world.image("a.bmp", "red")
    world.index()
    # Same size, same times as far as this coarse clock can tell: only distrust of fresh files helps.
    world.image("a.bmp", "blue")
    assert outcome(world.index()) == {"found": 1, "indexed": 1}
    monkeypatch.setattr("indexers.ledger.RACY_NS", 0)
    world.image("a.bmp", "green")
    assert outcome(world.index()) == {"found": 1, "unchanged": 1}
    assert path.exists()


def test_batches_are_bounded_by_decoded_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        world.image(f"{number}.png", (number, 0, 0), (100, 100))
    world.image("9.png", "white", (300, 300))
    monkeypatch.setattr("indexers.planner.MAX_BATCH_BYTES", 2 * 100 * 100 * 4)
    assert world.index().indexed == 7
    assert world.encoder.calls == [2, 2, 2, 1]


def test_only_jpegs_count_as_small_when_they_are_decoded_small(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.planner.MAX_BATCH_BYTES", 100 * 100 * 3)
    monkeypatch.setattr(CountingEncoder, "decode_size", 25, raising=False)
    for number in range(4):
        world.image(f"{number}.jpg", (number * 50, 0, 0), (100, 100))
        world.image(f"{number}.png", (number * 50, 0, 0), (100, 100))
    assert world.index().indexed == 8
    assert world.encoder.calls == [1] * 8
    world.backend.drop("photos")
    for path in world.root.glob("*.png"):
        path.unlink()
    world.index()
    assert world.encoder.calls == [4]


def test_a_lost_file_is_found_even_if_a_new_one_fails(world: World) -> None:
    world.image("a.png", "red")
    world.image("b.png", "blue")
    world.index()
    (world.root / "b.png").unlink()
    world.image("c.png", "green")
    # As many records as the source should have, but not the same ones.
    world.encoder.poison = (0, 128, 0)
    assert outcome(world.index(prune=True)) == {"found": 2, "unchanged": 1, "pruned": 1}
    assert world.paths() == ["a.png"]


def test_encoders_state_how_small_jpegs_may_be_decoded_and_how_long_passages_are(world: World) -> None:
    sizes: list[tuple[int, int]] = []

    class Small(CountingEncoder):
        decode_size, context_length = 50, 77

        def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
            sizes.extend(image.size for image in images)
            return super().encode_images(images)

    world.encoder = Small()
    world.image("a.jpg", "red", (800, 400))
    world.image("b.png", "red", (800, 400))
    world.write("c.txt", "word " * 100)
    assert world.index().indexed == 3
    assert sizes == [(100, 50), (800, 400)]
    assert [len(text.split()) for text in world.encoder.texts] == [53, 47]


def test_a_tighter_pixel_bound_holds_for_known_images_too(world: World, trusting: None) -> None:
    world.image("a.png", size=(40, 30))
    world.index()
    report = world.index(max_pixels=1000)
    (told,) = report.quarantined
    assert told.reason.startswith("has 40 x 30 pixels, more than the 1000 allowed: --max-pixels")
    assert world.paths() == ["a.png"]


def test_prune_forgets_lost_files_in_the_ledger(world: World) -> None:
    world.image("a.png")
    world.image("b.png", "blue")
    world.index()
    (world.root / "b.png").unlink()
    world.index(prune=True)
    assert world.ledger is not None
    with contextlib.closing(sqlite3.connect(world.ledger)) as ledger:
        assert ledger.execute("SELECT path FROM files").fetchall() == [(b"a.png",)]


def test_a_file_that_changes_while_it_is_indexed_is_quarantined(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = world.image("a.png", "red")
    get = ExactBackend.get

    def changing(self: ExactBackend, *arguments: Any, **options: Any) -> list[Record]:
        world.image("a.png", "blue")
        return get(self, *arguments, **options)

    # The backend is asked after hashing and before decoding.
    monkeypatch.setattr(ExactBackend, "get", changing)
    report = world.index()
    assert [(q.path, q.reason) for q in report.quarantined] == [
        ("a.png", "changed while it was being indexed: run again")
    ]
    assert world.records() == {}
    assert path.exists()


def test_records_that_an_engine_refuses_are_quarantined_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        world.image(f"{number}.png", (number, 0, 0))
    upsert = ExactBackend.upsert

    def picky(self: ExactBackend, name: str, records: list[Record]) -> None:
        if any(record.metadata["path"] == "2.png" for record in records):
            raise ValueError("this engine takes no twos")
        upsert(self, name, records)

    monkeypatch.setattr(ExactBackend, "upsert", picky)
    report = world.index()
    assert [(q.path, q.reason) for q in report.quarantined] == [("2.png", "this engine takes no twos")]
    assert world.paths() == ["0.png", "1.png", "3.png"]
