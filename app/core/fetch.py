"""Fetching a picture from an address that a client names: from allowed hosts only, at public addresses only.

What a service fetches for others can be turned against the network that it stands in (server-side request forgery,
CWE-918). So a name is resolved once, every address that it has is checked, and the connection goes to an address that
was checked: a name that answers otherwise the second time (DNS rebinding) gains nothing. `httpcore` is used as it is,
without what `httpx` adds: it follows no redirect, undoes no content encoding, and knows no proxy, cookie or netrc.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
import httpcore

from app.core.hosts import HostList, is_public
from retrieval.encoders.batching import Overloaded

log = logging.getLogger(__name__)

MAX_URL_CHARS = 2048
PORT = 443
#: A server may have many addresses; the next one is tried when one does not take the connection within this time.
CONNECT_S = 3.0
_TRIED = 4
_URL = re.compile(r"https://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?:#.*)?", re.IGNORECASE | re.DOTALL)
_HEADERS: dict[bytes | str, bytes | str] = {
    "Accept": "image/*",
    "Accept-Encoding": "identity",
    "User-Agent": "sightline",
    "Connection": "close",
}
#: Gives all addresses of a host, as `socket.getaddrinfo` has them. Raises OSError.
Resolve = Callable[[str], Sequence[str]]


class FetchError(Exception):
    """A picture's address is not one that is fetched, or what it leads to cannot be had: one line for the client."""


@dataclass(frozen=True, slots=True)
class Address:
    """A picture's address, checked: a host of the list, and path with query, percent-encoded."""

    host: str
    target: str


