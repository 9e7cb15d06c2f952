"""The words of a collection's records, taken anew where an earlier version wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backends.base import Page, Record
from backends.kit.words import is_outdated, log_renewal
from backends.kit.words import renew_words as renew
from backends.text import WORDS_VERSION
from backends.tidb.connection import Connection, change, rows, transaction
from backends.tidb.records import COLUMNS, id_parts, record_of, words_of
from backends.tidb.schema import COLLECTIONS, StoredCollection

_ROWS = 1_000


def renew_words(connection: Connection, name: str, collection: StoredCollection) -> None:
    """Take the words of all records anew; what others write at the same moment gets its own words from them.

    A Sightline that was connected before its upgrade goes on writing words of its own version.
    """
    if not is_outdated(collection.words):
        return
    log_renewal(f"collection {name!r} in TiDB")
    table = collection.table
    renew(
        _pages(connection, table),
        lambda records: _write(connection, table, records),
        lambda ids: _read(connection, table, [record_id.encode() for record_id in ids]),
    )
    statement = f"UPDATE {COLLECTIONS} SET words = %s WHERE name = %s AND storage = %s"  # noqa: S608
    change(connection, statement, [WORDS_VERSION, name.encode(), table])


def _pages(connection: Connection, table: str) -> Iterator[Page]:
    statement = f"SELECT {COLUMNS} FROM {table} WHERE id > %s ORDER BY id LIMIT {_ROWS}"  # noqa: S608
    last = ""
    while found := rows(connection, statement, [last.encode()]):
        records = [record_of(row, with_vector=False) for row in found]
        last = records[-1].id
        yield Page(records, last)


def _read(connection: Connection, table: str, ids: Sequence[bytes]) -> list[Record]:
    marks = ", ".join(["%s"] * len(ids))
    statement = f"SELECT {COLUMNS} FROM {table} WHERE id IN ({marks})"  # noqa: S608
    return [record_of(row, with_vector=False) for row in rows(connection, statement, ids)]


def _write(connection: Connection, table: str, records: Sequence[Record]) -> None:
    statement = f"UPDATE {table} SET terms = %s, length = %s WHERE id = %s"  # noqa: S608
    words = {record.id.encode(): words_of(record.text, record.uri) for record in records}
    for part in id_parts(sorted(words)):
        with transaction(connection):
            for record_id in part:
                change(connection, statement, [*words[record_id], record_id])
