"""What goes wrong with a model, in one line that names no secret, and whether trying again may help."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from backends.harmless import one_line, shortened
from backends.redaction import redact

MAX_REASON_CHARS = 200
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_CONNECTION = frozenset(
    {"ModelConnectionError", "APIConnectionError", "ConnectError", "NetworkError", "TransportError", "ConnectionError"}
)
_TIMEOUT = frozenset({"ModelTimeoutError", "APITimeoutError", "TimeoutException", "TimeoutError", "ConnectTimeout"})
_TOOLS = re.compile(r"(?i)\btools?\b|\bfunctions?\b|tool[_ -]?(?:use|call|choice)")
_MOST_REASON = 600
_TOO_LONG = re.compile(r"(?i)context.?(?:length|window|size)|(?:prompt|input) is too long|too many tokens")


class ChatError(Exception):
    """A question cannot be answered now: one line that says why and what to do, without any secret."""


class QuestionError(ChatError):
    """The question itself cannot be taken: it is empty, or too long for the limit or the model's context."""


class ChatTimeout(ChatError):
    """The model took longer than `ChatOptions.first_token_s` or `total_s`."""


class ChatCancelled(ChatError):
    """The turn was cancelled through its `CancelToken`."""


class ToolsRefused(ChatError):
    """A request with tools was refused, perhaps for another reason; speaks_of_tools: the answer names them."""

    def __init__(self, told: str, *, speaks_of_tools: bool) -> None:
        super().__init__(told)
        self.speaks_of_tools = speaks_of_tools


def explain(error: BaseException, model: object, *, tokens: int = 0) -> ChatError:
    """The `ChatError` for what a model raised; `tokens` that were already delivered are told."""
    name, where = model_name(model), endpoint(model)
    at = f" at {where}" if where else ""
    status, kinds = status_of(error), kinds_of(error)
    if tokens:
        return ChatError(f"model {name!r}{at} broke off after {tokens} pieces of its answer: ask again")
    if status == 413 or is_too_long(error):
        return ChatError(f"the question and its evidence are too long for model {name!r}: lower context_tokens")
    if status in (401, 403) or kinds & {"ModelAuthenticationError", "ModelPermissionDeniedError"}:
        return ChatError(f"model {name!r}{at} refused the key: set the right one in the provider's variable")
    if status == 404 or "ModelNotFoundError" in kinds:
        return ChatError(f"there is no model {name!r}{at}: check model and model_url")
    if status == 429 or "ModelRateLimitError" in kinds:
        return ChatError(f"model {name!r}{at} takes no more requests now (429): wait, or raise the provider's limit")
    if kinds & _TIMEOUT:
        return ChatTimeout(f"model {name!r}{at} did not answer in time: is the server overloaded?")
    if kinds & _CONNECTION:
        return ChatError(f"model {name!r}{at} cannot be reached: is the server running, and model_url right?")
    reason = redacted_line(str(error)) or "no reason given"
    told = f" ({status})" if status else f" ({type(error).__name__})"
    return ChatError(f"model {name!r}{at} failed{told}: {reason}")


def refuses_tools(error: BaseException) -> bool:
    """Whether a request with tools may have failed because of them, so that it is worth to ask without."""
    status = status_of(error)
    return status in (400, 422, 501) or (status in (404, 405, 500) and speaks_of_tools(error))


def speaks_of_tools(error: BaseException) -> bool:
    """Whether an answer names tools as what was wrong: its beginning, as its end may repeat the request."""
    return not is_too_long(error) and bool(_TOOLS.search(str(error)[:_MOST_REASON]))


def is_too_long(error: BaseException) -> bool:
    """Whether a request was refused for its length."""
    return "ContextOverflowError" in kinds_of(error) or bool(status_of(error) == 400 and _TOO_LONG.search(str(error)))


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed when it is sent again: 408, 425, 429, 5xx, or a connection lost.

    A time-out of the client is none: it was the limit that someone set, and would only be waited for again.
    """
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT_STATUS
    kinds = kinds_of(error)
    if kinds & _TIMEOUT:
        return "ConnectTimeout" in kinds
    return bool(kinds & (_CONNECTION | {"ModelRateLimitError", "ModelAPIError"}))


def retry_after_s(error: BaseException) -> float | None:
    """What the Retry-After header of the answer asks for, in seconds from now (RFC 9110, 10.2.3); None without."""
    for each in _chain(error):
        headers: Any = getattr(getattr(each, "response", None), "headers", {})
        value = headers.get("retry-after") if hasattr(headers, "get") else None
        if not value:
            continue
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            continue
    return None


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, through whatever wraps it."""
    for each in _chain(error):
        for holder in (each, getattr(each, "response", None)):
            status = getattr(holder, "status_code", None)
            if isinstance(status, int):
                return status
    return None


def kinds_of(error: BaseException) -> set[str]:
    """The names of all classes of an error and its causes.

    By name, because each provider has classes of its own, few of which are ever imported here.
    """
    return {kind.__name__ for each in _chain(error) for kind in type(each).__mro__}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in seen and len(seen) < 10:
        seen.append(each)
        yield each
        each = each.__cause__


def redacted_line(text: str) -> str:
    """`text` on one line, cut, without control characters and without anything that looks like a secret."""
    return shortened(one_line(redact(text, foreign=True)), MAX_REASON_CHARS)


def model_name(model: object) -> str:
    """What a model calls itself, for messages."""
    for attribute in ("model_name", "model", "model_id", "name"):
        value: Any = getattr(model, attribute, None)
        if isinstance(value, str) and value:
            return redacted_line(value)
    return type(model).__name__


def endpoint(model: object) -> str:
    """The scheme, host and port a model is asked at; empty where it has none. Never user, password or query."""
    for attribute in ("openai_api_base", "base_url", "azure_endpoint", "endpoint_url"):
        value: Any = getattr(model, attribute, None)
        if isinstance(value, str) and "://" in value:
            try:
                parts = urlsplit(value)
                port = f":{parts.port}" if parts.port else ""
            except ValueError:
                return ""
            return redacted_line(f"{parts.scheme}://{parts.hostname}{port}{parts.path}")
    return ""
