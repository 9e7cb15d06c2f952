"""What a chat may spend and how strict it is: one frozen, checked object."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

#: A little under `retrieval.relevance.scorer.RELEVANT`, which a person looks at as it is: an answer is checked against
#: its sources, so that a near miss among them costs a refusal at most, and a source gated away costs the answer.
MIN_EVIDENCE_RELEVANCE = 0.7


#: Rules, tools, evidence, what the tools give, and an answer do not fit into less.
MIN_TOOL_CONTEXT = 4096


def gate_of(min_relevance: float) -> float | None:
    """The gate of a chat where searches show what has at least `min_relevance`: that counts only if it is lower.

    None, no gate, where it is 0. The command line, the service and the benchmark take it from here.
    """
    return min(MIN_EVIDENCE_RELEVANCE, min_relevance) or None


Fallback: TypeAlias = Literal["refuse", "quote"]
Check: TypeAlias = Literal["off", "mark", "strict", "verify"]
Rewriting: TypeAlias = Literal["model", "rules", "off"]


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Budgets and rules of a `GroundedChat`. Raises ValueError naming the field for a value out of range.

    vision: the model takes images; without it, images are given as caption, tags and metadata.
    context_tokens: what prompt and answer may be together, in the model's tokens.
    max_answer_tokens: what is left free for the answer.
    history_tokens, history_turns: how much of the conversation the model sees; the rest is forgotten.
    max_evidence: how many found items the model sees at most, images and texts together.
    max_images: how many of them as images, and how many that tools find together; further ones go as caption, tags and
    metadata. request_images: how many images one request may hold, the question's own among them, where the model says.
    max_image_side, max_image_bytes: an image is downscaled to this long side in pixels, then until its
    JPEG is no larger; base64 adds a third on the wire.
    max_passage_tokens: a longer passage or caption is cut, and says so.
    tags: how many of the encoder's own zero-shot labels describe an image that the model does not see.
    gate: least calibrated relevance of evidence, 0 to 1 (`retrieval.relevance.scorer`); None lets everything through.
    check: ``mark`` gives each sentence a verdict and changes nothing; ``verify`` has a model judge them as well;
    ``strict`` drops sentences without support, and refuses where none has any; ``off`` gives no verdicts.
    fallback: when ``strict`` leaves no sentence, ``refuse``, or ``quote`` the best evidence (for weak models).
    tools: a model that can call tools searches, counts and opens items itself, in a context of at least 4,096 tokens.
    rewrite: how a follow-up becomes a stand-alone query: by the ``model`` (checked), by ``rules``, or ``off``.
    first_token_s, total_s: time-outs of one attempt's first token, and of all the model does in one turn.
    retries: how often a transient error before the first token is tried again.
    backoff_s: the first pause between tries; each further one doubles, up to `max_backoff_s`.
    """

    vision: bool = False
    context_tokens: int = 8192
    max_answer_tokens: int = 512
    history_tokens: int = 1024
    history_turns: int = 6
    max_evidence: int = 8
    max_images: int = 4
    request_images: int | None = None
    max_image_side: int = 768
    max_image_bytes: int = 256 * 1024
    max_passage_tokens: int = 384
    tags: int = 3
    gate: float | None = MIN_EVIDENCE_RELEVANCE
    check: Check = "mark"
    fallback: Fallback = "refuse"
    rewrite: Rewriting = "model"
    tools: bool = True
    first_token_s: float = 60.0
    total_s: float = 180.0
    retries: int = 2
    backoff_s: float = 0.5
    max_backoff_s: float = 20.0

    @property
    def weak(self) -> bool:
        """Whether the model is one that is helped out by quotations, and asked for nothing but the answer."""
        return self.fallback == "quote"

    @property
    def uses_tools(self) -> bool:
        """Whether a model that can call tools is given some: a weak one, or one with a short context, is not."""
        return self.tools and not self.weak and self.context_tokens >= MIN_TOOL_CONTEXT

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} must be an integer from {least} to {most}, not {value!r}")
        images = self.request_images
        if images is not None and (isinstance(images, bool) or not isinstance(images, int) or images < 0):
            raise ValueError(f"request_images must be an integer of at least 0, or None, not {images!r}")
        for name in ("first_token_s", "total_s", "backoff_s", "max_backoff_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number of seconds above 0, not {value!r}")
        if self.gate is not None and not 0 <= self.gate <= 1:
            raise ValueError(f"gate must be a relevance from 0 to 1, or None, not {self.gate!r}")
        if self.fallback not in get_args(Fallback):
            raise ValueError(f"fallback must be one of {', '.join(get_args(Fallback))}, not {self.fallback!r}")
        if self.check not in get_args(Check):
            raise ValueError(f"check must be one of {', '.join(get_args(Check))}, not {self.check!r}")
        if self.rewrite not in get_args(Rewriting):
            raise ValueError(f"rewrite must be one of {', '.join(get_args(Rewriting))}, not {self.rewrite!r}")
        if self.max_answer_tokens >= self.context_tokens:
            raise ValueError(
                f"max_answer_tokens is {self.max_answer_tokens}, which leaves nothing of the "
                f"{self.context_tokens} context_tokens for the question"
            )


_RANGES = (
    ("context_tokens", 256, 100_000_000),
    ("max_answer_tokens", 16, 1_000_000),
    ("history_tokens", 0, 10_000_000),
    ("history_turns", 0, 1000),
    ("max_evidence", 1, 100),
    ("max_images", 0, 100),
    ("max_image_side", 32, 8192),
    ("max_image_bytes", 4096, 64 * 1024 * 1024),
    ("max_passage_tokens", 16, 100_000),
    ("tags", 0, 50),
    ("retries", 0, 10),
)
