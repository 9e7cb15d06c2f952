"""Connections to ClickHouse over HTTP, the URL of one, and what the client's errors mean."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, InterfaceError, OperationalError

from backends.clickhouse.literals import MAX_TEXT, is_long, written_out
from backends.errors import BackendError, CollectionExists, CollectionNotFound, Denied, Unavailable, Unsupported
from backends.kit.again import until_it_passes
from backends.redaction import redact, remember
from backends.urls import FALSE, TRUE, check_options

# What it logs of errors it raises too.
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)

T = TypeVar("T")
Row = Sequence[Any]

CONNECT_S, CALL_S = 10, 300
# Of what has no limit of its own, such as building an index.
_PATIENT_S = 7 * 86_400
_PORT, _TLS_PORT = 8123, 8443
_OPTIONS = frozenset({"secure"})
TLS_PORTS = frozenset({443, 8443, 9440})
_ATTEMPTS = 3
_HOST = re.compile(r"[\w.:%-]+")
_VERSION = re.compile(r"\s*\(version [^()]*(?:\([^()]*\))?\)")
# ClickHouse's error codes.
_NOT_FOUND, _EXISTS = frozenset({60, 81, 218}), frozenset({57})
# An unknown column or a broken constraint: the collection is not the one that it was.
_STALE = frozenset({10, 16, 47, 469})
_DENIED, _FORBIDDEN = frozenset({192, 193, 194, 516}), frozenset({164, 497})
_UNSUPPORTED, _FULL = frozenset({344}), frozenset({243})
# Too many queries at once, one cut short by a merge or a restart, a lock not given, replicas or Keeper out of reach.
_BUSY = frozenset({202, 210, 225, 236, 279, 473, 745, 999})
_NO_SPACE = re.compile(r"no space left|disk quota|not enough space|cannot reserve", re.IGNORECASE)
_TIMED_OUT = re.compile(r"read timed out", re.IGNORECASE)
# Of a collection that is dropped while it is used.
_DROPPED = re.compile(r"is dropped|been dropped|is being dropped|table .{0,200} doesn't exist", re.IGNORECASE)


class OutOfDate(BackendError):
    """What is remembered of a collection does not fit it; it is looked up again."""


class Lost(Unavailable):
    """The server did not answer; perhaps it does when it is asked once more."""


class Busy(Unavailable):
    """The server answered that it cannot do it now."""


class _TimedOut(Unavailable):
    """The server took too long; it would do so again."""


@dataclass(frozen=True, slots=True)
class Place:
    """A database of a server. `repr` and `address` leave out user and password."""

    scheme: str
    host: str
    port: int
    database: str
    user: str
    password: str
    secure: bool

    @property
    def address(self) -> str:
        """``scheme://host:port/database``, fit for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"Place({self.address})"


def parse_url(url: str, scheme: str, *, variable: str, secure: bool = False) -> Place:
    """The parts of ``scheme://user:password@host:port/database?secure=true``; all but the host may be left out.

    The password may be in the environment's `variable` instead, and `secure` says whether TLS is used where neither
    port nor option do. Raises ValueError for another form, without repeating the URL: it may hold a password.
    """
    usual = _TLS_PORT if secure else _PORT
    form = f"{scheme}://user:password@host:{usual}/database?secure=true, special characters %-encoded"
    try:
        parts = urlsplit(url)
        port = parts.port
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError(f"this {scheme}:// URL cannot be read: write {form}") from None
    if parts.scheme != scheme or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError(f"this URL names no {scheme} server: write {form}")
    database = unquote(parts.path.strip("/"))
    if "/" in database or "@" in database or "@" in parts.query or parts.fragment:
        raise ValueError(f"this {scheme}:// URL has parts that it does not take: write {form}")
    check_options(options, scheme, _OPTIONS)
    told = options.get("secure", "").lower()
    if told and told not in TRUE + FALSE:
        raise ValueError(f"the option secure of this {scheme}:// URL must be true or false")
    if told or port:
        secure = told in TRUE if told else port in TLS_PORTS
    password = unquote(parts.password or "") or os.environ.get(variable, "")
    remember(password)
    return Place(
        scheme,
        parts.hostname or "",
        port or (_TLS_PORT if secure else _PORT),
        database or "default",
        unquote(parts.username or "") or "default",
        password,
        secure,
    )


