"""What SQLite's errors mean."""

from __future__ import annotations

import sqlite3

# SQL logic: what is asked has too many variables, terms or levels. It is also the code of much else.
_TOO_MUCH = ("too many", "too large", "too big", "maximum depth", "stack overflow", "out of range")
_CODES = {sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_MISUSE}


def is_refusal(error: sqlite3.Error) -> bool:
    """Whether SQLite or its driver refused what was asked: neither the file nor access to it is at fault."""
    if isinstance(error, (sqlite3.DataError, sqlite3.InterfaceError)):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _CODES:
        return True
    return any(words in str(error).lower() for words in _TOO_MUCH)
