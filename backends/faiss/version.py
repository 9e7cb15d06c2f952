"""Which FAISS and SQLite are installed."""

from __future__ import annotations


def of_library() -> str:
    """``FAISS 1.15.1, SQLite 3.45.1``."""
    import sqlite3

    import faiss

    return f"FAISS {faiss.__version__}, SQLite {sqlite3.sqlite_version}"
