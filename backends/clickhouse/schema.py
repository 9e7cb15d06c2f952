"""What Sightline keeps in ClickHouse: a table per collection, whose comment says what it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass

from backends.base import CollectionSpec
from backends.clickhouse.connection import Database, literal, quoted
from backends.clickhouse.dialects import Dialect
from backends.clickhouse.records import TYPES, vector_column
from backends.errors import Corrupt
from backends.kit.widths import Width
from backends.text import WORDS_VERSION

PREFIX = "sightline_"
# Below this an exact scan takes milliseconds and is never wrong.
AUTO_INDEX_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Table:
    """A collection as stored: which table, its spec, about how many rows, whether it has an index, whose words.

    `width` is how wide its index has to be searched; None where that was not tried.
    """

    uuid: str
    sql: str
    spec: CollectionSpec
    rows: int
    indexed: bool
    words: int
    width: Width | None = None

    @property
    def vector(self) -> str:
        """The column of its vectors."""
        return vector_column(self.spec)


def table_sql(database: Database, name: str) -> str:
    """The table of a collection, as SQL has it."""
    return f"{quoted(database.name)}.{quoted(PREFIX + name)}"


def comment_of(spec: CollectionSpec, words: int, width: Width | None = None) -> str:
    """What a table's comment says."""
    told = {"spec": json.loads(spec.to_json()), "words": words}
    if width is not None:
        told["width"] = json.loads(width.to_json())
    return json.dumps(told, ensure_ascii=False)


def create_table(database: Database, dialect: Dialect, spec: CollectionSpec) -> None:
    """Make a collection's table, with its spec, in one step. Raises `CollectionExists`."""
    column = vector_column(spec)
    columns = ", ".join(f"{name} {kind}" for name, kind in {**TYPES, column: "Array(Float32)"}.items())
    database.execute(
        f"CREATE TABLE {table_sql(database, spec.name)} ({columns}, "
        f"CONSTRAINT length_of_vector CHECK length({column}) = {spec.dim}) "
        f"ENGINE = MergeTree ORDER BY id SETTINGS {dialect.table_settings} "
        f"COMMENT {literal(comment_of(spec, WORDS_VERSION))}"
    )


def set_comment(database: Database, table: Table, spec: CollectionSpec, words: int, width: Width | None = None) -> None:
    """Say something else of a table; its width stays unless another one is given."""
    said = comment_of(spec, words, width or table.width)
    database.execute(f"ALTER TABLE {table.sql} MODIFY COMMENT {literal(said)}")


def read_table(database: Database, dialect: Dialect, name: str) -> Table | None:
    """The collection of this name as the database has it now."""
    rows = database.rows(
        f"SELECT toString(uuid), comment, ifNull(total_rows, 0), {dialect.indexed()} FROM system.tables "  # noqa: S608
        "WHERE database = {d:String} AND name = {t:String}",
        {"d": database.name, "t": PREFIX + name},
    )
    if not rows:
        return None
    uuid, comment, count, indexed = rows[0]
    sql = table_sql(database, name)
    try:
        told = json.loads(comment)
        spec, words = CollectionSpec.from_json(json.dumps(told["spec"])), int(told["words"])
        width = Width.from_json(json.dumps(told.get("width")))
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupt(f"the comment of table {sql} in {database.address} is not Sightline's: {error}") from error
    return Table(str(uuid), sql, spec, int(count), bool(indexed), words, width)
