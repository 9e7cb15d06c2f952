"""The Model Context Protocol over HTTP, behind the same keys and bounds as the API."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from app.http.context import Service
from app.http.routes.base import ReadsBody, operation

PATH = "/mcp"


def is_installed() -> bool:
    """Whether the extra ``mcp`` is there."""
    return importlib.util.find_spec("mcp") is not None


class Tools:
    """The tools over HTTP, between the start and the end of the service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._server: Any = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests as long as the block lasts; does nothing without the extra ``mcp``."""
        if not is_installed():
            yield
            return
        from mcp.server.transport_security import TransportSecuritySettings

        from app.http.tools import build

        server = build(self._service)
        # Hosts, origins and keys are checked before a request comes here; each is answered by itself.
        server.streamable_http_app(
            stateless_http=True,
            max_request_body_size=self._service.limits.max_body_bytes,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        async with server.session_manager.run():
            self._server = server
            try:
                yield
            finally:
                self._server = None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request of the protocol's streamable HTTP."""
        if self._server is None:
            await Response(status_code=503, headers={"Retry-After": "5"})(scope, receive, send)
            return
        await self._server.session_manager.handle_request(scope, receive, send)


class _Forwarded(ReadsBody):
    """A response that the protocol's own server writes. receive: the request's, with its bounds."""

    def __init__(self, tools: Tools, receive: Receive) -> None:
        super().__init__()
        self._tools, self._receive = tools, receive

    async def answer(self, scope: Scope, send: Send) -> None:
        """Have the protocol's server read the request and answer it."""
        await self._tools.answer(scope, self._receive, send)


def add_routes(app: FastAPI, service: Service) -> Tools:
    """``POST /mcp``, where the extra ``mcp`` is installed; it answers as long as the tools are `running`."""
    tools = Tools(service)
    if is_installed():
        # Not in the description of the API: the protocol describes itself.
        @app.post(PATH, include_in_schema=False, **operation("read", body="json"))
        async def protocol(request: Request) -> Response:
            return _Forwarded(tools, request.receive)

    return tools
