"""Chat in OpenAI's language, so that its SDK, and the front ends that speak it, work with this service as it is."""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, FastAPI, Path, Request, Response

from app.core.fetch import FetchError
from app.http.context import Service
from app.http.front_ends import asked_words, task
from app.http.openai_errors import OpenAIRoute, WrongRequest, described, error_of, openai_error
from app.http.problems import FAILED, log
from app.http.routes.chat import KEEP_ALIVE_S, respond
from app.http.schemas.chat import MAX_ANSWER_CHARS, MAX_HISTORY, MAX_QUESTION_CHARS, links
from app.http.schemas.common import Collection
from app.http.schemas.openai import (
    MODEL,
    SHOWN_VERDICTS,
    Annotation,
    AnswerMessage,
    Choice,
    Completion,
    CompletionBody,
    Lookup,
    Message,
    ModelBody,
    ModelsBody,
    Part,
    SentenceVerdict,
    TokenUsage,
    UrlCitation,
)
from app.http.turns import ChatRequest, to_http_error
from retrieval.turn import Turn

if TYPE_CHECKING:
    from retrieval.chat import Answer, RunningTurn, Sentence

_PIECE = re.compile(r"\S+\s*|\s+")
# With parameters, as in ``data:image/svg+xml;charset=utf-8;base64,``, and white space before. None needs to name its
# type: the content is judged, as that of all pictures is.
_DATA_URL = re.compile(
    r"\s{0,100}data:(?:image/[a-z0-9.+-]{1,40}|application/octet-stream)?(?:\s*;\s*[a-z0-9_-]{1,40}=[^;,]{0,100}){0,8}\s*;\s*base64\s*,",
    re.IGNORECASE,
)
_URL_ALPHABET = str.maketrans("-_", "+/")
#: The question of who sends a picture and says nothing.
ABOUT_PICTURE = "what is this, and what is like it?"
_MAX_TITLE_CHARS = 120
#: Names the parameters of a request that have no effect.
IGNORED = "X-Ignored-Parameters"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_NAMED = 30
_CHUNKS: dict[int, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream` as chunks that end with [DONE].",
        "content": {
            "text/event-stream": {
                "schema": {"type": "object", "properties": {"data": {"type": "string"}}},
                "example": (
                    'data: {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1700000000, "model": '
                    '"sightline", "choices": [{"index": 0, "delta": {"content": "The "}, "finish_reason": null}]}\n\n'
                    "data: [DONE]\n\n"
                ),
            }
        },
    }
}


def add_routes(app: FastAPI, service: Service) -> None:
    """``POST /v1/chat/completions``, ``GET /v1/models`` and ``GET /v1/models/{model}``."""
    router = APIRouter(route_class=OpenAIRoute)
    started = int(time.time())

    @router.get("/v1/models", tags=["openai"], **described("read"))
    def list_models() -> ModelsBody:
        """The one model: this service, whichever model writes its answers."""
        return ModelsBody(data=[ModelBody(id=MODEL, created=started, owned_by=MODEL)])

    @router.get("/v1/models/{model}", tags=["openai"], **described("read", 404))
    def model(model: Annotated[str, Path(max_length=200, examples=[MODEL])]) -> ModelBody:
        """The one model by its name."""
        _check_model(model)
        return ModelBody(id=MODEL, created=started, owned_by=MODEL)

    @router.post(
        "/v1/chat/completions",
        tags=["openai"],
        response_model=Completion,
        **described("read", 404, 409, 502, 504, body="json", responses=_CHUNKS),
    )
    async def create_completion(request: Request, body: CompletionBody, collection: Collection = None) -> Response:
        """Answer the last message of a conversation from what the collection holds.

        A stream gives the answer while it is written, and nothing that the check would take out. Its citations are
        annotations of the kind `url_citation`; the verdicts of its sentences are `verdicts`. System messages are taken
        and not given to the model, unless there is nothing else: what an answer may say is decided by the sources.
        """
        _check(body)
        asked = _asked(service, body, collection)
        writer = _Writer(str(request.base_url).rstrip("/"), collection)
        with_usage = bool(body.stream_options and body.stream_options.include_usage)
        response = await respond(
            request,
            service,
            asked,
            stream=bool(body.stream),
            whole=writer.completion,
            events=lambda turn, _: _chunks(service, turn, writer, with_usage=with_usage),
        )
        response.headers.update(_ignored(body))
        return response

    app.include_router(router)


def _check(body: CompletionBody) -> None:
    """Refuse what would change the answer's shape, and what contradicts itself."""
    _check_model(body.model)
    if body.stream_options is not None and not body.stream:
        raise WrongRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
            code=None,
        )
    for name, refused, what in (
        ("n", body.n not in (None, 1), "there is one answer: leave 'n' out, or set it to 1"),
        ("response_format", (body.response_format or {}).get("type", "text") != "text", "answers are plain text"),
        ("modalities", bool(set(body.modalities or []) - {"text"}), "answers are text"),
        ("audio", body.audio is not None, "answers are text"),
        ("logprobs", bool(body.logprobs), "there are no log probabilities of a checked answer"),
        ("top_logprobs", bool(body.top_logprobs), "there are no log probabilities of a checked answer"),
    ):
        if refused:
            raise WrongRequest(f"Unsupported value for {name!r}: {what}.", param=name, code="unsupported_value")


def _ignored(body: CompletionBody) -> dict[str, str]:
    """A header that names the parameters that were given and have no effect."""
    given = [name for name, value in (body.model_extra or {}).items() if value is not None and _NAME.fullmatch(name)]
    return {IGNORED: ", ".join(sorted(given)[:_MOST_NAMED])} if given else {}


def _check_model(name: str) -> None:
    if name != MODEL:
        raise WrongRequest(
            f"The model {name!r} does not exist: use {MODEL!r}.", param="model", code="model_not_found", status=404
        )


def _asked(service: Service, body: CompletionBody, collection: str | None) -> ChatRequest:
    """The last message as the question, what is before it as the history, without system messages and tools' replies.

    Only the last one is judged: what earlier ones hold beside text, and cannot be used, was another question's matter.
    """
    turns: list[tuple[list[str], list[str]]] = []
    url, where = None, ""
    spoken = [(number, m) for number, m in enumerate(body.messages) if m.role not in ("system", "developer")]
    if not spoken:
        # A title, or words to follow: a front end's own task for the model.
        tasks = [text for m in body.messages for text in _past_content(service, m)[0]]
        return ChatRequest("\n".join(tasks), collection=collection, searched=False)
    told = task(["\n".join(_past_content(service, m)[0]) for _, m in spoken], MAX_QUESTION_CHARS)
    if told is not None and spoken[0][1].role == "user":
        return ChatRequest(told, collection=collection, searched=False)
    last = spoken[-1][0]
    for number, message in spoken:
        place = f"messages.{number}"
        if message.role not in ("user", "assistant"):
            if number == last:
                raise WrongRequest(
                    f"Messages of the role {message.role!r} are not answered: the last one must be the user's.",
                    param=f"{place}.role",
                    code="invalid_value",
                )
            continue
        texts, urls = _content(service, message, place) if number == last else _past_content(service, message)
        if message.role == "user":
            texts = [text for text in map(asked_words, texts) if text]
            if not turns or turns[-1][1]:
                turns.append(([], []))
                url = None
            turns[-1][0].extend(texts)
            if len(urls) > 1 and number == last:
                raise WrongRequest(
                    "A question comes with one picture at most.", param=f"{place}.content", code="invalid_value"
                )
            url, where = (urls[-1], f"{place}.content") if urls else (url, where)
        elif turns:
            # An answer that said nothing still ends the question before it.
            turns[-1][1].extend(texts or [""])
    if spoken[-1][1].role != "user":
        raise WrongRequest("The last message must be the user's question.", param="messages", code="invalid_value")
    *past, (question, _) = turns
    history = tuple(
        Turn("\n".join(asked)[:MAX_QUESTION_CHARS], "\n".join(answered)[:MAX_ANSWER_CHARS])
        for asked, answered in past[-MAX_HISTORY:]
    )
    picture = None if url is None else partial(_picture, service, url, param=where)
    asked_for = "\n".join(question)
    return ChatRequest(
        ABOUT_PICTURE if picture is not None and not asked_for.strip() else asked_for,
        history=history,
        picture=picture,
        where=body.where,
        check=body.check or ("strict" if body.strict else None),
        collection=collection,
    )


def _content(service: Service, message: Message, place: str) -> tuple[list[str], list[str]]:
    """The texts of a message and the URLs of its pictures, checked."""
    if message.content is None or isinstance(message.content, str):
        return ([message.content] if message.content else []), []
    texts, urls = [], []
    for number, part in enumerate(message.content):
        param = f"{place}.content.{number}"
        if part.type in ("text", "refusal"):
            texts.append(part.text or "")
        elif part.type == "image_url" and part.image_url is not None:
            urls.append(_url(service, part, param))
        else:
            raise WrongRequest(
                f"Parts of the type {part.type[:40]!r} are not taken: use text and image_url.",
                param=param,
                code="invalid_value",
            )
    return texts, urls


def _past_content(service: Service, message: Message) -> tuple[list[str], list[str]]:
    """The texts of an earlier message, and the pictures in it that can be used."""
    if message.content is None or isinstance(message.content, str):
        return ([message.content] if message.content else []), []
    texts = [part.text or "" for part in message.content if part.type in ("text", "refusal")]
    urls = []
    for part in message.content:
        if part.type == "image_url" and part.image_url is not None:
            with contextlib.suppress(WrongRequest):
                urls.append(_url(service, part, ""))
    return texts, urls


def _url(service: Service, part: Part, param: str) -> str:
    assert part.image_url is not None
    url = part.image_url.url
    if not _DATA_URL.match(url):
        param = f"{param}.image_url.url"
        if not service.fetcher.enabled:
            told = "Images are taken as data: URLs in base64 only; no address is fetched."
            raise WrongRequest(told, param=param, code="invalid_image_url")
        try:
            service.fetcher.check(url)
        except FetchError as error:
            raise WrongRequest(str(error), param=param, code="invalid_image_url") from None
    return url


@contextlib.contextmanager
def _picture(service: Service, url: str, param: str) -> Iterator[bytes]:
    """The picture at a checked URL."""
    if _DATA_URL.match(url):
        yield _decoded(url, param)
        return
    with contextlib.ExitStack() as held:
        try:
            data = held.enter_context(service.fetched(service.fetcher.check(url)))
        except FetchError as error:
            raise WrongRequest(str(error), param=param, code="invalid_image_url") from None
        yield data


def _decoded(url: str, param: str) -> bytes:
    """The bytes of a data: URL; line breaks, the alphabet of URLs, and missing padding are taken as they are meant."""
    match = _DATA_URL.match(url)
    encoded = url[match.end() if match else 0 :]
    encoded = "".join((unquote(encoded) if "%" in encoded else encoded).split()).rstrip("=").translate(_URL_ALPHABET)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise WrongRequest("The image's data: URL is not valid base64.", param=param, code="invalid_base64") from None


class _Writer:
    """Writes one answer in OpenAI's objects. base: the service's own address, before the paths of sources."""

    def __init__(self, base: str, collection: str | None) -> None:
        self._base, self._collection = base, collection
        self._id, self._created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    def completion(self, answer: Answer) -> Completion:
        """The whole."""
        message = AnswerMessage(
            content=answer.text,
            annotations=self.annotations(answer),
            verdicts=self.verdicts(answer),
            lookups=[Lookup.at(number, used) for number, used in enumerate(answer.tools)],
        )
        choice = Choice(message=message, finish_reason=_reason(answer))
        return Completion(id=self._id, created=self._created, model=MODEL, choices=[choice], usage=_usage(answer))

    def annotations(self, answer: Answer) -> list[Annotation]:
        """A citation for every number in brackets of the text."""
        sources = {source.number: source.item for source in answer.sources}
        found: list[Annotation] = []
        for group in answer.citations:
            for hit in (sources[number] for number in group.numbers if number in sources):
                item, image = links(hit, self._collection)
                title = " ".join((hit.text or hit.id).split("\n", 1)[0].split())[:_MAX_TITLE_CHARS] or hit.id
                citation = UrlCitation(
                    start_index=group.start, end_index=group.end, title=title, url=self._base + (image or item)
                )
                found.append(Annotation(url_citation=citation))
        return found

    def verdicts(self, answer: Answer) -> list[SentenceVerdict]:
        """The verdicts that a reader should see: under a key of our own, which clients that do not know it drop."""
        return [
            _verdict(sentence)
            for sentence in answer.sentences
            if sentence.verdict in SHOWN_VERDICTS and sentence.start is not None
        ]

    def chunk(self, choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        """One event of a stream."""
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": MODEL}
        return _event(head | {"choices": list(choices)} | more)


async def _chunks(service: Service, turn: RunningTurn, writer: _Writer, *, with_usage: bool) -> AsyncIterator[bytes]:
    from retrieval.chat import Final, Token, ToolUsed

    begun, count = False, itertools.count()
    # Where usage is asked for, all but the last chunk have it as null.
    more: dict[str, Any] = {"usage": None} if with_usage else {}

    def delta(content: dict[str, Any], reason: str | None = None) -> bytes:
        return writer.chunk([{"index": 0, "delta": content, "logprobs": None, "finish_reason": reason}], **more)

    yield delta({"role": "assistant", "content": ""})
    try:
        async for event in turn.events(KEEP_ALIVE_S):
            if event is None:
                yield b": still there\n\n"
            if isinstance(event, Token) and event.final:
                begun = True
                yield delta({"content": event.text})
            if isinstance(event, ToolUsed):
                # Under a key of our own, which clients drop: as a call of a tool it would be theirs to do.
                yield delta({"lookups": [Lookup.at(next(count), event).model_dump()]})
            if not isinstance(event, Final):
                continue
            for piece in () if begun else _PIECE.findall(event.answer.text):
                yield delta({"content": piece})
            for name, each_of in (
                ("annotations", writer.annotations(event.answer)),
                ("verdicts", writer.verdicts(event.answer)),
            ):
                if each_of:
                    yield delta({name: [each.model_dump() for each in each_of]})
            yield delta({}, _reason(event.answer))
            if with_usage:
                yield writer.chunk([], usage=_usage(event.answer).model_dump())
            yield b"data: [DONE]\n\n"
    except Exception as error:
        told = error_of(to_http_error(service, error))
        if told is None:
            log.error("a request failed", exc_info=error)
        yield _event(told[1] if told is not None else openai_error(500, FAILED))


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode("ascii") + b"\n\n"


def _verdict(sentence: Sentence) -> SentenceVerdict:
    return SentenceVerdict(
        start_index=sentence.start or 0,
        end_index=sentence.end or 0,
        verdict=sentence.verdict,
        conflict=sentence.conflict,
        source=sentence.conflict_source,
    )


def _reason(answer: Answer) -> Any:
    return "length" if answer.truncated else "stop"


def _usage(answer: Answer) -> TokenUsage:
    asked, told = answer.usage.input_tokens, answer.usage.output_tokens
    return TokenUsage(prompt_tokens=asked, completion_tokens=told, total_tokens=asked + told)
