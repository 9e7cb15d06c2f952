"""What prompts cost: tokens by a stated rule, and images downscaled into a budget."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

from PIL import Image

from retrieval.images.decode import ImageSource, load_image
from retrieval.images.plan import Wanted

BYTES_PER_TOKEN = 3
#: Roles and separators of a chat template, per message.
MESSAGE_TOKENS = 6
_LEAST_SIDE = 32
_FIRST_QUALITY, _LEAST_QUALITY = 85, 45


def text_tokens(text: str) -> int:
    """At most so many tokens, as a rule: one for every 3 bytes of UTF-8.

    English takes about 4 bytes a token, Chinese about 3 to 4 and code 3, so this errs to the safe side for
    the vocabularies in use; it is an estimate for any model, not a count.
    """
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def image_tokens(width: int, height: int) -> int:
    """The dearer of two published costs of an image, in tokens.

    OpenAI's for high detail: 85, and 170 for each tile of 512 pixels, after fitting into 2048 x 2048 and a
    short side of 768. Qwen2-VL's: one for each patch of 28 x 28 pixels.
    """
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    tiles = math.ceil(width * scale / 512) * math.ceil(height * scale / 512)
    return max(85 + 170 * tiles, math.ceil(width / 28) * math.ceil(height / 28))


def cut(text: str, tokens: int) -> str:
    """`text`, or its beginning and an ellipsis, in at most `tokens`."""
    if text_tokens(text) <= tokens:
        return text
    kept = text.encode("utf-8", "replace")[: max(0, tokens - 1) * BYTES_PER_TOKEN].decode("utf-8", "ignore")
    head, space, _ = kept.rpartition(" ")
    return (head if space else kept).rstrip() + "…"


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as the model gets it: a JPEG, its size in pixels, and its cost in tokens."""

    jpeg: bytes
    width: int
    height: int
    tokens: int

    def block(self) -> dict[str, Any]:
        """The image as LangChain's standard content block, which every integration translates."""
        return {"type": "image", "base64": base64.b64encode(self.jpeg).decode("ascii"), "mime_type": "image/jpeg"}


def prepare_picture(source: ImageSource, max_side: int, max_bytes: int) -> Picture:
    """`source` decoded, its long side at most `max_side` pixels and its JPEG at most `max_bytes`.

    Quality goes down first, then the size; never below a side of 32 pixels. What is over 8 times as long
    as wide is cut to its middle. Nothing of the file but its pixels is sent: no EXIF, no name. Raises
    `ImageError`.
    """
    image = load_image(source, wanted=Wanted(fit=max_side, middle=True))
    side = max_side
    while True:
        fitted = image.copy()
        fitted.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in range(_FIRST_QUALITY, _LEAST_QUALITY - 1, -20):
            stream = io.BytesIO()
            fitted.save(stream, "JPEG", quality=quality, optimize=True)
            if stream.tell() <= max_bytes or (quality <= _LEAST_QUALITY and side <= _LEAST_SIDE):
                return Picture(
                    stream.getvalue(), width=fitted.width, height=fitted.height, tokens=image_tokens(*fitted.size)
                )
        side = max(_LEAST_SIDE, side * 3 // 4)
