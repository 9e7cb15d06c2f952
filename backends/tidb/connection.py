"""Connections to TiDB by PyMySQL: a pool, since one connection is one thread's; retries; and one-line errors."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

import pymysql
from pymysql.constants import CR, ER

from backends.errors import BackendError, CollectionNotFound, Denied, Unavailable, Unsupported
from backends.kit.again import until_it_passes
from backends.kit.tls import trusted
from backends.redaction import redact, remember
from backends.urls import parse_server_url

Connection: TypeAlias = "pymysql.connections.Connection[Any]"
Row: TypeAlias = tuple[Any, ...]
T = TypeVar("T")

KEY_VARIABLE = "SIGHTLINE_TIDB_PASSWORD"
PORT = 4000
CONNECT_TIMEOUT_S = 10
# A statement that takes longer is given up; building an index has no limit.
TIMEOUT_S = 300
MAX_CONNECTIONS = 10
ATTEMPTS = 3
_FORM = "tidb://user:password@host:4000/database?ssl=true, special characters %-encoded"
_OPTIONS = frozenset({"ssl", "ssl_ca", "timeout"})
_SESSION = {
    # What escapes and quotes mean must not depend on the server's settings.
    "sql_mode": "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION",
}
_LOST = {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, CR.CR_CONN_HOST_ERROR, ER.SERVER_SHUTDOWN, 0}
# TiDB's own numbers: PD, TiKV, TiFlash or its schema lease did not answer; https://docs.pingcap.com/tidb/stable/error-codes
_CLUSTER_AWAY = {8027, 9001, 9002, 9003, 9004, 9005, 9010, 9012, 9013}
# A write conflict, a schema that changed meanwhile, a deadlock, a lock that was not given: another attempt may do.
_CONFLICT = {8002, 8005, 8022, 8028, 9007, ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT}
_CREDENTIALS = {ER.ACCESS_DENIED_ERROR, ER.MUST_CHANGE_PASSWORD}
RIGHTS = {
    ER.DBACCESS_DENIED_ERROR,
    ER.TABLEACCESS_DENIED_ERROR,
    ER.COLUMNACCESS_DENIED_ERROR,
    ER.SPECIFIC_ACCESS_DENIED_ERROR,
    ER.OPTION_PREVENTS_STATEMENT,
}
_TOO_LARGE = {8004, 8025, ER.NET_PACKET_TOO_LARGE}
UNSUPPORTED_DDL = 8200
MEMORY_EXCEEDED = 8175


@dataclass(frozen=True, slots=True)
class Place:
    """Where a database is and how it is reached. What is shown of it has no secret."""

    address: str
    arguments: dict[str, Any] = field(repr=False)
    timeout_s: int = TIMEOUT_S


def parse_url(url: str) -> Place:
    """What ``tidb://user:password@host:4000/database?ssl=true`` names.

    Raises ValueError for another form, without repeating what may be a part of a password.
    """
    try:
        parts = urlsplit(url)
        rest = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" + (f"?{parts.query}" if parts.query else "")
    except ValueError:
        raise ValueError(f"this tidb:// URL cannot be read: write {_FORM}") from None
    database = unquote(parts.path.removeprefix("/"))
    if parts.fragment or "@" in parts.path + parts.query or "/" in database or not database or not parts.username:
        raise ValueError(f"this tidb:// URL names no user or no database, or cannot be read: write {_FORM}")
    server = parse_server_url(rest, "tidb", port=PORT, known=_OPTIONS)
    password = unquote(parts.password) if parts.password else os.environ.get(KEY_VARIABLE, "")
    remember(password)
    arguments: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        "user": unquote(parts.username),
        # PyMySQL would encode a string as Latin 1.
        "password": password.encode(),
        "database": database,
    }
    authority = server.options.get("ssl_ca")
    if server.flag("ssl", default=authority is not None):
        arguments["ssl"] = trusted(authority, option="ssl_ca", address=server.address)
    elif authority is not None:
        raise ValueError(f"{server.address}: ssl_ca belongs to ssl=true")
    return Place(f"{server.address}/{database}", arguments, server.number("timeout", TIMEOUT_S, highest=86_400))


def rows(connection: Connection, statement: str, params: Sequence[object] = ()) -> list[Row]:
    """All rows of one statement. Its parameters stand where ``%s`` is."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)
        return list(cursor.fetchall())


def change(connection: Connection, statement: str, params: Sequence[object] = ()) -> int:
    """Execute one statement; how many rows it changed."""
    with connection.cursor() as cursor:
        return int(cursor.execute(statement, params or None))


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """The statements of the block are done all or none."""
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        try:
            connection.rollback()
        except (pymysql.Error, OSError):
            _end(connection)
        raise


