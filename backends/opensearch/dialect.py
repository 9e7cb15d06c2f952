"""What differs between the two servers, and how a connection of either is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from backends.base import CollectionSpec
from backends.opensearch.connection import CONNECT_S, Client, LuceneServer, Product, parse_url
from backends.urls import ServerUrl

# Lucene's own are 16 and 100; the same recall at a narrower search is worth the longer build.
M, EF_CONSTRUCTION = 16, 128
CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Options:
    """How a client connects."""

    https: bool
    verify: bool
    ca_certs: str | None
    timeout_s: float
    connections: int = CONNECTIONS


class Dialect:
    """One server's client, its mapping of a vector, and its words for a search."""

    product: ClassVar[Product]
    max_dim: ClassVar[int]

    def client(self, url: ServerUrl, options: Options) -> Client:
        """Its client, which has connected to nothing yet."""
        raise NotImplementedError

    def settings(self, spec: CollectionSpec) -> dict[str, Any]:
        """Settings of an index that only this server has."""
        raise NotImplementedError

    def vector_field(self, spec: CollectionSpec) -> dict[str, Any]:
        """The mapping of the vector."""
        raise NotImplementedError

    def near(self, query: list[float], k: int, width: int, condition: dict[str, Any] | None) -> dict[str, Any]:
        """A search by the index for k, which looks at `width` candidates in each of Lucene's segments."""
        raise NotImplementedError

    def scanned(self, spec: CollectionSpec, query: list[float], k: int, condition: dict[str, Any]) -> dict[str, Any]:
        """A search of a collection of kind flat, best first; what its scores are differs by version."""
        raise NotImplementedError

    def connect(self, url: str, *, within_s: float | None = None) -> LuceneServer:
        """A connection that has been tried. Raises `Unavailable` naming address and remedy."""
        parsed, user = parse_url(url, self.product)
        options = Options(
            https=parsed.flag("https", default=False),
            verify=parsed.flag("verify_certs", default=True),
            ca_certs=parsed.options.get("ca_certs") or None,
            timeout_s=parsed.number("timeout", CONNECT_S, highest=3600),
        )
        server = LuceneServer(parsed, user, self.product, lambda: self.client(parsed, options))
        try:
            server.check(options.timeout_s if within_s is None else min(within_s, options.timeout_s))
        except BaseException:
            server.close()
            raise
        return server

    def version_of(self, url: str, within_s: float) -> str:
        """The name and version that a server tells."""
        server = self.connect(url, within_s=within_s)
        server.close()
        return server.version_text
