"""One picture at several places: one item with all of them, their captions and their names, found by each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backends import connect
from backends.base import Backend, Compare, Record
from indexers import index
from indexers.archive import export_collection, import_collection
from indexers.removing import remove
from indexers.transfer import copy
from retrieval.places import is_gone, place_fields, places_of, uris_of
from tests.support.counting_encoder import CountingEncoder

STORES = ["exact://", "faiss://{}", "qdrant-edge://{}", "milvus-lite://{}"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for album, name, caption in (("2024", "IMG_1.png", "sunrise in Lisbon"), ("Best of", "top.png", "my best one")):
        (folder / album).mkdir(parents=True)
        Image.new("RGB", (40, 40), "orange").save(folder / album / name)
        (folder / album / name).with_suffix(".txt").write_text(caption)
    Image.new("RGB", (30, 30), "navy").save(folder / "other.png")
    return folder


class Library:
    """A store, and words to index into it and to see what is there."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.encoder = backend, CountingEncoder()

    def index(self, folder: Path, **options: Any) -> Any:
        self.encoder.reset()
        return index(folder, self.backend, self.encoder, "photos", **options)

    def all(self) -> dict[str, Record]:
        return {r.id: r for page in self.backend.scan("photos") for r in page.records}

    def image(self) -> Record:
        (found,) = (r for r in self.all().values() if r.modality == "image" and r.metadata["width"] == 40)
        return found

    def captions(self) -> list[str]:
        return sorted(str(r.text) for r in self.all().values() if r.modality == "text")

    def holding(self, field: str, value: str) -> set[str]:
        ids = self.backend.search("photos", self.image().vector[None, :], 10, where=Compare(field, "eq", value))[0]  # type: ignore[index]
        return {hit.id for hit in ids}


@pytest.fixture
def library() -> Library:
    return Library(connect("exact://"))


@pytest.mark.parametrize("url", STORES)
def test_every_place_finds_the_one_item(url: str, photos: Path, tmp_path: Path) -> None:
    scheme = url.partition(":")[0]
    if scheme != "exact":
        pytest.importorskip({"faiss": "faiss", "qdrant-edge": "qdrant_edge", "milvus-lite": "milvus_lite"}[scheme])
    with connect(url.format(tmp_path / "store")) as backend:
        library = Library(backend)
        report = library.index(photos)
        assert (report.indexed, report.duplicates) == (2, 1)
        image = library.image()
        assert image.metadata["folder"] == ["2024", "Best of"]
        assert image.metadata["path"] == ["2024/IMG_1.png", "Best of/top.png"]
        assert image.metadata["source"] == str(photos.resolve())
        assert uris_of(image) == [(photos / path).resolve().as_uri() for path in image.metadata["path"]]
        assert image.text == "sunrise in Lisbon\nmy best one\ntop.png"
        assert library.captions() == ["my best one", "sunrise in Lisbon"]
        for field, value in (("folder", "2024"), ("folder", "Best of"), ("path", "Best of/top.png")):
            assert image.id in library.holding(field, value)
        for words in ("Lisbon", "best", "IMG_1", "top"):
            assert image.id in {hit.id for hit in backend.search_text("photos", words, 10)}
        before = library.all()
        again = library.index(photos)
        assert (again.unchanged, again.duplicates, again.updated) == (2, 1, 0)
        assert library.all() == before


def test_a_copy_in_another_library_is_the_same_item(library: Library, photos: Path, tmp_path: Path) -> None:
    library.index(photos)
    other = tmp_path / "another"
    other.mkdir()
    shutil.copy(photos / "2024" / "IMG_1.png", other / "x.png")
    (other / "x.txt").write_text("third words")
    assert library.index(other).updated == 1
    assert library.encoder.images == []
    image = library.image()
    assert [place.source for place in places_of(image)] == [str(other.resolve())] + [str(photos.resolve())] * 2
    assert image.text == "third words\nsunrise in Lisbon\nmy best one\nIMG_1.png\ntop.png"
    before = library.all()
    assert library.index(photos).updated == 0
    assert library.index(other).updated == 0
    assert library.all() == before
    (other / "x.png").unlink()
    (other / "x.txt").unlink()
    assert library.index(other, prune=True, prune_empty=True).pruned == 1
    assert library.image().text == "sunrise in Lisbon\nmy best one\ntop.png"
    assert library.captions() == ["my best one", "sunrise in Lisbon"]
    assert library.index(photos).unchanged == 2


@pytest.mark.parametrize("gone", ["2024", "Best of"])
def test_a_copy_that_is_gone_leaves_the_other_with_its_own_caption(library: Library, photos: Path, gone: str) -> None:
    library.index(photos)
    shutil.rmtree(photos / gone)
    report = library.index(photos)
    assert (report.updated, library.encoder.images, library.encoder.texts) == (1, [], [])
    fresh = Library(connect("exact://"))
    fresh.index(photos)
    assert library.all() == fresh.all()