class Database:
    """A pool of connections to one database; `run` gives work a connection and retries what is safe to retry."""

    def __init__(self, place: Place) -> None:
        self.address = place.address
        self._place = place
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._closed = False

    def connect(self, *, timeout_s: float | None) -> Connection:
        """One connection outside of the pool. `timeout_s` is how long a statement may take."""
        try:
            return open_connection(self._place, timeout_s=timeout_s)
        except (pymysql.Error, OSError) as error:
            raise explain(error, self.address) from error

    def run(self, work: Callable[[Connection], T]) -> T:
        """What `work(connection)` returns. It must be safe to repeat: it is, after a lost connection or a conflict."""
        return until_it_passes(lambda: self._attempt(work), _is_of_the_moment)

    def _attempt(self, work: Callable[[Connection], T]) -> T:
        with self._free:
            for attempt in range(1, ATTEMPTS + 1):
                connection = self._take()
                try:
                    return work(connection)
                except pymysql.Error as error:
                    if is_lost(error):
                        self._forget_idle()
                    if attempt == ATTEMPTS or not is_lost(error) or _timed_out(error):
                        raise explain(error, self.address) from error
                except BackendError:
                    raise
                except BaseException:
                    # An answer may not have been read to its end.
                    _end(connection)
                    raise
                finally:
                    self._give_back(connection)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def run_long(self, work: Callable[[Connection], T]) -> T:
        """What `work(connection)` returns, whose statements may take as long as they need. It is not repeated."""
        self._check_open()
        with self.connect(timeout_s=None) as connection:
            try:
                return work(connection)
            except pymysql.Error as error:
                raise explain(error, self.address) from error

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"{self.address} is closed")

    def _take(self) -> Connection:
        with self._lock:
            self._check_open()
            if self._idle:
                return self._idle.pop()
        return self.connect(timeout_s=self._place.timeout_s)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if connection.open and not self._closed:
                self._idle.append(connection)
                return
        _end(connection)

    def _forget_idle(self) -> None:
        with self._lock:
            forgotten, self._idle = self._idle, []
        for connection in forgotten:
            _end(connection)

    def close(self) -> None:
        """Close every connection; calling it twice is fine."""
        with self._lock:
            self._closed = True
        self._forget_idle()


def open_connection(
    place: Place, *, timeout_s: float | None, connect_timeout_s: float = CONNECT_TIMEOUT_S
) -> Connection:
    """A connection in autocommit mode, with the session's settings."""
    connection = pymysql.connect(
        **place.arguments,
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=connect_timeout_s,
        read_timeout=connect_timeout_s,
        write_timeout=timeout_s,
        program_name="sightline",
    )
    try:
        # Greeting and log-in belong to connecting; PyMySQL has one time-out for all that is read.
        connection._read_timeout = timeout_s
        settings = ", ".join(f"SESSION {name} = %s" for name in _SESSION)
        change(connection, f"SET {settings}", list(_SESSION.values()))
    except BaseException:
        _end(connection)
        raise
    return connection


def _end(connection: Connection) -> None:
    # It may be closed already, or the other side gone.
    with suppress(pymysql.Error):
        connection.close()


def number_of(error: BaseException) -> int:
    """The error's number at MySQL, TiDB or the client; 0 where it has none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, or could not be made."""
    if isinstance(error, OSError):
        return True
    return isinstance(error, (pymysql.OperationalError, pymysql.InterfaceError)) and number_of(error) in _LOST


def _timed_out(error: BaseException) -> bool:
    return isinstance(error.__cause__ or error.__context__, TimeoutError)


def _is_of_the_moment(error: Exception) -> bool:
    """Whether TiDB could not do it now, by what others do or what its cluster is about."""
    cause = error.__cause__
    return isinstance(cause, pymysql.Error) and number_of(cause) in _CONFLICT | _CLUSTER_AWAY


def explain(error: BaseException, address: str) -> BackendError:
    """The error of ours, one line with address and remedy, that stands for a client's or server's error."""
    number = number_of(error)
    said = error.args[1] if len(error.args) > 1 else error
    text = redact(" ".join(str(said).split()), foreign=True)[:500]
    if number in _CREDENTIALS:
        return Denied(
            f"{address} refuses the credentials: check the user in the URL, and the password there or in {KEY_VARIABLE}"
        )
    if number == ER.BAD_DB_ERROR:
        return Unavailable(f"{address}: there is no such database: make it with CREATE DATABASE")
    if number == ER.NO_SUCH_TABLE:
        return CollectionNotFound(f"the collection is no longer in {address}: another process dropped it")
    if number in RIGHTS:
        return BackendError(f"{address} refuses this user: {text}; ask its administrator to grant the right")
    if number in _TOO_LARGE:
        return BackendError(f"{address} takes no record or statement of this size: {text}")
    if number == UNSUPPORTED_DDL:
        return Unsupported(f"{address}: {text}")
    if number == CR.CR_SSL_CONNECTION_ERROR:
        return Unavailable(f"{address} offers no TLS, which ssl=true asks for ({text})")
    if is_lost(error):
        if _timed_out(error):
            return Unavailable(
                f"{address} did not answer in time: is it overloaded, its disk full, or the option timeout too low?"
            )
        if isinstance(getattr(error, "original_exception", None), ssl.SSLError):
            return Unavailable(f"{address}: TLS failed, check the option ssl_ca and the server's certificate ({text})")
        return Unavailable(f"{address} does not answer: is TiDB running there? ({text})")
    if number in _CLUSTER_AWAY:
        return Unavailable(f"{address} answers, but its cluster does not: are PD and TiKV running? ({text})")
    return BackendError(f"{address}: {text}")
