"""Connections to PostgreSQL: a pool that reconnects, the vector type, and one-line errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo, Format
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from backends.errors import BackendError, CollectionNotFound, Denied, Unavailable, Unsupported
from backends.kit.json_text import decode
from backends.redaction import redact
from backends.urls import check_options

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")

CONNECT_TIMEOUT_S = 10
MAX_CONNECTIONS = 10
_ATTEMPTS = 3

# The pool logs each failed attempt to connect; callers get an error instead, once.
logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())


class _VectorDumper(Dumper):
    """A float32 array as pgvector's binary form: two 16-bit numbers (length, unused), then the floats."""

    format = Format.BINARY

    def dump(self, obj: NDArray[np.float32]) -> Buffer:
        return len(obj).to_bytes(2, "big") + b"\x00\x00" + obj.astype(">f4").tobytes()


class _VectorLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> NDArray[np.float32]:
        return np.frombuffer(data, dtype=">f4", offset=4).astype(np.float32)


class _JsonbLoader(Loader):
    """What psycopg's own gives, in half the time: the encoding is known, and nothing stands around the value."""

    format = Format.BINARY

    def load(self, data: Buffer) -> Any:
        # The first byte is the format's version.
        return decode(str(memoryview(data)[1:], "utf-8"))


UNREADABLE = (
    "this {scheme}:// URL is not readable; its form is "
    "{scheme}://user:password@host:5432/database?sslmode=require, special characters %-encoded"
)
_PORTS = re.compile(r"[0-9]{0,5}(?:,[0-9]{0,5})*")
# Whom a server refuses is in the URL before the @.
_ROLE = re.compile(r'\b(user|role) "[^"]*"')


def parse_url(url: str, scheme: str = "postgresql") -> tuple[str, str]:
    """A libpq URL as (connection string with time-out, address to show, which holds no secret).

    Raises ValueError for what libpq cannot read, without repeating the URL: it may hold a password.
    scheme: the URL's own, where it is not libpq's.
    """
    unreadable = UNREADABLE.format(scheme=scheme)
    if url.startswith(f"{scheme}://"):
        url = f"postgresql://{url.removeprefix(f'{scheme}://')}"
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        _check_options(url, scheme)
        raise ValueError(unreadable) from None
    given.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    given.setdefault("application_name", "sightline")
    host, port = str(given.get("host") or given.get("hostaddr") or "localhost"), str(given.get("port") or 5432)
    # libpq takes a password that is not escaped for a port or a database, and repeats it.
    if not _PORTS.fullmatch(port) or "@" in host or "@" in url.partition("://")[2].partition("/")[2].partition("?")[0]:
        raise ValueError(unreadable)
    address = f"{scheme}://{host}:{port}/{given.get('dbname') or ''}"
    return make_conninfo(**{key: str(value) for key, value in given.items() if value is not None}), address


def _check_options(url: str, scheme: str) -> None:
    """Raise ValueError for an option that libpq does not know, by its place."""
    with suppress(UnicodeDecodeError):
        named = [part.partition("=")[0] for part in url.partition("?")[2].split("&")]
        known = {option.keyword.decode() for option in Conninfo.get_defaults()}
        check_options([name for name in named if name], scheme, known)


