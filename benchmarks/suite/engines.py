"""The engines of a run: how each is configured, opened, and looked at from outside (processes, disk)."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

import backends
from backends import versions
from backends.base import Backend, Capabilities, CollectionSpec, IndexSpec
from backends.redaction import shown
from backends.registry import canonical
from backends.wrappers.faults import Faults, FaultyBackend

#: The scheme of an engine with known faults, by which the benchmark itself is tested: ``faulty://?error_every=10``.
FAULTY = "faulty"
LOCAL = ("127.0.0.1", "localhost", "::1")


class EngineError(Exception):
    """An engine or its configuration cannot be used: one line that says why and what to do."""


@dataclass(frozen=True)
class Build:
    """One way to build an index. `reasons` says why each parameter is not the engine's default."""

    name: str
    index: IndexSpec
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """What the file that `EngineInfo.bench` names says: the grid of an engine, and why.

    `schemes` are those whose descriptors name the file; `url` is where the first of them is by default, with
    ``{dir}`` for a folder of its own; `native` names its native client; `loads_per_s` is what planning assumes of
    it, in records of 512 dimensions.
    """

    name: str
    schemes: tuple[str, ...]
    url: str
    builds: tuple[Build, ...]
    efforts: tuple[float | None, ...]
    native: str | None = None
    loads_per_s: float = 1_000.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Engine:
    """One engine of a run. `data_dir` is where a server keeps its data, if that is known."""

    name: str
    url: str = field(repr=False)
    config: Config
    data_dir: Path | None = None

    @property
    def scheme(self) -> str:
        """The scheme of its URL."""
        return self.url.partition("://")[0]

    @property
    def embedded(self) -> bool:
        """Whether each store is a folder of its own."""
        return "{dir}" in self.url


