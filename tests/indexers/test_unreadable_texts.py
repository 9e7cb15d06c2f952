"""Texts that the encoder cannot read: counted, stored for keyword search alone, and carried by every copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends import connect
from backends.base import NO_VECTOR, Backend, Record
from backends.exact.backend import ExactBackend
from indexers import IndexReport, index
from indexers.archive import export_collection, import_collection
from indexers.transfer import copy
from tests.support.readers import LatinReader

CAT, COFFEE = "แมวสีดำนอนอยู่บนโซฟา", "กาแฟร้อนหนึ่งแก้ว"


@pytest.fixture(params=["exact", "faiss"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with connect("exact://" if request.param == "exact" else f"faiss://{tmp_path}/store") as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two pictures with Thai captions, one of them with an English one too, and a Thai and an English note."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, colour, captions in (("a", "red", f"{CAT}\na black cat\n"), ("b", "green", f"{COFFEE}\n")):
        Image.new("RGB", (12, 8), colour).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(captions, encoding="utf-8")
    (folder / "note1.md").write_text("สัญญาเช่าท่าเรือสิ้นสุดในเดือนพฤษภาคม\n", encoding="utf-8")
    (folder / "note2.md").write_text("# Bread\n\nFlour and water.\n", encoding="utf-8")
    return folder


def records(backend: Backend) -> dict[str | None, Record]:
    found = [record for page in backend.scan("c") for record in page.records]
    return {record.text: record for record in found if record.modality == "text"}


def test_they_are_counted_and_stored_without_a_vector(backend: Backend, source: Path) -> None:
    encoder = LatinReader()
    report = index(source, backend, encoder, "c")
    assert (report.indexed, report.quarantined) == (4, [])
    assert (report.images, report.texts, report.unreadable) == (2, 5, 3)
    assert report.to_dict()["unreadable"] == 3
    found = records(backend)
    assert {CAT, COFFEE} < {text for text, record in found.items() if not record.has_vector}
    assert {text for text, record in found.items() if record.has_vector} == {"a black cat", "Flour and water."}
    assert found[CAT].vector is not None
    assert found[CAT].vector.shape == (0,)
    hits = backend.search("c", encoder.encode_texts(["a black cat"]), 50)[0]
    assert {hit.text for hit in hits if hit.modality == "text"} == {"a black cat", "Flour and water."}
    assert len(hits) == 4


def test_a_rerun_encodes_nothing_and_a_moved_file_keeps_having_none(backend: Backend, source: Path) -> None:
    encoder = LatinReader()
    index(source, backend, encoder, "c")
    before = encoder.texts
    again = index(source, backend, encoder, "c")
    assert (again.unchanged, again.unreadable, encoder.texts) == (4, 0, before)
    (source / "below").mkdir()
    for name in ("a.png", "a.txt", "note1.md"):
        (source / name).rename(source / "below" / name)
    moved = index(source, backend, encoder, "c")
    assert (moved.renamed + moved.indexed, encoder.texts) == (2, before)
    assert not records(backend)[CAT].has_vector


def test_a_picture_of_zeros_is_still_a_fault(source: Path) -> None:
    class Blind(LatinReader):
        def encode_images(self, images: object) -> np.ndarray:  # type: ignore[override, type-arg]
            return np.zeros((len(list(images)), self.dim), dtype=np.float32)  # type: ignore[call-overload]

    report = index(source, ExactBackend(), Blind(), "c")
    assert {item.path for item in report.quarantined} == {"a.png", "b.png"}
    assert "a vector of zeros" in report.quarantined[0].reason


def test_copies_and_archives_carry_them(backend: Backend, source: Path, tmp_path: Path) -> None:
    index(source, backend, LatinReader(), "c")
    wanted = records(backend)
    target = connect("exact://")
    report = copy(backend, "c", target)
    assert report.written == backend.count("c")
    assert report.parity is not None
    assert copy(backend, "c", target).unchanged == report.written
    export_collection(backend, "c", tmp_path / "archive")
    restored = connect("exact://")
    import_collection(tmp_path / "archive", restored)
    for other in (target, restored):
        got = records(other)
        assert {text: record.has_vector for text, record in got.items()} == {
            text: record.has_vector for text, record in wanted.items()
        }
        assert all(np.allclose(got[text].vector, wanted[text].vector) for text in wanted)  # type: ignore[arg-type]


def test_a_copy_notices_that_a_vector_came_or_went(source: Path) -> None:
    mine, theirs = ExactBackend(), ExactBackend()
    index(source, mine, LatinReader(), "c")
    copy(mine, "c", theirs)
    record = records(mine)[CAT]
    vector = LatinReader().encode_texts(["x"])[0]
    for there, other in ((theirs, vector), (mine, vector), (mine, NO_VECTOR)):
        there.upsert("c", [Record(record.id, other, "text", record.text, record.uri, record.metadata)])
        assert copy(mine, "c", theirs).written in (0, 1)
        assert records(theirs)[CAT].has_vector == records(mine)[CAT].has_vector


def test_an_archive_of_such_texts_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text(CAT, encoding="utf-8")
    backend, restored = ExactBackend(), ExactBackend()
    report: IndexReport = index(tmp_path / "notes", backend, LatinReader(), "c")
    assert report.unreadable == 1
    export_collection(backend, "c", tmp_path / "archive")
    import_collection(tmp_path / "archive", restored)
    assert [record.has_vector for record in records(restored).values()] == [False]
