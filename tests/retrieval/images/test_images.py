"""Every format and every fault, made on the spot."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from retrieval.images.decode import ImageError, ImageSource, crop_elongated, load_image, map_images
from retrieval.images.formats import IMAGE_SUFFIXES


def gradient(width: int = 48, height: int = 32) -> Image.Image:
    """Smooth, so that lossy formats keep it close; no two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // (width - 1), y * 255 // (height - 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 60)], axis=-1).astype(np.uint8))


def noise(width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    if file_format == "HEIF":
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(image).save(buffer, **options)
        return buffer.getvalue()
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def difference(left: Image.Image, right: Image.Image) -> float:
    assert left.size == right.size
    return float(np.abs(np.asarray(left, np.int16) - np.asarray(right, np.int16)).mean())


def pixel(image: Image.Image, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    assert image.mode == "RGB"
    value = image.getpixel(at)
    assert isinstance(value, tuple)
    return value


def decoded(sources: Iterable[ImageSource], **options: int) -> Generator[Image.Image | ImageError, None, None]:
    return map_images(sources, lambda image: image, **options)


def image_or_error(data: bytes) -> Image.Image | ImageError:
    result = next(iter(decoded([data], max_pixels=1_000_000)))
    assert isinstance(result, Image.Image) or "\n" not in str(result)
    return result


FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM", "MPO", "HEIF"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_reads_each_format_from_bytes_path_and_image(file_format: str, tmp_path: Path) -> None:
    data = encoded(gradient(), file_format)
    path = tmp_path / "picture.with no suffix"
    path.write_bytes(data)
    images = [load_image(data), load_image(path), load_image(str(path))]
    if file_format != "HEIF":
        with Image.open(path) as opened:
            images.append(load_image(opened))
    for image in images:
        assert image.mode == "RGB"
        assert not image.info
        assert difference(image, gradient()) < 8


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_truncation_is_an_error_or_the_whole_image(file_format: str) -> None:
    data = encoded(noise(), file_format)
    whole = load_image(data)
    refused = 0
    for keep in [1, 3, 11, 20, *(len(data) * i // 23 for i in range(1, 23)), len(data) - 64]:
        image = image_or_error(data[:keep])
        if isinstance(image, ImageError):
            refused += 1
        else:
            # A JPEG is taken as far as it goes, if that is three quarters.
            shown = (0, 0, 64, 32 if file_format in ("JPEG", "MPO") else 64)
            told = f"a part of the picture at {keep} of {len(data)} bytes"
            assert difference(image.crop(shown), whole.crop(shown)) == 0, told
    assert refused >= (14 if file_format in ("JPEG", "MPO") else 20)


@pytest.mark.parametrize("file_format", FORMATS)
def test_damaged_bytes_give_an_image_or_an_image_error(file_format: str) -> None:
    data = encoded(gradient(), file_format)
    chance = random.Random(file_format)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        assert isinstance(image_or_error(bytes(damaged)), Image.Image | ImageError)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF", "MPO"])
def test_exif_orientation(file_format: str, orientation: int) -> None:
    upright = gradient()
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, file_format, exif=exif.tobytes() if file_format in ("AVIF", "HEIF") else exif)
    image = load_image(data)
    assert difference(image, upright) < 8
    assert difference(load_image(image), image) == 0, "a second pass turned it again"


def test_transparency_is_laid_on_white() -> None:
    red = (200, 10, 10)
    rgba = Image.new("RGBA", (4, 4), (*red, 255))
    rgba.putpixel((0, 0), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    for image in (rgba, rgba.convert("RGBa"), load_back(rgba, "PNG"), load_back(rgba, "WEBP", lossless=True)):
        loaded = load_image(image)
        assert pixel(loaded) == (255, 255, 255)
        assert pixel(loaded, (1, 0)) == pytest.approx((127, 127, 127), abs=1)
        assert pixel(loaded, (3, 3)) == red


def load_back(image: Image.Image, file_format: str, **options: object) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, file_format, **options)))


def test_transparency_of_palettes_and_greys() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10, 5, 5, 5])
    palette.putpixel((0, 0), 0)
    by_index = encoded(palette, "PNG", transparency=0)
    by_table = encoded(palette, "PNG", transparency=bytes([0, 255, 255]))
    as_gif = encoded(palette, "GIF", transparency=0)
    for data in (by_index, by_table, as_gif):
        assert pixel(load_image(data)) == (255, 255, 255)
        assert pixel(load_image(data), (2, 2)) == (200, 10, 10)
    grey = Image.new("LA", (2, 2), (40, 255))
    grey.putpixel((0, 0), (0, 0))
    for image in (grey, grey.convert("La"), grey.convert("RGBA").convert("PA"), load_back(grey, "PNG")):
        assert pixel(load_image(image)) == (255, 255, 255)
        assert pixel(load_image(image), (1, 1)) == pytest.approx((40, 40, 40), abs=1)
    keyed = Image.new("RGB", (2, 2), (9, 9, 9))
    keyed.putpixel((0, 0), (1, 2, 3))
    assert pixel(load_image(encoded(keyed, "PNG", transparency=(1, 2, 3)))) == (255, 255, 255)
    for mode, clear, solid in (("L", 7, 100), ("1", 0, 1), ("I;16", 7, 65535)):
        image = Image.new(mode, (2, 2), solid)
        image.putpixel((0, 0), clear)
        image.info["transparency"] = clear
        assert pixel(load_image(image)) == (255, 255, 255)
        assert len(set(pixel(load_image(image), (1, 1)))) == 1


