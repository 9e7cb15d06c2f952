"""Words as version 1 took them, and stores that were written with them."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from backends.kit.json_text import encode
from backends.text import searched_text


def old_words(text: str) -> list[str]:
    """Runs of letters and digits; all marks are lost."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c)))


def age_faiss(database: Path) -> None:
    """Give a collection of ``faiss://`` the words and the table that version 1 gave it."""
    connection = sqlite3.connect(database, isolation_level=None)
    tokenizer = "unicode61 remove_diacritics 2 tokenchars '_'"
    for statement in (
        "BEGIN",
        "DROP TABLE keywords",
        f"CREATE VIRTUAL TABLE words USING fts5(text, content = '', tokenize = \"{tokenizer}\")",
        "UPDATE state SET format = 2",
        "PRAGMA user_version = 0",
    ):
        connection.execute(statement)
    for row, text, uri in connection.execute("SELECT row, text, uri FROM items").fetchall():
        words = " ".join(old_words(searched_text(text, uri)))
        connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (row, words))
    connection.execute("COMMIT")
    connection.close()


def age_pgvector(backend: Any) -> None:
    """Give the collection c of a PostgreSQL the words of version 1."""
    with backend._database.connect() as connection, connection.transaction():
        (number,) = connection.execute("SELECT number FROM sightline.collections WHERE name = 'c'").fetchone()
        for record_id, text, uri in connection.execute(f"SELECT id, text, uri FROM sightline.c{number}").fetchall():
            terms = Counter(old_words(searched_text(text, uri)))
            values = [encode(terms), terms.total(), record_id]
            connection.execute(f"UPDATE sightline.c{number} SET terms = %s::jsonb, length = %s WHERE id = %s", values)
        connection.execute("UPDATE sightline.collections SET words = DEFAULT")


def age_qdrant(backend: Any) -> None:
    """Give the collection c of a Qdrant the words of version 1."""
    from backends.qdrant.payload import word_index

    driver = backend._driver
    at = driver.find("c")
    rows = driver.scroll(at, None, 1000, None, vectors=False)
    weights = {
        point: {word_index(word): 1.0 for word in old_words(searched_text(payload.get("text"), payload.get("uri")))}
        for point, payload, _ in rows
    }
    with driver.writing(at):
        driver.set_words(at, weights)
        driver.note_words(at, 1)


def age_milvus(backend: Any) -> None:
    """Give the collection c of a Milvus Lite the words of version 1."""
    from backends.milvus.records import WORDS_PROPERTY

    opened = backend._collections.find("c")
    rows = [row for page in backend.pages(opened, "", ["*", "vector"]) for row in page]
    for row in rows:
        del row["words_vector"]
        row["words"] = " ".join(old_words(searched_text(row["text"], row["uri"])))
    backend._collections.call(opened, lambda client: client.insert(opened.stored, rows))
    properties = {WORDS_PROPERTY: "1"}
    backend._collections.call(opened, lambda client: client.alter_collection_properties(opened.stored, properties))
    backend._collections.forget("c")


def age_weaviate(backend: Any) -> None:
    """Give the collection c of a Weaviate the words of version 1, and a class without the mark of a later one."""
    from backends.weaviate.records import object_id

    server, records = backend._server, [r for page in backend.scan("c") for r in page.records]
    path = "/schema/Sightline_c"
    made = server.rest("GET", path)
    made["properties"] = [p for p in made["properties"] if not p["name"].startswith("words_")]
    server.rest("DELETE", path)
    server.rest("POST", "/schema", made)
    backend._with_current_words = lambda stored: stored
    backend.upsert("c", records)
    del backend._with_current_words
    for record in records:
        words = " ".join(old_words(searched_text(record.text, record.uri)))
        body = {"class": "Sightline_c", "properties": {"words": words}}
        server.rest("PATCH", f"/objects/Sightline_c/{object_id(record.id)}", body)


def age_opensearch(backend: Any) -> None:
    """Give the collection c of an OpenSearch the words of version 1."""
    from dataclasses import replace

    from backends.opensearch import schema

    server, stored = backend._server, backend._read("c")
    for page in backend.scan("c"):
        for record in page.records:
            words = " ".join(old_words(searched_text(record.text, record.uri)))
            document = {"words": words, "vector": record.vector.tolist()}
            server.call("POST", f"/{stored.alias}/_update/{record.id}", {"doc": document})
    server.refresh(stored.alias)
    schema.write(server, replace(stored, words=1))


def age(backend: Any) -> None:
    """Give the collection c of an engine the words of version 1; open it anew then."""
    engine = type(backend).__module__.split(".")[1]
    if engine == "faiss":
        age_faiss(backend.folder / "c" / "store.sqlite3")
    else:
        {
            "milvus": age_milvus,
            "opensearch": age_opensearch,
            "pgvector": age_pgvector,
            "qdrant": age_qdrant,
            "weaviate": age_weaviate,
        }[engine](backend)
