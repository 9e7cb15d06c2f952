"""What a picture's file may hold beside its pixels: looked at in its bytes, before any decoder sees them.

A decoder's parser can be kept busy for minutes by a file that shows nothing: a comment of megabytes read byte by
byte, thousands of passes over the same pixels, millions of empty chunks. The bounds here are far beyond what cameras
and programs write, and what they let in is read in moments.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, TypeAlias

#: Longest side of a picture. Pillow counts a row's bits in an int: it takes wider ones for a want of memory.
MAX_SIDE = 10_000_000
#: Passes ("scans") of a progressive JPEG, and pixels that they may go over in all: encoders make about ten.
MAX_SCANS = 128
MAX_SCANNED_PIXELS = 2_000_000_000
#: Bytes of comments and texts before the pixels, and of a PPM's header.
MAX_COMMENT_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 16 * 1024
#: Segments, blocks or chunks of a header, and tags of a TIFF.
MAX_PARTS = 4096
MAX_TAGS = 4096
#: Strips or tiles of a TIFF, for each of which Pillow makes an object and sets up a decoder.
MAX_TILES = 65_536
MAX_IFDS = 4096
MAX_FRAMES = 10_000
#: Profiles of printers take one or two megabytes.
MAX_PROFILE_BYTES = 8 * 1024 * 1024
MAX_EXIF_BYTES = 1024 * 1024
#: deflate makes at most so many bytes of one.
_DEFLATE = 1032
#: What is read at a time: small enough for the processor's cache, and to be had without new pages from the system.
_BLOCK = 64 * 1024


class HeaderError(Exception):
    """A file that holds more than a decoder is let in for, or less than it promises; one line."""


class TruncatedError(HeaderError):
    """A file that is too short for its pixels, of which there are so many."""

    def __init__(self, message: str, pixels: int) -> None:
        super().__init__(message)
        self.pixels = pixels


class Header(NamedTuple):
    """What was found: the scans of a JPEG, 1 for anything else, and whether its end is missing."""

    scans: int = 1
    is_cut: bool = False


Check: TypeAlias = Callable[[IO[bytes], int], Header | None]


def check_header(file: IO[bytes], size_bytes: int) -> Header:
    """Raise `HeaderError` for a file of which a decoder would make too much; at its beginning again afterwards.

    What is no picture, or is damaged in another way, passes: the decoder says so.
    """
    file.seek(0)
    head = file.read(16)
    check = next((check for magic, check in _CHECKS if re.match(magic, head, re.DOTALL)), None)
    header = None
    if check is not None:
        file.seek(0)
        header = check(file, size_bytes)
    file.seek(0)
    return header or Header()


def check_sides(width: int, height: int) -> None:
    """Raise `HeaderError` for a picture with a side that no decoder can take."""
    if max(width, height) > MAX_SIDE:
        raise HeaderError(f"has {width} x {height} pixels: no side may be longer than {MAX_SIDE}")


def check_rows(width: int, height: int, row_bits: int, held_bytes: int) -> None:
    """Raise `HeaderError` unless `held_bytes` can hold rows of so many bits each."""
    check_sides(width, height)
    needed = height * (-(-row_bits // 8))
    if held_bytes < needed:
        raise TruncatedError(
            f"is truncated: its {width} x {height} pixels take at least {needed} bytes, it holds {max(0, held_bytes)}",
            width * height,
        )


def _jpeg(file: IO[bytes], size_bytes: int) -> Header:
    """Segments of the header; gives the scans of the first picture (MPO has more behind it)."""
    file.seek(2)
    pixels = 0
    for _ in range(MAX_PARTS):
        marker = _next_marker(file)
        if marker is None or marker == 0xD9:
            return Header()
        if marker == 0xDA:
            return _scans(file, pixels)
        head = file.read(7)
        if len(head) < 7:
            return Header()
        length = int.from_bytes(head[:2], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            pixels = int.from_bytes(head[3:5], "big") * int.from_bytes(head[5:7], "big")
            # Width and height stand behind the precision: length (2), precision (1), height (2), width (2).
        file.seek(max(2, length) - 7, 1)
    raise HeaderError(f"has more than {MAX_PARTS} segments before its pixels")


def _next_marker(file: IO[bytes]) -> int | None:
    """The next marker's code; what is not one is passed over as far as a header may be long."""
    skipped = 0
    while skipped <= MAX_HEADER_BYTES:
        byte = file.read(1)
        if not byte:
            return None
        if byte == b"\xff":
            code = file.read(1)
            while code == b"\xff" and skipped <= MAX_HEADER_BYTES:
                code, skipped = file.read(1), skipped + 1
            if code and code not in b"\x00\xff":
                return code[0]
        skipped += 1
    raise HeaderError(f"has more than {MAX_HEADER_BYTES} bytes of filling between its segments")


