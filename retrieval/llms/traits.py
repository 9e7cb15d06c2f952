"""What is known of a chat model: from its profile, or by a rule on its name."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from retrieval.llms.base import ModelTraits

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

#: The context assumed of a model of which nothing is known, and the one that Ollama is asked for.
DEFAULT_CONTEXT_TOKENS = 8192

# Published families that take images, by what their names hold. A name that matches none is taken for a model
# of text only: images sent to one of those are an error with most servers, and silently dropped by others.
_SEES = re.compile(
    r"(?:^|[^a-z])vlm?(?:[^a-z]|$)|[a-z]vlm?(?:[^a-z]|$)|vision|multimodal|llava|omni|pixtral|moondream|molmo"
    r"|internvl|minicpm-?[vo]|idefics|smolvlm|kosmos-?2|fuyu|blip|chameleon|emu3|janus|paligemma|gemma-?[34]"
    r"|llama-?4|mllama|qvq|ovis|florence|glm-?4\.?\d*v|mistral-small-?3\.[12]|magistral-small-2509"
    r"|gpt-4o|gpt-4\.1|gpt-4-turbo|gpt-5|gemini|claude-(?:3|opus|sonnet|haiku)|nova-(?:lite|pro)",
    re.IGNORECASE,
)


def traits(model: BaseChatModel, *, vision: bool | None = None, context_tokens: int | None = None) -> ModelTraits:
    """Say what is known of `model`, any LangChain chat model; what is given overrides what would be found.

    The model's own profile (LangChain's, generated from models.dev, or what `load_model` was told) comes first.
    Without one, a model takes images if its name holds that of a family which does (llava, -vl, pixtral,
    gemma3, ...), and its context is Ollama's num_ctx, else `DEFAULT_CONTEXT_TOKENS`. A model is local if it runs in
    this process or behind a loopback address. Every model behind an address is capable, and every one that sees.
    """
    profile: dict[str, Any] = dict(getattr(model, "profile", None) or {})
    name = _name(model)
    if vision is None:
        known = profile.get("image_inputs")
        vision = bool(_SEES.search(name)) if known is None else bool(known)
    if context_tokens is None:
        context_tokens = profile.get("max_input_tokens") or getattr(model, "num_ctx", None) or DEFAULT_CONTEXT_TOKENS
    return ModelTraits(
        name=name,
        vision=vision,
        context_tokens=int(context_tokens),
        local=_is_local(model),
        max_images=_max_images(model) if vision else 0,
        capable=vision or not _in_process(model),
    )


def _name(model: BaseChatModel) -> str:
    for attribute in ("model_name", "model", "model_id"):
        value = getattr(model, attribute, None)
        if isinstance(value, str) and value:
            return value
    return type(model).__name__


def _max_images(model: BaseChatModel) -> int | None:
    """What the families without a chat template say; the others, and the servers, tell no number."""
    from retrieval.llms.local import LocalChatModel

    return model.max_images if isinstance(model, LocalChatModel) else None


def _in_process(model: BaseChatModel) -> bool:
    from retrieval.llms.local import LocalChatModel

    return isinstance(model, LocalChatModel)


def _is_local(model: BaseChatModel) -> bool:
    if _in_process(model):
        return True
    address = getattr(model, "openai_api_base", None) or getattr(model, "base_url", None)
    if address is None and type(model).__name__ == "ChatOllama":
        address = os.environ.get("OLLAMA_HOST") or "http://127.0.0.1:11434"
    return isinstance(address, str) and is_loopback(address)


def is_loopback(address: str) -> bool:
    """Whether `address`, a URL or host:port, is this machine's own: localhost, 127.0.0.0/8 or ::1."""
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
