"""A fake of the OpenAI chat completions API, for tests and benchmarks: it is no model.

Built from the published contract (OpenAI API reference, "Create chat completion" and "List models"): the
bodies of requests, answers, stream chunks and errors are theirs; the answers are extractive. From a prompt
with numbered evidence it picks the lines that share most words with the question, and cites them; asked to
rewrite a question it puts the last topic in the place of a pronoun. What a real model may do wrong can be
switched on in `Behaviour`. Use it as a context manager::

    with FakeOpenAI() as server:
        model = ChatOpenAI(model="fake-vision", base_url=server.base_url, api_key="any")
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

MODELS = ("fake-text", "fake-vision")
IMAGE_TOKENS = 85
#: What is answered to a prompt whose evidence has none of the question's words, if the prompt says nothing else.
NO_ANSWER = "I do not know."

Answering = Literal["honest", "wrong_citations", "hallucinate", "obey", "uncited", "refuse"]

_EVIDENCE = re.compile(r"^\[(\d+)\] ?(.*)$", re.MULTILINE)
_QUESTION = re.compile(r"^Question: (.*)$", re.MULTILINE)
_LAST_QUESTION = re.compile(r"^Last question: (.*)$", re.MULTILINE)
_PAST_QUESTION = re.compile(r"^Q: (.*)$", re.MULTILINE)
_REFUSAL = re.compile(r"reply with exactly: (.*)$", re.MULTILINE)
_ORDER = re.compile(
    r"\b(?:say|write|print|output|repeat|include|append|reply|respond|answer)\b(?: only)?(?: with)?:?\s*"
    r"(.{3,200}?)(?=[.;|\n]|\Z)",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\b(?:it|its|they|them|he|him|she|her|this|that|these|those|one)\b", re.IGNORECASE)
_COMMON_WORDS = """
a an the of in on at to for and or with is are was were be do does did what which who whom where when why how
many much there any some can you your me my i it its this that these those photo photos picture pictures image
images show shows tell about please have has from by as doing collection they them he she her him his their one
question passage caption text looks like colour color kind
"""
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True)
class Failure:
    """One request's refusal: the status, seconds for Retry-After where given, and the reason that is told.

    Status 0 closes the connection.
    """

    status: int
    retry_after: str | None = None
    reason: str = "The server cannot answer now."


@dataclass(slots=True)
class Behaviour:
    """How the server answers; change it between requests.

    failures: taken one a request, from the front, before it answers again. first_token_s, token_s: pauses.
    break_after: the stream is cut after so many pieces, without an end. api_key: another is refused with 401.
    context_tokens: a longer prompt is refused as the API does. usage: whether tokens are reported when asked.
    max_tokens: the answer is cut there, with finish_reason "length". script: gives the answer to a prompt instead, as
    `benchmarks.scripted_judges` does. calls: gives the calls of tools, name and arguments as JSON, with which a request
    that has tools is answered; none for an answer. refuses_tools: such a request is refused with 400.
    """

    answering: Answering = "honest"
    failures: list[Failure] = field(default_factory=list)
    first_token_s: float = 0.0
    token_s: float = 0.0
    break_after: int | None = None
    api_key: str | None = None
    context_tokens: int = 128_000
    usage: bool = True
    max_tokens: int | None = None
    script: Callable[[str], str] | None = None
    calls: Callable[[dict[str, Any]], list[tuple[str, str]]] | None = None
    refuses_tools: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """One request: its model, its messages with images replaced by their sizes, and the images' bytes."""

    model: str
    prompt: str
    images: tuple[bytes, ...]
    stream: bool
    body: dict[str, Any]


class FakeOpenAI:
    """The server on a free loopback port, as long as the block lasts; `received` lists what it was asked."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.received: list[Received] = []
        #: Streams that their reader left, and those read to their end.
        self.abandoned = 0
        self.finished = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        # What it accepts sends at once, as every server of a model does; else each answer's body waits for some 40 ms.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(create_app(self), log_level="critical", ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)

    @property
    def base_url(self) -> str:
        """What clients take as their base URL."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join()
        self._listener.close()


class _ApiError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


