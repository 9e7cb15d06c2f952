"""Chat: questions answered from what a search found, as server-sent events or at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from app.http.context import Service
from app.http.limits import Place
from app.http.observing import CLOSED_BY_CLIENT
from app.http.problems import problem_of
from app.http.routes.base import PlacedStream, operation
from app.http.routes.search import picture
from app.http.schemas.chat import AnswerBody, ChatBody, EvidenceBody, ToolBody
from app.http.schemas.common import Collection
from app.http.turns import ChatRequest, to_http_error

if TYPE_CHECKING:
    from retrieval.chat import Answer, RunningTurn

T = TypeVar("T")

KEEP_ALIVE_S = 15.0
#: A client that takes the events slower than this is left; the turn itself has time-outs of its own.
DELIVERED_WITHIN_S = 1800.0

_EVENTS: dict[str, Any] = {
    "schema": {
        "type": "object",
        "properties": {
            "event": {"type": "string", "enum": ["evidence", "tool", "token", "retrying", "final", "error"]},
            "data": {"type": "string", "description": "JSON, see docs/http.md."},
        },
    },
    "example": (
        'event: evidence\ndata: {"query": "what is the dog doing?", "evidence": [{"number": 1, "id": "img-1", …}]}\n\n'
        'event: token\ndata: {"text": "The dog", "final": true}\n\n'
        'event: final\ndata: {"answer": "The dog is running [1].", "sources": [{"number": 1, …}], …}\n\n'
    ),
}
_ANSWER: dict[int, dict[str, Any]] = {
    200: {
        "description": "Events of the turn, the last of them `final` or `error`; with `stream` false the answer.",
        "content": {"text/event-stream": _EVENTS},
    }
}


class ClientDisconnected(Exception):
    """The client went while it was answered."""


def add_routes(app: FastAPI, service: Service) -> None:
    """``POST /v1/chat``."""

    @app.post(
        "/v1/chat",
        tags=["chat"],
        response_model=AnswerBody,
        **operation("read", 404, 409, 502, 504, body="json", responses=_ANSWER),
    )
    async def chat(request: Request, body: ChatBody, collection: Collection = None) -> Response:
        """Answer a question from what the collection holds; every sentence is checked against its sources.

        As events: `evidence` first, then a `tool` for each thing that the model looks for itself, `token`s, pieces of
        the answer (`retrying` where the model has to be asked again), then `final`, the whole with its verdicts, or
        `error`, a problem document. To leave is to cancel: the model is not asked on.
        """
        asked = ChatRequest(
            body.question,
            history=tuple(past.turn() for past in body.history),
            picture=picture(service, body.image, body.image_url),
            where=body.where,
            check=body.check or ("strict" if body.strict else None),
            collection=collection,
        )
        return await respond(
            request,
            service,
            asked,
            stream=body.stream,
            whole=lambda answer: AnswerBody.of(answer, collection),
            events=lambda turn, first: _events(service, turn, first, collection),
        )


async def respond(
    request: Request,
    service: Service,
    asked: ChatRequest,
    *,
    stream: bool,
    whole: Callable[[Answer], BaseModel],
    events: Callable[[RunningTurn, Any], AsyncIterator[bytes]],
) -> Response:
    """Answer in one turn: the body that `whole` makes of the answer, or a stream of `events`.

    `events` gets the turn and its first event, before which every error still has a status. A client that leaves ends
    the turn. Raises `Refused`, and what the turn raised as `to_http_error` tells it.
    """
    with contextlib.ExitStack() as held:
        place = held.enter_context(service.stream_place()) if stream else None
        turn = await service.chats.begin(service, asked)
        held.callback(turn.cancel)
        try:
            if place is None:
                answer = await run_until_disconnect(request, turn.answer())
                return Response(whole(answer).model_dump_json(), media_type="application/json")
            first = await run_until_disconnect(request, turn.next())
        except ClientDisconnected:
            return Response(status_code=CLOSED_BY_CLIENT)
        except Exception as error:
            raise to_http_error(service, error) from None
        held.pop_all()
        return _TurnStream(place, turn, events(turn, first))


async def run_until_disconnect(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives, as long as the client waits for it. Raises `ClientDisconnected`, and what `work` raises."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnected
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _TurnStream(PlacedStream):
    """The events of a turn, which ends with them, whoever ends them: it, the client, or the service."""

    def __init__(self, place: Place, turn: RunningTurn, content: AsyncIterator[bytes]) -> None:
        super().__init__(place, content)
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            with anyio.move_on_after(DELIVERED_WITHIN_S):
                await super().__call__(scope, receive, send)
        finally:
            self._turn.cancel()


async def _events(service: Service, turn: RunningTurn, first: Any, collection: str | None) -> AsyncIterator[bytes]:
    yield _event(service, first, collection)
    try:
        async for event in turn.events(KEEP_ALIVE_S):
            yield b": still there\n\n" if event is None else _event(service, event, collection)
    except Exception as error:
        yield _sent("error", problem_of(to_http_error(service, error)))


def _event(service: Service, event: Any, collection: str | None) -> bytes:
    from retrieval.chat import EvidenceFound, Final, Retrying, Token, ToolUsed

    match event:
        case EvidenceFound():
            found = [EvidenceBody.of(piece, collection).model_dump() for piece in event.evidence]
            return _sent("evidence", {"query": event.query, "evidence": found, "search_s": event.search_s})
        case ToolUsed():
            found = [EvidenceBody.of(piece, collection).model_dump() for piece in event.evidence]
            return _sent("tool", ToolBody.of(event).model_dump() | {"evidence": found})
        case Token():
            return _sent("token", {"text": event.text, "final": event.final})
        case Retrying():
            reason = service.chats.redact_endpoint(event.reason)
            return _sent("retrying", {"attempt": event.attempt, "wait_s": event.wait_s, "reason": reason})
        case Final():
            return _sent("final", AnswerBody.of(event.answer, collection).model_dump())
    raise AssertionError(f"no event of a turn: {event!r}")


def _sent(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode("ascii")
