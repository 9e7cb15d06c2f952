"""Statements with so many values that a server takes them only written out.

A bound value goes into the address, of which ClickHouse takes 1 MiB (``http_max_uri_size``), or into a form, of which
it takes 128 KiB for the statement. A statement itself may be as long as `MAX_TEXT`. The client writes values as
literals, as clients of databases without bound values do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from clickhouse_connect.driver.binding import format_query_value

#: Of the values of a statement together; escaping may make three characters of each.
MAX_VALUES = 200_000
MAX_TEXT = 64 << 20
_PLACEHOLDER = re.compile(r"\{(\w+):([^{}]+)\}")


def is_long(params: Mapping[str, object]) -> bool:
    """Whether the values are too many to be bound."""
    return sum(len(str(value)) for value in params.values()) > MAX_VALUES


def written_out(statement: str, params: Mapping[str, object]) -> str:
    """The statement with each placeholder's value as a literal of the placeholder's type."""

    def literal(found: re.Match[str]) -> str:
        value = str(format_query_value(params[found[1]])).replace("\0", r"\0")
        return value if found[2] == "String" else f"CAST({value}, '{found[2]}')"

    return _PLACEHOLDER.sub(literal, statement)
