"""What a picture's file may hold beside its pixels."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from indexers.photos import photo_facts
from retrieval.images.decode import ImageError, load_image
from retrieval.images.headers import HeaderError, check_header
from tests.support import hostile_pictures
from tests.support.hostile_pictures import REFUSED


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_cost_a_decoder_too_much_is_refused_from_its_bytes(name: str, tmp_path: Path) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(HeaderError, match=reason) as found:
        check_header(io.BytesIO(data), len(data))
    assert "\n" not in str(found.value)
    path = tmp_path / "picture"
    path.write_bytes(data)
    # Of this thread's own work: other programs may have the processor.
    before_s = time.thread_time()
    for source in (data, path, str(path)):
        with pytest.raises(ImageError, match=reason):
            load_image(source)
    with pytest.raises(ImageError, match=reason):
        photo_facts(data)
    assert time.thread_time() - before_s < 2


def test_one_picture_with_much_in_it_is_none_of_those() -> None:
    image = Image.effect_noise((64, 48), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x010E] = "a description " * 1000
    info = PngInfo()
    for number in range(200):
        info.add_text(f"key{number}", "value" * 100)
    frames = [image.rotate(number) for number in range(30)]
    comment = b"a comment " * 1000
    for file_format, options in (
        ("JPEG", {"progressive": True, "exif": exif, "comment": comment, "icc_profile": bytes(500_000)}),
        ("PNG", {"pnginfo": info, "exif": exif, "save_all": True, "append_images": frames}),
        ("GIF", {"comment": comment, "save_all": True, "append_images": frames}),
        ("WEBP", {"exif": exif, "xmp": comment, "save_all": True, "append_images": frames}),
        ("TIFF", {"save_all": True, "append_images": frames, "description": "text" * 1000}),
        ("JPEG2000", {"comment": comment}),
        ("PPM", {}),
        ("BMP", {}),
        ("MPO", {"save_all": True, "append_images": frames}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, file_format, **options)
        data = buffer.getvalue()
        assert check_header(io.BytesIO(data), len(data)) in ((1, False), (10, False)), file_format
        assert load_image(data).size == (64, 48)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_a_whole_file_of_no_more_than_its_pixels_is_not_truncated(mode: str) -> None:
    # 13 pixels a row: in bits that is no whole number of bytes.
    image = Image.new(mode, (13, 7), 1 if mode in ("1", "P") else None)  # type: ignore[arg-type]
    for file_format in ("PNG", "PPM", "BMP", "TIFF"):
        buffer = io.BytesIO()
        try:
            image.save(buffer, file_format)
        except OSError:
            continue  # the format does not have this mode
        assert load_image(buffer.getvalue()).size == (13, 7), file_format
    for plain in (
        b"P1 3 2\n101010",
        b"P2 3 1 9\n1 2 3",
        b"P3 1 1 9 1 2 3",
        b"P2\n# a comment\n3 # another\n1 9\n1 2 3",
    ):
        assert load_image(plain).width in (1, 3)


def test_scans_are_counted() -> None:
    data = hostile_pictures.many_scans(64, 20)
    assert check_header(io.BytesIO(data), len(data)) == (30, False)
    assert load_image(data).size == (64, 64)
