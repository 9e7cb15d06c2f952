"""Which hosts may be asked for something: names, as the setting `fetch_hosts` lists them, and public addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

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
            if len(bare) > 253 or not _NAME.fullmatch(bare):
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
