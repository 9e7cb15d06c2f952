"""Pictures for a load test: those of a folder, and new ones made of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.load_server import LoadError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MAX_PICTURES = 64
MAX_PICTURE_BYTES = 4 * 1024 * 1024


def pictures_in(folders: Sequence[Path]) -> list[bytes]:
    """The first picture files below some folders, as their bytes. Raises LoadError where there is none."""
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    small = [file for file in files if file.stat().st_size <= MAX_PICTURE_BYTES][:MAX_PICTURES]
    if not small:
        raise LoadError(f"there is no picture in {', '.join(map(str, folders))}")
    return [file.read_bytes() for file in small]


def new_picture(data: bytes, random: np.random.Generator) -> bytes:
    """A JPEG that was never seen: a random part of a picture, as people crop them."""
    with Image.open(io.BytesIO(data)) as image:
        share = random.uniform(0.5, 0.95)
        width, height = (max(16, int(share * side)) for side in image.size)
        left = int(random.integers(0, max(1, image.width - width)))
        top = int(random.integers(0, max(1, image.height - height)))
        cropped = image.convert("RGB").crop((left, top, left + width, top + height))
    # Two crops may be the same; a few pixels of chance make sure that no two files are.
    noise = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    cropped.paste(noise, (0, 0))
    stream = io.BytesIO()
    cropped.save(stream, "JPEG", quality=90)
    return stream.getvalue()
