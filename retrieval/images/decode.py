"""Decoding images from anywhere into upright RGB, within stated bounds."""

from __future__ import annotations

import io
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias, TypeVar

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from retrieval.images.budget import PROCESS_BUDGET
from retrieval.images.colours import upright_rgb
from retrieval.images.formats import READS, ignore_pillow_warnings, open_header
from retrieval.images.headers import MAX_IFDS, Header, HeaderError, TruncatedError, check_header, check_sides
from retrieval.images.parts import PartOfFile, picture_of
from retrieval.images.plan import Plan, Wanted, middle_box
from retrieval.images.truncated import with_end

File: TypeAlias = str | Path | bytes | PartOfFile
ImageSource: TypeAlias = Image.Image | File
T = TypeVar("T")

MAX_PIXELS = 100_000_000
#: Of what is made smaller while it is decoded: a phone's photograph has up to 200 megapixels.
MAX_SCALED_PIXELS = 300_000_000
_SCALED = ("JPEG", "MPO")
MAX_BYTES = 512 * 1024 * 1024


class ImageError(Exception):
    """A file or upload that cannot be used as an image; says why in one line."""


class TooManyPixels(ImageError):
    """A picture of more pixels than are allowed, which its owner may want to allow."""


def load_image(
    source: ImageSource,
    *,
    max_pixels: int | None = None,
    max_bytes: int = MAX_BYTES,
    target_size: int | None = None,
    wanted: Wanted | None = None,
) -> Image.Image:
    """Decode `source` into a new, upright, 8-bit sRGB image without metadata.

    EXIF orientation is applied, transparency laid on white, an embedded colour profile converted, and
    16-bit, 32-bit and float samples scaled to 8 bits; of an animation the first frame is taken. An image
    object given is left as it was, at its current frame. A JPEG of which up to a quarter is missing at its end is
    taken as far as it goes.

    max_pixels is checked from the header, before any pixel is decoded; unless given it is `MAX_PIXELS`, and
    `MAX_SCALED_PIXELS` for a JPEG that may be scaled. Where somebody made Pillow's own limit smaller, twice
    `Image.MAX_IMAGE_PIXELS` holds as well. max_bytes bounds the encoded file. target_size, in pixels,
    permits a smaller decode whose short side is still at least that long: JPEG is then scaled while its
    blocks are decoded, which is several times faster for camera-sized files, and of other formats what has more
    than SHRINK_ABOVE pixels is averaged down, and cut to its middle where it is longer than MAX_ASPECT times its
    short side. wanted says more than target_size can.

    All that is decoded at a time in a process is within `decode_budget.PROCESS_BUDGET`: who would need more waits.

    Raises `ImageError` for whatever is not a regular readable file holding one whole image within those
    bounds. Never blocks on pipes or devices, never warns, and is safe to call from several threads.
    """
    wanted = wanted or Wanted(target_size)
    if isinstance(source, Image.Image):
        with _explained(_describe(source)):
            _check_size(source.size, MAX_PIXELS if max_pixels is None else max_pixels)
            ignore_pillow_warnings()
            return wanted.of(upright_rgb(source))
    with (
        planned(source, wanted, max_pixels=max_pixels, max_bytes=max_bytes) as plan,
        PROCESS_BUDGET.lease(plan.peak_bytes),
    ):
        return plan.decode()


@contextmanager
def open_image(source: File, *, max_pixels: int | None = None, max_bytes: int = MAX_BYTES) -> Iterator[ImageFile]:
    """Open `source` for its header and metadata: no pixel is decoded until its `load` is called.

    Bounds and errors are those of `load_image` for a scaled picture, also for what is done with the image inside the
    block. Its `info` has "is_cut" for a JPEG whose end is missing.
    """
    with _opened(source, _limit(max_pixels, scaled=True), max_bytes) as (image, header, _):
        if header.is_cut:
            image.info["is_cut"] = True
        yield image


@contextmanager
def planned(
    source: File,
    wanted: Wanted,
    *,
    max_pixels: int | None = None,
    max_bytes: int = MAX_BYTES,
    header: Header | None = None,
) -> Iterator[Plan]:
    """Open `source` and plan its decoding, which begins when the plan's `decode` is called.

    Bounds and errors are those of `load_image`, also for what is done inside the block. header: that of a plan of the
    same bytes, which are then not checked again.
    """
    limit = _limit(max_pixels, scaled=wanted.short_side is not None)
    with _opened(source, limit, max_bytes, header) as (image, header, size_bytes):
        yield Plan(image, wanted, header=header, size_bytes=size_bytes)


#: How many pixels a picture of a format may have.
Limit: TypeAlias = Callable[[str | None], int]


def _limit(max_pixels: int | None, *, scaled: bool) -> Limit:
    if max_pixels is not None:
        return lambda _: max_pixels
    return lambda name: MAX_SCALED_PIXELS if scaled and name in _SCALED else MAX_PIXELS


@contextmanager
def _opened(
    source: File, limit: Limit, max_bytes: int, header: Header | None = None
) -> Iterator[tuple[ImageFile, Header, int]]:
    """A file's header read, what was found in it, and the file's size in bytes."""
    whole = source.file if isinstance(source, PartOfFile) else source
    with _explained(_describe(source)), _open_source(whole, max_bytes) as file:
        size_bytes = len(whole) if isinstance(whole, bytes) else os.fstat(file.fileno()).st_size
        page = 0
        if isinstance(source, PartOfFile):
            data, page = picture_of(file.read(max_bytes), source.part)
            file, size_bytes = io.BytesIO(data), len(data)
        if header is None:
            header = _checked(file, size_bytes, limit)
        with open_header(with_end(file) if header.is_cut else file) as image:
            if page:
                _turn_to(image, page)
            _check_size(image.size, limit(image.format))
            yield image, header, size_bytes