class Database:
    """A pool of connections to one database; `run` gives work a connection and retries what is safe to retry.

    `restart` is called when the server went away, before the second attempt; it may start the server.
    """

    def __init__(self, conninfo: str, address: str, restart: Callable[[], None] | None = None) -> None:
        self.address = address
        self._conninfo = conninfo
        self._revive = restart
        self._settings: dict[str, str] = {}
        self._vector_oid = 0
        self._timeout_s = float(conninfo_to_dict(conninfo).get("connect_timeout") or CONNECT_TIMEOUT_S)
        self._pool: ConnectionPool[Connection] | None = None

    def connect(self) -> Connection:
        """One connection outside the pool, in autocommit mode. Raises `Unavailable` with the server's reason."""
        try:
            return psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            raise explain(error, self.address, lost=connection_lost(error, None)) from error

    def open(self, vector_oid: int, settings: dict[str, str], prepare_threshold: int | None = 5) -> None:
        """Open the pool; every connection knows the vector type and has `settings`, set once for all its searches.

        prepare_threshold: after how many executions a statement is prepared; None for never.
        """
        self._vector_oid = vector_oid
        self._settings = settings
        self._pool = ConnectionPool(
            self._conninfo,
            min_size=1,
            max_size=MAX_CONNECTIONS,
            kwargs={"autocommit": True, "prepare_threshold": prepare_threshold},
            configure=self._configure,
            timeout=self._timeout_s,
            reconnect_timeout=self._timeout_s,
            name="sightline",
            open=False,
        )
        try:
            # Without waiting, the first user would not find the first connection and have a second made.
            self._pool.open(wait=True, timeout=self._timeout_s)
        except psycopg.Error as error:
            self._pool.close()
            raise explain(error, self.address, lost=connection_lost(error, None)) from error

    def _configure(self, connection: Connection) -> None:
        dumper = type("VectorDumper", (_VectorDumper,), {"oid": self._vector_oid})
        connection.adapters.register_dumper(np.ndarray, dumper)
        connection.adapters.register_loader(self._vector_oid, _VectorLoader)
        connection.adapters.register_loader("jsonb", _JsonbLoader)
        names = ", ".join(["set_config(%s, %s, false)"] * len(self._settings))
        values = [part for item in self._settings.items() for part in item]
        connection.execute(f"SELECT {names}".encode(), values)

    def run(self, work: Callable[[Connection], T]) -> T:
        """What `work(connection)` returns. It must be safe to repeat: it is, after a lost connection or a deadlock."""
        if self._pool is None:
            raise BackendError(f"{self.address} is closed")
        for attempt in range(1, _ATTEMPTS + 1):
            connection: Connection | None = None
            try:
                # Not by `with`, which would commit what autocommit has committed.
                connection = self._pool.getconn()
                try:
                    return work(connection)
                finally:
                    self._pool.putconn(connection)
            except PoolClosed:
                raise BackendError(f"{self.address} is closed") from None
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                if attempt == _ATTEMPTS:
                    raise explain(error, self.address) from error
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                # A pool that waited in vain had its time, unless we can do something about the server.
                hopeless = isinstance(error, PoolTimeout) and self._revive is None
                lost = connection_lost(error, connection)
                if attempt == _ATTEMPTS or hopeless or not lost:
                    raise explain(error, self.address, lost=lost) from error
                self._recover()
            except psycopg.Error as error:
                raise explain(error, self.address) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _recover(self) -> None:
        if self._revive is not None:
            self._revive()
        if self._pool is not None:
            self._pool.check()

    def close(self) -> None:
        """Close every connection; calling it twice is fine."""
        if self._pool is not None:
            self._pool.close()


def connection_lost(error: psycopg.Error, connection: Connection | None) -> bool:
    """Whether the connection is gone, or there was none, so that another one may do better.

    What the client itself refuses, such as too many parameters, has no SQLSTATE either and leaves the connection
    as it was: that is no outage.
    """
    if error.sqlstate is None:
        return connection is None or connection.closed
    return error.sqlstate[:2] == "08" or error.sqlstate in ("57P01", "57P02", "57P03")


def explain(error: psycopg.Error, address: str, *, lost: bool = False) -> BackendError:
    """The error of ours, one line with address and remedy, that stands for a client's or server's error.

    lost: whether the connection is gone; otherwise the client or the server refused what was asked.
    """
    text = redact(error.diag.message_primary or " ".join(str(error).split()), foreign=True)
    text = _ROLE.sub(r"\1 …", text)
    if isinstance(error, (errors.UndefinedTable, errors.InvalidSchemaName)):
        return CollectionNotFound(f"the collection is no longer in {address}: another process dropped it")
    if isinstance(error, errors.DiskFull):
        return BackendError(f"the disk of {address} is full, nothing was stored: free some space ({text})")
    if isinstance(error, errors.InsufficientPrivilege):
        return BackendError(f"{address} refuses this user: {text}; ask its administrator to grant the right")
    if isinstance(error, errors.FeatureNotSupported):
        return Unsupported(f"{address}: {text}")
    if isinstance(error, PoolTimeout):
        return Unavailable(f"{address} does not answer: is PostgreSQL running there, with a connection free?")
    # Without a SQLSTATE it is libpq's word on a connection that it could not make.
    refused = lost and error.sqlstate is None and ("password" in text or "authentication failed" in text)
    if refused or (error.sqlstate or "")[:2] == "28":
        return Denied(f"{address} refuses the credentials: check user and password in the URL ({text})")
    if lost and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return Unavailable(f"{address} does not answer: is PostgreSQL running there? ({text})")
    return BackendError(f"{address}: {text}")
