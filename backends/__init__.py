"""Vector databases behind one protocol; `connect(url)` opens any of them.

Importing this package imports no database client: a client is imported when its scheme is first
connected.
"""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import urlsplit

from backends.base import Backend
from backends.errors import BackendError, Unavailable
from backends.plans import Plan, explain
from backends.redaction import redact, remember_url, scheme_of, shown
from backends.registry import EngineInfo, canonical, engines, load
from backends.urls import place_of

__all__ = ["Backend", "BackendError", "EngineInfo", "Plan", "Unavailable", "connect", "engines", "explain", "load"]


def connect(url: str) -> Backend:
    """Open the vector database that `url` names.

        with connect("faiss:///home/me/index") as backend:
            print(backend.collections())

    Args:
        url: a scheme that `sightline engines` lists, and the folder or the server.

    Raises:
        ValueError: an unknown scheme or a malformed URL.
        Unavailable: the engine does not answer, or its client is not installed. No message holds a secret of the URL.
    """
    scheme = scheme_of(url)
    if scheme is None:
        raise ValueError("this is not a backend URL: it needs a scheme, e.g. faiss:///path/to/dir")
    remember_url(url)
    try:
        urlsplit(url)
    except ValueError:
        raise ValueError(f"this {scheme}:// URL cannot be read: is an address in [ ] complete?") from None
    url = canonical(url)
    engine = load(url.partition("://")[0])
    try:
        backend = engine.connect(url)
    except BackendError:
        raise
    except Exception as error:
        return _raise_redacted(error, url)
    backend.place = place_of(url)
    return backend


def _raise_redacted(error: Exception, url: str) -> NoReturn:
    """Raise the same error if it tells no secret, else one of ours: a client may quote what it was given."""
    said = str(error)
    told = redact(said.replace(url, shown(url)), foreign=True)
    if told == said:
        raise error
    if isinstance(error, ValueError):
        raise ValueError(told) from None
    raise BackendError(f"{shown(url)} cannot be opened: {type(error).__name__}: {told}") from None
