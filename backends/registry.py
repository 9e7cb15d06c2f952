"""Which engine serves which URL scheme: one descriptor each, found in the folders here and in packages of others.

A folder of this package is an engine if its ``__init__`` holds `ENGINES`, a tuple of descriptors. Another
distribution adds engines by the entry-point group ``sightline.engines``, whose entries name an `EngineInfo` or a
tuple of them. Looking an engine up imports neither its client nor its adapter.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.errors import Unavailable
from backends.redaction import scheme_of

if TYPE_CHECKING:
    from backends.base import Backend

GROUP = "sightline.engines"
REAL = "the real engine"
#: Packages beside the engines: what they share, what goes around them, and the suite that tests them, which needs
#: more than an engine does.
_NO_ENGINES = {"backends.conformance", "backends.kit", "backends.wrappers"}
# {dir} is what the benchmark puts a folder for.
_FOLDER = re.compile(r"[^:/?#]+://(?:\.{0,2}/|\{dir\})")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """All that is known of a URL scheme before its client is imported.

    Code is named as ``package.module:name`` and imported by `named` when it is needed.

    - `scheme`, `example`, `summary`: ``faiss``, ``faiss:///dir``, and what it is, in a few words. ``/dir`` stands for
      a folder, with a file in it where the engine is one: ``usearch:///dir/store.db``.
    - `folder_scheme`: the scheme that its URLs are of which name a folder and no host: ``chroma:///dir`` is one of
      ``chroma-embedded``. See `canonical`.
    - `backend`: the `Backend` class.
    - `tested`: what the conformance suite runs on: the real engine, or which stand-in or fake where none can be had.
    - `extra`: what ``pip install 'sightline[extra]'`` must name; None where nothing is missing.
    - `client`: the distribution whose version tells which client it is; `packages`: others that matter.
    - `default_url`: where a server listens when nobody says otherwise; None for what runs in process.
    - `harmless`: the options of its URLs that may be shown; every other one is hidden as if it were a secret.
    - `names_database`: whether the path of its URLs names a database, which may be shown, too.
    - `key_variable`: the environment variable that a key or token is taken from.
    - `library_version`: a function without arguments, the version of what runs in process or from a package.
    - `server_version`: a function of a URL and seconds to wait, the version that a server tells.
    - `local_server`: a `backends.kit.local_server.LocalServer`, started for development and tests.
    - `native`: the engine's own client as one would use it without an adapter, which benchmarks compare with.
    - `bench`: the file that says how benchmarks build and search it.
    """

    scheme: str
    backend: str
    example: str
    summary: str
    tested: str = REAL
    folder_scheme: str | None = None
    extra: str | None = None
    client: str | None = None
    packages: tuple[str, ...] = ()
    default_url: str | None = None
    harmless: frozenset[str] = frozenset()
    names_database: bool = False
    key_variable: str | None = None
    library_version: str | None = None
    server_version: str | None = None
    local_server: str | None = None
    native: str | None = None
    bench: Path | None = None

    @property
    def in_memory(self) -> bool:
        """Whether its URL is the scheme alone."""
        return self.example == f"{self.scheme}://"

    @property
    def in_folder(self) -> bool:
        """Whether its URL names a folder of this machine."""
        return self.example.startswith(f"{self.scheme}:///")

    @property
    def template(self) -> str:
        """Its example with ``{dir}`` for ``/dir``; as it is where nothing is kept in a folder."""
        return re.sub(r"^([^:]+://)/dir\b", r"\1{dir}", self.example)


def named(target: str) -> Any:
    """The object that ``package.module:name`` names, its module imported."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


@cache
def engines() -> dict[str, EngineInfo]:
    """Every engine by its scheme: those of this package by folder, then those of other distributions by name."""
    import backends

    found: dict[str, EngineInfo] = {}
    for module in pkgutil.iter_modules(backends.__path__, "backends."):
        if module.ispkg and module.name not in _NO_ENGINES:
            _add(found, getattr(importlib.import_module(module.name), "ENGINES", ()), module.name)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        _add(found, _load_entry(entry), f"the entry point {entry.name!r} ({entry.value})")
    return found


def _load_entry(entry: EntryPoint) -> Iterable[EngineInfo]:
    try:
        loaded = entry.load()
    # One package's trouble must not take the other engines away.
    except Exception as error:
        warnings.warn(
            f"the engines of the entry point {entry.name!r} ({entry.value}) are left out: {error}", stacklevel=3
        )
        return ()
    return (loaded,) if isinstance(loaded, EngineInfo) else tuple(loaded)


def _add(found: dict[str, EngineInfo], infos: Iterable[EngineInfo], origin: str) -> None:
    for info in infos:
        if info.scheme in found:
            warnings.warn(f"{origin} is left out: {info.scheme}:// is served already", stacklevel=3)
        else:
            found[info.scheme] = info


def canonical(url: str) -> str:
    """The URL in the scheme that serves it: another one where it names a folder and its own scheme means a server."""
    scheme, _, rest = url.partition("://")
    info = engines().get(scheme)
    if info is None or info.folder_scheme is None or not _FOLDER.match(url):
        return url
    return f"{info.folder_scheme}://{rest}"


def described(url: str) -> EngineInfo | None:
    """What is known of the engine that serves this URL, None for what is none or of a scheme that nobody knows."""
    scheme, separator, _ = canonical(url).partition("://")
    return engines().get(scheme) if separator else None


def load(scheme: str) -> type[Backend]:
    """The backend class of a URL scheme. Raises ValueError if unknown, `Unavailable` naming the extra to install."""
    info = engines().get(scheme)
    if info is None:
        known = ", ".join(entry.example for entry in engines().values())
        told = f"{scheme!r} URLs" if scheme_of(f"{scheme}://") else "this URL"
        raise ValueError(f"no engine serves {told}; known are {known}")
    try:
        return named(info.backend)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        # A module of ours that is missing is a fault, not something to install.
        if (error.name or "").partition(".")[0] == "backends":
            raise
        install = f"install it with pip install 'sightline[{info.extra}]'" if info.extra else "it is not installed"
        raise Unavailable(f"{scheme} needs the package {error.name!r}: {install}") from error
