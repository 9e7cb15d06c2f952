"""A question answered in one call, and what a chat with a given model may spend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.chat.options import ChatOptions, Check, gate_of
from retrieval.chat.session import GroundedChat
from retrieval.chat.steps import QuestionImage
from retrieval.llms import OFFLINE, load_model, traits
from retrieval.relevance.scorer import RELEVANT

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from retrieval.chat.events import Answer
    from retrieval.search.filters import Filter
    from retrieval.search.retriever import Retriever

#: A small model loses itself in more; and on a processor each costs seconds.
_OFFLINE_EVIDENCE = 4
_MAX_CONTEXT_TOKENS = 32_768


def options_for(
    model: BaseChatModel,
    name: str = OFFLINE,
    *,
    model_url: str | None = None,
    min_relevance: float = RELEVANT,
    check: Check | None = None,
    max_evidence: int | None = None,
    tools: bool = True,
) -> ChatOptions:
    """What a chat with `model` may spend: by its traits, and cautiously where it is the small offline one.

    Args:
        name: what chose the model, as `retrieval.llms.load_model` takes it.
        model_url: the address at which it answers, if one was given.
        min_relevance: what a search shows, 0 to 1; the chat's gate follows it downwards, see `gate_of`.
        check: what is done with what the model says; None for what fits it: a capable model's answer is marked, a weak
            one is held to the strict rule.
        max_evidence: how many found items the model sees; None for what fits the model.
        tools: whether a capable model may call tools, where it can.
    """
    known = traits(model)
    weak = name.startswith("offline:") or not known.capable
    context = max(256, min(known.context_tokens, _MAX_CONTEXT_TOKENS))
    in_process = known.local and not model_url and not name.startswith("ollama:")
    evidence = max_evidence or (_OFFLINE_EVIDENCE if weak else 8)
    return ChatOptions(
        vision=known.vision,
        context_tokens=context,
        max_answer_tokens=min(512, context // 4),
        max_evidence=min(evidence, 100),
        max_images=4 if known.max_images is None else min(4, known.max_images),
        request_images=known.max_images,
        gate=gate_of(min_relevance),
        # What the small model adds to what has support is rarely right.
        check=check or ("strict" if weak else "mark"),
        fallback="quote" if weak else "refuse",
        rewrite="rules" if weak else "model",
        tools=tools and not weak,
        history_turns=0 if weak else 6,
        first_token_s=300.0 if in_process else 60.0,
        total_s=900.0 if in_process else 180.0,
    )


def ask(
    question: str,
    retriever: Retriever,
    *,
    model: str = OFFLINE,
    model_url: str | None = None,
    image: QuestionImage | None = None,
    where: Filter = None,
    check: Check | None = None,
) -> Answer:
    """Answer a question from what `retriever` finds, with numbered sources; every sentence has a verdict.

    The model is loaded for this one question; keep a `GroundedChat` for several.

    Args:
        model: ``offline:smollm2``, ``transformers:PATH`` or ``PROVIDER:MODEL``, see `retrieval.llms.load_model`.
        model_url: the address of an OpenAI-compatible server.
        image: a picture that belongs to the question.
        where: only items that match.
        check: as of `options_for`.

    Returns:
        The answer: its `text`, `sources` by number, and `refused` where nothing that was found answers.

    Raises:
        ModelError: the model cannot be had; the message says what to install or set.
        ChatError: the model failed.
    """
    loaded = load_model(model, base_url=model_url)
    chat = GroundedChat(retriever, loaded, options_for(loaded, model, model_url=model_url, check=check))
    return chat.ask(question, image=image, where=where)