class Database(Protocol):
    """A database by whatever way it is reached; errors are `BackendError`s."""

    address: str
    #: Its name, as it is.
    name: str
    #: The locks of those who write to its collections, by the collection's name.
    writers: dict[str, threading.RLock]

    def rows(self, statement: str, params: Mapping[str, object] | None = None) -> Sequence[Row]:
        """What a query gives."""

    def execute(self, statement: str, params: Mapping[str, object] | None = None) -> None:
        """Do what a statement says that gives nothing."""

    def execute_long(self, statement: str) -> None:
        """The same for what may take hours."""

    def insert(self, table: str, columns: Sequence[str], rows: bytes, settings: Mapping[str, object]) -> None:
        """Store rows of these columns, in the format RowBinary."""

    def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, which may be done again after a lost connection."""

    def close(self) -> None:
        """Close what is open; calling it twice is fine."""


class Connected:
    """What both ways have in common; a subclass lends a client."""

    address: str

    _closed = False

    def client(self) -> AbstractContextManager[Client]:
        """A client for one call; `BackendError` for what it raises."""
        raise NotImplementedError

    def check_open(self) -> None:
        """Raise `BackendError` once it was closed."""
        if self._closed:
            raise BackendError(f"the store {self.address} is closed: connect again")

    def rows(self, statement: str, params: Mapping[str, object] | None = None) -> Sequence[Row]:
        with self.client() as client:
            found: Sequence[Row] = client.query(statement, parameters=params).result_rows
            return found

    def execute(self, statement: str, params: Mapping[str, object] | None = None) -> None:
        with self.client() as client:
            # Not as a command, whose values go into the address, where few have room.
            client.raw_query(statement, parameters=params)

    def execute_long(self, statement: str) -> None:
        self.execute(statement)

    def insert(self, table: str, columns: Sequence[str], rows: bytes, settings: Mapping[str, object]) -> None:
        with self.client() as client:
            client.raw_insert(table, columns, rows, settings=dict(settings), fmt="RowBinary")


class Server(Connected):
    """A server over HTTP; one client, which threads share."""

    def __init__(self, place: Place, *, connect_s: int = CONNECT_S, call_s: int = CALL_S) -> None:
        self._connect_s, self._call_s = connect_s, call_s
        self.address = place.address
        self.name = place.database
        self.writers: dict[str, threading.RLock] = {}
        self._place = place
        self._mutex = threading.Lock()
        self._client: Client | None = None

    @contextmanager
    def client(self) -> Iterator[Client]:
        with self._explained():
            yield self._connected()

    def rows(self, statement: str, params: Mapping[str, object] | None = None) -> Sequence[Row]:
        if params is None or not is_long(params):
            return super().rows(statement, params)
        with self.client() as client:
            text = written_out(statement, params)
            found: Sequence[Row] = client.query(text, settings={"max_query_size": MAX_TEXT}).result_rows
            return found

    def execute(self, statement: str, params: Mapping[str, object] | None = None) -> None:
        if params is None or not is_long(params):
            return super().execute(statement, params)
        with self.client() as client:
            client.raw_query(written_out(statement, params), settings={"max_query_size": MAX_TEXT})
        return None

    def execute_long(self, statement: str) -> None:
        with self._explained():
            client = self._new_client(_PATIENT_S)
            try:
                client.raw_query(statement)
            finally:
                client.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        self.check_open()
        try:
            yield
        except (ClickHouseError, OSError) as error:
            self.check_open()
            raise explain(error, self.address) from error

    def _connected(self) -> Client:
        with self._mutex:
            if self._client is None:
                self._client = self._new_client(self._call_s)
            return self._client

    def _new_client(self, call_s: int) -> Client:
        place = self._place
        return get_client(
            host=place.host,
            port=place.port,
            username=place.user,
            password=place.password,
            secure=place.secure,
            connect_timeout=self._connect_s,
            send_receive_timeout=call_s,
            compress=False,
            autogenerate_session_id=False,
            client_name="sightline",
            query_limit=0,
        )

    def run(self, work: Callable[[], T]) -> T:
        self.check_open()

        def attempt() -> T:
            for _ in range(_ATTEMPTS - 1):
                try:
                    return work()
                except Lost:
                    continue
            return work()

        return until_it_passes(attempt, is_busy)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            if self._client is not None:
                self._client.close()


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """A string as SQL has it, where nothing can be bound."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def first_line(error: BaseException) -> str:
    """One line of what the client or the server says."""
    text = _VERSION.sub("", " ".join(str(error).split()))
    text = redact(text, foreign=True)
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-90:]}"


def is_busy(error: Exception) -> bool:
    """Whether it may do what it was asked in a moment."""
    return isinstance(error, Busy)


def explain(error: Exception, address: str) -> BackendError:
    """The error of ours, one line with address and remedy, that stands for a client's or server's error."""
    code, said = getattr(error, "code", None), first_line(error)
    if code in _EXISTS:
        return CollectionExists(f"the collection is already in {address}")
    if code in _NOT_FOUND or (code is not None and _DROPPED.search(said)):
        return CollectionNotFound(f"the collection is no longer in {address}")
    if code in _STALE:
        return OutOfDate(f"{address}: {said}")
    if code in _DENIED:
        return Denied(f"{address} refuses the credentials: check user and password in the URL or the environment")
    if code in _FORBIDDEN:
        return Denied(f"{address} refuses this user what it needs; ask its administrator to grant the right ({said})")
    if code in _FULL or _NO_SPACE.search(said):
        return Unavailable(f"the disk of {address} is full: make room and try again ({said})")
    if code in _BUSY:
        return Busy(f"{address} cannot do this now; try again later, and look at its load and replicas ({said})")
    if code in _UNSUPPORTED:
        return Unsupported(f"{address}: {said}")
    if code is None and _TIMED_OUT.search(said):
        return _TimedOut(f"{address} did not answer in time: is it overloaded? ({said})")
    if code is None and isinstance(error, (OperationalError, InterfaceError, OSError)):
        return Lost(f"{address} does not answer: is the server running there? ({said})")
    return BackendError(f"{address}: {said}")
