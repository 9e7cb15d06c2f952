"""The connection to a Weaviate server: gRPC for records, REST for the schema, and what their errors mean.

The messages are those of weaviate-client. Its own calls are not used: they wait over a minute for a server
that is away, keep objects that failed in a list, and take longer to build an answer than the server does.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
import httpx
from weaviate.proto.v1 import health_weaviate_pb2, weaviate_pb2_grpc

from backends.errors import BackendError, Denied, Unavailable
from backends.processes import claim_grpc
from backends.redaction import redact
from backends.urls import ServerUrl, parse_server_url

KEY_VARIABLE = "SIGHTLINE_WEAVIATE_API_KEY"
OPTIONS = ("grpc", "https", "grpc_https", "timeout")
HTTP_PORT, GRPC_PORT = 8080, 50051
OLDEST = (1, 33)
CONNECT_S, QUERY_S, WRITE_S = 10, 60, 300
# A server that was there and went away has so many time-outs to come back in: Weaviate starts in about 10 s.
RETURN_FACTOR = 2
MESSAGE_BYTES = 104_858_000
WINDOW = 8
POLL_S = 0.1
UNKNOWN_CLASS = "could not find class"
# What the server says of a class that is being dropped, or made, at this moment.
_GONE = re.compile(
    rf"{UNKNOWN_CLASS}|non-existing index|class not found|class \S+ not found|already shut or dropped|did not keep"
    r"|does not have configuration for vector"
)


def is_busy(text: str) -> bool:
    """Whether the server says that it takes no writes for the moment, since it is taking over a changed class."""
    return "UpdateVectorIndexConfigs" in text


class Busy(BackendError):
    """It takes no writes for the moment, since it is taking over a changed class."""


class ServerRefused(BackendError):
    """The server's answer to a call it did not carry out; `text` is its own words."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text

    @property
    def gone(self) -> bool:
        """Whether it was refused because the class is not there."""
        return _GONE.search(self.text) is not None