def _scans(file: IO[bytes], pixels: int) -> Header:
    """Count the scans: the entropy-coded data holds no marker but restarts, so that each start of one is real."""
    most = min(MAX_SCANS, max(1, MAX_SCANNED_PIXELS // max(1, pixels)))
    scans = 1
    for found in _marker_codes(file):
        if found == 0xD9:
            return Header(scans)
        scans += found == 0xDA
        if scans > most:
            raise HeaderError(f"is a JPEG of more than {most} scans, which take too long: save it again")
    return Header(scans, is_cut=True)


_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)


def _marker_codes(file: IO[bytes]) -> Iterator[int]:
    held = b""
    while block := file.read(_BLOCK):
        held += block
        for found in _MARKER.finditer(held):
            yield found[1][0]
        held = held[-1:] if held[-1:] == b"\xff" else b""


def _png(file: IO[bytes], size_bytes: int) -> None:
    """Sizes of the chunks that Pillow keeps, their number, and whether the pixels can be there at all."""
    file.seek(8)
    header, chunks, comments, pixel_bytes = b"", 0, 0, 0
    other = 0
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        chunks += 1
        if kind == b"IHDR":
            header = file.read(min(length, 13))
            length -= len(header)
        elif kind == b"IDAT":
            pixel_bytes += length
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            comments += length
        elif kind == b"fcTL":
            other -= 1
            if chunks > 2 * MAX_FRAMES:
                raise HeaderError(f"has more than {MAX_FRAMES} frames")
        _bounded(length, MAX_PROFILE_BYTES, "of colour profile", applies=kind == b"iCCP")
        _bounded(length, MAX_EXIF_BYTES, "of EXIF", applies=kind == b"eXIf")
        other += kind not in (b"IDAT", b"fdAT")
        if comments > MAX_COMMENT_BYTES:
            raise HeaderError(f"has more than {MAX_COMMENT_BYTES} bytes of texts")
        if other > MAX_PARTS or chunks > MAX_PARTS + size_bytes // 1024:
            raise HeaderError(f"has too many parts: {chunks} chunks in {size_bytes} bytes")
        if kind == b"IEND":
            break
        file.seek(length + 4, 1)
    if len(header) == 13:
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
        bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
        # Interlaced rows are shorter ones of seven passes, rounded up each: not less in all than the bits themselves.
        check_rows(width, height, width * bits + (0 if interlaced else 8), min(pixel_bytes, size_bytes) * _DEFLATE)


def _bounded(length: int, most: int, what: str, *, applies: bool = True) -> None:
    if applies and length > most:
        raise HeaderError(f"has {length} bytes {what}, more than the {most} allowed")


def _gif(file: IO[bytes], size_bytes: int) -> None:
    """Blocks before the first frame."""
    head = file.read(13)
    if len(head) < 13:
        return
    if head[10] & 0x80:
        file.seek(3 * 2 ** ((head[10] & 7) + 1), 1)
    read = parts = 0
    while file.read(1) == b"!":
        file.read(1)
        while length := int.from_bytes(file.read(1), "little"):
            file.seek(length, 1)
            read, parts = read + length, parts + 1
            if read > MAX_COMMENT_BYTES:
                raise HeaderError(f"has more than {MAX_COMMENT_BYTES} bytes before its first frame")
        parts += 1
        if parts > MAX_PARTS + read // 64:
            raise HeaderError(f"has more than {MAX_PARTS} blocks before its first frame")


def _webp(file: IO[bytes], size_bytes: int) -> None:
    """Frames, and the sizes of what Pillow keeps."""
    file.seek(12)
    parts = 0
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        parts += 1
        if parts > MAX_FRAMES:
            raise HeaderError(f"has more than {MAX_FRAMES} frames")
        _bounded(length, MAX_PROFILE_BYTES, "of colour profile", applies=kind == b"ICCP")
        _bounded(length, MAX_EXIF_BYTES, "of EXIF", applies=kind == b"EXIF")
        _bounded(length, MAX_COMMENT_BYTES, "of XMP", applies=kind == b"XMP ")
        file.seek(length + (length & 1), 1)


def _tiff(file: IO[bytes], size_bytes: int) -> None:
    """Directories, tags, and bytes of the values that Pillow keeps."""
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    if len(head) < (16 if big else 8):
        return
    at = struct.unpack(order + "Q", head[8:16])[0] if big else struct.unpack(order + "I", head[4:8])[0]
    # Pillow reads one directory, and follows the others' places alone.
    seen: set[int] = set()
    while at and at not in seen and at < size_bytes:
        seen.add(at)
        if len(seen) > MAX_IFDS:
            raise HeaderError(f"has more than {MAX_IFDS} pictures")
        at = _directory(file, at, order, big)


def _directory(file: IO[bytes], at: int, order: str, big: bool) -> int:
    """Check one directory; the next one's place, 0 where there is none."""
    file.seek(at)
    counted = file.read(8 if big else 2)
    if len(counted) < (8 if big else 2):
        return 0
    count = struct.unpack(order + ("Q" if big else "H"), counted)[0]
    if count > MAX_TAGS:
        raise HeaderError(f"has {count} tags, more than the {MAX_TAGS} allowed")
    entry = 20 if big else 12
    entries = file.read(entry * count)
    for start in range(0, len(entries) - entry + 1, entry):
        tag, _, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), entries, start)
        if tag in (273, 279, 324, 325) and values > MAX_TILES:
            raise HeaderError(f"has {values} strips or tiles, more than the {MAX_TILES} allowed")
        most = MAX_PROFILE_BYTES if tag == 34675 else MAX_COMMENT_BYTES
        _bounded(values, most, f"or numbers in the tag {tag}")
    following = file.read(8 if big else 4)
    if len(following) < (8 if big else 4):
        return 0
    return int(struct.unpack(order + ("Q" if big else "I"), following)[0])