class Fetcher:
    """Fetches from `hosts`, a few at a time. Thread-safe; an empty list is a fetcher that fetches nothing.

    max_bytes: the largest picture. max_fetches: fetched at a time, counting those that are still in use.
    deadline_s: for all of it, from resolving the name to the last byte. resolve, network and tls are the
    system's resolver, plain TCP, and verification by the system's and certifi's authorities, unless given.
    """

    def __init__(
        self,
        hosts: HostList,
        *,
        max_bytes: int,
        max_fetches: int = 8,
        deadline_s: float = 10.0,
        resolve: Resolve | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts, self._max_bytes, self._deadline_s = hosts, max_bytes, deadline_s
        self._resolve = resolve or addresses_of
        self._network = network
        self._tls = tls or (httpcore.default_ssl_context() if hosts else None)
        self._slots = threading.BoundedSemaphore(max_fetches)
        # A look-up cannot be broken off, and goes on when its fetch was given up.
        self._resolvers = threading.BoundedSemaphore(2 * max_fetches)

    @property
    def enabled(self) -> bool:
        """Whether anything is fetched at all."""
        return bool(self._hosts)

    def check(self, url: str) -> Address:
        """The address that `url` is. Raises `FetchError` for one that is not fetched; asks nobody."""
        if not self._hosts:
            raise FetchError("this service fetches no address (setting fetch_hosts): send the image itself in base64")
        if len(url) > MAX_URL_CHARS:
            raise FetchError(f"an image's address has {MAX_URL_CHARS:,} characters at most, not {len(url):,}")
        match = _URL.fullmatch(url)
        if match is None:
            raise FetchError("an image's address must begin with https://")
        if any(ord(letter) <= 0x20 or letter in "\x7f\\" for letter in url):
            raise FetchError(
                "an image's address holds no spaces, control characters or backslashes: percent-encode them"
            )
        authority = match["authority"].lower()
        if "@" in authority:
            raise FetchError("an image's address holds no user name or password")
        host, separator, port = authority.partition(":")
        if "[" not in authority and separator and port != str(PORT):
            raise FetchError(f"an image is fetched from port {PORT} only")
        if "[" in authority or host not in self._hosts:
            raise FetchError(f"{authority[:80]!r} is not among the hosts that this service fetches images from")
        target = match["target"]
        try:
            target = quote(target if target.startswith("/") else f"/{target}", safe="/%?:@!$&'()*+,;=~[]")
        except UnicodeEncodeError:
            raise FetchError("an image's address holds half of a surrogate pair") from None
        return Address(host, target)

    @contextlib.contextmanager
    def fetched(self, address: Address) -> Iterator[bytes]:
        """The file at `address`, which takes one of the few places as long as it is in use.

        Not for a thread that runs an event loop. Raises `FetchError`, and `Overloaded` when all places are taken.
        """
        if not self._slots.acquire(blocking=False):
            raise Overloaded("too many images are being fetched: try again in a moment")
        try:
            yield asyncio.run(self._fetch(address))
        finally:
            self._slots.release()

    async def _fetch(self, address: Address) -> bytes:
        host = address.host
        network = _Public(self._resolved, self._network or httpcore.AnyIOBackend())
        # One message for a name without addresses, one with an address of an inner network, and a server that does
        # not answer: what there is in that network is not the client's to learn.
        unreachable = FetchError(f"the image cannot be fetched: {host} cannot be reached")
        try:
            try:
                with anyio.fail_after(self._deadline_s):
                    return await self._read(address, network)
            finally:
                await network.aclose()
        except FetchError as error:
            log.warning("not fetched from %s: %s", host, error)
            raise
        except (_Unreachable, httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            log.warning("not fetched from %s: %s: %s", host, type(error).__name__, error)
            raise unreachable from None
        except TimeoutError:
            log.warning("not fetched from %s: over the deadline of %s s", host, self._deadline_s)
            if network.stream is None:
                raise unreachable from None
            raise FetchError(f"the image cannot be fetched: {host} takes over {self._deadline_s:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError) as error:
            log.warning("not fetched from %s: %s: %s", host, type(error).__name__, error)
            raise FetchError(f"the image cannot be fetched: {host} does not answer as a web server") from None

    async def _read(self, address: Address, network: httpcore.AsyncNetworkBackend) -> bytes:
        # From its parts, so that nobody reads the address once more and finds another host in it.
        url = httpcore.URL(scheme=b"https", host=address.host.encode(), port=PORT, target=address.target.encode())
        async with (
            httpcore.AsyncConnectionPool(ssl_context=self._tls, network_backend=network) as pool,
            pool.stream("GET", url, headers=_HEADERS) as response,
        ):
            headers = {name.lower(): value for name, value in response.headers}
            status, host = response.status, address.host
            if 300 <= status < 400:
                raise FetchError(f"{host} redirects (status {status}), which is not followed: give the final address")
            if status != 200:
                raise FetchError(f"the image cannot be fetched: {host} answers with the status {status}")
            if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
                raise FetchError(f"the image cannot be fetched: {host} compresses it though not asked to")
            too_large = FetchError(f"the image at {host} is larger than {self._max_bytes:,} bytes")
            length = headers.get(b"content-length", b"0")
            if length.isdigit() and int(length[:20]) > self._max_bytes:
                raise too_large
            data = bytearray()
            async for part in response.aiter_stream():
                data += part
                if len(data) > self._max_bytes:
                    raise too_large
            return bytes(data)

    async def _resolved(self, host: str) -> Sequence[str]:
        return await anyio.to_thread.run_sync(self._look_up, host, abandon_on_cancel=True)

    def _look_up(self, host: str) -> Sequence[str]:
        if not self._resolvers.acquire(blocking=False):
            raise Overloaded("too many names are being resolved: try again in a moment")
        try:
            return self._resolve(host)
        finally:
            self._resolvers.release()


class _Unreachable(Exception):
    """Why no connection was made, for the log only."""


class _Public(httpcore.AsyncNetworkBackend):
    """Connects to hosts all of whose addresses are public, at one of the addresses that were checked."""

    def __init__(self, resolve: Callable[[str], Any], network: httpcore.AsyncNetworkBackend) -> None:
        self._resolve, self._network = resolve, network
        self.stream: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the port of one of the host's addresses. Raises `_Unreachable`."""
        try:
            addresses = list(dict.fromkeys(await self._resolve(host)))
        except (OSError, UnicodeError) as error:
            raise _Unreachable(f"it cannot be resolved: {error}") from None
        inner = [address for address in addresses if not is_public(address)]
        if inner or not addresses:
            raise _Unreachable(f"not all of its addresses are public: {', '.join(inner)}" if inner else "no address")
        failed = []
        for address in addresses[:_TRIED]:
            try:
                self.stream = await self._network.connect_tcp(address, port, CONNECT_S)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed.append(f"{address}: {error or type(error).__name__}")
            else:
                return self.stream
        raise _Unreachable("; ".join(failed))

    async def aclose(self) -> None:
        """Close the connection, which httpcore leaves open when it is broken off in the middle of a handshake."""
        if self.stream is not None:
            await self.stream.aclose()

    async def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Never. Raises `_Unreachable`."""
        raise _Unreachable(f"{path} is no address of a host")


def addresses_of(host: str) -> Sequence[str]:
    """All addresses of a host, in the order in which the system would try them. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)]
