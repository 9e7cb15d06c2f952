"""A folder of 66 files as people have it, and the whole report of its index run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.base import Record
from backends.exact.backend import ExactBackend
from indexers import IndexingError, IndexReport, Options, index, open_source
from indexers.kinds import HEAD_BYTES, recognise
from indexers.litter import litter
from retrieval.places import places_of
from tests.support.counting_encoder import CountingEncoder
from tests.support.folders import jpeg, make_folder


def indexed(folder: Path, **options: Any) -> tuple[IndexReport, dict[str, Record]]:
    """The report, and the images by their first path and page."""
    backend = ExactBackend()
    report = index(open_source(folder, options=Options(**options)), backend, CountingEncoder(), "c")
    records = [record for page in backend.scan("c") for record in page.records if record.modality == "image"]
    page = {record.id: f"#{n}" if (n := record.metadata.get("page", 1)) != 1 else "" for record in records}
    return report, {f"{places_of(record)[0].path}{page[record.id]}": record for record in records}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[IndexReport, dict[str, Record]]:
    root = tmp_path_factory.mktemp("library")
    assert make_folder(root) == 66
    return indexed(root)


def test_all_is_counted(found: tuple[IndexReport, dict[str, Record]]) -> None:
    report, images = found
    counts = {name: value for name, value in report.to_dict().items() if isinstance(value, int) and value}
    assert counts == {"found": 34, "indexed": 31, "duplicates": 1, "ignored": 8, "images": 27, "texts": 16}
    assert len(images) == 27
    assert report.found == report.indexed + report.duplicates + 2  # half.jpg and page.jpg


def test_what_is_no_picture_is_skipped_with_its_reason(found: tuple[IndexReport, dict[str, Record]]) -> None:
    assert {item.path: item.reason for item in found[0].quarantined} == {
        "photos/half.jpg": "is truncated: 80% of it are missing",
        "photos/page.jpg": "is no picture: its content is that of web pages",
        "set/captions.csv:4": "is not a table row: unexpected end of data",
        "xmp/bomb.xmp": "the sidecar file has XML entities or a document type, which are not read",
    }


def test_what_is_taken_all_the_same_is_told(found: tuple[IndexReport, dict[str, Record]]) -> None:
    assert {item.path: item.reason for item in found[0].notes} == {
        "names/scan.TXT": "read as CP1252, which was guessed: --encoding names another",
        "names/twin.txt": "is not taken for what is said of TWIN.jpg or Twin.jpg: call it after one of them exactly",
        "photos/cut.jpg": "its end is missing: taken as far as it goes",
        "photos/moving.gif": "it is an animation: its first frame is taken",
    }


def test_what_is_not_read_is_told_by_kind_and_listed(found: tuple[IndexReport, dict[str, Record]]) -> None:
    report, _ = found
    assert [row.told() for row in report.not_read if row.is_litter] == [
        "2 deleted files (#recycle, $RECYCLE.BIN)",
        "1 excluded file (.jpg)",
        "1 file of Windows",
        "3 files of macOS (__MACOSX)",
        "1 hidden file",
        "1 preview of photo programs (Lightroom Previews.lrdata)",
        "1 remain of disk repairs (lost+found)",
        "2 thumbnails of a NAS (@eaDir)",
    ]
    assert [row.told() for row in report.not_read if not row.is_litter] == [
        "1 SVG drawing (.svg): export them as PNG",
        "1 archive (.zip): unpack them",
        "1 camera raw (.nef): export them as JPEG",
        "1 file of unknown kinds (.xyz)",
        "1 office document (.pages)",
        "1 sidecar without a picture (.xmp)",
        "1 sound file (.mp3)",
        "2 tables and data (.csv, .json)",
    ]
    plain = {row["what"]: row for row in report.to_dict()["not_read"]}
    assert plain["tables and data"]["paths"] == ["docs/data.json", "odd/metadata.csv"]
    assert plain["thumbnails of a NAS"]["paths"] == ["photos/@eaDir"]


def test_pictures_are_found_by_content_and_words_by_name(found: tuple[IndexReport, dict[str, Record]]) -> None:
    _, images = found
    for path in (
        "photos/no ending",
        "photos/tweet.jpg_large",
        "photos/wrong.txt",
        "photos/scan.tif#3",
        "private/kept.jpg",
    ):
        assert path in images
    words = {path.rpartition("/")[2]: image.text for path, image in images.items() if image.text}
    assert words == {
        "Mu\u0308ller.png": "Anna on the beach",
        "SCAN.JPG": "Rechnung der Gärtnerei",
        "a.jpg": "beside the whole name",
        "boat.jpg": "A boat",
        "cup.jpg": "same cup.jpg",
        "b.jpg": "A ship",
        "IMG.jpg": "Lena sails",
        "IMG(1).jpg": "the second",
        "IMG_2020(1).jpg": "supplemented",
        "A long name of a photograph that was taken near the harbour.jpg": "cut short",
        "x.png": "of the table",
        "y.png": "read on",
        "z.png": "of a data set",
    }


def test_sidecars_give_fields(found: tuple[IndexReport, dict[str, Record]]) -> None:
    _, images = found
    boat, lena = images["xmp/boat.jpg"].metadata, images["takeout/IMG.jpg"].metadata
    assert (boat["tags"], boat["rating"]) == (["harbour", "evening"], 4)
    assert (boat["latitude"], boat["longitude"]) == (52.525, -13.405)
    assert (lena["people"], lena["taken"]) == (["Lena"], "2017-07-14T02:40:00+00:00")
    assert (lena["latitude"], lena["longitude"]) == (53.5, 9.9)


def test_patterns_leave_out_and_take_in(tmp_path: Path) -> None:
    for number, path in enumerate(
        ("a.jpg", "b.png.jpg", "trip/c.jpg", "trip/@eaDir/d.jpg", ".hidden/e.jpg", "old/f.jpg")
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(jpeg(number))
    assert set(indexed(tmp_path)[1]) == {"a.jpg", "b.png.jpg", "trip/c.jpg", "old/f.jpg"}
    report, images = indexed(tmp_path, exclude=("/old/", "*.png.jpg"), include=("@eaDir", ".hidden/"))
    assert set(images) == {"a.jpg", "trip/c.jpg", "trip/@eaDir/d.jpg", ".hidden/e.jpg"}
    assert [row.told() for row in report.not_read] == ["2 excluded files (.jpg, old)"]
    assert set(indexed(tmp_path, exclude=("*.jpg",), include=("c.jpg",))[1]) == {"trip/c.jpg"}
    (tmp_path / ".sightlineignore").write_text("# mine\n*.jpg\n!trip/\n")
    (tmp_path / "trip" / ".sightlineignore").write_text("!c.jpg\n")
    assert set(indexed(tmp_path)[1]) == {"trip/c.jpg"}
    assert set(indexed(tmp_path, include=("a.jpg",))[1]) == {"a.jpg", "trip/c.jpg"}
    with pytest.raises(IndexingError, match="take patterns as"):
        open_source(tmp_path, options=Options(exclude=("!",)))


def test_a_folder_whose_rules_cannot_be_read_is_left_out_and_keeps_what_is_stored(tmp_path: Path) -> None:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(jpeg(len(name)))
    (tmp_path / "closed" / ".sightlineignore").write_bytes(b"a\x00b")
    report, images = indexed(tmp_path)
    assert set(images) == {"open/a.jpg"}
    (told,) = report.quarantined
    assert told.path == "closed"
    assert told.reason.startswith("the folder is left out, as its .sightlineignore holds NUL")


@pytest.mark.parametrize(
    ("name", "is_litter"), [("#snapshot", True), ("~snapshot", True), (".snapshot", True), ("Snapshot", False)]
)
def test_a_nas_marks_its_snapshots_and_people_have_folders_of_that_name(name: str, is_litter: bool) -> None:
    assert (litter(name) is not None) is is_litter


def test_a_page_is_known_behind_comments_and_many_of_them_take_no_time() -> None:
    assert recognise(b"<!-- a -- b -->\n" * 4 + b"<html>", "x").name == "page"
    assert recognise(b"<!---->" * 4 + b"<svg>", "x").name == "svg"
    # To try each way to read these as four took minutes.
    assert recognise((b"<!---->" * HEAD_BYTES)[:HEAD_BYTES], "x").name == "document"