def test_a_copy_that_is_added_later_joins_whichever_comes_first(library: Library, photos: Path) -> None:
    library.index(photos)
    for folder in ("0 first", "Z last"):
        (photos / folder).mkdir()
        shutil.copy(photos / "2024" / "IMG_1.png", photos / folder / "IMG_1.png")
        library.index(photos)
        assert library.encoder.images == []
        fresh = Library(connect("exact://"))
        fresh.index(photos)
        assert library.all() == fresh.all()
    assert library.image().metadata["folder"] == ["0 first", "2024", "Best of", "Z last"]


def test_many_captions_of_a_manifest_add_up_and_fields_are_joined(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 40), "orange").save(folder / name)
    (folder / "captions.jsonl").write_text(
        '{"file": "a.png", "caption": "one", "tags": ["x"], "year": 1990}\n'
        '{"file": "b.png", "caption": "two", "tags": ["y"], "year": 1991, "place": "Rome"}\n'
    )
    library.index(folder)
    metadata = library.image().metadata
    assert (metadata["tags"], metadata["year"], metadata["place"]) == (["x", "y"], 1990, "Rome")
    assert library.image().text == "one\ntwo\nb.png"


def test_copies_outlive_copying_exporting_and_importing(library: Library, photos: Path, tmp_path: Path) -> None:
    library.index(photos)
    with connect(f"faiss://{tmp_path / 'copied'}") as target, connect("exact://") as third:
        copy(library.backend, "photos", target)
        export_collection(target, "photos", tmp_path / "archive")
        import_collection(tmp_path / "archive", third)
        assert {r.id: r.metadata for page in third.scan("photos") for r in page.records} == {
            record_id: record.metadata for record_id, record in library.all().items()
        }
        moved = Library(third)
        assert moved.index(photos).unchanged == 2


def test_an_item_with_very_many_copies_can_still_be_stored(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    Image.new("RGB", (40, 40), "orange").save(folder / "0000.png")
    for number in range(1, 300):
        shutil.copy(folder / "0000.png", folder / f"{number:04d}.png")
    report = library.index(folder)
    assert (report.indexed, report.duplicates, report.quarantined) == (1, 299, [])
    assert 100 <= len(places_of(library.image())) <= 200
    assert library.index(folder).updated == 0


def test_somebody_elses_field_of_that_name_is_no_place() -> None:
    record = Record("a", None, uri="file:///a.png", metadata={"places": ["Rome", "Paris"]})
    assert uris_of(record) == ["file:///a.png"]
    assert place_fields([]) == (None, {})


def test_a_file_is_gone_when_none_of_its_places_is_there(photos: Path, library: Library) -> None:
    library.index(photos)
    image = library.image()
    assert not is_gone(image)
    (photos / "2024" / "IMG_1.png").unlink()
    assert not is_gone(image)
    (photos / "Best of" / "top.png").unlink()
    assert is_gone(image)
    assert not is_gone(Record("web", None, uri="https://example.org/a.png"))
    assert not is_gone(Record("words", None, "text", "words"))


def test_removing_by_path_takes_a_copy_and_leaves_the_other(library: Library, photos: Path) -> None:
    library.index(photos)
    dry = remove(library.backend, "photos", path=photos / "2024", dry_run=True)
    assert dry.to_dict() == {"items": 0, "captions": 1, "kept_elsewhere": 1}
    assert library.captions() == ["my best one", "sunrise in Lisbon"]
    assert remove(library.backend, "photos", path=photos / "2024") == dry
    image = library.image()
    assert (image.metadata["path"], image.metadata["folder"], image.text) == (
        "Best of/top.png",
        "Best of",
        "my best one",
    )
    assert image.vector is not None
    assert library.captions() == ["my best one"]
    assert remove(library.backend, "photos", path=photos).to_dict() == {"items": 2, "captions": 1, "kept_elsewhere": 0}
    assert library.all() == {}


def test_what_stays_elsewhere_is_counted_without_its_captions(library: Library, photos: Path) -> None:
    for name in ("2024/IMG_1.txt", "Best of/top.txt"):
        (photos / name).write_text("the same words")
    library.index(photos)
    report = remove(library.backend, "photos", path=photos / "Best of")
    assert report.to_dict() == {"items": 0, "captions": 0, "kept_elsewhere": 1}
    assert library.captions() == ["the same words"]


def test_removing_by_id_and_by_filter_takes_captions_along(library: Library, photos: Path) -> None:
    library.index(photos)
    picture = library.image().id
    removed = remove(library.backend, "photos", ids=[picture, "not there"])
    assert removed.to_dict() == {"items": 1, "captions": 2, "kept_elsewhere": 0}
    assert len(library.all()) == 1
    assert remove(library.backend, "photos", where={"width": 30}).items == 1
    assert library.all() == {}


@pytest.mark.parametrize("choice", [{}, {"ids": ["a"], "path": "b"}, {"where": {}}, {"ids": "abc"}, {"path": ""}])
def test_removing_needs_one_choice_that_leaves_something_out(
    library: Library, photos: Path, choice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.index(photos)
    monkeypatch.chdir(photos)
    with pytest.raises(ValueError, match=r"exactly one|every item|list of strings|no empty path"):
        remove(library.backend, "photos", **choice)
    assert len(library.all()) == 4