def test_grey_one_bit_and_other_modes() -> None:
    assert pixel(load_image(encoded(Image.new("L", (3, 3), 77), "PNG"))) == (77, 77, 77)
    assert pixel(load_image(encoded(Image.new("1", (3, 3), 1), "TIFF"))) == (255, 255, 255)
    assert pixel(load_image(Image.new("HSV", (3, 3), (0, 0, 90)))) == (90, 90, 90)
    assert difference(load_image(gradient().convert("YCbCr")), gradient()) < 2
    lab = load_image(Image.new("LAB", (3, 3), (255, 128, 128)))
    assert pixel(lab) == pytest.approx((255, 255, 255), abs=6)


def test_cmyk() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for data in (encoded(cmyk, "JPEG", quality=95), encoded(cmyk, "TIFF")):
        assert pixel(load_image(data)) == pytest.approx((255, 0, 0), abs=6)


@pytest.mark.parametrize(("file_format", "kind"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32)])
def test_sixteen_bit_greys_are_scaled_not_clipped(file_format: str, kind: type) -> None:
    values = np.array([[0, 6554, 32768, 65535]] * 2, dtype=kind)
    loaded = np.asarray(load_image(encoded(Image.fromarray(values), file_format)))
    assert loaded[0, :, 0].tolist() == pytest.approx([0, 26, 128, 255], abs=1)


def test_wide_samples_take_the_first_range_that_holds_them() -> None:
    def greys(values: list[float], kind: type) -> list[int]:
        return np.asarray(load_image(Image.fromarray(np.array([values], dtype=kind))))[0, :, 0].tolist()

    assert greys([0.0, 0.5, 1.0], np.float32) == [0, 128, 255]
    assert greys([0.0, 128.0, 255.0], np.float32) == [0, 128, 255]
    assert greys([-1.0, 0.0, 1.0], np.float32) == [0, 128, 255]
    assert greys([0.0, float("nan"), float("inf"), float("-inf"), 1.0], np.float32) == [0, 0, 255, 0, 255]
    with pytest.raises(ImageError, match="no finite"):
        greys([float("nan")], np.float32)
    assert greys([5.0, 5.0], np.float32) == [5, 5]
    assert greys([0, 100, 200], np.int32) == [0, 100, 200]
    assert greys([0, 500_000, 1_000_000], np.int32) == pytest.approx([0, 127.5, 255], abs=0.5)
    assert greys([-7, -7], np.int32) == [0, 0]


