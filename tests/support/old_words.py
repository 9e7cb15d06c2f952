"""Words as version 1 took them, and stores that were written with them."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from pathlib import Path

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
