"""JSON over HTTP(S), for engines that are asked in no other way.

Connections are kept and shared by threads; a forked child opens its own. No redirect is followed, no proxy of the
environment is used, and nothing that was sent is in a message.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpcore

from backends.errors import BackendError, Unavailable
from backends.kit.json_text import encode
from backends.redaction import redact, remember

MAX_CONNECTIONS = 32
KEPT_S = 30.0
MAX_ANSWER_BYTES = 256 << 20
#: Too many requests, and a server that is going away or coming back.
BUSY = frozenset({429, 502, 503, 504})
_POLL_S = (0.05, 1.0)
_ALWAYS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "sightline"}
_SECRET_HEADERS = frozenset({"authorization", "x-api-key", "api-key"})
_LOST = (httpcore.NetworkError, httpcore.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: the status, and `data`, which is JSON as Python has it; what is no JSON is a string.

    An empty answer is None.
    """

    status: int
    data: Any

    @property
    def is_success(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300

    def told(self, limit: int = 300) -> str:
        """The answer on one line, fit for a message."""
        text = self.data if isinstance(self.data, str) else encode(self.data)
        return " ".join(redact(text, foreign=True).split())[:limit]


class JsonHttp:
    """One server, asked and answering in JSON. Thread-safe.

    Args:
        base_url: ``http://host:port`` or ``https://host:port``.
        what: the server as messages call it, as in ``VikingDB at vikingdb://host:443``.
        remedy: what to do when it does not answer, as in ``start it, or check host and port``.
        connect_s: how long a connection may take.
        tls: for https, whom to trust; certifi's authorities where it is None.
        headers: sent with every request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        what: str,
        remedy: str,
        connect_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        parts = urlsplit(base_url)
        secure = parts.scheme == "https"
        self._scheme, self._host = parts.scheme.encode(), (parts.hostname or "").encode("idna")
        self._port = parts.port or (443 if secure else 80)
        #: The header of this name, as every request carries it and signatures need it.
        self.host = parts.netloc.rpartition("@")[2]
        self._what, self._remedy, self._connect_s = what, remedy, connect_s
        self._tls = (tls or httpcore.default_ssl_context()) if secure else None
        self._headers = _checked({"Host": self.host, **_ALWAYS, **(headers or {})}, what)
        for name in _SECRET_HEADERS & self._headers.keys():
            value = self._headers[name]
            remember(value, value.rpartition(" ")[2])
        self._max_answer_bytes = max_answer_bytes
        self._closed = False
        self._process, self._pool = os.getpid(), self._new_pool()

    def request(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        patience_s: float = 0.0,
    ) -> Answer:
        """Ask for `target`, path and query as they are sent; any status is an answer.

        Args:
            body: nothing if None, bytes as they are, anything else as JSON.
            timeout_s: from the first byte sent to the last one read.
            patience_s: how long a server that is away or busy is asked again. Only for what may be done twice.

        Raises:
            Unavailable: it does not answer, or not in time.
            BackendError: the connection was closed with `close`, or the answer is too large.
        """
        deadline, wait_s = time.monotonic() + patience_s, _POLL_S[0]
        while True:
            try:
                answer = self._ask(method, target, body, headers or {}, timeout_s)
                if answer.status not in BUSY or time.monotonic() + wait_s > deadline:
                    return answer
            except (httpcore.ConnectTimeout, *_LOST) as error:
                self.check_open()
                if time.monotonic() + wait_s > deadline:
                    raise self.unavailable(str(error) or type(error).__name__) from None
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _POLL_S[1])

    def unavailable(self, why: str) -> Unavailable:
        """The error for a server that does not answer as it should."""
        reason = " ".join(redact(why, foreign=True).split())[:300]
        return Unavailable(f"{self._what} does not answer ({reason}): {self._remedy}")

    def check_open(self) -> None:
        """Raise `BackendError` once closed."""
        if self._closed:
            raise BackendError(f"this connection to {self._what} is closed: connect again")

    def close(self) -> None:
        """Close the connections; twice is fine."""
        if not self._closed:
            self._closed = True
            if self._process == os.getpid():
                self._pool.close()

    def _new_pool(self) -> httpcore.ConnectionPool:
        return httpcore.ConnectionPool(
            ssl_context=self._tls, max_connections=MAX_CONNECTIONS, keepalive_expiry=KEPT_S, retries=0
        )

    def _own_pool(self) -> httpcore.ConnectionPool:
        """The connections of this process: those that a forked child inherits are its parent's, as are their locks."""
        if self._process != os.getpid():
            self._process, self._pool = os.getpid(), self._new_pool()
        return self._pool

    def _ask(self, method: str, target: str, body: object, headers: Mapping[str, str], timeout_s: float) -> Answer:
        self.check_open()
        content = body if isinstance(body, bytes) else b"" if body is None else encode(body).encode()
        sent = self._headers | ({} if body is None else {"content-type": "application/json"})
        sent |= {"content-length": str(len(content))} | _checked(headers, self._what)
        url = httpcore.URL(scheme=self._scheme, host=self._host, port=self._port, target=target.encode("ascii"))
        timeouts = {"connect": self._connect_s, "read": timeout_s, "write": timeout_s, "pool": timeout_s}
        deadline = time.monotonic() + self._connect_s + timeout_s
        try:
            with self._own_pool().stream(
                method, url, headers=[*sent.items()], content=content, extensions={"timeout": timeouts}
            ) as response:
                data = self._read(response, deadline, timeout_s)
        except httpcore.ConnectTimeout:
            raise
        except httpcore.TimeoutException:
            self._too_slow(timeout_s)
        except (httpcore.UnsupportedProtocol, httpcore.LocalProtocolError) as error:
            raise BackendError(f"{self._what} cannot be asked for this: {redact(str(error), foreign=True)}") from None
        except RuntimeError:  # closed between the check and the call
            self.check_open()
            raise
        if 300 <= response.status < 400:
            raise BackendError(f"{self._what} redirects (status {response.status}), which is not followed")
        return Answer(response.status, _parsed(data))

    def _read(self, response: httpcore.Response, deadline: float, timeout_s: float) -> bytes:
        data = bytearray()
        for part in response.iter_stream():
            data += part
            if len(data) > self._max_answer_bytes:
                raise BackendError(
                    f"an answer of {self._what} is over {self._max_answer_bytes >> 20} MB: ask for fewer records"
                )
            if time.monotonic() > deadline:
                self._too_slow(timeout_s)
        return bytes(data)

    def _too_slow(self, timeout_s: float) -> NoReturn:
        raise Unavailable(f"{self._what} gave no answer within {timeout_s:g} s: is it overloaded?") from None


def _parsed(data: bytes) -> Any:
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")


def _checked(headers: Mapping[str, str], what: str) -> dict[str, str]:
    """Headers by their names in lower case. Raises ValueError, without the value, for one that cannot be sent."""
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the header {name} for {what} has characters that no header has")
    return {name.lower(): value for name, value in headers.items()}
