"""The errors every backend raises, as one tree."""

from __future__ import annotations

from backends.redaction import redact


class BackendError(Exception):
    """What every backend raises: one line that says what was wrong, where, and what to do; no secret is in it."""

    def __init__(self, *arguments: object) -> None:
        # Here, so that no engine can forget it: clients quote the addresses and headers they were given.
        super().__init__(*(redact(part) if isinstance(part, str) else part for part in arguments))


class CollectionExists(BackendError):
    """`create` met a collection of that name."""


class CollectionNotFound(BackendError):
    """No collection of that name is there (any more)."""


class CollectionInUse(BackendError):
    """`drop` met a collection that another name stands for; the message says which is to be dropped first."""


class DimensionMismatch(BackendError, ValueError):
    """A vector's length differs from the collection's."""


class Unsupported(BackendError):
    """The engine cannot do this; nothing was done."""


class Unavailable(BackendError):
    """The engine does not answer, is locked by another process, or refused the credentials."""


class Locked(Unavailable):
    """Another process has the store, and keeps it until it closes it; `holder` says which, as far as is known."""

    def __init__(self, message: str, holder: str = "another process") -> None:
        super().__init__(message)
        self.holder = holder


class ReadOnly(Unavailable):
    """The store lies where nothing may be written; reading it may still work."""


class Denied(Unavailable):
    """The engine answers, and refuses the key or the password."""


class KeyMissing(Denied):
    """The engine needs a key or a password and none was given; the message names the variable that takes it."""


class Corrupt(BackendError):
    """What is stored is damaged or of an unknown format; the message names the file or table."""
