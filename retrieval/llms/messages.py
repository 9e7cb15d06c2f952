"""LangChain messages as texts and decoded images, for models in this process."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, SystemMessage, convert_to_messages
from PIL import Image

from retrieval.images.decode import ImageError, crop_elongated, load_image
from retrieval.llms.base import ModelError

Part: TypeAlias = "str | Image.Image"

#: A picture in a message may have at most this many bytes and pixels before it is decoded and made smaller.
MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 50_000_000
#: More are refused: each takes hundreds of tokens and its own pass through the vision tower.
MAX_IMAGES = 32


@dataclass(frozen=True)
class Message:
    """What one side said: `role` is system, user or assistant; parts are texts and images in their order."""

    role: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The texts alone, one after the other."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list[Image.Image]:
        """The images alone, in their order."""
        return [part for part in self.parts if isinstance(part, Image.Image)]


def read_messages(messages: Sequence[BaseMessage], *, max_image_side: int = 0) -> list[Message]:
    """The texts and decoded images of `messages`, none of their sides longer than `max_image_side` pixels.

    0 refuses images. Images come as base64 (LangChain's image blocks, or OpenAI's image_url with a data: URL);
    nothing is fetched from an address. Raises `ModelError` for anything that is neither text nor such an image.
    """
    read = [_read(message, max_image_side) for message in convert_to_messages(messages)]
    if not any(message.role == "user" for message in read):
        raise ModelError("there is no question: the messages hold none of a user's")
    count = sum(len(message.images) for message in read)
    if count > MAX_IMAGES:
        raise ModelError(f"{count} images are more than the {MAX_IMAGES} that one request may hold")
    return read


def _read(message: BaseMessage, max_image_side: int) -> Message:
    parts: list[Part] = []
    for block in message.content_blocks:
        kind = block["type"]
        if kind == "text":
            parts.append(str(block.get("text", "")))
        elif kind == "image":
            if not max_image_side:
                raise ModelError("this model reads text only: choose one that takes images")
            parts.append(_image(cast("dict[str, object]", block), max_image_side))
        elif kind not in ("reasoning", "tool_call"):
            raise ModelError(f"a message holds a block of type {kind}, which this model does not read")
    return Message(_role(message), tuple(parts))


def _role(message: BaseMessage) -> str:
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, ChatMessage) and message.role in ("system", "assistant"):
        return message.role
    return "user"  # what a tool found is told like anything else


def _image(block: dict[str, object], max_side: int) -> Image.Image:
    encoded = block.get("base64")
    if not isinstance(encoded, str):
        raise ModelError("an image must be in the message itself, as base64: no address is fetched")
    if len(encoded) > MAX_IMAGE_BYTES * 4 // 3 + 4:
        raise ModelError(f"an image is larger than the {MAX_IMAGE_BYTES} bytes allowed")
    try:
        content = base64.b64decode(encoded, validate=True)
        image = load_image(content, max_pixels=MAX_IMAGE_PIXELS, max_bytes=MAX_IMAGE_BYTES, target_size=max_side)
    except binascii.Error:
        raise ModelError("an image in a message is not valid base64") from None
    except ImageError as error:
        raise ModelError(f"an image in a message cannot be used: {error}") from None
    # A processor blows a strip up to gigapixels, or refuses it.
    image = crop_elongated(image, 32.0)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return image


def defuse(text: str, control: re.Pattern[str]) -> str:
    """Keep `text` from speaking to the model's tokenizer: a space goes into each of its control tokens.

    Retrieved text may hold ``<|im_end|>`` or ``<image>``; a chat template would let it end the turn it stands in,
    or claim the place of a picture.
    """
    return control.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text)