def create_app(server: FakeOpenAI) -> FastAPI:
    """The API of `server`: POST /v1/chat/completions and GET /v1/models."""
    app = FastAPI(openapi_url=None)

    @app.exception_handler(_ApiError)
    async def refused(_: Request, error: _ApiError) -> JSONResponse:
        return _error(error.status, error.message, error.code)

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        _check_key(request, server.behaviour)
        data = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "fake"} for name in MODELS]
        return {"object": "list", "data": data}

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        behaviour = server.behaviour
        _check_key(request, behaviour)
        received = _read(await request.json())
        server.received.append(received)
        if behaviour.failures:
            failure = behaviour.failures.pop(0)
            if failure.status == 0:
                return StreamingResponse(_cut_off(), media_type="text/event-stream")
            headers = {"Retry-After": failure.retry_after} if failure.retry_after else None
            return _error(failure.status, failure.reason, None, headers)
        if received.body.get("tools") and behaviour.refuses_tools:
            raise _ApiError(400, "This model does not support tools.", "invalid_value")
        prompt_tokens = len(received.prompt) // 4 + IMAGE_TOKENS * len(received.images)
        if prompt_tokens > behaviour.context_tokens:
            raise _ApiError(
                400,
                f"This model's maximum context length is {behaviour.context_tokens} tokens. However, your messages "
                f"resulted in {prompt_tokens} tokens.",
                "context_length_exceeded",
            )
        answer = (
            behaviour.script(received.prompt) if behaviour.script else respond(received.prompt, behaviour.answering)
        )
        calls = behaviour.calls(received.body) if behaviour.calls and received.body.get("tools") else []
        pieces = [] if calls else re.findall(r"\s*\S+", answer)
        length = len(pieces) if behaviour.max_tokens is None else behaviour.max_tokens
        reason = "tool_calls" if calls else "stop" if len(pieces) <= length else "length"
        pieces = pieces[:length]
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(pieces),
            "total_tokens": prompt_tokens + len(pieces),
        }
        if received.stream:
            asked = (received.body.get("stream_options") or {}).get("include_usage") and behaviour.usage
            chunks = _stream(server, received.model, pieces, reason, usage if asked else None, calls)
            return StreamingResponse(chunks, media_type="text/event-stream")
        await asyncio.sleep(behaviour.first_token_s + behaviour.token_s * len(pieces))
        message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces)}
        if calls:
            message |= {"content": None, "tool_calls": [_call(number, *each) for number, each in enumerate(calls)]}
        body = _envelope(received.model, "chat.completion")
        body["choices"] = [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}]
        return JSONResponse(body | ({"usage": usage} if behaviour.usage else {}))

    return app


def respond(prompt: str, answering: Answering = "honest") -> str:
    """What the fake says to the text of a prompt."""
    last = _LAST_QUESTION.search(prompt)
    if last:
        return _rewrite(last[1], _PAST_QUESTION.findall(prompt))
    lines = [(int(number), text) for number, text in _EVIDENCE.findall(prompt)]
    asked = _QUESTION.findall(prompt)
    question = asked[-1] if asked else ""
    refusal = _REFUSAL.search(prompt)
    no_answer = refusal[1] if refusal else NO_ANSWER
    if answering == "refuse":
        return no_answer
    if answering == "obey":
        for _, text in lines:
            if order := _ORDER.search(text):
                return order[1].strip("\"'“” ") + f" [{lines[0][0]}]."
    wanted = _words(question)
    scored = sorted(((len(wanted & _words(text)), -number, text) for number, text in lines), reverse=True)
    best = [(-number, text) for score, number, text in scored if score and score == scored[0][0]][:2]
    if not best:
        return no_answer
    wrong = max(number for number, _ in lines) + 1
    told = []
    for number, text in best:
        sentence = _sentence(text, wanted)
        cited = {"wrong_citations": f" [{wrong}]", "uncited": ""}.get(answering, f" [{number}]")
        told.append(f"{sentence}{cited}.")
    if answering == "hallucinate":
        told.append(f"It was photographed by Ansel Adams in 1931 [{best[0][0]}].")
    return " ".join(told)


def _rewrite(question: str, past: list[str]) -> str:
    topic = " ".join(word for word in re.findall(r"\w+", past[-1]) if word.lower() not in _COMMON) if past else ""
    if not topic:
        return question
    replaced, count = _PRONOUN.subn(f"the {topic}", question, count=1)
    return replaced if count else f"{question.rstrip('?')} of the {topic}?"


