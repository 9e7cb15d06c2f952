"""The command that serves: the HTTP service and its page, on this machine unless told otherwise."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options
from app.cli.ask import model_loader
from app.cli.context import encoder_by, encoder_for, open_backend, samples_folder
from app.cli.keys import open_keys
from app.cli.output import note
from app.core.errors import CommandError, UsageError
from app.core.hosts import HostList, TrustedProxies

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.core.keys import KeyStore


@options.grouped
def serve(
    *,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8000,
    public: Annotated[
        bool, typer.Option("--public", help="Allow an address that other machines reach; needs keys, or --no-auth.")
    ] = False,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no API key, even if there are some: anybody may do everything.")
    ] = False,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="Show pictures of, and index, this folder only; may be repeated. Default: what was indexed before.",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option("--cors-origin", metavar="ORIGIN", help="Let pages of this origin call; may be repeated."),
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option("--rate-limit", metavar="RATE", help="Requests of one caller, e.g. 100/second; none.")
    ] = None,
    trusted_proxy: Annotated[
        str | None,
        typer.Option(
            "--trusted-proxy",
            metavar="ADDRESSES",
            help="Believe X-Forwarded-For and -Proto of these proxies; addresses and networks with commas.",
        ),
    ] = None,
    fetch_hosts: Annotated[
        str | None,
        typer.Option(
            "--fetch-hosts",
            metavar="HOSTS",
            help="Fetch images from these hosts at a request's word; names with commas, *.example.org for subdomains.",
        ),
    ] = None,
    chosen: options.SearchFlags,
    answering: options.ModelFlags,
) -> None:
    """Serve search and chat over HTTP, with a page for the browser.

    The page is at /, the API's description at /openapi.json, and its guide in docs/http.md. Only this
    machine is served, without keys as long as `sightline keys add` has made none; a request whose Host
    header names another is refused, so that no web page can reach the service by a name of its own.
    The model that answers questions is loaded at the first one. SIGTERM or Ctrl-C ends it: requests
    finish, answers are broken off, an index job goes on at the next start.
    """
    settings = options.load_settings(
        chosen, answering, rate_limit=rate_limit, trusted_proxy=trusted_proxy, fetch_hosts=fetch_hosts
    )
    from retrieval.images.malloc import share_heaps

    share_heaps()
    keys = None if no_auth else open_keys(settings)
    is_public = _check_address(host, public, keys)
    roots = [folder(path) for path in root] if root else None
    with listen(host, port) as listener, open_backend(settings) as store:
        loaded = encoder_for(settings, store, chosen.encoder)
        from app.http.app import Limits, create_app

        service = create_app(
            store,
            loaded,
            settings.collection,
            home=settings.home,
            roots=roots,
            keys=keys,
            require_keys=is_public,
            hosts=["*"] if is_public else ["127.0.0.1", "localhost", "::1", host],
            origins=[_origin(origin) for origin in cors_origin or []],
            limits=Limits(rate=None if settings.rate_limit == "none" else settings.rate_limit),
            batch_size=settings.batch_size,
            samples=samples_folder(settings),
            tracer=_tracer(),
            load_model=model_loader(settings),
            settings=settings,
            fetch_hosts=HostList.parse(settings.fetch_hosts),
            proxies=TrustedProxies.parse(settings.trusted_proxy),
            load_encoder=lambda fingerprint: encoder_by(fingerprint, settings),
            watch=settings.watch == "yes",
        )
        if settings.collection not in store.collections():
            note(f"note: there is no collection {settings.collection!r} yet; index a folder, or add items")
        name = f"[{host}]" if ":" in host else host
        note(f"serving {settings.collection!r} at http://{name}:{listener.getsockname()[1]}/; Ctrl-C ends it")
        run(service, listener)


def _check_address(host: str, public: bool, keys: KeyStore | None) -> bool:
    """Whether `host` or --public opens the service to others. Raises UsageError where nothing would guard it."""
    from app.core.keys import KeyStoreError

    try:
        has_keys = keys is not None and bool(keys.listed())
    except KeyStoreError as error:
        raise CommandError(str(error)) from None
    if not public and is_loopback(host):
        return False
    if keys is None:
        if not public:
            raise UsageError(f"{host} can be reached from other machines: add --public if --no-auth is meant for them")
        return True
    if not has_keys:
        raise UsageError(
            f"{host} can be reached from other machines, and there is no API key: make one with "
            "sightline keys add NAME, or say --public --no-auth"
        )
    return True


def folder(path: Path) -> Path:
    """What --root names. Raises UsageError unless it is a folder."""
    if not path.is_dir():
        raise UsageError(f"--root {path} is not a folder")
    return path.resolve()


def _origin(origin: str) -> str:
    scheme, separator, rest = origin.rstrip("/").partition("://")
    if not separator or scheme not in ("http", "https") or not rest or "/" in rest or "*" in rest:
        raise UsageError(f"--cors-origin {origin!r} is no origin: write it as https://example.org")
    return f"{scheme}://{rest}".lower()


def _tracer() -> Any:
    """OpenTelemetry's, where it is set up by ``opentelemetry-instrument`` or OTEL_ variables; else None."""
    if not any(name.startswith("OTEL_") for name in os.environ):
        return None
    try:
        from opentelemetry import trace
    except ImportError:
        note("note: OTEL_ variables are set, but spans need pip install 'sightline[otel]'")
        return None
    return trace.get_tracer("sightline")


def run(service: FastAPI, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests then have 30 s to finish."""
    from app.http.server import GracefulServer, configuration, log_as_json

    log_as_json(sys.stderr)
    # The server raises the signal that ended it once more; this lets the store be closed before the process ends.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    service.state.service.prepare()
    try:
        GracefulServer(configuration(service)).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)


def is_loopback(host: str) -> bool:
    """Whether `host` is an address, or ``localhost``, that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises CommandError naming the address when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise CommandError(f"cannot listen on {host} port {port}: {error.strerror or error}; choose --port") from None
