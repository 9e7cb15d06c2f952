"""Thumbnails: made once, kept on disk within a bound, the least recently used thrown away first."""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

QUALITY = 85
_NAME = re.compile(r"[0-9a-f]{64}\.jpg\Z")


def thumbnail_tag(path: Path, status: os.stat_result, size: int, part: str = "") -> str:
    """What names the thumbnail of a file, or of a part of it, in its present state: 64 hexadecimal digits."""
    facts = f"{path}\0{status.st_mtime_ns}\0{status.st_size}\0{status.st_ino}\0{size}\0{part}".removesuffix("\0")
    return hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()


class Thumbnails:
    """JPEGs by tag in `folder`, at most `limit_bytes` of them. Thread-safe.

    Files are written whole or not at all. A disk that is full, or a folder that cannot be written, costs
    the time to make them again and nothing else.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] | None = None
        self._total_bytes = 0

    def get(self, tag: str) -> bytes | None:
        """The thumbnail, if it is kept."""
        try:
            data = self._file(tag).read_bytes()
        except OSError:
            return None
        with self._lock:
            sizes = self._known()
            if tag in sizes:
                sizes.move_to_end(tag)
        # So that the order is known to the next process.
        try:
            os.utime(self._file(tag))
        except OSError:
            return data
        return data

    def keep(self, tag: str, image: Image.Image) -> bytes:
        """A picture of the thumbnail's size as a JPEG, which is kept."""
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY)
        self._keep(tag, buffer.getvalue())
        return buffer.getvalue()

    def _keep(self, tag: str, data: bytes) -> None:
        file = self._file(tag)
        temporary = file.with_name(f".{tag}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError:
            return
        with self._lock:
            sizes = self._known()
            self._total_bytes += len(data) - sizes.pop(tag, 0)
            sizes[tag] = len(data)
            while self._total_bytes > self._limit_bytes and len(sizes) > 1:
                oldest, size_bytes = sizes.popitem(last=False)
                self._total_bytes -= size_bytes
                self._file(oldest).unlink(missing_ok=True)

    def _file(self, tag: str) -> Path:
        return self._folder / tag[:2] / f"{tag}.jpg"

    def _known(self) -> OrderedDict[str, int]:
        """What is on disk, least recently used first; looked up at the first use. The lock is held."""
        if self._sizes is None:
            found = []
            for file in self._folder.glob("*/*.jpg"):
                try:
                    status = file.stat()
                except OSError:
                    continue
                if _NAME.match(file.name):
                    found.append((status.st_mtime_ns, file.stem, status.st_size))
            self._sizes = OrderedDict((tag, size_bytes) for _, tag, size_bytes in sorted(found))
            self._total_bytes = sum(self._sizes.values())
        return self._sizes
