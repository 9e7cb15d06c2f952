"""What calls of a model cost, as it told or by our estimate."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.chat.budget import text_tokens
from retrieval.chat.llm_client import Reply


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of one or several calls; estimated: some of them by rule."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.estimated or other.estimated,
        )


def spent(reply: Reply, asked: int) -> Spent:
    """What a call cost; `asked` is our estimate of its prompt."""
    if reply.input_tokens is not None and reply.output_tokens is not None:
        return Spent(reply.input_tokens, reply.output_tokens)
    return Spent(asked, text_tokens(reply.text), estimated=True)
