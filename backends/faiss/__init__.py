"""FAISS and SQLite in a folder."""
