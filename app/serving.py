"""The command that serves: the HTTP service and its page, on this machine unless told otherwise."""

from __future__ import annotations

import ipaddress
import socket
from typing import Annotated

import typer

from app import options
from app.opening import CommandError, UsageError, encoder_for, open_backend, require_collection, samples_folder
from app.output import note
from app.settings import Settings


def serve(
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8000,
    public: Annotated[
        bool, typer.Option("--public", help="Allow an address that other machines reach; there is no password.")
    ] = False,
    backend: options.Backend = None,
    collection: options.Collection = None,
    encoder: options.Encoder = None,
    device: options.Device = None,
    precision: options.Precision = None,
) -> None:
    """Serve search over HTTP, with a page for the browser.

    The page is at /, the API's description at /openapi.json. Only this machine is served; a request whose
    Host header names another is refused, so that no web page can reach the service by a name of its own.
    """
    settings = Settings.load(
        {"backend": backend, "collection": collection, "encoder": encoder, "device": device, "precision": precision}
    )
    if not public and not is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, and there is no password: add --public to allow it"
        )
    with open_backend(settings) as store:
        require_collection(settings, store)
        model = encoder_for(settings, store, encoder)
        listener = listen(host, port)
        with listener:
            import uvicorn

            from app.service import create_app

            hosts = ["*"] if public else ["127.0.0.1", "localhost", "[::1]", host]
            service = create_app(store, model, settings.collection, hosts=hosts, samples=samples_folder(settings))
            name = f"[{host}]" if ":" in host else host
            note(f"serving {settings.collection!r} at http://{name}:{listener.getsockname()[1]}/; Ctrl-C ends it")
            uvicorn.Server(uvicorn.Config(service, log_level="warning", ws="none")).run(sockets=[listener])


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
