"""The HTTP service: search, look-up, items, collections, index jobs and chat over one backend and one encoder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from app.core.hosts import NO_PROXIES, HostList, TrustedProxies
from app.core.keys import KeyStore
from app.core.llm import LoadModel
from app.core.roots import RecordedRoots, Roots
from app.core.settings import Settings
from app.core.watched import WatchedRoots
from app.http import openai_errors
from app.http.access import Access
from app.http.context import NO_HOSTS, Service
from app.http.encoders import LoadEncoder
from app.http.limits import Limits
from app.http.middleware import RequestGuard, SecurityHeaders
from app.http.observing import RequestMetricsMiddleware
from app.http.problems import SCHEMA, Refused, install_problem_handlers
from app.http.proxies import BehindProxies
from app.http.routes import chat, collections, engines, health, items, jobs, mcp, openai, search, uploads
from app.http.routes.base import GuardedRoute
from app.http.schemas.openai import ERROR
from backends.base import Backend
from retrieval.encoders.base import Encoder

__all__ = ["Limits", "create_app"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT_LIMITS = Limits()
#: For what is no request of its own: a picture given to a tool, the end of a turn, a package that is imported.
SPARE_THREADS = 16


def create_app(
    backend: Backend,
    encoder: Encoder,
    collection: str,
    *,
    home: Path | None = None,
    roots: Sequence[Path] | None = None,
    keys: KeyStore | None = None,
    require_keys: bool = False,
    hosts: Sequence[str] = LOOPBACK,
    origins: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    batch_size: int = 64,
    samples: Path | None = None,
    tracer: Any = None,
    load_model: LoadModel | None = None,
    settings: Settings | None = None,
    fetch_hosts: HostList = NO_HOSTS,
    proxies: TrustedProxies = NO_PROXIES,
    load_encoder: LoadEncoder | None = None,
    watch: bool = False,
) -> FastAPI:
    """The service over `backend`, searching with `encoder`, `collection` being the default one.

    home: where uploads, thumbnails and the records of jobs are kept; without one in a temporary folder
    that ends with the service. roots: the folders that may be indexed and whose pictures are shown;
    None for those that were indexed from the command line into this home.

    keys: where API keys are; they are asked for once there is one, with `require_keys` even before.
    Without `keys` anybody may do everything. `hosts` are the names a request's Host header may give,
    ``*`` for any: a web page that makes its own domain point here (DNS rebinding) is refused. `origins`
    are the web pages elsewhere that may call, as ``https://example.org``; none at first.

    samples: where `Retriever` keeps what relevance is judged by; in memory without.

    load_model: gives the model that answers questions and what a chat with it may spend; called at the first
    question, in a thread. Without it every question is refused with a 503.

    settings: what `backend` was opened by: names its engine, and where ``GET /v1/engines`` asks for servers;
    without, it asks none. Its `max_pixels` holds for index jobs, and for pictures that are shown.

    fetch_hosts: where images are fetched from when a request gives an address instead; nowhere at first.

    proxies: whose word about where a request comes from is taken; nobody's at first.

    load_encoder: gives the encoder of a collection that was filled by another one; without it, such a collection is not
    searched.
    watch: begin index jobs over the folders that may be indexed, now and whenever they change.

    tracer: an OpenTelemetry tracer that gets a span for each request and each of its stages.

    Every error is an RFC 9457 problem document. Backend and encoder stay open; everything else is closed
    when the ASGI server tells that it ends. ``app.state.service`` is the `Service` behind it: its `stop`
    lets streams and jobs end before the server waits for them. Raises ValueError for an unreadable rate.
    """
    access = Access(keys, required=require_keys, rate=limits.rate)
    temporary = None
    if home is None:
        home = Path(tempfile.mkdtemp(prefix="sightline-"))
        # Also for an app that is made, asked for its schema perhaps, and never served.
        temporary = weakref.finalize(access, shutil.rmtree, home, ignore_errors=True)
    service = Service(
        backend,
        encoder,
        collection,
        home=home,
        access=access,
        roots=Roots(roots, RecordedRoots(home), home / "uploads"),
        limits=limits,
        batch_size=batch_size,
        max_pixels=(settings.max_pixels or None) if settings is not None else None,
        samples=samples,
        tracer=tracer,
        load_model=load_model,
        fetch_hosts=fetch_hosts,
        load_encoder=load_encoder,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # A thread for each request that is let in: those that wait for a turn with images must not hold up the rest.
        anyio.to_thread.current_default_thread_limiter().total_tokens = limits.max_in_flight + SPARE_THREADS
        watched = WatchedRoots(service.roots.folders() if watch else [], service.jobs, collection)
        async with tools.running():
            yield
        await anyio.to_thread.run_sync(watched.close)
        # The running job stores its batch first, which may take seconds.
        await anyio.to_thread.run_sync(service.close)
        for probe in probes:
            probe.close()
        if temporary is not None:
            temporary()

    app = FastAPI(
        title="Sightline", version="1", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.service = service
    app.router.route_class = GuardedRoute
    probes = health.add_routes(app, service)
    for part in (search, chat, openai, items, uploads, collections, jobs):
        part.add_routes(app, service)
    tools = mcp.add_routes(app, service)
    engines.add_routes(app, service, settings)
    _add_page(app)
    _describe(app)
    # The last one added is the first to see a request.
    app.add_middleware(RequestGuard, service=service, hosts=hosts, origins=origins)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            # Those of the SDKs that speak OpenAI's language or MCP are many, and an origin that is named is trusted.
            allow_headers=["*"],
            expose_headers=["Content-Range", "ETag", "Retry-After", "X-Ignored-Parameters", "X-Request-ID"],
        )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestMetricsMiddleware, metrics=service.metrics)
    app.add_middleware(openai_errors.OpenAIErrors)
    if proxies:
        app.add_middleware(BehindProxies, proxies=proxies)
    install_problem_handlers(app)
    return app


def _add_page(app: FastAPI) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        return files("app").joinpath("web/page.html").read_text("utf-8")

    app.mount("/static", PageFiles(packages=[("app", "web")]), name="static")


class PageFiles(StaticFiles):
    """The page's files, asked for anew each time: modules of two versions would not fit together."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Starlette's, which leaves out what a 405 has to say."""
        if scope["method"] not in ("GET", "HEAD"):
            raise Refused(405, "Method Not Allowed", {"Allow": "GET, HEAD"})
        return await super().get_response(path, scope)

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """Starlette's, with a 304 where nothing changed."""
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _describe(app: FastAPI) -> None:
    """OpenAPI with the problem documents and the ways to give a key."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            about = "Images and texts in one vector space. Errors are problem documents (RFC 9457)."
            schema = get_openapi(title=app.title, version=app.version, description=about, routes=app.routes)
            components = schema.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            schemas["Problem"] = SCHEMA
            schemas["OpenAIError"] = ERROR
            for operation in (each for methods in schema["paths"].values() for each in methods.values()):
                if operation.get("x-errors") == "openai":
                    # FastAPI's own, which is never answered.
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of `sightline keys add`."},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
