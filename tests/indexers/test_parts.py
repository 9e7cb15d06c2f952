"""Pictures that are more or less than one: pages of a TIFF, animations, JPEGs without their end; and large ones."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from PIL import Image

from app.cli.output import place
from app.cli.results_page import make_thumbnail
from backends.base import Record
from backends.exact.backend import ExactBackend
from indexers import IndexReport, index
from indexers.photos import read_photo
from retrieval.chat.budget import prepare_picture
from retrieval.images.decode import ImageError, TooManyPixels, load_image, open_image
from retrieval.images.parts import Located, PartOfFile, located, part_of, with_part
from tests.support.counting_encoder import CountingEncoder
from tests.support.service import served
from tests.support.toy import ColourEncoder

Index = tuple[IndexReport, list[Record]]


def tiff(*colours: str, **options: object) -> bytes:
    pages = [Image.new("RGB", (40 + 10 * n, 30), colour) for n, colour in enumerate(colours)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], **options)
    return buffer.getvalue()


def jpeg(**options: object) -> bytes:
    chance = random.Random(7)
    image = Image.frombytes("RGB", (40, 30), chance.randbytes(3600)).resize((400, 300))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def indexed(folder: Path, store: ExactBackend, **options: object) -> Index:
    report = index(folder, store, CountingEncoder(), "c", ledger=folder.parent / "ledger", **options)  # type: ignore[arg-type]
    return report, [record for page in store.scan("c") for record in page.records]


def test_each_page_of_a_tiff_is_an_item_that_its_address_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.ledger.RACY_NS", -(10**18))
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "scan #1.tif").write_bytes(tiff("red", "blue", "lime"))
    (folder / "scan #1.txt").write_text("three colours")
    store = ExactBackend()
    report, records = indexed(folder, store)
    assert (report.found, report.indexed, report.images, report.texts, report.quarantined) == (3, 3, 3, 1, [])
    pages = {record.metadata["page"]: record for record in records if record.modality == "image"}
    assert [pages[n].metadata["width"] for n in (1, 2, 3)] == [40, 50, 60]
    assert {record.metadata["pages"] for record in pages.values()} == {3}
    assert {record.metadata["path"] for record in pages.values()} == {"scan #1.tif"}
    assert (pages[1].text, pages[2].text) == ("three colours", None)
    uri = (folder.resolve() / "scan #1.tif").as_uri()
    assert [pages[n].uri for n in (1, 2, 3)] == [uri, f"{uri}#page=2", f"{uri}#page=3"]
    assert place(pages[2].uri).endswith("scan #1.tif#page=2")
    opened = located(pages[2].uri)
    assert opened == Located(folder.resolve() / "scan #1.tif", "page=2")
    assert load_image(opened).getpixel((0, 0)) == (0, 0, 255)
    assert prepare_picture(opened, 200, 100_000).width == 50
    thumbnail = make_thumbnail(opened, 32)
    assert thumbnail is not None
    assert thumbnail.ratio == pytest.approx(50 / 30, abs=0.05)
    again, _ = indexed(folder, store)
    assert (again.found, again.unchanged, again.images) == (3, 3, 0)
    (folder / "scan #1.tif").write_bytes(tiff("red", "blue"))
    less, records = indexed(folder, store)
    assert less.indexed == 2
    assert len([record for record in records if record.modality == "image"]) == 2


def test_pages_of_what_a_tiff_was_before_do_not_stay(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "scans"
    folder.mkdir(parents=True)
    store = ExactBackend()
    (folder / "scan.tif").write_bytes(tiff("red", "blue", "lime"))
    indexed(folder.parent, store)
    (folder / "scan.tif").write_bytes(tiff("white", "black"))
    report, records = indexed(folder, store)
    assert (report.indexed, report.missing, len(records)) == (2, 0, 2)
    (folder / "scan.tif").write_bytes(tiff("white"))
    report, records = indexed(folder, store)
    assert (report.missing, [record.uri for record in records]) == (0, [(folder / "scan.tif").resolve().as_uri()])


def test_the_service_shows_a_page(tmp_path: Path) -> None:
    folder, store = tmp_path / "photos", ExactBackend()
    folder.mkdir()
    (folder / "scan.tif").write_bytes(tiff("red", "blue"))
    index(folder, store, ColourEncoder(), "c")
    second = next(r.id for page in store.scan("c") for r in page.records if r.metadata["page"] == 2)
    with served(store, tmp_path / "home") as client:
        shown = client.get(f"/v1/items/{second}/image", params={"size": 160})
        assert shown.status_code == 200, shown.text
        with Image.open(io.BytesIO(shown.content)) as image:
            red, _, blue = image.convert("RGB").getpixel((5, 5))  # type: ignore[misc]
    assert blue > 200 > 60 > red


def test_smaller_copies_and_masks_in_a_tiff_are_no_pages() -> None:
    pages = [Image.new("RGB", (40, 30), "red"), Image.new("RGB", (20, 15), "red")]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=[pages[1]], tiffinfo={254: 1})
    photo = read_photo(buffer.getvalue())
    assert photo.pages == ()
    assert "pages" not in photo.facts


def test_pages_are_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.photos.MAX_PAGES", 3)
    photo = read_photo(tiff("red", "blue", "lime", "black", "white"))
    assert [part for part, _, _ in photo.pages] == ["page=2", "page=3"]
    assert photo.notes == ("it has more than 3 pages: the first 3 are taken",)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_one_item_and_said(tmp_path: Path, file_format: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    folder = tmp_path / "photos"
    folder.mkdir()
    frames[0].save(folder / f"a.{file_format}", file_format, save_all=True, append_images=frames[1:])
    report, records = indexed(folder, ExactBackend())
    assert len(records) == 1
    assert [(note.path, note.reason) for note in report.notes] == [
        (f"a.{file_format}", "it is an animation: its first frame is taken")
    ]
    assert report.to_dict()["notes"][0]["path"] == f"a.{file_format}"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_only_its_end_is_taken_with_a_note(tmp_path: Path, progressive: bool) -> None:
    data = jpeg(progressive=progressive)
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cut.jpg").write_bytes(data[: len(data) * 9 // 10])
    (folder / "without mark.jpg").write_bytes(data[:-2])
    report, records = indexed(folder, ExactBackend())
    assert (len(records), report.quarantined) == (2, [])
    assert {note.path for note in report.notes} == {"cut.jpg", "without mark.jpg"}
    assert {note.reason for note in report.notes} == {"its end is missing: taken as far as it goes"}
    whole, cut = load_image(data), load_image(data[: len(data) * 9 // 10])
    if not progressive:
        upper = (0, 0, 400, 240)
        assert whole.crop(upper).tobytes() == cut.crop(upper).tobytes()


@pytest.mark.parametrize("target_size", [None, 40])
def test_a_jpeg_of_which_much_is_missing_is_refused(target_size: int | None) -> None:
    data = jpeg()
    for tenths in range(1, 7):
        with pytest.raises(ImageError, match=r"truncated|cannot be decoded"):
            load_image(data[: len(data) * tenths // 10], target_size=target_size)


def sized(width: int, height: int) -> bytes:
    """A JPEG whose header promises so many pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def test_a_phones_largest_photograph_is_read_and_a_larger_one_says_how_to_allow_it(tmp_path: Path) -> None:
    with open_image(sized(20_000, 15_000)) as image:
        assert image.size == (20_000, 15_000)
    with pytest.raises(TooManyPixels, match="20000 x 15001 pixels, more than the 300000000 allowed"):
        load_image(sized(20_000, 15_001), target_size=224)
    # What nobody makes smaller is decoded at its full size.
    with pytest.raises(TooManyPixels, match="more than the 100000000 allowed"):
        load_image(sized(20_000, 15_000))
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "big.jpg").write_bytes(sized(30_000, 15_000))
    Image.new("RGB", (120, 90)).save(folder / "small.png")
    report = index(folder, ExactBackend(), CountingEncoder(), "c", max_pixels=10_000)
    assert {item.path: item.reason for item in report.quarantined} == {
        "big.jpg": "has 30000 x 15000 pixels, more than the 10000 allowed: --max-pixels, or the setting max_pixels, "
        "allows more",
        "small.png": "has 120 x 90 pixels, more than the 10000 allowed: --max-pixels, or the setting max_pixels, "
        "allows more",
    }


def test_108_megapixels_are_indexed(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (12_000, 9_000), "red").save(folder / "phone.jpg", quality=30)
    encoder = CountingEncoder()
    encoder.decode_size = 64  # type: ignore[attr-defined]
    report = index(folder, ExactBackend(), encoder, "c")
    assert (report.indexed, report.quarantined) == (1, [])


def test_addresses_of_parts() -> None:
    address = with_part("file:///a%23b.tif", "page=2")
    assert (address, part_of(address)) == ("file:///a%23b.tif#page=2", "page=2")
    assert with_part("file:///a.tif", "") == "file:///a.tif"
    assert part_of("https://x.org/a#page=2") == part_of(None) == part_of("a#b.jpg") == ""
    for part in ("page=0", "page=99", "nonsense", "page=2#"):
        with pytest.raises(ImageError):
            load_image(PartOfFile(tiff("red", "blue"), part))
