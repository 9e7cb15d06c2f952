"""Backend URLs: the folder or the server, and the options, that they name; and the files that items name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from backends.redaction import shown

# A name of Unicode letters is one too; what separates the parts of a URL is in none.
_HOST = re.compile(r"[\w.:%-]+")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def local_path(uri: str | None) -> Path | None:
    """The file that an item's `uri` names on this machine; None for a remote address or no uri."""
    if not uri:
        return None
    parts = urlsplit(uri) if "://" in uri else None
    if parts is None:
        return Path(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    if sys.platform == "win32":
        return Path(url2pathname(parts.path))
    # Byte by byte, as the name may be in no encoding at all.
    return Path(os.fsdecode(unquote_to_bytes(parts.path)))


def parse_folder_url(url: str, scheme: str) -> Path:
    """The folder of ``scheme:///absolute/dir`` or ``scheme://./relative/dir``; percent escapes are decoded.

    Raises ValueError saying which form to use.
    """
    found, separator, rest = url.partition("://")
    path, _, options = rest.partition("?")
    if found != scheme or not separator:
        raise ValueError(f"this is no {scheme}:// URL: write {scheme}:///absolute/dir or {scheme}://./relative/dir")
    if options:
        raise ValueError(f"{shown(url)}: {scheme}:// takes no options (a '?' in a path is written %3F)")
    if "#" in path:
        raise ValueError(f"{shown(url)}: a '#' in a path is written %23")
    path = unquote(path, errors="strict")
    if "\x00" in path:
        raise ValueError(f"{shown(url)}: a path cannot contain NUL")
    if os.name == "nt" and path[2:3] == ":":
        path = path.removeprefix("/")
    elif path.strip("/") == "" or path.split("/")[0] not in ("", ".", ".."):
        raise ValueError(
            f"{shown(url)} does not name a folder: write {scheme}:///absolute/dir (three slashes) "
            f"or {scheme}://./relative/dir"
        )
    return Path(path)


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """A server's host, port, options and key. `repr` and `address` leave out options and key, which may be secret."""

    scheme: str
    host: str
    port: int
    options: dict[str, str]
    key: str | None = None

    @property
    def address(self) -> str:
        """``scheme://host:port``, fit for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __repr__(self) -> str:
        return f"ServerUrl({self.address})"

    def flag(self, name: str, *, default: bool) -> bool:
        """A yes-or-no option."""
        value = self.options.get(name, "").lower()
        if value and value not in TRUE + FALSE:
            raise ValueError(f"{self.address}: option {name} must be true or false")
        return value in TRUE if value else default

    def number(self, name: str, default: int, *, highest: int = 65_535) -> int:
        """A positive whole number."""
        value = self.options.get(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and 1 <= int(value) <= highest):
            raise ValueError(f"{self.address}: option {name} must be a number from 1 to {highest}")
        return int(value)


def place_of(url: str) -> str:
    """What tells the store of a URL from others: the folder with links resolved, or what `shown` leaves of a server."""
    scheme = url.partition("://")[0]
    try:
        return f"{scheme}://{os.path.realpath(parse_folder_url(url, scheme))}"
    except (OSError, ValueError):
        return shown(url)


def check_options(options: Iterable[str], scheme: str, known: Collection[str]) -> None:
    """Raise ValueError for an option that is not `known`, by its place: its name may be a part of a password."""
    for number, option in enumerate(options, 1):
        if option not in known:
            raise ValueError(f"option {number} of the URL is none of {scheme}://; it has {', '.join(sorted(known))}")


def parse_server_url(url: str, scheme: str, *, port: int, known: Collection[str], keyed: bool = False) -> ServerUrl:
    """The parts of ``scheme://host[:port][?option=value&...]``; `port` where the URL names none.

    With `keyed` a key may stand before the host: ``scheme://:KEY@host`` (percent-escaped where it must be).

    Raises ValueError for another form or an option that is not `known`; the message repeats nothing that
    may be a part of a secret: with a password that is not escaped, an option's name may be one.
    """
    form = f"{scheme}://host:{port}"
    try:
        parts = urlsplit(url)
        found_port = parts.port
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError(f"this {scheme}:// URL cannot be read: write {form}?option=value") from None
    if parts.scheme != scheme or not parts.hostname:
        raise ValueError(f"this URL names no {scheme} server: write {form}")
    key = unquote(parts.password or parts.username or "") or None
    if not keyed and (parts.username is not None or parts.password is not None):
        raise ValueError(f"{scheme}:// takes no user and password in the URL: write {form}")
    if parts.path.strip("/") or parts.fragment:
        raise ValueError(f"{scheme}:// takes nothing between the port and the options: write {form}")
    check_options(options, scheme, known)
    if not _HOST.fullmatch(parts.hostname):
        raise ValueError(f"this {scheme}:// URL names a host that none can be called: write {form}")
    return ServerUrl(scheme, parts.hostname, port if found_port is None else found_port, options, key)