class WeaviateServer:
    """One server, reached by gRPC and REST; thread-safe. Lost connections come back by themselves."""

    def __init__(self, url: ServerUrl) -> None:
        self.url = url
        self.address = url.address
        self._timeout_s: float = url.number("timeout", CONNECT_S, highest=3600)
        self.version = ""
        self.key = url.key or os.environ.get(KEY_VARIABLE) or None
        bearer = f"Bearer {self.key}" if self.key else None
        if bearer is not None and not (bearer.isascii() and bearer.isprintable()):
            raise ValueError(f"the API key for {self.address} has characters that no key has")
        https = url.flag("https", default=False)
        host = f"[{url.host}]" if ":" in url.host else url.host
        self._rest = httpx.Client(
            base_url=f"{'https' if https else 'http'}://{host}:{url.port}/v1",
            headers={"Authorization": bearer} if bearer else {},
            # A local server is not reached through the proxy that the environment may name.
            trust_env=url.host not in ("127.0.0.1", "localhost", "::1"),
        )
        self._metadata = (("authorization", bearer),) if bearer else ()
        self._channel = _channel(f"{host}:{url.number('grpc', GRPC_PORT)}", url.flag("grpc_https", default=https))
        self._stub = weaviate_pb2_grpc.WeaviateStub(self._channel)
        self._health = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_weaviate_pb2.WeaviateHealthCheckRequest.SerializeToString,
            response_deserializer=health_weaviate_pb2.WeaviateHealthCheckResponse.FromString,
        )
        #: How often a call found the server away. What a server kept in memory only is lost when it was killed.
        self.outages = 0
        self._closed = False
        self._lock = threading.Lock()

    @classmethod
    def connect(cls, url: str, *, within_s: float | None = None) -> WeaviateServer:
        """A connection that has been tried, its time-out cut to `within_s`.

        Raises `Unavailable` naming address and remedy.
        """
        server = cls(parse_server_url(url, "weaviate", port=HTTP_PORT, known=OPTIONS, keyed=True))
        if within_s is not None:
            server._timeout_s = min(server._timeout_s, within_s)
        try:
            server.check()
        except BaseException:
            server.close()
            raise
        return server

    def check(self) -> None:
        """Raise `Unavailable` unless the server answers both ways, takes the key, and is recent enough."""
        self.version = version = str((self.rest("GET", "/meta", timeout_s=self._timeout_s) or {}).get("version", ""))
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise Unavailable(f"{self.address} runs Weaviate {version or '?'}: Sightline needs {wanted} or later")
        self._wait(self._timeout_s)

    def check_open(self) -> None:
        """Raise `BackendError` once closed."""
        if self._closed:
            raise BackendError(f"this connection to {self.address} is closed: connect again")

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(
            f"Weaviate at {self.address} does not answer ({why}): start it, e.g. with "
            "sightline engines up weaviate, or check host, port and the grpc port"
        )

    def _denied(self) -> Denied:
        return Denied(f"Weaviate at {self.address} refuses the API key: set {KEY_VARIABLE} to one of its keys")

    def _wait(self, timeout_s: float) -> None:
        """Wait until the server answers by gRPC and has loaded its schema."""
        self.check_open()
        deadline = time.monotonic() + timeout_s
        try:
            self._health(health_weaviate_pb2.WeaviateHealthCheckRequest(), timeout=timeout_s, wait_for_ready=True)
        except ValueError:  # the channel is closed
            self.check_open()
            raise
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise self._unavailable(f"no gRPC within {timeout_s:.0f} s") from None
            raise self._translate_error(error, timeout_s) from None
        while not self._ready():
            if time.monotonic() > deadline:
                raise self._unavailable(f"not ready within {timeout_s:.0f} s")
            time.sleep(POLL_S)

    def _ready(self) -> bool:
        """Whether the server has loaded its schema; one that starts answers earlier, and knows no class."""
        self.check_open()
        try:
            return self._rest.get("/.well-known/ready", timeout=self._timeout_s).is_success
        except httpx.TransportError:
            return False

    def _is_transient(self, error: Any) -> bool:
        """Whether an error is one of a server that is away or starts, and the call was not carried out in full."""
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return True
        return UNKNOWN_CLASS in str(error.details()) and not self._ready()

    def rest(self, method: str, path: str, body: Any = None, *, timeout_s: float = QUERY_S) -> Any:
        """The JSON answer of a REST call, `None` for 404. Raises `Unavailable`, or what `refused` makes of it."""
        deadline = time.monotonic() + RETURN_FACTOR * self._timeout_s
        while True:
            self.check_open()
            try:
                response = self._rest.request(
                    method, path, json=body, timeout=httpx.Timeout(timeout_s, connect=self._timeout_s)
                )
            except httpx.TransportError as error:
                # A server that starts again is waited for; one that never was there is not.
                if time.monotonic() > deadline or (method == "GET" and path == "/meta"):
                    raise self._unavailable(redact(str(error), foreign=True) or type(error).__name__) from None
                time.sleep(POLL_S)
                continue
            except RuntimeError:
                self.check_open()
                raise
            early = response.status_code == 503 or (response.status_code == 404 and not self._ready())
            if early and time.monotonic() < deadline:
                time.sleep(POLL_S)
                continue
            return self._answer(response)

    def _answer(self, response: httpx.Response) -> Any:
        if response.status_code == 404:
            return None
        if response.status_code in (401, 403):
            raise self._denied()
        if response.is_success:
            return response.json() if response.content else {}
        try:
            text = "; ".join(str(item["message"]) for item in response.json()["error"])
        except (ValueError, KeyError, TypeError):
            text = response.text[:300] or response.reason_phrase
        raise self.refused(text)

    def refused(self, text: str) -> BackendError:
        """The error for what the server says."""
        if is_busy(text):
            return Busy(f"Weaviate at {self.address} is taking over a changed collection: try again in a moment")
        line = " ".join(redact(text, foreign=True).split())[:300]
        if "read-only" in line or "READONLY" in line or "no space left" in line:
            return BackendError(
                f"Weaviate at {self.address} takes no more writes ({line}): its disk is nearly full; free space on "
                "it, then set the collection's shards to READY"
            )
        return ServerRefused(f"Weaviate at {self.address} refuses: {line}", line)

    def call(self, method: str, request: Any, *, timeout_s: float = QUERY_S, retry: bool = True) -> Any:
        """One gRPC call. Waits for a server that starts again, and sends it again unless not to `retry`."""
        return self._answered(lambda: self._ask(method, request, timeout_s), method, request, timeout_s, retry=retry)

    def calls(
        self,
        method: str,
        requests: Iterable[Any],
        *,
        window: int = WINDOW,
        timeout_s: float = QUERY_S,
    ) -> Iterator[Any]:
        """The answers of many calls, in order, `window` of them under way at a time."""
        started: deque[tuple[Any, Any]] = deque()
        try:
            for request in requests:
                started.append((request, self._start(method, request, timeout_s)))
                if len(started) >= window:
                    first, future = started.popleft()
                    yield self._answered(future.result, method, first, timeout_s)
            while started:
                first, future = started.popleft()
                yield self._answered(future.result, method, first, timeout_s)
        finally:
            for _, future in started:
                future.cancel()

    def _ask(self, method: str, request: Any, timeout_s: float) -> Any:
        self.check_open()
        try:
            return getattr(self._stub, method)(request, timeout=timeout_s, metadata=self._metadata)
        except ValueError:  # closed between the check and the call
            self.check_open()
            raise

    def _start(self, method: str, request: Any, timeout_s: float) -> Any:
        self.check_open()
        try:
            return getattr(self._stub, method).future(request, timeout=timeout_s, metadata=self._metadata)
        except ValueError:
            self.check_open()
            raise

    def _answered(
        self,
        answer: Callable[[], Any],
        method: str,
        request: Any,
        timeout_s: float,
        *,
        retry: bool = True,
    ) -> Any:
        try:
            return answer()
        except grpc.FutureCancelledError:
            self.check_open()
            raise
        except grpc.RpcError as error:
            if self._closed or not retry or not self._is_transient(error):
                raise self._translate_error(error, timeout_s) from None
        with self._lock:
            self.outages += 1
        deadline = time.monotonic() + RETURN_FACTOR * self._timeout_s
        while True:
            self._wait(max(0.1, deadline - time.monotonic()))
            try:
                return self._ask(method, request, timeout_s)
            except grpc.RpcError as error:
                # A server that has just started may answer and not yet be ready.
                if time.monotonic() > deadline or not self._is_transient(error):
                    raise self._translate_error(error, timeout_s) from None
            time.sleep(POLL_S)

    def _translate_error(self, error: Any, timeout_s: float) -> BackendError:
        code, text = error.code(), str(error.details())
        if self._closed:
            return BackendError(f"this connection to {self.address} is closed: connect again")
        if code == grpc.StatusCode.UNAVAILABLE:
            return self._unavailable("the connection was lost")
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unavailable(f"Weaviate at {self.address} gave no answer within {timeout_s:.0f} s: is it overloaded?")
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return self._denied()
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return BackendError(f"an answer of Weaviate at {self.address} would be over 100 MB: ask for fewer records")
        return self.refused(text)

    def close(self) -> None:
        """Close both connections; twice is fine."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._channel.close()
                self._rest.close()


def _channel(target: str, secure: bool) -> Any:
    claim_grpc()
    options = [
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        # Back within a second of the server, not after gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if target.startswith(("127.0.0.1:", "localhost:", "[::1]:")):
        options.append(("grpc.enable_http_proxy", 0))
    if secure:
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(), options=options)
    return grpc.insecure_channel(target, options=options)
