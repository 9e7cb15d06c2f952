"""What may be told of an address, and how a text is freed of secrets: the one place through which messages go.

It fails closed: what is not known to be harmless is hidden, for schemes that nobody here knows too.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from backends.registry import EngineInfo

HIDDEN = "***"
#: Stands for what is not shown of an address.
CUT = "…"
#: Options whose values are not shown, and would be found in too many texts to be hidden there.
COMMON = frozenset({"application_name", "connect_timeout", "target_session_attrs", "timeout", "timeout_s"})
#: Shorter ones are no secrets, and would be found everywhere.
LEAST_CHARS = 4
#: From this length on a secret is hidden inside of words too.
CERTAIN_CHARS = 8
MAX_REMEMBERED = 1000

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}")
_HOST = r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")
_DATABASE = re.compile(r"/[\w.%~+-]{0,253}")
_VALUE = re.compile(r"[\w.,:/%\[\]~+-]{0,253}")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_NAME = re.compile(r"[a-z_]+")
_OURS = re.compile(r"\bsl_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
# The forms that messages show are no one's name and password.
_USER = re.compile(r"(?<=://)(?!(?:user|user:password|:KEY)@)[^\s/'\"]*@")
# Keys as the common providers write them, and what follows a word that announces one.
_FOREIGN = re.compile(
    r"(?i)\b(?:sk|pk|rk|hf|gsk|xai|key|AIza)[-_A-Za-z0-9]{12,}|\bbearer\s+\S+|"
    r"\b(?:api[-_ ]?key|\w*token|secret|passw(?:or)?d|authorization)\b(?:\s+provided)?\s*[:=]\s*\S+"
)

_remembered: dict[str, None] = {}
_lock = threading.Lock()


def scheme_of(url: str) -> str | None:
    """The scheme of a URL, None for what is none: then it may be anything, a password too."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator and _SCHEME.fullmatch(scheme) else None


def _described(url: str) -> EngineInfo | None:
    """What is known of a URL's engine. Imported only here: errors, which the engines' registry raises, are redacted."""
    from backends.registry import described

    return described(url)


def shown(url: str) -> str:
    """An address fit for showing: scheme, hosts, ports, database, a folder's path, and options known as harmless.

    What is known of a scheme says its `EngineInfo`. User, password, key, other options, fragment and the path of
    other servers are left out; where it is not sure which part is which, all but the scheme is. What is no URL is
    not shown at all.
    """
    scheme = scheme_of(url)
    if scheme is None:
        return CUT
    rest = url.partition("://")[2]
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    info = _described(url)
    if info is not None and info.in_memory:
        return f"{scheme}://{CUT if rest else ''}"
    if info is not None and info.in_folder:
        # {dir} is what the benchmark puts a folder for.
        is_folder = place.split("/")[0] in ("", ".", "..", "{dir}") and place.isprintable()
        return f"{scheme}://{place if is_folder else CUT}"
    first, _, later = place.partition("/")
    if "@" in rest[len(place) :] or ("@" in later and _HOSTS.fullmatch(first.rpartition("@")[2])):
        # A password with a bare ? or # or / in it, or a token with an @: which part is the host is not sure.
        return f"{scheme}://{CUT}"
    authority, slash, path = place.rpartition("@")[2].partition("/")
    if authority and not _HOSTS.fullmatch(authority):
        return f"{scheme}://{CUT}"
    names_database = info is not None and info.names_database
    if slash and not (names_database and _DATABASE.fullmatch("/" + path)):
        path = CUT if path else ""
    query = rest[len(place) :].partition("#")[0].removeprefix("?")
    if not authority and not path and not query and rest:
        return f"{scheme}://{CUT}"
    harmless = [option for option in query.split("&") if _is_harmless(option, info)]
    return f"{scheme}://{authority}{slash}{path}" + ("?" + "&".join(harmless) if harmless else "")


def _is_harmless(option: str, info: EngineInfo | None) -> bool:
    name, _, value = option.partition("=")
    return info is not None and name in info.harmless and _VALUE.fullmatch(value) is not None


def remember(*secrets: str | None) -> None:
    """Hide these wherever `redact` meets them from now on. What is too short to be one is not kept."""
    with _lock:
        for secret in secrets:
            if secret and len(secret) >= LEAST_CHARS:
                _remembered.pop(secret, None)
                _remembered[secret] = None
        while len(_remembered) > MAX_REMEMBERED:
            del _remembered[next(iter(_remembered))]


def remember_url(url: str) -> None:
    """Hide from now on what `shown` leaves out of this URL, but for the name of a user who has a password too."""
    scheme = scheme_of(url)
    info = _described(url)
    told = set(_parts(shown(url)))
    rest = url.partition("://")[2] if scheme else url
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    hidden: list[str] = []
    user, at, _ = rest.rpartition("@")
    # In a folder's path it is a letter like others.
    if at and not (info is not None and info.in_folder):
        name, colon, password = user.partition(":")
        hidden += [password] if colon else [] if info is not None and info.names_database else [name]
    for option in re.split(r"[&#]", rest[len(place) :].lstrip("?#")):
        name, equals, value = option.partition("=")
        if not _is_harmless(option, info) and name not in COMMON:
            # A bare word may be a secret that lost its name, but not the name that lost its secret.
            hidden += [value] if equals else [] if _SECRET_NAME.search(name) and _NAME.fullmatch(name) else [name]
    # A token of Milvus is user:password.
    hidden += [part for value in hidden if ":" in value for part in [value.partition(":")[2]]]
    for value in hidden:
        remember(*({value, unquote(value)} - told))


def _parts(text: str) -> list[str]:
    return re.split(r"[/?#&=@:,\s]+", text)


def redact(text: str, *, foreign: bool = False) -> str:
    """`text` without the secrets of this process: those of URLs that were opened, and of the environment's keys.

    foreign: it is another program's, so that everything in it that looks like a secret is hidden as well.
    """
    for secret in _known():
        if secret not in text:
            continue
        if len(secret) >= CERTAIN_CHARS:
            text = text.replace(secret, HIDDEN)
        else:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", HIDDEN, text)
    text = _USER.sub(f"{HIDDEN}@", _OURS.sub(rf"sl_\1_{HIDDEN}", text))
    return _FOREIGN.sub(HIDDEN, text) if foreign else text


@functools.lru_cache(maxsize=4096)
def _names_secret(variable: str) -> bool:
    """Asked for every variable by every error that is made, so that a name is looked through once only."""
    return _SECRET_NAME.search(variable) is not None


def _known() -> list[str]:
    """All secrets, the longest first: one may be a part of another."""
    with _lock:
        known = set(_remembered)
    for name in filter(_names_secret, os.environ):
        value = os.environ.get(name, "")
        least = LEAST_CHARS if name.startswith("SIGHTLINE_") else CERTAIN_CHARS
        if len(value) >= least:
            known.add(value)
    return sorted(known, key=lambda secret: (-len(secret), secret))
