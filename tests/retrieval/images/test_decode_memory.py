"""What decoding is counted to take, against what it takes in a process of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.images.decode import planned
from retrieval.images.plan import Wanted
from tests.support.hostile_pictures import flat_webp, many_scans, png

MB = 1_000_000
WIDTH, HEIGHT = 3000, 2000
#: What is counted may be so much below and above what is taken: allocators and tables, and a strip's share.
UNDER, OVER = 0.92, 2.2
SPARE = 6 * MB

MEASURE = """
import json, sys
from pathlib import Path
from PIL import AvifImagePlugin
import numpy
from retrieval.images.plan import Wanted
from retrieval.images.decode import load_image
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
try:
    import pillow_heif
    pillow_heif.options.DECODE_THREADS = 1
except ImportError:
    pass
data = Path(sys.argv[1]).read_bytes()
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
load_image(data, wanted=Wanted(**json.loads(sys.argv[2])))
print(status("VmHWM") - before)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for the peak"),
]


@cache
def scene(mode: str) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 20, WIDTH // 20, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    if mode == "RGBA":
        image.putalpha(image.getchannel(0))
    elif mode in ("I;16", "F"):
        grey = np.asarray(image.convert("L"))
        return Image.fromarray(grey.astype(np.uint16) * 257 if mode == "I;16" else grey.astype(np.float32))
    elif mode == "P":
        return image.quantize(200)
    return image if mode in ("RGB", "RGBA") else image.convert(mode)


