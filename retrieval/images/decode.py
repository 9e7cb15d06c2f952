"""Decoding images from anywhere into upright RGB, within stated bounds."""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar, cast

# Imported for their side effect too: each registers its format, so that which formats are read does not
# depend on what else has been opened in the process.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile

from retrieval.images.budget import PROCESS_BUDGET
from retrieval.images.colours import upright_rgb
from retrieval.images.headers import HeaderError, TruncatedError, check_header, check_sides
from retrieval.images.plan import Plan, Wanted, middle_box

ImageSource: TypeAlias = Image.Image | str | Path | bytes
T = TypeVar("T")

MAX_PIXELS = 100_000_000
MAX_BYTES = 512 * 1024 * 1024

# Raster formats decoded by libraries that are fuzzed in the open. Left out on purpose: EPS and PDF (run
# Ghostscript), WMF, and the rare ones whose parsers few people test.
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    AvifImagePlugin.AvifImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    Jpeg2KImagePlugin.Jpeg2KImageFile,
    PpmImagePlugin.PpmImageFile,
    MpoImagePlugin.MpoImageFile,
)
# A build of Pillow without some codec does not register its format; MPO comes in through JPEG.
_FORMATS = tuple(str(plugin.format) for plugin in _PLUGINS if plugin.format in Image.OPEN)
_READS = "JPEG, PNG, WebP, GIF, AVIF, HEIC, BMP, TIFF, JPEG 2000 and PPM are read"

#: Lower-case file name endings, with the dot, of the formats that `load_image` reads.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".avif", ".avifs"}
    | {".heic", ".heif", ".hif", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".jpc", ".jpf"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
)

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})


class ImageError(Exception):
    """A file or upload that cannot be used as an image; says why in one line."""


def load_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    target_size: int | None = None,
    wanted: Wanted | None = None,
) -> Image.Image:
    """Decode `source` into a new, upright, 8-bit sRGB image without metadata.

    EXIF orientation is applied, transparency laid on white, an embedded colour profile converted, and
    16-bit, 32-bit and float samples scaled to 8 bits; of an animation the first frame is taken. An image
    object given is left as it was, at its current frame.

    max_pixels is checked from the header, before any pixel is decoded; Pillow's own limit, twice
    `Image.MAX_IMAGE_PIXELS`, holds as well. max_bytes bounds the encoded file. target_size, in pixels,
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
            _check_size(source.size, max_pixels)
            _ignore_pillow_warnings()
            return wanted.of(upright_rgb(source))
    with (
        planned(source, wanted, max_pixels=max_pixels, max_bytes=max_bytes) as plan,
        PROCESS_BUDGET.lease(plan.peak_bytes),
    ):
        return plan.decode()


@contextmanager
def open_image(
    source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Iterator[ImageFile]:
    """Open `source` for its header and metadata: no pixel is decoded until its `load` is called.

    Bounds and errors are those of `load_image`, also for what is done with the image inside the block.
    """
    with _opened(source, max_pixels, max_bytes) as (image, _, _):
        yield image


@contextmanager
def planned(
    source: str | Path | bytes,
    wanted: Wanted,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    scans: int | None = None,
) -> Iterator[Plan]:
    """Open `source` and plan its decoding, which begins when the plan's `decode` is called.

    Bounds and errors are those of `load_image`, also for what is done inside the block. scans: those of a plan of the
    same bytes, whose headers are then not checked again.
    """
    with _opened(source, max_pixels, max_bytes, scans) as (image, scans, size_bytes):
        yield Plan(image, wanted, scans=scans, size_bytes=size_bytes)


@contextmanager
def _opened(
    source: str | Path | bytes, max_pixels: int, max_bytes: int, scans: int | None = None
) -> Iterator[tuple[ImageFile, int, int]]:
    """A file's header read, the scans of a JPEG, and the file's size in bytes."""
    with _explained(_describe(source)), _open_source(source, max_bytes) as file:
        size_bytes = len(source) if isinstance(source, bytes) else os.fstat(file.fileno()).st_size
        if scans is None:
            scans = _checked(file, size_bytes, max_pixels)
        with _open_image(file) as image:
            _check_size(image.size, max_pixels)
            yield image, scans, size_bytes


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever opening and decoding raise into an `ImageError` that names the source."""
    try:
        yield
    except (ImageError, HeaderError) as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image, or damaged, or of a format that is not read ({_READS})") from None
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
    max_pixels: int = MAX_PIXELS,
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


def _checked(file: IO[bytes], size_bytes: int, max_pixels: int) -> int:
    """The scans of a JPEG, once nothing in the header is beyond its bounds. Raises `HeaderError`."""
    try:
        return check_header(file, size_bytes)
    except TruncatedError as error:
        if error.pixels <= max_pixels:
            raise
        # Too many pixels is what its owner has to hear first.
        file.seek(0)
        return 1


def _describe(source: ImageSource) -> str:
    """Name a source in one line, whatever its path holds."""
    if isinstance(source, Image.Image):
        return f"{source.mode} image of {source.width} x {source.height} pixels"
    if isinstance(source, bytes):
        return f"image of {len(source)} bytes"
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
        raise ImageError(f"has {width} x {height} pixels, more than the {max_pixels} allowed")


_filter_lock = threading.Lock()


def _ignore_pillow_warnings() -> None:
    """Put a filter that ignores Pillow's own warnings in front of the others, if it is not there.

    What they say (a large image, damaged EXIF, odd transparency) is checked here or does no harm.
    `warnings.catch_warnings` would be narrower, but swaps process-wide state in a way that is not safe
    when several threads decode at once; a filter confined to Pillow's modules is.
    """
    with _filter_lock:
        front = cast("list[tuple[Any, ...]]", warnings.filters)[:1]
        pattern = front[0][3] if front else None
        if getattr(pattern, "pattern", pattern) != _PILLOW_MODULES:
            warnings.filterwarnings("ignore", module=_PILLOW_MODULES)


_PILLOW_MODULES = r"(PIL|pillow_heif)(\.|$)"


def _open_image(file: IO[bytes]) -> ImageFile:
    """Read the header only."""
    _ignore_pillow_warnings()
    head = file.read(64)
    if head[4:8] == b"ftyp" and _HEIF_BRANDS & {head[i : i + 4] for i in range(8, len(head), 4)}:
        return _open_heif(file)
    return Image.open(file, formats=_FORMATS)


def _open_heif(file: IO[bytes]) -> ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageError("HEIC needs the extra heic: pip install 'sightline[heic]'") from None
    file.seek(0)
    try:
        # Pillow declares its plug-ins untyped; opened directly, nothing is registered for the whole process.
        return cast(ImageFile, HeifImageFile(file))
    except SyntaxError as error:
        raise ImageError(f"cannot be decoded: {_one_line(str(error))}") from None
