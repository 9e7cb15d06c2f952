"""JPEG files like photographs, made on the spot: contrast at every scale, as in the world, and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Widths of the layers, in blobs, and their strengths: contrast falls with size, as in photographs.
_LAYERS = ((8, 60.0), (32, 40.0), (128, 25.0))
# A sensor's noise, in levels of 255: at quality 90 a file of 12 megapixels then has 3.3 MB, as a phone's does.
_NOISE = 4.0
_QUALITY = 90


def make_pictures(folder: Path, size: tuple[int, int], count: int, seed: int = 0) -> list[Path]:
    """Write `count` different JPEG files of `size` (width, height) into a new `folder`, the same for the same seed."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    base = _picture(size, random)
    files = [folder / f"{number:04}.jpg" for number in range(count)]
    for file in files:
        # A new one for each would take ten times as long; moved and lit otherwise, it is as good.
        moved = np.roll(base, (int(random.integers(size[1])), int(random.integers(size[0]))), (0, 1))
        lit = moved * np.float32(random.uniform(0.7, 1.2)) + np.float32(random.uniform(-20, 20))
        Image.fromarray(lit.clip(0, 255).astype(np.uint8)).save(file, quality=_QUALITY)
    return files


def _picture(size: tuple[int, int], random: np.random.Generator) -> NDArray[np.float32]:
    width, height = size
    pixels = np.zeros((height, width, 3), np.float32)
    for blobs, strength in _LAYERS:
        rows = max(2, blobs * height // width)
        small = Image.fromarray(random.integers(0, 256, (rows, blobs, 3), dtype=np.uint8))
        pixels += strength / 128 * np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float32)
    pixels += random.normal(0, _NOISE, (height, width, 1)).astype(np.float32)
    return pixels
