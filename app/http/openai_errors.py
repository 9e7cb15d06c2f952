"""Errors in OpenAI's shape, on the routes that speak its language."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import PROBLEM, Refused, invalid, refusal_of
from app.http.routes.base import Body, GuardedRoute, operation

_TYPES = {403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 403: "insufficient_permissions", 404: "not_found", 429: "rate_limit_exceeded"}


class WrongRequest(Refused):
    """A request that OpenAI's API would refuse too, or that asks for what this service has not."""

    def __init__(self, message: str, *, param: str | None, code: str | None, status: int = 400) -> None:
        super().__init__(status, message)
        self.param, self.code = param, code


def openai_error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}}


def error_of(error: Exception) -> tuple[int, dict[str, Any], Mapping[str, str] | None] | None:
    """Status, body and headers for an error of a route; None for one that nobody foresaw."""
    refusal = error if isinstance(error, WrongRequest) else refusal_of(error)
    if refusal is None:
        return None
    # OpenAI has no 422.
    status = 400 if refusal.status_code == 422 else refusal.status_code
    param, code = getattr(refusal, "param", None), getattr(refusal, "code", None)
    if isinstance(error, RequestValidationError):
        param, code = ".".join(part for part in invalid(error)[0] if part != "body") or None, "invalid_value"
    return status, openai_error(status, str(refusal.detail), param=param, code=code), refusal.headers


def described(
    scope: str, *statuses: int, body: Body | None = None, responses: Mapping[int, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """As `operation`, its errors in OpenAI's shape."""
    told = operation(scope, *statuses, body=body, responses=responses)
    told["responses"].pop(422, None)
    for status, response in told["responses"].items():
        if int(status) >= 400:
            response["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    told["openapi_extra"]["x-errors"] = "openai"
    return told


class OpenAIRoute(GuardedRoute):
    """A guarded route whose refusals have OpenAI's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The guarded handler, its errors rewritten."""
        handle = super().get_route_handler()

        async def shaped(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                told = error_of(error)
                if told is None:
                    raise
                status, body, headers = told
                return _response(status, body, headers)

        return shaped


class OpenAIErrors:
    """Gives the problem documents of whatever stands before those routes the same shape."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or not _is_theirs(scope["path"]):
            await self.app(scope, receive, send)
            return
        begun: Message | None = None
        received = b""

        async def rewritten(message: Message) -> None:
            nonlocal begun, received
            if message["type"] == "http.response.start" and Headers(scope=message).get("content-type") == PROBLEM:
                begun = message
            elif begun is None:
                await send(message)
            else:
                received += message.get("body", b"")
                if not message.get("more_body", False):
                    body = json.dumps(openai_error(begun["status"], json.loads(received)["detail"])).encode("ascii")
                    headers = MutableHeaders(scope=begun)
                    headers["Content-Type"], headers["Content-Length"] = "application/json", str(len(body))
                    await send(begun)
                    await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, rewritten)


def _is_theirs(path: str) -> bool:
    return path in ("/v1/chat/completions", "/v1/models") or path.startswith("/v1/models/")


def _response(status: int, body: dict[str, Any], headers: Mapping[str, str] | None) -> Response:
    return Response(
        json.dumps(body).encode("ascii"), status_code=status, headers=headers, media_type="application/json"
    )