def _jpeg2000(file: IO[bytes], size_bytes: int) -> None:
    """Boxes, and segments before the first tile."""
    head = file.read(4)
    file.seek(0)
    if head == b"\xff\x4f\xff\x51":
        _codestream(file)
        return
    for _ in range(MAX_PARTS):
        at = file.tell()
        box = file.read(16)
        if len(box) < 8:
            return
        length, kind = struct.unpack(">I4s", box[:8])
        if kind == b"jp2c":
            file.seek(at + (16 if length == 1 else 8))
            _codestream(file)
            return
        if length == 1:
            length = int.from_bytes(box[8:16], "big")
        if kind == b"jp2h":
            length = 8  # what is inside counts
        if length < 8:
            return
        file.seek(min(at + length, size_bytes))
    raise HeaderError(f"has more than {MAX_PARTS} boxes before its pixels")


def _codestream(file: IO[bytes]) -> None:
    file.seek(2, 1)
    for _ in range(MAX_PARTS):
        head = file.read(4)
        if len(head) < 4 or head[1] in (0x90, 0xD9):
            return
        file.seek(max(2, int.from_bytes(head[2:], "big")) - 2, 1)
    raise HeaderError(f"has more than {MAX_PARTS} segments before its pixels")


_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*(?:[\r\n]|\Z))*([^\s#]{0,40})")


def _ppm(file: IO[bytes], size_bytes: int) -> None:
    """The header's length, and whether the pixels of a binary one are there."""
    head = file.read(MAX_HEADER_BYTES)
    kind, at, numbers = head[1:2], 2, []
    for _ in range(2 if kind in b"14" else 3):
        found = _TOKEN.match(head, at)
        at = found.end() if found else len(head)
        if at >= len(head) and size_bytes > len(head):
            raise HeaderError(f"has a header of more than {MAX_HEADER_BYTES} bytes: remove its comment")
        if found is None or not found[1].isdigit():
            break
        numbers.append(int(found[1]))
    if len(numbers) < 2:
        return
    width, height = numbers[:2]
    check_sides(width, height)
    least = {b"1": 1, b"2": 2, b"3": 6}.get(kind)
    if least is not None:
        # In words: a digit and a blank for each sample, but the last.
        check_rows(width, height, 8 * width * least, size_bytes - at + 1)
    if kind in b"456" and len(numbers) == (2 if kind == b"4" else 3) and width and height:
        sample = 16 if kind != b"4" and numbers[2] > 255 else 8
        row_bits = width if kind == b"4" else width * sample * (3 if kind == b"6" else 1)
        check_rows(width, height, row_bits, size_bytes - at - 1)


def _bmp(file: IO[bytes], size_bytes: int) -> None:
    """Whether the pixels of an uncompressed one are there."""
    head = file.read(34)
    if len(head) < 34 or int.from_bytes(head[14:18], "little") < 40:
        return
    width, height = struct.unpack("<ii", head[18:26])
    bits, compression = int.from_bytes(head[28:30], "little"), int.from_bytes(head[30:34], "little")
    check_sides(abs(width), abs(height))
    if compression in (0, 3) and bits in (1, 2, 4, 8, 16, 24, 32):
        # The last row's filling may be missing.
        offset = int.from_bytes(head[10:14], "little")
        check_rows(abs(width), abs(height), abs(width) * bits, size_bytes - min(offset, size_bytes))


_CHECKS: tuple[tuple[bytes, Check], ...] = (
    (rb"\xff\xd8", _jpeg),
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"GIF8[79]a", _gif),
    (rb"RIFF....WEBP", _webp),
    (rb"II[*+]\0|MM\0[*+]", _tiff),
    (rb"P[0-9a-zA-Z]", _ppm),
    (rb"BM", _bmp),
    (rb"\0\0\0\x0cjP|\xff\x4f\xff\x51", _jpeg2000),
)
