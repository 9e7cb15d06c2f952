"""What a language model is asked about itself, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass


class ModelError(Exception):
    """A language model cannot be had or used: one line that says why and what to do."""


class ModelTimeout(ModelError, TimeoutError):
    """A model in this process was still writing when its time was up; generation was stopped."""


@dataclass(frozen=True)
class ModelTraits:
    """What a chat needs to know of a model before it builds a prompt for it.

    vision: images in a message are seen. context_tokens: how many tokens prompt and answer may have together
    (for a vendor's model, the longest prompt). name: as the model's maker calls it. local: nothing that is
    asked leaves this machine. max_images: how many images one request may hold, None where only the context bounds it.
    capable: what it says is marked where it may be wrong; another's, a small model's that runs in this process and sees
    nothing, is held to what the sources say.
    """

    name: str
    vision: bool
    context_tokens: int
    local: bool
    max_images: int | None = None
    capable: bool = True
