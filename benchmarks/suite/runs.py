"""One folder a run: what was planned, the raw results of each point, and a manifest that is written last.

plan.json                     what was asked for; a run that goes on must have been asked for the same
points/DATASET/CASE/KEY.npz   one block of raw results each, written wholly or not at all
truth/DATASET/FILTER.npz      the exact neighbours that recall is measured against
manifest.json                 written last: parameters, versions, machine, seeds, commit, what was left out
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.suite.truth import Truth

FORMAT = 1
Value: TypeAlias = str | int | float | bool | None
Array: TypeAlias = NDArray[Any]


class RunError(Exception):
    """A run's folder cannot be used: one line that says why and what to do."""


@dataclass(frozen=True)
class Point:
    """One place of the grid, measured as one block: a case on a data set and an engine with parameters."""

    case: str
    dataset: str
    engine: str
    params: Mapping[str, Value] = field(default_factory=dict)
    repetition: int = 0

    def __hash__(self) -> int:
        return hash(self.place)

    @property
    def group(self) -> str:
        """What repetitions of one point have in common."""
        told = [f"{name}={value}" for name, value in sorted(self.params.items()) if value is not None]
        return re.sub(r"[^\w.=%-]+", "_", "__".join([self.engine, *told]))

    @property
    def place(self) -> str:
        """Where its results lie, relative to ``points``."""
        return f"{self.dataset}/{self.case}/{self.group}__r{self.repetition}.npz"


@dataclass
class Block:
    """What a block brought: one row per query in `arrays`, and facts about the block as a whole.

    Every array of a search has one row per query: ``query`` (index in the data set), ``intended_ns``, ``start_ns``
    and ``end_ns`` (from the block's start), ``rows`` (q, k; -1 none, -2 an id that does not exist), ``scores`` as
    the engine told them, ``true`` scores computed here, ``allowed`` by the filter, ``kth`` (the true score of the
    k-th best), ``expected`` hits, ``error`` (index into the fact ``errors``, -1 none), ``exact``, ``worker``.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Run:
    """A run's folder. Raises RunError where `plan` is another than the one it was begun with."""

    def __init__(self, folder: Path, plan: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        path = folder / "plan.json"
        kept = _read_json(path)
        if plan is None:
            if kept is None:
                raise RunError(f"{folder} is not the folder of a run: it has no plan.json")
            self.plan: dict[str, Any] = kept
            return
        wanted: dict[str, Any] = json.loads(json.dumps(dict(plan)))
        if kept is not None and kept != wanted:
            differing = sorted(key for key in kept.keys() | wanted.keys() if kept.get(key) != wanted.get(key))
            raise RunError(
                f"{folder} holds a run with another {', '.join(differing)}: repeat its command to go on with it, or "
                "take another folder"
            )
        if kept is None and folder.is_dir() and any(folder.iterdir()):
            raise RunError(f"{folder} is not empty and holds no run: take another folder")
        self.plan = wanted

    def begin(self) -> None:
        """Write the plan down, which makes the folder that of a run."""
        write_atomically(self.folder / "plan.json", json.dumps(self.plan, indent=1, sort_keys=True) + "\n")

    @property
    def finished(self) -> bool:
        """Whether its manifest is there, which is written last."""
        return (self.folder / "manifest.json").is_file()

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest. Raises RunError while the run is unfinished."""
        found = _read_json(self.folder / "manifest.json")
        if found is None:
            raise RunError(f"{self.folder} has no manifest.json: the run is unfinished; repeat its command to go on")
        return found

    def has(self, point: Point) -> bool:
        """Whether the point was measured."""
        return (self.folder / "points" / point.place).is_file()

    def store(self, point: Point, block: Block) -> None:
        """Keep a block, wholly or not at all."""
        told = {**block.facts, "point": point_json(point), "format": FORMAT}
        facts = np.frombuffer(json.dumps(told).encode(), np.uint8)
        _save(self.folder / "points" / point.place, {**block.arrays, "facts": facts})

    def load(self, point: Point) -> Block:
        """A block that was kept. Raises RunError for one that cannot be read."""
        return _load(self.folder / "points" / point.place)[1]

    def blocks(self) -> Iterator[tuple[Point, Block]]:
        """All that was measured, in the order of places."""
        for path in sorted((self.folder / "points").rglob("*.npz")):
            if not path.name.startswith("."):
                yield _load(path)

    def store_truth(self, dataset: str, name: str, truth: Truth) -> None:
        """Keep the exact neighbours that a filter's recall is measured against."""
        path = self.folder / "truth" / dataset / f"{name}.npz"
        if not path.is_file():
            _save(path, {"rows": truth.rows, "scores": truth.scores, "matching": np.array(truth.matching)})

    def truth(self, dataset: str, name: str) -> Truth:
        """Exact neighbours as they were kept; `name` is a filter's, or ``all``."""
        with np.load(self.folder / "truth" / dataset / f"{name}.npz", allow_pickle=False) as kept:
            return Truth(kept["rows"], kept["scores"], int(kept["matching"]))

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, which says that the run is whole."""
        write_atomically(self.folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def point_json(point: Point) -> dict[str, Any]:
    """A point as it is stored."""
    return {
        "case": point.case,
        "dataset": point.dataset,
        "engine": point.engine,
        "params": dict(point.params),
        "repetition": point.repetition,
    }


def _load(path: Path) -> tuple[Point, Block]:
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files if name != "facts"}
            facts = json.loads(kept["facts"].tobytes())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read: {error}; remove it and repeat the run's command") from None
    if facts.pop("format", None) != FORMAT:
        raise RunError(f"{path} is of another version of this program: start a new run")
    return Point(**facts.pop("point")), Block(arrays, facts)


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by `text`, wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{path} is not readable: {error}") from None
    return found
