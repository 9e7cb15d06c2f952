"""Which ClickHouse is installed or answers; asking changes nothing there."""

from __future__ import annotations

import math


def of_library() -> str:
    """``ClickHouse 26.9.2.1``: the engine that the package carries. It is not loaded, which takes a second."""
    from importlib.metadata import version

    return f"ClickHouse {'.'.join(version('chdb-core').split('.')[:2])}"


def of_server(url: str, within_s: float) -> str:
    """``ClickHouse 25.8.2.29``."""
    from backends.clickhouse.backend import ClickHouseBackend, MyScaleBackend
    from backends.clickhouse.connection import Server, parse_url

    backend = MyScaleBackend if url.startswith("myscale:") else ClickHouseBackend
    place = parse_url(url, backend.scheme, variable=f"SIGHTLINE_{backend.scheme.upper()}_PASSWORD")
    server = Server(place, connect_s=max(1, math.ceil(within_s)), call_s=max(1, math.ceil(within_s)))
    try:
        ((said,),) = server.rows("SELECT version()")
    finally:
        server.close()
    return f"{backend.dialect.name} {said}"
