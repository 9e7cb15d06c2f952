"""The class of every route: who may call it and what body it takes is settled before a byte of the body is read."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from app.http.limits import Limits, Place
from app.http.problems import Refused, documented

Body = Literal["json", "image", "upload", "small"]
_TYPES = {"json": "application/json", "small": "application/json"}


def operation(
    scope: str,
    *statuses: int,
    body: Body | None = None,
    responses: Mapping[int, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """What a route's decorator is given: its scope, the kind of its body, and all statuses it may answer with.

    body: json and image are bounded to `Limits.max_body_bytes`, upload to `max_upload_bytes`, small to
    `max_small_body_bytes`; the first and last take application/json, the others multipart/form-data.
    responses: what it answers with when all is well, where there is more to say than its return type does.
    """
    common = {400, 401, 403, 429, 431, 500, 503} | ({408, 413, 415, 422} if body else set())
    extra: dict[str, Any] = {"security": [{"bearer": []}, {"key": []}], "x-scope": scope}
    if body:
        extra["x-body"] = body
    return {"responses": {**(responses or {}), **documented(*common, *statuses)}, "openapi_extra": extra}


class ReadsBody(Response):
    """A response that is what reads the request's body, and so keeps the place of a large one to its end."""

    place: Place | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await self.answer(scope, send)
        finally:
            if self.place is not None:
                self.place.leave()

    async def answer(self, scope: Scope, send: Send) -> None:
        """Read and send."""
        raise NotImplementedError


class PlacedStream(StreamingResponse):
    """Server-sent events, which hold a place for a stream to their end, whoever ends them."""

    def __init__(self, place: Place, content: AsyncIterator[bytes]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        with self._place:
            await super().__call__(scope, receive, send)


class GuardedRoute(APIRoute):
    """A route that admits a request by key, scope and rate, then by type, size and speed of its body.

    Ids of items may hold slashes. A route that goes on after the id, as in ``/v1/items/{item_id:path}/image``, takes
    a path only if that end is written as such: in ``a%2Fimage`` it belongs to the id.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, behind the checks."""
        handle = super().get_route_handler()
        extra = self.openapi_extra or {}
        scope, body = extra.get("x-scope"), extra.get("x-body")

        async def guarded(request: Request) -> Response:
            service = request.app.state.service
            if scope is not None:
                key = service.access.admit(request, scope)
                state = request.scope.setdefault("state", {})
                state["key_id"] = key.id if key else None
                state["may_write"] = key is None or key.allows("write")
            if body is None:
                return await handle(request)
            request = Request(request.scope, _body(request, body, service.limits))
            if not _is_large(request, service.limits):
                return await handle(request)
            place = service.large_bodies.take()
            if place is None:
                raise Refused(503, "too many large requests are being worked on", {"Retry-After": "2"})
            with contextlib.ExitStack() as held:
                held.enter_context(place)
                response = await handle(request)
                if isinstance(response, ReadsBody):
                    held.pop_all()
                    response.place = place
                return response

        return guarded

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Starlette's match, unless the path's end is part of an id."""
        _, inside, end = self.path.partition(":path}/")
        raw: bytes = scope.get("raw_path") or b""
        if inside and raw and not raw.endswith(f"/{end}".encode("ascii")):
            return Match.NONE, {}
        return super().matches(scope)


def _is_large(request: Request, limits: Limits) -> bool:
    """Whether a body whose length was checked may be large: it says so, or says nothing."""
    length = request.headers.get("content-length")
    return "transfer-encoding" in request.headers if length is None else int(length) > limits.large_body_bytes


def _body(request: Request, kind: Body, limits: Limits) -> Receive:
    expected = _TYPES.get(kind, "multipart/form-data")
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != expected:
        raise Refused(415, f"the body's content type must be {expected}, not {given[:80] or 'left out'}")
    limit_bytes = {"upload": limits.max_upload_bytes, "small": limits.max_small_body_bytes}.get(
        kind, limits.max_body_bytes
    )
    declared = request.headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()):
        raise Refused(400, "Content-Length is not a number")
    if int(declared) > limit_bytes:
        raise Refused(413, f"the request body is larger than {limit_bytes} bytes")
    return _bounded(request.receive, limit_bytes, limits)


def _bounded(receive: Receive, limit_bytes: int, limits: Limits) -> Receive:
    """`receive`, which refuses a body that is too large or too slow while it arrives."""
    started_s, received_bytes, complete = time.monotonic(), 0, False

    async def read() -> Message:
        nonlocal received_bytes, complete
        if complete:
            return await receive()
        left_s = limits.body_s + received_bytes / limits.body_bytes_per_s - (time.monotonic() - started_s)
        try:
            message = await asyncio.wait_for(receive(), max(0.0, min(limits.body_idle_s, left_s)))
        except TimeoutError:
            raise Refused(408, "the request body arrives too slowly", {"Connection": "close"}) from None
        received_bytes += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if received_bytes > limit_bytes:
            raise Refused(413, f"the request body is larger than {limit_bytes} bytes")
        return message

    return read
