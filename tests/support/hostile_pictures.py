"""Pictures that are made to cost more than they show, each small itself."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

from PIL import Image


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, extra: bytes = b"") -> bytes:
    """A black PNG, however large, in the time that it takes to compress zeros."""
    row = bytes(1 + (width * depth * {0: 1, 2: 3, 6: 4}[colour] + 7) // 8)
    packed = zlib.compressobj(1)
    pixels = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@cache
def many_scans(side: int = 64, scans: int = 161) -> bytes:
    """A progressive JPEG that goes over its pixels again and again."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (90, 100, 110)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[last:end] * scans + data[end:]


def slow(megapixels: int = 40) -> bytes:
    """A PGM whose values go to 100: Pillow's decoder for those is a loop in Python, of a minute or so."""
    return b"P5 10000 %d 100\n" % (megapixels * 100) + bytes(megapixels * 1_000_000)


def flat_webp(width: int, height: int) -> bytes:
    """A lossless WebP of one colour, 34 bytes long."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


#: Refused from the file's bytes, and by which words.
REFUSED: dict[str, tuple[bytes, str]] = {
    "ppm comment": (b"P6 #" + b"a" * 1_000_000 + b"\n1 1 255\n\0\0\0", "header of more than 16384 bytes"),
    "ppm without an end": (b"P6 1 " + b" " * 1_000_000, "header of more than 16384 bytes"),
    "ppm of 18 bytes": (b"P6 90000000 1 255\n", "no side may be longer than 10000000"),
    "ppm without its pixels": (b"P6 7000 7000 255\n", "is truncated"),
    "plain ppm without its pixels": (b"P3 7000 7000 255\n1 2 3", "is truncated"),
    "bmp without its pixels": (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 7000, 7000, 1, 24, 0, 0, 0, 0, 0, 0),
        "is truncated",
    ),
    "png of one row": (png(90_000_000, 1), "no side may be longer than 10000000"),
    "png of one column": (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 90_000_000, 8, 0, 0, 0, 0))
        + png_chunk(b"IDAT", bytes(200_000)),
        "no side may be longer than 10000000",
    ),
    "png without its pixels": (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 7000, 7000, 16, 6, 0, 0, 0))
        + png_chunk(b"IDAT", zlib.compress(b"")),
        "is truncated",
    ),
    "png texts": (png(1, 1, extra=png_chunk(b"tEXt", b"a\0" + b"b" * 50_000) * 30), "bytes of texts"),
    "png chunks": (png(1, 1, extra=png_chunk(b"teST", b"") * 5000), "too many parts: "),
    "png profile": (png(1, 1, extra=png_chunk(b"iCCP", bytes(9_000_000))), "bytes of colour profile"),
    "jpeg scans": (many_scans(), "more than 128 scans"),
    "jpeg scans of many pixels": (many_scans(8000, 60), "more than 31 scans"),
    "jpeg filling": (b"\xff\xd8" + b"\xff" * 1_000_000, "bytes of filling"),
    "jpeg noise": (b"\xff\xd8" + b"\0" * 1_000_000, "bytes of filling"),
    "jpeg segments": (b"\xff\xd8" + b"\xff\xe1\0\x02" * 50_000, "segments before its pixels"),
    "gif comments": (
        b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe" + (b"\xff" + b"c" * 255) * 5000 + b"\0",
        "bytes before its first frame",
    ),
    "gif blocks": (b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\1c\0" * 20_000, "blocks before its first frame"),
    "webp frames": (
        b"RIFF" + struct.pack("<I", 400_000) + b"WEBPVP8X\x0a\0\0\0" + bytes(10) + b"ANMF\0\0\0\0" * 20_000,
        "more than 10000 frames",
    ),
    "tiff tags": (b"II*\0\x08\0\0\0" + struct.pack("<H", 60_000) + bytes(12 * 60_000), "60000 tags"),
    "tiff values": (
        b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 270, 2, 50_000_000, 8) + bytes(4),
        "numbers in the tag 270",
    ),
    "tiff strips": (
        b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 273, 4, 1_000_000, 26) + bytes(4) + bytes(4_000_000),
        "1000000 strips or tiles",
    ),
    "tiff tiles": (
        b"MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, 325, 4, 70_000, 26) + bytes(4) + bytes(280_000),
        "70000 strips or tiles",
    ),
    "tiff pictures": (
        b"II*\0\x08\0\0\0" + b"".join(struct.pack("<HI", 0, 14 + 6 * n) for n in range(5000)),
        "more than 4096 pictures",
    ),
    "jp2 boxes": (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 20_000, "boxes before its pixels"),
    "j2k segments": (b"\xff\x4f\xff\x51" + b"\0\x02" + b"\xff\x64\0\x02" * 20_000, "segments before its pixels"),
}
