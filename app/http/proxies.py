"""What a request that comes through a proxy is taken for."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.hosts import TrustedProxies, address_of


class BehindProxies:
    """Gives a request that comes through trusted proxies its client's address and the scheme that it was sent by.

    From others both headers are ignored. `Forwarded` and `X-Forwarded-Host` are ignored from everybody: a proxy has to
    pass the Host header on.
    """

    def __init__(self, app: ASGIApp, *, proxies: TrustedProxies) -> None:
        self.app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        peer = address_of(scope["client"][0]) if scope["type"] == "http" and scope.get("client") else None
        if peer is not None and peer in self._proxies:
            headers = Headers(scope=scope)
            client = self._proxies.client(scope["client"][0], ",".join(headers.getlist("x-forwarded-for")))
            scope = {**scope, "client": (client, 0)}
            schemes = headers.getlist("x-forwarded-proto")
            scheme = schemes[-1].rpartition(",")[2].strip().lower() if schemes else ""
            if scheme in ("http", "https"):
                scope["scheme"] = scheme
        await self.app(scope, receive, send)
