"""What every request passes before its route, and every response after: hosts, origins, sizes, room, headers."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.hosts import host_of
from app.http.context import Service
from app.http.problems import problem

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeaders:
    """Adds the security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class RequestGuard:
    """Refuses what no route should see.

    - A Host header that is not among `hosts` (``*`` for any), or is no host at all: a web page that makes its own
      domain point here, DNS rebinding, would otherwise be of the same origin.
    - A request that changes something and comes from a page of another origin, which needs no leave for
      a form: `origins` are those that may.
    - Headers over 16 KiB with 431; with 503 what finds more requests in flight than `Limits` let in.
    """

    def __init__(self, app: ASGIApp, *, service: Service, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self.app = app
        self._any_host = "*" in hosts
        names = [host.strip("[]").partition("%")[0] for host in hosts]
        self._hosts = frozenset(host_of(f"[{name}]" if ":" in name else name) for name in names) - {None}
        self._origins = frozenset(origins)
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await problem(*refusal)(scope, receive, send)
            return
        if not _is_work(scope["path"]):
            await self.app(scope, receive, send)
            return
        place = self._service.requests.take()
        if place is None:
            told = f"{self._service.requests.taken} requests are being worked on: try again in a moment"
            await problem(503, told, {"Retry-After": "1"})(scope, receive, send)
            return
        with place:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        limits = self._service.limits
        if sum(len(name) + len(value) for name, value in scope["headers"]) > limits.max_header_bytes:
            return 431, f"the headers are larger than {limits.max_header_bytes} bytes"
        headers = Headers(scope=scope)
        given = headers.getlist("host")
        # A client of HTTP/1.0 may say nothing.
        host = given[0] if given else ""
        name = host_of(host)
        if len(given) > 1 or (name is None and (host or not self._any_host)):
            return 400, "the Host header is not one name or address with or without a port"
        if not self._any_host and name not in self._hosts:
            return 400, "the Host header names a machine that this service does not answer for"
        origin = headers.get("origin")
        own = bool(host) and origin is not None and origin.partition("://")[2].lower() == host.lower()
        same = origin is None or origin in self._origins or own
        if not same and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            return 403, "the request comes from a web page of another origin"
        return None


def _is_work(path: str) -> bool:
    """Whether a request takes part of the room: health and watching a job do not."""
    if path == "/mcp":
        return True
    return path.startswith("/v1/") and not (path.startswith("/v1/jobs/") and path.endswith("/events"))
