"""The PostgreSQL server of `benchmarks.local_postgres`, for tests."""

from __future__ import annotations

from benchmarks.local_postgres import PASSWORD, QUOTED, USER, Server

__all__ = ["PASSWORD", "QUOTED", "USER", "Server"]
