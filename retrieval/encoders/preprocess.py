"""A picture as the input of a CLIP image tower: open_clip's preprocessing by Pillow and NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders.base import EncoderError
from retrieval.images.decode import crop_elongated

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# What open_clip takes where a description says nothing: the figures of OpenAI's CLIP.
_DEFAULTS: dict[str, Any] = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}


@dataclass(frozen=True)
class Preprocessing:
    """Makes of a picture the very numbers that open_clip's own transform makes, bit for bit.

    size is (height, width). resize_mode: ``shortest`` scales the short side and cuts the middle out, ``longest``
    scales the long side and fills the rest with fill_color, ``squash`` scales both sides.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill_color: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing that open_clip's ``preprocess_cfg`` describes; raises `EncoderError` for any other."""
        known = {**_DEFAULTS, **{key: value for key, value in settings.items() if value is not None}}
        try:
            side = known["size"]
            height, width = side if isinstance(side, list | tuple) else (side, side)
            made = cls(
                (int(height), int(width)),
                _three(known["mean"]),
                _three(known["std"]),
                str(known["interpolation"]),
                str(known["resize_mode"]),
                int(known["fill_color"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EncoderError(f"the preprocessing is not understood: {error!r}") from None
        if (
            min(made.size) < 1
            or made.interpolation not in (*_RESAMPLING, "random")
            or made.resize_mode not in ("shortest", "longest", "squash")
            or known.get("mode", "RGB") != "RGB"
        ):
            raise EncoderError(f"the preprocessing is not understood: {dict(settings)!r}")
        return made

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """The input for an RGB picture: float32 of (3, height, width)."""
        image = crop_elongated(image, max_aspect(self.size, self.resize_mode))
        pixels = np.asarray(self._framed(image).convert("RGB"))
        # As the 256 values of a channel are converted by a table, each is rounded as torch rounds it.
        return np.stack([table[pixels[..., channel]] for channel, table in enumerate(self._tables())])

    def _tables(self) -> NDArray[np.float32]:
        values = np.arange(256, dtype=np.float32) / np.float32(255)
        mean, std = (np.array(numbers, np.float32)[:, None] for numbers in (self.mean, self.std))
        tables: NDArray[np.float32] = (values - mean) / std
        return tables

    def _framed(self, image: Image.Image) -> Image.Image:
        """The picture scaled, and cut or filled up, to the size."""
        height, width = self.size
        # open_clip leaves "random" to training.
        resampling = _RESAMPLING.get(self.interpolation, Image.Resampling.BICUBIC)
        if self.resize_mode == "squash":
            return image.resize((width, height), resampling)
        if self.resize_mode == "shortest" and height == width:
            return _middle(image.resize(_short_side(image.size, height), resampling), self.size, 0)
        if self.resize_mode == "shortest":
            # open_clip gives this case its default interpolation.
            resampling = Image.Resampling.BICUBIC
        ratios = image.height / height, image.width / width
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        scaled = image.resize((round(image.width / ratio), round(image.height / ratio)), resampling)
        return _middle(scaled, self.size, self.fill_color if self.resize_mode == "longest" else 0)


def max_aspect(size: int | tuple[int, ...] | list[int], resize_mode: str) -> float:
    """How long a picture may be against its width before a resize of this mode goes wrong.

    By the shortest side it would grow to gigapixels, of which the centre crop keeps the middle; by the
    longest, the short side would shrink to nothing.
    """
    shortest = size if isinstance(size, int) else min(size)
    return {"shortest": 8.0, "longest": float(shortest)}.get(resize_mode, math.inf)


def _three(numbers: Any) -> tuple[float, ...]:
    channels = tuple(float(number) for number in (numbers if isinstance(numbers, list | tuple) else [numbers] * 3))
    if len(channels) != 3:
        raise ValueError(f"{len(channels)} channels")
    return channels


def _short_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The (width, height) at which the short side is `side`, cut to whole pixels as torchvision does."""
    width, height = size
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def _middle(image: Image.Image, size: tuple[int, int], fill: int) -> Image.Image:
    """The middle of `image`, filled up at the edges where it is smaller than `size` (height, width)."""
    height, width = size
    if image.width < width or image.height < height:
        framed = Image.new(image.mode, (max(width, image.width), max(height, image.height)), (fill,) * 3)
        framed.paste(image, ((framed.width - image.width) // 2, (framed.height - image.height) // 2))
        image = framed
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))
