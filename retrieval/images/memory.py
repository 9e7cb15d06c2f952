"""What decoding a picture takes at its peak, counted from its header.

The numbers were measured with Pillow 13 (libwebp 1.6, libavif 1.4, OpenJPEG 2.5, libjpeg-turbo 3.2, libtiff 4.7) and
pillow-heif 1.8 as the growth of the resident memory of a process of its own, at 12 megapixels: bytes a pixel, with the
four of the RGB picture that comes out. Baseline JPEG, PNG, BMP, PPM, TIFF in strips 4.0; progressive JPEG 7.2 (4:2:0)
and 10.0 (4:4:4); TIFF in one strip 7.0; HEIC 7.5; AVIF 9.0 (4:2:0) and 10.6 (4:4:4), with alpha 11.5; WebP 16.0, lossy,
lossless or animated; JPEG 2000 in one tile 19.4. `tests/retrieval/images/test_decode_memory.py` measures again.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from PIL.ImageFile import ImageFile

from retrieval.images.colours import STRIP_PIXELS, is_transposed

#: Bytes that Pillow keeps of a pixel, by mode; of any other, RGB among them, it keeps four.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
#: libwebp's decoder keeps two canvases of four bytes a pixel, and Pillow takes a copy of one.
_WEBP = 12.0
#: OpenJPEG keeps each sample of a tile as an int, and works on it in another.
_JPEG2000_SAMPLE = 5.2
#: What Pillow's decoders in Python keep of each byte of pixels, in three buffers.
_PYTHON = 3.0
#: What a conversion to RGB takes for each pixel of a strip: several copies, in 32 bits for deep samples.
_STRIP = 24
#: Tables, buffers and rows.
_FIXED_BYTES = 4 * 1024 * 1024
_HEAD_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done with an opened image.

    size: that it is decoded to, of `full`, the size that the file has. scans: of a JPEG. size_bytes: of the file.
    result: the size that comes out of the conversion to RGB, and shrink by what that divides.
    """

    size: tuple[int, int]
    full: tuple[int, int]
    scans: int
    size_bytes: int
    result: tuple[int, int]
    shrink: int


def peak_bytes(image: ImageFile, work: Work) -> int:
    """What decoding an opened image and making it upright RGB takes at its peak, beside its file's bytes."""
    pixels = work.size[0] * work.size[1]
    held = pixels * _PIXEL_BYTES.get(image.mode, 4)
    converted = work.result[0] * work.result[1] * 4
    plain = image.mode == "RGB" and work.shrink == 1
    strip = 0 if plain and "icc_profile" not in image.info else min(pixels, STRIP_PIXELS) * _STRIP
    after = held + (0 if plain else converted) + strip
    turned = 2 * converted if is_transposed(image) else 0
    return int(max(held + _decoder_bytes(image, work, pixels), after, turned)) + _FIXED_BYTES


def _decoder_bytes(image: ImageFile, work: Work, pixels: int) -> float:
    """What the decoder takes beside the picture that it makes."""
    match image.format:
        case "JPEG" | "MPO":
            return _coefficients(image, work.full) if work.scans > 1 else 0
        case "WEBP":
            return _WEBP * pixels + work.size_bytes
        case "AVIF" | "HEIF":
            return _planes(image) * pixels + work.size_bytes
        case "JPEG2000":
            tile = _tile_pixels(image, pixels)
            return _JPEG2000_SAMPLE * len(image.getbands()) * tile + work.size_bytes
        case "TIFF":
            return _tiff_buffer(image)
    if image.tile and image.tile[0].codec_name in ("ppm", "ppm_plain", "bmp_rle"):
        return _PYTHON * pixels * (4 if image.mode == "I" else len(image.getbands()))
    return 0


def _coefficients(image: Image.Image, full: tuple[int, int]) -> int:
    """What libjpeg keeps between the scans: two bytes for each sample of the picture at full size."""
    layers = getattr(image, "layer", None) or [(0, 1, 1, 0)] * 3
    most_h, most_v = max(layer[1] for layer in layers), max(layer[2] for layer in layers)
    share = sum(layer[1] * layer[2] for layer in layers) / max(1, most_h * most_v)
    return int(2 * full[0] * full[1] * share)


def _planes(image: ImageFile) -> float:
    """Bytes a pixel of the planes that AVIF and HEIC decode to, and of the interleaved picture made of them."""
    head = _head(image)
    samples, depth_bytes = 3.0, 2
    av1, hevc = head.find(b"av1C"), head.find(b"hvcC")
    if 0 <= av1 < len(head) - 7:
        flags = head[av1 + 6]
        depth_bytes = 2 if flags & 0x40 else 1
        samples = 1.0 + 2.0 / ((1 + (flags >> 3 & 1)) * (1 + (flags >> 2 & 1)))
    elif 0 <= hevc < len(head) - 23:
        depth_bytes = 2 if head[hevc + 21] & 7 else 1
        samples = {0: 1.0, 1: 1.5, 2: 2.0}.get(head[hevc + 20] & 3, 3.0)
    bands = len(image.getbands())
    alpha = 1 if image.mode in ("RGBA", "LA") else 0
    return bands * (depth_bytes if image.format == "HEIF" else 1) + 1.3 * depth_bytes * (samples + alpha)


def _tile_pixels(image: ImageFile, pixels: int) -> int:
    """Of a JPEG 2000: pixels of its largest tile, as far as it is decoded."""
    head = _head(image)
    start = head.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(head) < start + 32:
        return pixels
    # SIZ: length, capabilities, then the sizes and places of the picture and of a tile.
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (start + 24, start + 28))
    return min(pixels, width * height)


def _tiff_buffer(image: ImageFile) -> float:
    """A strip or a tile, which libtiff decodes as a whole."""
    tags = getattr(image, "tag_v2", {})
    width, height = image.size
    rows, tile_width, tile_height = (tags.get(tag) for tag in (278, 322, 323))
    if isinstance(tile_width, int) and isinstance(tile_height, int):
        pixels = tile_width * tile_height
    else:
        pixels = width * min(height, rows if isinstance(rows, int) else height)
    bits = tags.get(258, (8,))
    deepest = max((bit for bit in bits if isinstance(bit, int)), default=8) if isinstance(bits, tuple) else 8
    samples = tags.get(277, 1)
    buffer = pixels * (samples if isinstance(samples, int) else 1) * max(8, deepest) / 8
    # What is stored as it is needs none; WebP within TIFF has its decoder's canvas as well.
    return {"raw": 0.0, "webp": 3.0}.get(image.info.get("compression", "raw"), 1.0) * buffer


def _head(image: ImageFile) -> bytes:
    """The file's beginning, as far as its header may reach."""
    file = image.fp
    if file is None:
        return b""
    place = file.tell()
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(place)
    return head
