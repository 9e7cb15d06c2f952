"""Which engine, of which version, is installed here or answers at a URL; asking changes nothing there."""

from __future__ import annotations

from importlib import metadata

from backends.redaction import remember_url
from backends.registry import described, engines, named


def of_package(distribution: str) -> str | None:
    """The version of an installed package, `None` where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def of_library(scheme: str) -> str:
    """What runs in this process, or from a package, behind a scheme: ``FAISS 1.15.1, SQLite 3.45.1``.

    Empty for the scheme of a server, and for one that is not known here. Its packages must be installed.
    """
    info = engines().get(scheme)
    return str(named(info.library_version)()) if info is not None and info.library_version else ""


def of_server(url: str, *, within_s: float = 2.0) -> str:
    """What answers at a server's URL: ``PostgreSQL 18.1, pgvector 0.8.5``; empty for schemes not known here.

    `within_s` bounds each of the few steps that this takes. Raises `Denied` where the key is refused,
    `Unavailable`, or ValueError for a malformed URL.
    """
    remember_url(url)
    info = described(url)
    return str(named(info.server_version)(url, within_s)) if info is not None and info.server_version else ""
