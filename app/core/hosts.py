"""Hosts: those that may be asked for something, the one that a request names, and the proxies that are believed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, TypeAlias

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}")
#: A last label of this kind makes a name an IPv4 address to a resolver: 127.1, 0x7f.1 (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: RFC 6052: an IPv4 address in the last 32 bits, to which a gateway translates.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Outside of it IANA has given out no public addresses (RFC 4291), whatever Python's release says of the newest.
_UNICAST = ipaddress.IPv6Network("2000::/3")
#: Said here as older releases of Python miss some: protocols' own (Teredo among them), 6to4 and its relays, as a
#: tunnel's end leads where nothing here can see, documentation; and what every machine at Azure has for its metadata.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2002::/16", "2001:db8::/32", "3fff::/20"),
    )
)


_WITH_PORT = re.compile(r"\[(?P<six>[0-9A-Fa-f:.]+)\](?::\d{1,5})?|(?P<four>[0-9.]+):\d{1,5}", re.ASCII)
#: A Host header: a name or IPv4 address, or an IPv6 address in brackets, and a port.
_HOST = re.compile(
    r"(?:\[(?P<six>[0-9a-f:.]{2,45})\]|(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?)(?::(?P<port>\d{1,5}))?", re.ASCII
)
MAX_PORT = 65535
MAX_NAME_CHARS = 253


@dataclass(frozen=True, slots=True)
class HostList:
    """Hosts by name, and `suffixes`, each with its first dot, all of whose subdomains are meant."""

    names: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[str]) -> HostList:
        """The list of ``images.example.org`` (that host) and ``*.example.org`` (all below it, not itself).

        Raises ValueError, in words that follow the list's name, for an address and for what names no one's hosts.
        """
        names, suffixes = set(), []
        for entry in entries:
            name = entry.strip().lower()
            wild, bare = name.startswith("*."), name.removeprefix("*.")
            if set(name) <= {"*", "."} or (wild and "." not in bare):
                raise ValueError(
                    f"must name whose hosts are meant, as in images.example.org or *.example.org: {entry!r} "
                    "would let every caller have this machine ask servers of anybody"
                )
            if is_number(bare) or ":" in bare or "[" in bare:
                raise ValueError(
                    f"must hold names, not the address {entry!r}: a certificate and the check of addresses need a name"
                )
            if len(bare) > MAX_NAME_CHARS or not _NAME.fullmatch(bare):
                raise ValueError(
                    f"must be names of hosts with commas, as in images.example.org,*.example.net, not {entry!r} "
                    "(no scheme, port or path; letters outside ASCII as xn--)"
                )
            if wild:
                suffixes.append(f".{bare}")
            else:
                names.add(bare)
        return cls(frozenset(names), tuple(suffixes))

    @classmethod
    def parse(cls, text: str) -> HostList:
        """The list of entries with commas; an empty one names nothing. Raises ValueError as `of` does."""
        return cls.of(text.split(",") if text.strip() else ())

    def __bool__(self) -> bool:
        return bool(self.names or self.suffixes)

    def __contains__(self, host: str) -> bool:
        """Whether a host, in lower case, is meant."""
        return host in self.names or (host.endswith(self.suffixes) and bool(_NAME.fullmatch(host)))


def is_number(host: str) -> bool:
    """Whether a resolver would take what stands for a host, in lower case, as an IPv4 address."""
    return bool(_NUMBER.fullmatch(host.rpartition(".")[2]))


def is_public(address: str) -> bool:
    """Whether an IP address is one that the whole internet reaches under the same name, and one host at that.

    False for what is private, shared, local to link or machine, reserved, multicast or for documentation (IANA's
    special-purpose registries), and for IPv6 addresses that stand for an IPv4 address of that kind, or for a tunnel.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            return False
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        elif parsed not in _UNICAST:
            return False
    if any(parsed in network for network in _SPECIAL):
        return False
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified)


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; at first there is none."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The list of addresses and networks with commas.

        Raises ValueError, in words that follow the list's name, for what is no address, and for a list of everybody.
        """
        networks = []
        for entry in text.split(",") if text.strip() else ():
            try:
                network = ipaddress.ip_network(entry.strip())
            except ValueError:
                raise ValueError(
                    "must be addresses of proxies with commas, as in 127.0.0.1,10.1.0.0/24 (a network's address "
                    f"without bits of a host), not {entry.strip()!r}"
                ) from None
            if network.prefixlen == 0:
                raise ValueError(f"must name the proxies: {entry.strip()!r} would let every caller claim any address")
            networks.append(network)
        return cls(tuple(networks))

    def __bool__(self) -> bool:
        return bool(self.networks)

    def __contains__(self, address: IPAddress) -> bool:
        return any(address in network for network in self.networks)

    def client(self, peer: str, forwarded_for: str) -> str:
        """The address of the client behind a connection from `peer`.

        Each proxy adds at the right end whom it was called by, so the list is read from there, as far as it was
        written by proxies that are trusted: whatever stands further left anybody may have made up. What is no address
        ends the reading.
        """
        nearest = address_of(peer)
        if nearest is None or nearest not in self:
            return peer
        for entry in reversed(forwarded_for.split(",")):
            address = address_of(entry.strip())
            if address is None:
                break
            nearest = address
            if address not in self:
                break
        return str(nearest)


NO_PROXIES = TrustedProxies()


def address_of(text: str) -> IPAddress | None:
    """The address that a text is, without its port and the name of an interface; None for what is none."""
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match["six"] or match["four"]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def host_of(header: str) -> str | None:
    """The host that a Host header names, in lower case and without port and brackets; None for what is none.

    The whole header has to be a host and a port, or it would be read one way here and another way elsewhere:
    ``localhost:evil.com`` and ``localhost@evil.com`` name nobody. A dot at a name's end is left out, and an IPv6
    address is written in its short form.
    """
    match = _HOST.fullmatch(header.lower())
    if match is None or int(match["port"] or 0) > MAX_PORT:
        return None
    if match["six"] is None:
        return match["name"] if len(match["name"]) <= MAX_NAME_CHARS else None
    try:
        return str(ipaddress.IPv6Address(match["six"]))
    except ValueError:
        return None
