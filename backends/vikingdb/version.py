"""Which VikingDB answers; asking changes nothing there."""

from __future__ import annotations


def of_server(url: str, within_s: float) -> str:
    """``VikingDB, interface of 2025-06-09``: the service tells no version of its own."""
    from backends.vikingdb.connection import VERSION, VikingServer

    VikingServer.connect(url, within_s=within_s).close()
    return f"VikingDB, interface of {VERSION}"
