"""Which Couchbase answers; asking changes nothing there."""

from __future__ import annotations


def of_server(url: str, within_s: float) -> str:
    """``Couchbase 8.0.0-1234-enterprise``."""
    from backends.couchbase.connection import CouchbaseServer

    server = CouchbaseServer(url, within_s)
    try:
        return f"Couchbase {server.version(within_s)}"
    finally:
        server.close()