def _turn_to(image: ImageFile, page: int) -> None:
    """Show another page of an opened picture. Raises `ImageError` where it has none, or no pages at all."""
    try:
        if image.format != "TIFF" or page >= MAX_IFDS:
            raise EOFError
        image.seek(page)
    except EOFError:
        raise ImageError(f"has no page {page + 1}") from None


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever opening and decoding raise into an `ImageError` that names the source."""
    try:
        yield
    except TooManyPixels as error:
        raise TooManyPixels(f"{name}: {error}") from None
    except (ImageError, HeaderError) as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image, or damaged, or of a format that is not read ({READS})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: more pixels than Pillow's Image.MAX_IMAGE_PIXELS lets in") from None
    except Exception as error:
        # Pillow's parsers raise nearly anything on hostile bytes: struct.error, KeyError, SyntaxError, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{name}: cannot be decoded: {_one_line(reason) or type(error).__name__}") from error


def map_images(
    sources: Iterable[ImageSource],
    function: Callable[[Image.Image], T],
    *,
    threads: int | None = None,
    prefetch: int | None = None,
    max_pixels: int | None = None,
    max_bytes: int = MAX_BYTES,
    target_size: int | None = None,
) -> Generator[T | ImageError, None, None]:
    """Decode `sources` and apply `function` in threads; yield results in order, or the `ImageError` met.

    What waits in memory is what `function` returns, so a resize there bounds it. threads defaults to the
    cores this process may use, at most 8. At most `prefetch` sources, twice the threads unless given, are
    taken from the iterable ahead of what was yielded. What `function` itself raises is raised here.
    """
    threads = min(8, available_cores()) if threads is None else threads
    window = 2 * threads if prefetch is None else prefetch
    if threads < 1 or window < 1:
        raise ValueError(f"threads and prefetch must be at least 1, not {threads} and {window}")

    def work(source: ImageSource) -> T | ImageError:
        try:
            image = load_image(source, max_pixels=max_pixels, max_bytes=max_bytes, target_size=target_size)
        except ImageError as error:
            return error
        return function(image)

    def results() -> Generator[T | ImageError, None, None]:
        pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        pending: deque[Future[T | ImageError]] = deque()
        try:
            for source in sources:
                pending.append(pool.submit(work, source))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # Also when the consumer stops early or an error passes: nothing may run on unseen.
            pool.shutdown(wait=True, cancel_futures=True)

    return results()


def crop_elongated(image: Image.Image, max_aspect: float = 8.0) -> Image.Image:
    """Keep the middle of an image whose sides differ by more than `max_aspect`; return others as they are.

    A resize of the short side to a network's input would blow a 1 x 100,000 pixel file up to gigapixels;
    the centre crop that follows such a resize shows only the middle anyway.
    """
    box = middle_box(image.size, max_aspect)
    return image if box == (0, 0, *image.size) else image.crop(box)


def available_cores() -> int:
    """How many processor cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _checked(file: IO[bytes], size_bytes: int, limit: Limit) -> Header:
    """What was found in the header, once nothing there is beyond its bounds. Raises `HeaderError`."""
    try:
        return check_header(file, size_bytes)
    except TruncatedError as error:
        if error.pixels <= limit(None):
            raise
        # Too many pixels is what its owner has to hear first.
        file.seek(0)
        return Header()


def _describe(source: ImageSource) -> str:
    """Name a source in one line, whatever its path holds."""
    if isinstance(source, Image.Image):
        return f"{source.mode} image of {source.width} x {source.height} pixels"
    if isinstance(source, bytes):
        return f"image of {len(source)} bytes"
    if isinstance(source, PartOfFile):
        return _describe(source.file)
    if isinstance(source, str | Path):
        return _one_line(str(source))
    raise TypeError(f"an image is given as a PIL image, a path or bytes, not {type(source).__name__}")


def _one_line(text: str) -> str:
    # Not at the top: the processes that decode pictures load neither NumPy nor the engines' package.
    from backends.harmless import escaped

    return escaped(text)


def _open_source(source: str | Path | bytes, max_bytes: int) -> IO[bytes]:
    """Open a regular file or wrap bytes; refuse empty, oversized and special ones."""
    if isinstance(source, bytes):
        _check_length(len(source), max_bytes)
        return io.BytesIO(source)
    try:
        _check_regular(Path(source).stat().st_mode)
        # Between the check and the open the path may have become a pipe: O_NONBLOCK keeps even that from waiting.
        descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        reason = {FileNotFoundError: "no such file", PermissionError: "not readable: permission denied"}
        raise ImageError(reason.get(type(error), error.strerror or str(error))) from None
    except ValueError as error:
        raise ImageError(f"not a file name: {error}") from None
    file = os.fdopen(descriptor, "rb")
    try:
        status = os.fstat(descriptor)
        _check_regular(status.st_mode)
        _check_length(status.st_size, max_bytes)
    except ImageError:
        file.close()
        raise
    return file


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise ImageError("is a folder, not an image file")
    if not stat.S_ISREG(mode):
        raise ImageError("is a pipe, socket or device, not an image file")


def _check_length(length_bytes: int, max_bytes: int) -> None:
    if length_bytes == 0:
        raise ImageError("is empty")
    if length_bytes > max_bytes:
        raise ImageError(f"has {length_bytes} bytes, more than the {max_bytes} allowed")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("has no pixels")
    check_sides(width, height)
    if width * height > max_pixels:
        raise TooManyPixels(f"has {width} x {height} pixels, more than the {max_pixels} allowed")
