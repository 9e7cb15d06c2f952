"""The formats of pictures that are read, and opening a file of one of them."""

from __future__ import annotations

import struct
import threading
import warnings
from typing import IO, Any, cast

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

from retrieval.images.headers import HeaderError

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
READS = "JPEG, PNG, WebP, GIF, AVIF, HEIC, BMP, TIFF, JPEG 2000 and PPM are read"

#: Lower-case file name endings, with the dot, of the formats that `load_image` reads.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".avif", ".avifs"}
    | {".heic", ".heif", ".hif", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".jpc", ".jpf"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
)

_PILLOWS_MAX = Image.MAX_IMAGE_PIXELS
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})


_filter_lock = threading.Lock()


def ignore_pillow_warnings() -> None:
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


def open_header(file: IO[bytes]) -> ImageFile:
    """Read the header only."""
    ignore_pillow_warnings()
    head = file.read(64)
    if head[4:8] == b"ftyp" and _HEIF_BRANDS & {head[i : i + 4] for i in range(8, len(head), 4)}:
        return _open_heif(file)
    return _identified(file)


def _identified(file: IO[bytes]) -> ImageFile:
    """The image in a file, as `Image.open` gives it, whose limit of pixels is in the way of ours."""
    file.seek(0)
    prefix = file.read(16)
    for name in _FORMATS:
        factory, accepts = Image.OPEN[name]
        accepted = accepts is None or accepts(prefix)
        if isinstance(accepted, str) or not accepted:
            continue
        file.seek(0)
        try:
            image = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
        if Image.MAX_IMAGE_PIXELS != _PILLOWS_MAX:
            Image._decompression_bomb_check(image.size)
        return image
    raise UnidentifiedImageError


def _open_heif(file: IO[bytes]) -> ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise HeaderError("HEIC needs the extra heic: pip install 'sightline[heic]'") from None
    file.seek(0)
    try:
        # Pillow declares its plug-ins untyped; opened directly, nothing is registered for the whole process.
        return cast(ImageFile, HeifImageFile(file))
    except SyntaxError as error:
        raise HeaderError(f"cannot be decoded: {error}") from None
