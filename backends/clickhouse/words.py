"""The words of a collection's records, taken anew where an earlier version wrote them."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from backends.clickhouse.connection import Database
from backends.clickhouse.records import COLUMNS, record_of
from backends.clickhouse.schema import Table, set_comment
from backends.kit.words import log_renewal
from backends.text import WORDS_VERSION

_ROWS = 1_000
# By so much at most a record becomes newer, in nanoseconds: less than two requests take. It is by chance, so that two
# processes that do this at once do not write rows that are equally new.
_NEWER_BITS = 16


def renew_words(database: Database, table: Table, write: Callable[..., None]) -> None:
    """Store every record once more. Each becomes a little newer than it was, and stays older than what others write."""
    log_renewal(f"collection {table.spec.name!r} in {database.address}")
    statement = (
        f"SELECT {COLUMNS}, {table.vector}, seq FROM {table.sql} WHERE id > {{after:String}} "  # noqa: S608
        f"ORDER BY id, seq DESC LIMIT 1 BY id LIMIT {_ROWS}"
    )
    newer = 1 + secrets.randbits(_NEWER_BITS)
    after = ""
    while rows := database.rows(statement, {"after": after}):
        records = [record_of(row, with_vector=True) for row in rows]
        write(table, records, [record.vector for record in records], [int(row[-1]) + newer for row in rows])
        after = records[-1].id
    set_comment(database, table, table.spec, WORDS_VERSION)
