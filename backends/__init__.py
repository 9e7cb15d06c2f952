"""Vector databases behind one protocol; `connect(url)` opens any of them.

Importing this package imports no database client: a client is imported when its scheme is first
connected.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from backends.base import Backend
from backends.errors import BackendError, Unavailable
from backends.plans import Plan, explain
from backends.redaction import redact, remember_url, scheme_of, shown
from backends.registry import EngineInfo, canonical, engines, load
from backends.urls import parse_folder_url, place_of
from backends.wrappers.unmade import UnmadeStore

__all__ = ["Backend", "BackendError", "EngineInfo", "Plan", "Unavailable", "connect", "engines", "explain", "load"]


def connect(url: str, *, make: bool = True) -> Backend:
    """Open the vector database that `url` names.

        with connect("faiss:///home/me/index") as backend:
            print(backend.collections())

    Args:
        url: a scheme that `sightline engines` lists, and the folder or the server.
        make: whether a folder that is not there is made at once. Without it `create` makes it, and until then the
            store has no collections.

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
    if not make and (folder := _missing_folder(url)) is not None:
        return UnmadeStore(lambda: connect(url), folder, place_of(url), engine.capabilities)
    try:
        backend = engine.connect(url)
    except BackendError:
        raise
    except Exception as error:
        return _raise_redacted(error, url)
    backend.place = place_of(url)
    return backend


def _missing_folder(url: str) -> Path | None:
    """The folder, or the file, that a URL names, if nothing is there."""
    scheme = url.partition("://")[0]
    if not engines()[scheme].in_folder:
        return None
    try:
        folder = parse_folder_url(url, scheme)
        return None if folder.exists() else folder
    except (OSError, ValueError):
        # The engine says what is wrong.
        return None


def _raise_redacted(error: Exception, url: str) -> NoReturn:
    """Raise the same error if it tells no secret, else one of ours: a client may quote what it was given."""
    said = str(error)
    told = redact(said.replace(url, shown(url)), foreign=True)
    if told == said:
        raise error
    if isinstance(error, ValueError):
        raise ValueError(told) from None
    raise BackendError(f"{shown(url)} cannot be opened: {type(error).__name__}: {told}") from None