def test_sixteen_bit_colour_and_big_endian() -> None:
    rows = b"".join(b"\x00" + struct.pack(">3H", 65535, 32768, 0) * 2 for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert pixel(load_image(png)) == (255, 128, 0)
    assert pixel(load_image(b"P5 1 1 65535\n\x80\x00")) == pytest.approx((128,) * 3, abs=1)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(file_format: str) -> None:
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    data = encoded(first, file_format, save_all=True, append_images=[second])
    assert pixel(load_image(data)) == pytest.approx((250, 0, 0), abs=6)


def test_colour_profile_is_converted_to_srgb() -> None:
    wide = profile_with_swapped_primaries()
    image = Image.new("RGB", (4, 4), (255, 0, 0))
    converted = pixel(load_image(encoded(image, "PNG", icc_profile=wide)))
    expected = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(wide)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert expected is not None
    assert converted == pixel(expected)
    assert converted[1] > 200 > converted[0], "the profile says that red means green"
    clear = image.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    loaded = load_image(encoded(clear, "PNG", icc_profile=wide))
    assert (pixel(loaded), pixel(loaded, (3, 3))) == ((255, 255, 255), converted)


def profile_with_swapped_primaries() -> bytes:
    """The sRGB profile with the red and the green primary exchanged and another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    for at in range(132, 132 + 12 * count, 12):
        tag = bytes(data[at : at + 4])
        if tag in (b"rXYZ", b"gXYZ"):
            data[at : at + 4] = b"gXYZ" if tag == b"rXYZ" else b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "Test".encode("utf-16-be"))


def test_profiles_that_say_nothing_or_do_not_fit_are_ignored() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    for profile in (srgb, b"not a profile", srgb[:200], b""):
        assert pixel(load_image(encoded(image, "JPEG", quality=95, icc_profile=profile))) == pytest.approx(
            (200, 100, 50), abs=3
        )
    grey = Image.new("L", (4, 4), 90)
    assert pixel(load_image(encoded(grey, "JPEG", icc_profile=srgb))) == (90, 90, 90)


def test_draft_decodes_no_smaller_than_asked() -> None:
    data = encoded(gradient(800, 600), "JPEG", quality=90)
    small = load_image(data, target_size=100)
    assert 100 <= min(small.size) < 200
    assert load_image(data, target_size=700).size == (800, 600)
    assert load_image(data).size == (800, 600)
    assert difference(small, gradient(800, 600).resize(small.size)) < 4
    assert load_image(encoded(gradient(800, 600), "PNG"), target_size=100).size == (800, 600)


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"bomb\.png: .*pixels"):
        load_image(bomb)
    medium = encoded(Image.new("1", (12_000, 8_000)), "PNG")
    assert load_image(Image.new("1", (10, 10)), max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="12000 x 8000 pixels, more than the 1000000 allowed"):
        load_image(medium, max_pixels=1_000_000)
    with pytest.raises(ImageError, match="more than the 99 allowed"):
        load_image(Image.new("1", (10, 10)), max_pixels=99)
    assert before == Image.MAX_IMAGE_PIXELS


def test_pillow_does_not_warn_through(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Above Pillow's warning limit, below ours.
        header = struct.pack(">IIBBBBB", 9_500, 9_500, 1, 0, 0, 0, 0)
        hollow = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
        with pytest.raises(ImageError, match="truncated"):
            load_image(hollow)
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x010E] = "a description that is cut off in the middle"
        assert load_image(encoded(gradient(), "JPEG", exif=exif.tobytes()[:40])).mode == "RGB"
        palette = load_back(encode_palette(), "PNG", transparency=bytes([0, 128]))
        assert load_image(palette).mode == "RGB"
    assert [str(warning.message) for warning in caught] == []
    assert capfd.readouterr() == ("", "")


def encode_palette() -> Image.Image:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    return palette


def test_warnings_as_errors_do_not_lose_an_image() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description that is cut off in the middle"
    data = encoded(gradient(), "JPEG", exif=exif.tobytes()[:30])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = list(decoded([data] * 40, threads=4))
    assert all(isinstance(result, Image.Image) for result in results)


REFUSED: dict[str, Callable[[Path], object]] = {
    "no such file": lambda folder: folder / "absent.png",
    "is a folder": lambda folder: folder,
    "is empty": lambda folder: written(folder / "empty.png", b""),
    "not an image": lambda folder: written(folder / "text.png", b"just some words\n" * 50),
    "not a file name": lambda folder: "nul\0.png",
    "of 0 bytes: is empty": lambda folder: b"",
    "more than the 1000000 allowed": lambda folder: written(folder / "large.png", bytes(1_000_001)),
    "is a pipe": lambda folder: pipe(folder / "pipe.png"),
    "socket or device": lambda folder: "/dev/zero",
    "File name too long": lambda folder: folder / ("x" * 400),
    "has no pixels": lambda folder: Image.new("RGB", (0, 5)),
}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_image_is_refused_in_one_line_and_at_once(reason: str, tmp_path: Path) -> None:
    source = REFUSED[reason](tmp_path)
    started = time.monotonic()
    with pytest.raises(ImageError, match=reason) as caught:
        load_image(source, max_bytes=1_000_000)  # type: ignore[arg-type]
    assert time.monotonic() - started < 2
    assert "\n" not in str(caught.value)
    if isinstance(source, Path):
        assert str(source) in str(caught.value)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "secret.png", encoded(gradient(), "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read all: the system's refusal is played
        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ImageError, match=r"secret\.png: not readable: permission denied"):
        load_image(path)


def refuse(*_: object) -> int:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("file_format", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "DDS"])
def test_other_formats_are_refused(file_format: str) -> None:
    with pytest.raises(ImageError, match="not read"):
        load_image(encoded(gradient(), file_format))


def test_a_name_with_line_breaks_stays_on_one_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a\nb\x1b[31m.png", b"no image")
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert r"a\nb\x1b[31m.png" in str(caught.value)


def test_a_type_that_names_no_image() -> None:
    with pytest.raises(TypeError, match="not int"):
        load_image(7)  # type: ignore[arg-type]


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(gradient(), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"sightline\[heic\]"):
        load_image(data)


def test_metadata_does_not_pass() -> None:
    info = PngInfo()
    info.add_text("Comment", "private")
    exif = Image.Exif()
    exif[0x010F] = "camera"
    image = load_image(encoded(gradient(), "PNG", pnginfo=info, exif=exif))
    assert not image.info
    assert not dict(image.getexif())


def test_an_image_given_is_left_as_it_was() -> None:
    given = gradient()
    given.info["comment"] = "mine"
    loaded = load_image(given)
    loaded.putpixel((0, 0), (1, 1, 1))
    assert pixel(given) == (0, 0, 60)
    assert given.info == {"comment": "mine"}


def test_tiff_that_points_outside_itself() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "x" * 500
    data = bytearray(encoded(gradient(), "TIFF", tiffinfo=tags))
    data[4:8] = struct.pack("<I", 0x7FFFFFF0)
    with pytest.raises(ImageError):
        load_image(bytes(data))


def test_decoding_keeps_order_and_goes_on_after_errors() -> None:
    sources: list[Image.Image | bytes] = [Image.new("RGB", (i + 1, 1)) for i in range(30)]
    sources[7] = b"broken"
    sources[29] = b""
    results = list(decoded(sources, threads=3))
    assert [i for i, result in enumerate(results) if isinstance(result, ImageError)] == [7, 29]
    widths = [result.width for result in results if isinstance(result, Image.Image)]
    assert widths == [i + 1 for i in range(30) if i not in (7, 29)]
    assert list(decoded([])) == []


def test_decoding_takes_no_more_than_the_window_ahead() -> None:
    taken = 0

    def sources() -> Iterator[Image.Image]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield Image.new("RGB", (2, 2))

    before = threading.active_count()
    results = decoded(sources(), threads=2, prefetch=5)
    assert taken == 0
    for yielded in range(1, 20):
        assert isinstance(next(results), Image.Image)
        assert taken <= yielded + 5
    results.close()
    assert threading.active_count() == before


def test_map_images_applies_the_function_in_the_threads_and_passes_its_errors_on() -> None:
    names: set[str] = set()

    def width(image: Image.Image) -> int:
        names.add(threading.current_thread().name)
        return 60 // image.width

    assert next(iter(map_images([Image.new("L", (3, 1)), b"?"], width, threads=2))) == 20
    assert names
    assert threading.main_thread().name not in names

    def fail(image: Image.Image) -> int:
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        list(map_images([Image.new("L", (3, 1))] * 50, fail))
    for wrong in ({"threads": 0}, {"prefetch": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            decoded([], **wrong)


def test_crop_elongated() -> None:
    strip = Image.new("RGB", (1000, 10))
    strip.putpixel((500, 5), (9, 9, 9))
    cropped = crop_elongated(strip, 8)
    assert cropped.size == (80, 10)
    assert pixel(cropped, (40, 5)) == (9, 9, 9)
    assert crop_elongated(Image.new("L", (1, 4000))).size == (1, 8)
    square = Image.new("L", (8, 1))
    assert crop_elongated(square) is square


def test_suffixes_cover_what_pillow_writes() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".gif", ".tif", ".jp2", ".bmp"} <= IMAGE_SUFFIXES
    assert not IMAGE_SUFFIXES & {".svg", ".eps", ".pdf", ".txt", ".mp4", ".psd"}
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


def test_importing_reads_no_torch() -> None:
    code = "import sys, retrieval.images.decode; sys.exit('torch' in sys.modules or 'pillow_heif' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