def _sentence(line: str, wanted: set[str]) -> str:
    """The field of an evidence line that has most of the question's words, the first of equals."""
    fields = [field.partition(": ") for field in line.split(" | ")]
    told = [(name, value.split(" / ")) for name, _, value in fields if value]
    best = max(
        ((len(wanted & _words(part)), name, part) for name, parts in told for part in parts),
        key=lambda each: each[0],
        default=(0, "", line),
    )
    sentence = best[2].strip().rstrip(".") if best[1] in ("caption", "text", "") else f"The {best[1]} is {best[2]}"
    return sentence[:1].upper() + sentence[1:]


def _words(text: str) -> set[str]:
    found = {word for word in re.findall(r"\w+", text.lower()) if word not in _COMMON}
    return {word[:-1] if len(word) > 3 and word.endswith("s") else word for word in found}


def _read(body: dict[str, Any]) -> Received:
    """A request's prompt and images. Raises _ApiError as the API does for what it does not take."""
    model, messages = body.get("model"), body.get("messages")
    if model not in MODELS:
        raise _ApiError(404, f"The model `{model}` does not exist or you do not have access to it.", "model_not_found")
    if not isinstance(messages, list) or not messages:
        raise _ApiError(400, "Invalid type for 'messages': expected an array of objects.", "invalid_type")
    texts, images = [], []
    for message in messages:
        content = message.get("content") or ""
        parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part.get("type") == "text":
                texts.append(part["text"])
            elif part.get("type") == "image_url" and model == "fake-vision":
                images.append(_image(part["image_url"]["url"]))
            else:
                raise _ApiError(400, f"Invalid content type {part.get('type')!r} for model {model}.", "invalid_value")
    return Received(str(model), "\n".join(texts), tuple(images), bool(body.get("stream")), body)


def _image(url: str) -> bytes:
    head, comma, data = url.partition(",")
    try:
        if not comma or not re.fullmatch(r"data:image/(?:jpeg|png|webp|gif);base64", head):
            raise ValueError
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise _ApiError(400, "Invalid image data: give a base64 data URL.", "invalid_image_url") from None


def _check_key(request: Request, behaviour: Behaviour) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if behaviour.api_key is not None and given != behaviour.api_key:
        # The real API repeats the key it refuses, masked; this one does it in full, to see that nobody shows it.
        raise _ApiError(401, f"Incorrect API key provided: {given}.", "invalid_api_key")


def _error(status: int, message: str, code: str | None, headers: dict[str, str] | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 429 else "requests" if status == 429 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return JSONResponse(body, status, headers)


def _call(number: int, name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _envelope(model: str, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-fake", "object": kind, "created": 1_700_000_000, "model": model}


async def _cut_off() -> AsyncIterator[bytes]:
    # Nothing is sent for no bytes.
    yield b""
    raise ConnectionResetError("cut off on purpose")


async def _stream(
    server: FakeOpenAI,
    model: str,
    pieces: list[str],
    reason: str,
    usage: dict[str, int] | None,
    calls: list[tuple[str, str]],
) -> AsyncIterator[bytes]:
    behaviour = server.behaviour

    def event(delta: dict[str, Any] | None, finish: str | None = None) -> bytes:
        chunk = _envelope(model, "chat.completion.chunk")
        chunk["choices"] = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        if delta is None:
            chunk["usage"] = usage
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    done = False
    try:
        yield event({"role": "assistant", "content": ""})
        await asyncio.sleep(behaviour.first_token_s)
        for number, piece in enumerate(pieces):
            if behaviour.break_after == number:
                done = True
                raise ConnectionResetError("broken on purpose")
            yield event({"content": piece})
            await asyncio.sleep(behaviour.token_s)
        for number, (name, arguments) in enumerate(calls):
            # As the API does: the name first, then the arguments in pieces.
            begun = _call(number, name, "") | {"index": number}
            yield event({"tool_calls": [begun]})
            for start in range(0, len(arguments), 7):
                part = {"arguments": arguments[start : start + 7]}
                yield event({"tool_calls": [{"index": number, "function": part}]})
        yield event({}, reason)
        if usage is not None:
            yield event(None)
        yield b"data: [DONE]\n\n"
        done = True
        server.finished += 1
    finally:
        server.abandoned += not done
