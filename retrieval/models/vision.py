"""A vision-language model in this process, through transformers."""

from __future__ import annotations

from retrieval.models.base import ModelError
from retrieval.models.local import LocalChatModel


def load_vision_model(
    source: str, *, timeout_s: float, max_tokens: int, temperature: float, device: str, precision: str
) -> LocalChatModel:
    """Not there yet: always raises `ModelError`."""
    raise ModelError(f"transformers:{source}: models in this process are not built in yet")
