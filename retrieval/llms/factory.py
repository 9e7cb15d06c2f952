"""A chat model by one setting: ``offline:smollm2``, ``transformers:PATH``, or ``PROVIDER:MODEL`` through LangChain."""

from __future__ import annotations

import importlib.util
import os
import re
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from backends.redaction import redact, remember_url
from retrieval.llms.base import ModelError
from retrieval.llms.traits import DEFAULT_CONTEXT_TOKENS

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel, ModelProfile

_FORMS = "offline:smollm2, transformers:PATH, openai:MODEL, ollama:MODEL, google_genai:MODEL, ..."

# Where a provider's package comes from; the others are named by LangChain's own error.
_EXTRAS = {"openai": "chat", "ollama": "ollama"}

# No server without a key looks at it, but the client refuses to send none.
_NO_KEY = "none"


#: The model for whoever has none: small, in this process, from packages.
OFFLINE = "offline:smollm2"


def load_model(
    name: str,
    *,
    base_url: str | None = None,
    timeout_s: float = 120.0,
    max_tokens: int = 512,
    temperature: float = 0.0,
    vision: bool | None = None,
    context_tokens: int | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> BaseChatModel:
    """Give the chat model that `name` chooses, ready to be asked.

    ``offline:smollm2``: SmolLM2-135M-Instruct in this process, from packages only.
    ``transformers:PATH``: a vision-language model in this process, from a local folder or a hub repository, on
    `device` and in `precision` (both as of `retrieval.encoders.load_encoder`).
    ``PROVIDER:MODEL``: whatever LangChain's `init_chat_model` knows: openai, ollama, google_genai, anthropic, ...;
    ``openai:MODEL`` with `base_url` is any OpenAI-compatible server (vLLM, llama.cpp, LM Studio), which needs no key.
    API keys are read by the provider's package from its environment variables (OPENAI_API_KEY, ...), nowhere else.

    timeout_s bounds one request (in process: one answer). max_tokens bounds the answer. temperature 0 is greedy; it
    is left out for models whose profile says that they take none. vision and context_tokens override what `traits`
    would find; Ollama, which otherwise cuts long prompts silently, is asked for that context as well.
    Nothing is retried here: the caller decides that.

    Raises `ModelError` in one line: an unknown name, a package or extra to install, a missing key, unusable weights.
    """
    scheme, separator, rest = name.partition(":")
    if not (separator and scheme and rest.strip()):
        raise ModelError(f"no model is called {name!r}: use {_FORMS}")
    _check(timeout_s, max_tokens, temperature, context_tokens)
    if scheme in ("offline", "transformers"):
        if base_url is not None:
            raise ModelError(f"{scheme}: runs in this process and takes no base_url: use openai:MODEL for a server")
        model = _load_local(scheme, rest, timeout_s, max_tokens, temperature, context_tokens, device, precision)
    else:
        model = _load_remote(scheme, rest, _address(base_url), timeout_s, max_tokens, temperature, context_tokens)
    overrides: ModelProfile = {}
    if vision is not None:
        overrides["image_inputs"] = vision
    if context_tokens is not None:
        overrides["max_input_tokens"] = context_tokens
    if overrides:
        model.profile = {**(model.profile or {}), **overrides}
    return model


def _check(timeout_s: float, max_tokens: int, temperature: float, context_tokens: int | None) -> None:
    if not timeout_s > 0:
        raise ModelError(f"timeout_s must be above 0, not {timeout_s}")
    if max_tokens < 1:
        raise ModelError(f"max_tokens must be at least 1, not {max_tokens}")
    if not 0 <= temperature <= 2:
        raise ModelError(f"temperature must be between 0 and 2, not {temperature}")
    if context_tokens is not None and context_tokens <= max_tokens:
        raise ModelError(f"context_tokens must be more than max_tokens, not {context_tokens} with {max_tokens}")


def _address(base_url: str | None) -> str | None:
    """Refuse what is no plain http(s) address, and one that holds a password: those end up in logs."""
    if base_url is None:
        return None
    try:
        parts = urlsplit(base_url)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        plain = False
    if not plain:
        raise ModelError("base_url must be an address such as http://localhost:8000/v1")
    if parts.username or parts.password:
        raise ModelError("base_url must hold no user or password: put the key into the environment (OPENAI_API_KEY)")
    remember_url(base_url)
    return base_url


def _load_local(
    scheme: str,
    rest: str,
    timeout_s: float,
    max_tokens: int,
    temperature: float,
    context_tokens: int | None,
    device: str,
    precision: str,
) -> BaseChatModel:
    _need_langchain("langchain_core")
    if scheme == "offline":
        if rest != "smollm2":
            raise ModelError(f"no offline model is called {rest!r}: use offline:smollm2")
        from retrieval.llms.smollm import load_smollm2

        return load_smollm2(
            timeout_s=timeout_s, max_tokens=max_tokens, temperature=temperature, context_tokens=context_tokens
        )
    if importlib.util.find_spec("transformers") is None:
        raise ModelError("transformers: models need the extra transformers: pip install 'sightline[transformers]'")
    from retrieval.llms.vision import load_vision_model

    return load_vision_model(
        rest,
        timeout_s=timeout_s,
        max_tokens=max_tokens,
        temperature=temperature,
        device=device,
        precision=precision,
    )


def _load_remote(
    provider: str,
    model: str,
    base_url: str | None,
    timeout_s: float,
    max_tokens: int,
    temperature: float,
    context_tokens: int | None,
) -> BaseChatModel:
    _need_langchain("langchain")
    options: dict[str, Any] = {"max_tokens": max_tokens, "timeout": timeout_s}
    if base_url is not None:
        options["base_url"] = base_url
    if provider == "openai":
        # Counts of tokens come with a stream only when they are asked for.
        options |= {"stream_usage": True, "max_retries": 0}
        if base_url is not None:
            options["use_responses_api"] = False
            if not os.environ.get("OPENAI_API_KEY"):
                options["api_key"] = _NO_KEY
    elif provider == "ollama":
        options = {key: value for key, value in options.items() if key == "base_url"} | {
            "num_predict": max_tokens,
            "num_ctx": context_tokens or DEFAULT_CONTEXT_TOKENS,
            "client_kwargs": {"timeout": timeout_s},
        }
    built = _build(provider, model, {**options, "temperature": temperature})
    profile: dict[str, Any] = dict(built.profile or {})
    if profile.get("temperature") is False:
        # Reasoning models answer any temperature with an error.
        return _build(provider, model, options)
    return built


def _build(provider: str, model: str, options: dict[str, Any]) -> BaseChatModel:
    from langchain.chat_models import init_chat_model
    from pydantic import ValidationError

    try:
        return cast("BaseChatModel", init_chat_model(model, model_provider=provider, **options))
    except ImportError as error:
        raise ModelError(_how_to_install(provider, error)) from None
    except ValidationError as error:
        # Without the input: it may hold the key.
        first = error.errors(include_input=False, include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith("Unsupported provider"):
            reason = f"no provider of that name: use {_FORMS}"
        else:
            # Each provider's package has its own errors for a missing key.
            reason = str(error) or type(error).__name__
    raise ModelError(f"{provider}:{model}: {without_secrets(reason)}") from None


def _how_to_install(provider: str, error: ImportError) -> str:
    if provider in _EXTRAS:
        return f"{provider}: models need the extra {_EXTRAS[provider]}: pip install 'sightline[{_EXTRAS[provider]}]'"
    package = re.search(r"pip install ([\w.-]+)", str(error))
    if package is None:
        return f"{provider}: models need a package that does not load: {without_secrets(str(error))}"
    return f"{provider}: models need the package {package[1]}: pip install {package[1]}"


def _need_langchain(module: str) -> None:
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise ModelError("chat models need the extra chat: pip install 'sightline[chat]'")


def without_secrets(text: str) -> str:
    """What a provider's package says, on one line and without anything that looks like a secret."""
    return " ".join(redact(text, foreign=True).split())
