"""A collection gets another encoder while it is searched: nothing is lost or half, and it can be broken off."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import backends
from backends.base import CollectionSpec, Record
from backends.wrappers import aliases
from backends.wrappers.aliases import Aliased, with_aliases
from indexers import IndexingError
from indexers.reindex import reindex
from indexers.report import Stopped
from retrieval.encoders.base import ImageInput
from tests.support.cli import paint
from tests.support.reindexing import Turned, add
from tests.support.toy import PALETTE, ColourEncoder


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture(autouse=True)
def _noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "SEEN_S", 0.0)


@pytest.fixture
def backend(encoder: ColourEncoder, tmp_path: Path) -> Aliased:
    """The collection ``c``: a picture and its caption for each colour."""
    store = with_aliases(backends.connect("exact://"))
    store.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    for colour in PALETTE:
        add(store, encoder, tmp_path, colour)
    return store


def payloads(store: Aliased, name: str) -> list[tuple[object, ...]]:
    records = [record for page in store.scan(name, with_vectors=False) for record in page.records]
    return sorted((r.id, r.modality, r.text, r.uri, sorted(r.metadata.items())) for r in records)


def best(store: Aliased, encoder: ColourEncoder, text: str, name: str = "c") -> str:
    return store.search(name, encoder.encode_texts([text]), 1)[0][0].id


def test_all_is_encoded_anew_compared_and_switched(backend: Aliased) -> None:
    before = payloads(backend, "c")
    report = reindex(backend, "c", Turned())
    assert (report.encoded, report.there, report.failed, report.switched) == (16, 0, [], True)
    assert backend.describe("c").encoder == "turned:1"
    assert payloads(backend, "c") == payloads(backend, "c-before") == before
    assert best(backend, Turned(), "a red one") in ("img-red", "cap-red")
    assert best(backend, ColourEncoder(), "a red one", "c-before") in ("img-red", "cap-red")
    comparison = report.comparison
    assert comparison is not None
    assert (comparison.captions, comparison.first, comparison.in_ten) == (8, (100.0, 100.0), (100.0, 100.0))
    assert (comparison.neighbours, comparison.same_neighbours) == (8, 100.0)


def test_a_worse_encoder_shows_in_the_comparison(backend: Aliased) -> None:
    class Worse(Turned):
        def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
            return np.roll(super().encode_images(images), 1, axis=1)

    comparison = reindex(backend, "c", Worse(), switch=False).comparison
    assert comparison is not None
    assert comparison.first is not None
    assert comparison.first[0] == 100.0
    assert comparison.first[1] < 50


def test_it_is_compared_and_not_switched_where_that_is_asked(backend: Aliased) -> None:
    report = reindex(backend, "c", Turned(), switch=False)
    assert (report.switched, report.before) == (False, None)
    assert backend.describe("c").encoder == "toy:1"
    again = reindex(backend, "c", Turned())
    assert (again.encoded, again.there, again.switched) == (0, 16, True)


def test_broken_off_it_goes_on_where_it_was(backend: Aliased) -> None:
    class Counting(Turned):
        def __init__(self, stop: threading.Event) -> None:
            super().__init__()
            self.stop = stop

        def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
            self.stop.set()
            return super().encode_texts(texts)

    stop = threading.Event()
    with pytest.raises(Stopped):
        reindex(backend, "c", Counting(stop), stop=stop)
    assert backend.describe("c").encoder == "toy:1"
    second = Turned()
    report = reindex(backend, "c", second)
    assert report.there == 16
    assert (second.images, second.texts) == (0, 0)
    assert report.switched


def test_a_picture_that_is_gone_holds_the_switch_up(backend: Aliased, tmp_path: Path) -> None:
    (tmp_path / "red.png").unlink()
    report = reindex(backend, "c", Turned())
    assert [item.path for item in report.failed] == ["red.png"]
    assert not report.switched
    assert backend.describe("c").encoder == "toy:1"
    paint(tmp_path / "red.png", "red")
    assert reindex(backend, "c", Turned()).encoded == 1
    assert backend.count("c") == 16


def test_items_that_cannot_be_encoded_are_left_out_where_that_is_allowed(backend: Aliased, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(b"no picture any more")
    report = reindex(backend, "c", Turned(), allow_failed=True)
    assert report.switched
    assert (backend.count("c"), backend.count("c-before")) == (15, 16)


def test_what_is_written_and_deleted_meanwhile_is_carried_over(backend: Aliased, tmp_path: Path) -> None:
    class Busy(Turned):
        rounds = 0

        def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
            self.rounds += 1
            if self.rounds == 1:
                paint(tmp_path / "late.png", "red")
                add_late()
                backend.delete("c", ids=["img-blue", "cap-blue"])
            return super().encode_images(images)

    def add_late() -> None:
        record = backend.get("c", ["img-red"], with_vectors=True)[0]
        backend.upsert("c", [replace(record, id="late", uri=(tmp_path / "late.png").as_uri())])

    reindex(backend, "c", Busy())
    assert payloads(backend, "c") == payloads(backend, "c-before")
    assert backend.get("c", ["late", "img-blue"])[0].id == "late"
    assert backend.count("c") == 15


def test_after_the_switch_both_names_are_written_to_and_nothing_is_undone(
    backend: Aliased, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, pauses = Turned(), []

    def text_record(name: str, text: str, *, by: ColourEncoder) -> Record:
        return Record(name, by.encode_texts([text])[0], "text", text)

    def meanwhile(seconds: float) -> None:
        pauses.append(seconds)
        # By the new name.
        backend.delete("c", ids=["cap-blue"])
        backend.upsert("c", [text_record(name, "green", by=new) for name in ("cap-red", "both", "new")])
        # By one who has not noticed the switch.
        backend.delete("c-before", ids=["cap-green", "cap-red"])
        backend.upsert("c-before", [text_record(name, "white", by=ColourEncoder()) for name in ("both", "late")])

    monkeypatch.setattr(aliases, "SEEN_S", 1.5)
    # Its own alone: others sleep as well.
    monkeypatch.setattr("indexers.reindex.time", SimpleNamespace(sleep=meanwhile, perf_counter=time.perf_counter))
    reindex(backend, "c", new)
    assert pauses == [1.5], "others take so long to notice"
    ids = ["cap-blue", "cap-green", "cap-red", "both", "new", "late"]
    assert {record.id: record.text for record in backend.get("c", ids)} == {
        "cap-red": "green",
        "both": "green",
        "new": "green",
        "late": "white",
    }
    assert best(backend, new, "a white one") in ("img-white", "cap-white", "late")


def test_searches_go_on_and_find_all_while_it_runs(backend: Aliased) -> None:
    from retrieval.search.retriever import Retriever

    old, new = ColourEncoder(), Turned()
    searching = Retriever(backend, old, "c", calibrate=False)
    failed: list[object] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            found = searching.search("a red one", 1, modality="image")
            if [hit.id for hit in found] != ["img-red"]:
                failed.append(found)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        reindex(backend, "c", new)
    finally:
        stop.set()
        thread.join()
    assert not failed
    assert searching.outdated
    assert [hit.id for hit in searching.search("a red one", 1, modality="image")] == ["img-red"]
    fresh = Retriever(backend, new, "c", calibrate=False)
    assert not fresh.outdated
    assert [hit.id for hit in fresh.search("a red one", 1, modality="image")] == ["img-red"]


def test_the_same_encoder_and_one_too_many_are_refused(backend: Aliased) -> None:
    with pytest.raises(IndexingError, match="of the encoder toy already"):
        reindex(backend, "c", ColourEncoder())
    reindex(backend, "c", Turned())
    with pytest.raises(IndexingError, match="sightline drop c-before"):
        reindex(backend, "c", ColourEncoder())
    backend.drop("c-before")
    assert reindex(backend, "c", ColourEncoder()).switched
    assert backend.describe("c").encoder == "toy:1"
    assert backend.collections() == ["c", "c-before"]


def test_what_a_switch_broken_off_half_way_has_left_is_finished(backend: Aliased) -> None:
    before = payloads(backend, "c")
    reindex(backend, "c", Turned(), switch=False)
    # The first half of a switch, on an engine that stores one record after another.
    backend.point({"c-before": "c"})
    assert reindex(backend, "c", Turned()).switched
    assert payloads(backend, "c") == payloads(backend, "c-before") == before
    assert (backend.describe("c").encoder, backend.describe("c-before").encoder) == ("turned:1", "toy:1")


def test_a_text_that_has_no_vector_may_get_one(backend: Aliased) -> None:
    from backends.base import NO_VECTOR

    backend.upsert("c", [Record("unread", NO_VECTOR, "text", "red")])
    reindex(backend, "c", Turned())
    assert backend.get("c", ["unread"], with_vectors=True)[0].has_vector


def test_pages_and_copies_are_read_from_where_they_are(backend: Aliased, tmp_path: Path) -> None:
    pages = [Image.new("RGB", (48, 32), PALETTE[colour]) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    scan, gone = (tmp_path / "scan.tif").as_uri(), (tmp_path / "gone.png").as_uri()
    kept = paint(tmp_path / "kept.png", "green").as_uri()
    vector = ColourEncoder().encode_texts(["black"])[0]
    backend.upsert(
        "c",
        [
            Record("page", vector, "image", None, f"{scan}#page=2"),
            Record("copy", vector, "image", None, gone, {"places": [gone, kept], "path": ["gone.png", "kept.png"]}),
        ],
    )
    assert reindex(backend, "c", Turned()).switched
    found = {record.id: record.vector for record in backend.get("c", ["page", "copy"], with_vectors=True)}
    blue, green = Turned().encode_images([pages[1], tmp_path / "kept.png"])
    np.testing.assert_allclose([found["page"], found["copy"]], [blue, green], atol=1e-6)