def saved(mode: str, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if file_format == "HEIF":
        import pillow_heif

        # Its encoder takes many seconds over anything but one colour.
        pillow_heif.from_pillow(Image.new(mode, (WIDTH, HEIGHT))).save(buffer, **options)
    else:
        scene(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PICTURES = {
    "jpeg": lambda: saved("RGB", "JPEG"),
    "jpeg turned": lambda: saved("RGB", "JPEG", exif=turned()),
    "jpeg grey": lambda: saved("L", "JPEG"),
    "jpeg cmyk": lambda: saved("CMYK", "JPEG"),
    "jpeg progressive": lambda: saved("RGB", "JPEG", progressive=True),
    "jpeg progressive 4:4:4": lambda: saved("RGB", "JPEG", progressive=True, subsampling=0),
    "jpeg many scans": lambda: many_scans(2400, 20),
    "png": lambda: saved("RGB", "PNG", compress_level=1),
    "png alpha": lambda: saved("RGBA", "PNG", compress_level=1),
    "png palette": lambda: saved("P", "PNG", transparency=3, compress_level=1),
    "png 16-bit grey": lambda: saved("I;16", "PNG", compress_level=1),
    "png 16-bit colours": lambda: png(WIDTH, HEIGHT, depth=16, colour=6),
    "gif": lambda: saved("P", "GIF"),
    "webp lossy": lambda: saved("RGB", "WEBP", method=0),
    "webp lossless": lambda: saved("RGB", "WEBP", lossless=True, method=0, quality=0),
    "webp of one colour": lambda: flat_webp(WIDTH, HEIGHT),
    "webp alpha": lambda: saved("RGBA", "WEBP", method=0),
    "webp animated": lambda: saved("RGB", "WEBP", method=0, save_all=True, append_images=[scene("P")]),
    "avif": lambda: saved("RGB", "AVIF", speed=10),
    "avif 4:4:4": lambda: saved("RGB", "AVIF", speed=10, subsampling="4:4:4"),
    "avif alpha": lambda: saved("RGBA", "AVIF", speed=10),
    "heic": lambda: saved("RGB", "HEIF"),
    "heic alpha": lambda: saved("RGBA", "HEIF"),
    "jpeg 2000": lambda: saved("RGB", "JPEG2000"),
    "jpeg 2000 in tiles": lambda: saved("RGB", "JPEG2000", tile_size=(512, 512)),
    "jpeg 2000 grey": lambda: saved("L", "JPEG2000"),
    "bmp": lambda: saved("RGB", "BMP"),
    "ppm": lambda: saved("RGB", "PPM"),
    "ppm of a hundred values": lambda: b"P5 1000 1000 100\n" + bytes(1_000_000),
    "ppm in words": lambda: b"P2 1000 500 255\n" + b"7 " * 500_000,
    "tiff": lambda: saved("RGB", "TIFF"),
    "tiff lzw": lambda: saved("RGB", "TIFF", compression="tiff_lzw"),
    "tiff in one strip": lambda: saved("RGB", "TIFF", compression="tiff_adobe_deflate", strip_size=1 << 30),
    "tiff jpeg": lambda: saved("RGB", "TIFF", compression="jpeg"),
    "tiff float": lambda: saved("F", "TIFF"),
    "tiff cmyk": lambda: saved("CMYK", "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_no_format_takes_more_than_it_is_counted_to(name: str, tmp_path: Path) -> None:
    if name.startswith("heic"):
        pytest.importorskip("pillow_heif")
    path = tmp_path / "picture"
    path.write_bytes(PICTURES[name]())
    # As it is, and as a thumbnail: the first is the most that a picture takes, the second is usual.
    for wanted in ({}, {"fit": 320}):
        command = [sys.executable, "-c", MEASURE, str(path), json.dumps(wanted)]
        taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        with planned(path.read_bytes(), Wanted(**wanted)) as plan:
            counted = plan.peak_bytes
        assert counted >= UNDER * taken - SPARE, f"{name} {wanted}: {taken / MB:.1f} MB, not {counted / MB:.1f}"
        if "tiles" not in name and "ppm" not in name:
            strip = 24 * MB
            assert counted <= OVER * taken + SPARE + strip, f"{name} {wanted}: {taken / MB:.1f}, not {counted / MB:.1f}"


def test_planning_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    for make in (PICTURES["png"], PICTURES["jpeg turned"], PICTURES["webp lossy"], PICTURES["tiff"]):
        data = make()
        with monkeypatch.context() as patched, planned(data, Wanted(target_size=300)) as plan:
            patched.setattr("PIL.ImageFile.ImageFile.load", refuse)
            assert plan.peak_bytes > 0
        with monkeypatch.context() as patched:
            patched.setattr("PIL.ImageFile.ImageFile.load", refuse)
            with planned(data, Wanted(fit=300)):
                pass


@pytest.mark.parametrize(
    ("size", "wanted", "result"),
    [
        ((800, 600), Wanted(100), (800, 600)),  # small enough as it is
        ((4000, 3000), Wanted(), (4000, 3000)),
        ((4000, 3000), Wanted(347), (2000, 1500)),
        ((4000, 3000), Wanted(2000), (4000, 3000)),
        ((30_000, 400), Wanted(347), (3200, 400)),  # the middle of what is very long
        ((30_000, 400), Wanted(fit=300), (300, 4)),
        ((30_000, 400), Wanted(fit=400, middle=True), (400, 50)),
        ((90, 70), Wanted(fit=320), (90, 70)),
    ],
)
def test_no_more_is_made_of_a_picture_than_is_wanted(
    size: tuple[int, int], wanted: Wanted, result: tuple[int, int]
) -> None:
    with planned(png(*size), wanted) as plan:
        assert plan.decode().size == result


def test_jpeg_2000_is_decoded_smaller() -> None:
    data = saved("L", "JPEG2000")
    with planned(data, Wanted(347)) as plan:
        small = plan.decode()
    assert small.size == (750, 500)
    whole = scene("L").resize(small.size, Image.Resampling.BOX).convert("RGB")
    assert float(np.abs(np.asarray(small, np.int16) - np.asarray(whole, np.int16)).mean()) < 12
    # Without levels to leave out it is decoded as it is.
    with planned(saved("L", "JPEG2000", num_resolutions=1), Wanted(347)) as plan:
        assert plan.decode().size == (1500, 1000)
