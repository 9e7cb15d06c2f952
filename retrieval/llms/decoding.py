"""From tokens to text while a model of transformers writes, up to a stop sequence or a cancellation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from retrieval.llms.local import Emit


class TextStreamer(BaseStreamer):  # type: ignore[misc]
    """Decodes the tokens that `generate` hands out and passes on what can no longer change.

    Held back are half characters and whatever may be the beginning of a stop sequence. `wants_no_more` turns true
    after a stop sequence, or when `emit` says so. The pieces add up to the decoding of all tokens at once.
    """

    def __init__(self, tokenizer: Any, emit: Emit, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._emit = emit
        self._stop = [text for text in stop if text]
        self._prompt_seen = False
        self._sent = 0
        self.token_ids: list[int] = []
        self.wants_no_more = False
        self.stopped = False

    def put(self, value: torch.Tensor) -> None:
        """Take the next token; the first call is the prompt's, or the token that starts a decoder."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.token_ids.extend(int(token) for token in value.flatten())
        if not self.wants_no_more:
            self._send(final=False)

    def end(self) -> None:
        """Pass on what was held back."""
        if not self.wants_no_more:
            self._send(final=True)

    def _send(self, *, final: bool) -> None:
        text = self._tokenizer.decode(self.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ends = [text.find(stop) for stop in self._stop if stop in text]
        if ends:
            self.stopped = self.wants_no_more = True
            text = text[: min(ends)]
        elif not final:
            text = text[: _settled(text, self._stop)]
        piece, self._sent = text[self._sent :], max(self._sent, len(text))
        if self._emit(piece):
            self.wants_no_more = True


def _settled(text: str, stop: Sequence[str]) -> int:
    """How much of `text` stays as it is whatever comes next."""
    length = len(text)
    while length and text[length - 1] == "\ufffd":  # bytes of a character whose others are to come
        length -= 1
    for sequence in stop:
        for size in range(min(len(sequence) - 1, length), 0, -1):
            if text[:length].endswith(sequence[:size]):
                length -= size
                break
    return length


class Stop(StoppingCriteria):  # type: ignore[misc]
    """Ends `generate` after the token at which the streamer wanted no more."""

    def __init__(self, streamer: TextStreamer) -> None:
        self._streamer = streamer

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """(batch,) bool: whether each sequence has ended."""
        return torch.full((input_ids.shape[0],), self._streamer.wants_no_more, device=input_ids.device)
