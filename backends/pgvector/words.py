"""The words of a collection's records, taken anew where an earlier version wrote them."""

from __future__ import annotations

from collections import Counter

from backends.kit.json_text import encode
from backends.kit.words import is_outdated, log_renewal
from backends.pgvector.connection import Connection
from backends.pgvector.index import StoredCollection
from backends.text import WORDS_VERSION, searched_text, tokenize

_ROWS = 1_000


def renew_words(connection: Connection, collection: StoredCollection) -> None:
    """Take the words of all records anew, in one transaction: searches by vectors see the old ones until it ends.

    A search by keyword or a write that comes at the same moment waits and finds it done. A Sightline that was connected
    before its upgrade goes on writing words of its own version.
    """
    number = collection.number
    with connection.transaction():
        row = connection.execute(
            "SELECT words, name FROM sightline.collections WHERE number = %s FOR UPDATE", [number]
        ).fetchone()
        if row is None or not is_outdated(row[0]):
            return
        log_renewal(f"collection {row[1]!r} in PostgreSQL")
        # In the order in which upserts lock rows, so that they wait and do not meet in a deadlock.
        page = (
            f"SELECT id, text, uri FROM {collection.table} WHERE id > %s "  # noqa: S608
            f"ORDER BY id LIMIT {_ROWS} FOR UPDATE"
        ).encode()
        change = f"UPDATE {collection.table} SET terms = %s::jsonb, length = %s WHERE id = %s".encode()  # noqa: S608
        last = ""
        while rows := connection.execute(page, [last]).fetchall():
            last = rows[-1][0]
            counted = [(record_id, Counter(tokenize(searched_text(text, uri)))) for record_id, text, uri in rows]
            connection.cursor().executemany(change, [(encode(c), c.total(), record_id) for record_id, c in counted])
        connection.execute("UPDATE sightline.collections SET words = %s WHERE number = %s", [WORDS_VERSION, number])
