"""What a check gets to work with: an open store of the engine under test, unique names, fresh places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from backends import connect
from backends.base import Backend, BackendError, Capabilities, CollectionSpec, IndexSpec, Metric
from backends.conformance.oracle import Twin

CHILD_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the costly checks are. The defaults are what an engine must pass to be listed.

    What is not done after `hangs_s` is taken to hang: far longer than any call takes on a busy machine.
    """

    filter_trees: int = 300
    records: int = 150
    crowd: int = 20_000
    hard: int = 20_000
    wide: int = 10_000
    indexed: int = 2_000
    kills: int = 5
    searchers: int = 8
    write_batches: int = 30
    hangs_s: float = 120.0


class Store:
    """One open store of the engine, shared by the checks of a class; each check makes its own collections."""

    def __init__(self, suite: type[Suite]) -> None:
        self.suite = suite
        self.sizes = suite.sizes
        self.seed = suite.seed
        self.cache: dict[str, Any] = {}
        self._names: list[str] = []
        self._directory = tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True)
        try:
            self.url = self.fresh_place()
            self.backend = self.connect()
        except BaseException:
            self._directory.cleanup()
            raise

    @property
    def capabilities(self) -> Capabilities:
        """What the engine under test declares."""
        return self.backend.capabilities

    @property
    def metric(self) -> Metric:
        """Cosine, or another one where the engine has no cosine."""
        return "cosine" if "cosine" in self.capabilities.metrics else min(self.capabilities.metrics)

    def fresh_place(self) -> str:
        """The URL of an empty store in a new directory; of the same server where there is one."""
        return self.suite.place(Path(tempfile.mkdtemp(dir=self._directory.name)))

    def connect(self, url: str | None = None) -> Backend:
        """Another handle, on the shared store or on `url`."""
        return self.suite.connect(self.url if url is None else url)

    def name(self, stem: str = "c") -> str:
        """A collection name nobody has used, dropped after the check."""
        name = f"{stem}_{uuid.uuid4().hex[:12]}"
        self._names.append(name)
        return name

    def spec(self, dim: int = 8, metric: Metric | None = None, index: IndexSpec | None = None) -> CollectionSpec:
        """The spec of a new collection with a name of its own."""
        return CollectionSpec(self.name(), dim, metric or self.metric, "conformance", index or IndexSpec())

    def collection(self, dim: int = 8, metric: Metric | None = None) -> str:
        """The name of a new empty collection."""
        spec = self.spec(dim, metric)
        self.backend.create(spec)
        return spec.name

    def twin(self, dim: int = 8, metric: Metric | None = None, index: IndexSpec | None = None) -> Twin:
        """A new empty collection with its twin in ``exact://``."""
        return Twin(self.backend, self.spec(dim, metric, index))

    def child(self, task: str, url: str, name: str, *arguments: str) -> subprocess.Popen[str]:
        """A second process that opens `url` with the same class and does a task of `conformance.child`."""
        cls = type(self.backend)
        command = [sys.executable, "-m", "backends.conformance.child", f"{cls.__module__}:{cls.__qualname__}"]
        return subprocess.Popen(
            [*command, url, task, name, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path), "PYTHONIOENCODING": "utf-8"},
        )

    def ask(self, task: str, url: str, name: str, *arguments: str) -> dict[str, Any]:
        """Run `child` to its end and return the JSON object it printed last."""
        process = self.child(task, url, name, *arguments)
        try:
            out, err = process.communicate(timeout=CHILD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        assert process.returncode == 0, f"the second process ended with {process.returncode}: {err[-2000:]}"
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return answer

    def drop_all(self) -> None:
        """Drop what the last check made, except what `cache` keeps for later ones."""
        kept = {item.name for item in self.cache.values()}
        for name in self._names:
            if name not in kept:
                self.backend.drop(name)
        self._names = [name for name in self._names if name in kept]

    def close(self) -> None:
        """Drop everything, close the engine, remove the directories."""
        self.cache.clear()
        try:
            self.drop_all()
        except BackendError:
            if not self.capabilities.server:
                raise
        finally:
            self.backend.close()
            self._directory.cleanup()


class Suite:
    """What a suite says about its engine; the checks are mixed in by `BackendSuite`."""

    url: ClassVar[str]
    engine: ClassVar[type[Backend] | None] = None
    sizes: ClassVar[Sizes] = Sizes()
    seed: ClassVar[int] = 0
    _store: ClassVar[Store]

    @classmethod
    def place(cls, directory: Path) -> str:
        """The URL of a store, in this empty directory where the engine is embedded."""
        return cls.url.replace("{dir}", str(directory).lstrip("/"))

    @classmethod
    def connect(cls, url: str) -> Backend:
        """Open `url`, with `engine` where it is named and by its scheme otherwise."""
        return connect(url) if cls.engine is None else cls.engine.connect(url)

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        """End the writing process as ``kill -9`` does. A server's suite may kill and restart the server here."""
        writer.kill()

    @classmethod
    def setup_class(cls) -> None:
        """Open the engine once for all checks."""
        cls._store = Store(cls)

    @classmethod
    def teardown_class(cls) -> None:
        """Close it."""
        cls._store.close()

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """The open store; collections named through it are dropped afterwards."""
        yield self._store
        self._store.drop_all()