def load_config(path: Path, infos: Sequence[backends.EngineInfo]) -> Config:
    """Read the grid of the engines that `infos` describe.

    Raises EngineError, also for a parameter that differs from the default without a reason.
    """
    try:
        told = tomllib.loads(path.read_text("utf-8"))
        defaults = told.get("defaults", {})
        efforts = tuple(float(value) for value in told["effort"]["values"])
        if not told["effort"].get("reason"):
            raise EngineError(f"{path}: effort needs a reason")
        first = infos[0]
        return Config(
            name=told["name"],
            schemes=tuple(info.scheme for info in infos),
            url=first.default_url or first.template,
            builds=tuple(_build(entry, defaults, str(path)) for entry in told["build"]),
            # The adapter's own choice comes first: it is what a user gets.
            efforts=(None, *efforts),
            native=first.native,
            loads_per_s=float(told.get("loads_per_s", 1_000)),
            notes=tuple(told.get("notes", ())),
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise EngineError(f"{path} is not a usable configuration: {error!r}") from None


def _build(entry: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> Build:
    kind, params, reasons = entry["kind"], dict(entry.get("params", {})), dict(entry.get("reasons", {}))
    unexplained = [
        name for name, value in params.items() if value != defaults.get(kind, {}).get(name) and name not in reasons
    ]
    if unexplained:
        raise EngineError(f"{where}: build {entry['name']!r} gives no reason for its {unexplained[0]}")
    return Build(entry["name"], IndexSpec(kind, entry.get("quantization", "none"), params), reasons)


def configs() -> dict[str, Config]:
    """The grid of every engine that has one, by name: those in process first."""
    files: dict[Path, list[backends.EngineInfo]] = {}
    for info in backends.engines().values():
        if info.bench is not None:
            files.setdefault(info.bench, []).append(info)
    found = [load_config(path, infos) for path, infos in files.items()]
    return {config.name: config for config in sorted(found, key=lambda config: "{dir}" not in config.url)}


def embedded() -> list[str]:
    """The names of those that run in process."""
    return [name for name, config in configs().items() if "{dir}" in config.url]


def choose(names: Sequence[str], data_dirs: Mapping[str, Path] | None = None) -> list[Engine]:
    """The engines that names (of configurations) and URLs name, each with its configuration; all of `embedded`.

    Raises EngineError.
    """
    known = configs()
    by_scheme = {scheme: config for config in known.values() for scheme in config.schemes}
    chosen: list[Engine] = []
    for name in itertools.chain.from_iterable(embedded() if name == "embedded" else [name] for name in names):
        name = canonical(name)
        scheme = name.partition("://")[0]
        config = known.get(name) or by_scheme.get(scheme)
        if config is None:
            config = _plain(scheme, name)
        url = name if "://" in name else config.url
        scheme = url.partition("://")[0]
        info = backends.engines().get(scheme)
        config = replace(config, native=info.native if info is not None else None)
        # A configuration's first scheme is what its name means; another one is an engine of its own.
        label = config.name if scheme in (config.name, config.schemes[0]) else scheme
        if label in [engine.name for engine in chosen]:
            label = f"{label}-{len(chosen) + 1}"
        chosen.append(Engine(label, url, config, (data_dirs or {}).get(config.name)))
    return chosen


def _plain(scheme: str, name: str) -> Config:
    if scheme not in (FAULTY, *backends.engines()):
        told = shown(name) if "://" in name or not name.replace("-", "").isalnum() else repr(name)
        raise EngineError(f"no engine is called {told}; there are {', '.join(configs())}, or a URL of a backend")
    efforts = (None, 0.5) if scheme == FAULTY else (None,)
    return Config(scheme, (scheme,), f"{scheme}://", (Build("auto", IndexSpec()),), efforts, loads_per_s=20_000)


def connect(url: str) -> Backend:
    """Open a backend, or the one with known faults: the oracle, spoiled."""
    if url.startswith(f"{FAULTY}://"):
        return FaultyBackend(backends.connect("exact://"), Faults.from_query(url.partition("?")[2]))
    return backends.connect(url)


def capabilities(engine: Engine) -> Capabilities:
    """What the engine's class says it can do. Raises `Unavailable` where its client is not installed."""
    if engine.scheme == FAULTY:
        # It ignores the effort; declared, so that a sweep of it is planned.
        return replace(backends.load("exact").capabilities, effort=True)
    return backends.load(engine.scheme).capabilities


class Session:
    """An engine open on the collection of one data set and build; it can be closed and opened again."""

    def __init__(self, engine: Engine, spec: CollectionSpec, folder: Path) -> None:
        self.engine, self.spec = engine, spec
        self.folder = folder if engine.embedded else None
        self.url = engine.url.replace("{dir}", str(folder.resolve()))
        self._backend: Backend | None = None
        self._baseline_bytes: int | None = None

    @property
    def backend(self) -> Backend:
        """The open backend; opened if it is not. Raises `BackendError`."""
        if self._backend is None:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._backend = connect(self.url)
        return self._backend

    def close(self) -> None:
        """Let go of the store, which stays."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def remove(self) -> None:
        """Drop the collection and close; an embedded store's folder goes, too."""
        with contextlib.suppress(backends.BackendError):
            self.backend.drop(self.spec.name)
        self.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def discard(self) -> None:
        """Close an embedded store and remove its folder, whatever state it is in; a server's collection stays."""
        if self.folder is not None:
            self.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def is_loaded(self, records: int) -> bool:
        """Whether the collection is there with that many records, as a run that goes on finds it."""
        if self.folder is not None and not self.folder.is_dir():
            return False
        try:
            return self.spec.name in self.backend.collections() and self.backend.count(self.spec.name) == records
        except backends.BackendError:
            # A store that was being written when its run was killed may be damaged; a server may be away.
            if self.folder is None:
                raise
            return False

    def note_disk(self) -> None:
        """Remember what a server's folder takes before the load, which is not the collection's."""
        self._baseline_bytes = 0 if self.folder else folder_bytes(self.engine.data_dir)

    def disk_bytes(self) -> int | None:
        """What the collection takes on disk: its folder, or how much a server's folder grew; None if unknown."""
        if self.folder is not None:
            return folder_bytes(self.folder)
        now = folder_bytes(self.engine.data_dir)
        return None if now is None or self._baseline_bytes is None else max(0, now - self._baseline_bytes)


def server_version(session: Session) -> str | None:
    """What the engine behind a session says of its version; None where it does not say."""
    # It is for the reader only, and no reason to end a run.
    with contextlib.suppress(Exception):
        return versions.of_server(session.url) or versions.of_library(session.engine.scheme) or None
    return None


def folder_bytes(folder: Path | None) -> int | None:
    """What the files below a folder take, in bytes; None without a folder. Files that vanish meanwhile count as 0."""
    if folder is None or not folder.is_dir():
        return None
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                about = os.lstat(os.path.join(parent, name))  # noqa: PTH118 (a walk over many files)
                # Blocks, since some engines lay out large files with holes in them.
                total += about.st_blocks * 512 if hasattr(about, "st_blocks") else about.st_size
    return total


def server_pids(url: str, folder: Path | None) -> list[int]:
    """The processes that serve a URL on this machine: by the postmaster's file, or by the listening port."""
    root: psutil.Process | None = None
    try:
        if folder is not None:
            files = list(folder.rglob("postmaster.pid"))
            root = psutil.Process(int(files[0].read_text().split()[0])) if files else None
        else:
            parts = urlsplit(url)
            info = backends.engines().get(parts.scheme)
            port = parts.port or (urlsplit(info.default_url or "").port if info is not None else None)
            if (parts.hostname or "") in LOCAL and port:
                pids = {c.pid for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
                pids.discard(None)
                root = psutil.Process(min(p for p in pids if p)) if pids else None
        return [root.pid, *(child.pid for child in root.children(recursive=True))] if root else []
    except (psutil.Error, OSError, ValueError, IndexError):
        return []


def memory_bytes(pids: Sequence[int]) -> int:
    """Memory that processes hold: proportional set sizes, which count shared pages once, or else resident sizes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            try:
                total += process.memory_full_info().pss
            except (psutil.AccessDenied, AttributeError):
                total += process.memory_info().rss
    return total
