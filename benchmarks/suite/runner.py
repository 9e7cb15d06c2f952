"""Runs the grid: engines in turns, repetition after repetition, every block stored as soon as it is measured."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backends.base import BackendError, CollectionSpec
from backends.kit.clock import Clock, RealClock
from backends.redaction import shown
from benchmarks.suite import machine
from benchmarks.suite.cases import CASES
from benchmarks.suite.context import Context, Settings
from benchmarks.suite.datasets import DataSet, names_differ, open_dataset
from benchmarks.suite.engines import Engine, Session, capabilities
from benchmarks.suite.host_noise import settle
from benchmarks.suite.metrics import usual_calibration_ns
from benchmarks.suite.plan import LeftOut, Planned, grid
from benchmarks.suite.progress import Progress, clock_time
from benchmarks.suite.runs import Block, Run
from benchmarks.suite.scheduler import Scheduler
from benchmarks.suite.selectivity import Filter

# Retrieval quality wants every caption, timing does not: it takes the first of them.
PHOTO_QUERIES = 1_000


@dataclass
class Request:
    """What a run is asked for. `minutes` is the time it may take; None means as long as it takes."""

    out: Path
    datasets: Sequence[str]
    engines: Sequence[Engine]
    settings: Settings
    cache: Path
    cases: Sequence[str] = tuple(CASES)
    minutes: float | None = None
    quick: bool = False
    clock: Clock = field(default_factory=RealClock)

    def plan(self) -> dict[str, Any]:
        """What makes two runs the same: not the time they may take, nor where caches are."""
        return {
            "datasets": list(self.datasets),
            "cases": list(self.cases),
            "quick": self.quick,
            "engines": {engine.name: shown(engine.url) for engine in self.engines},
            "settings": asdict(self.settings),
        }


def run(request: Request) -> Run:
    """Measure what is not measured yet, and write the manifest when all is.

    Raises RunError, DataError, or EngineError before anything is measured; an engine that fails is left out with
    its reason. KeyboardInterrupt leaves a folder that the same command goes on with.
    """
    return Runner(request).run()


class Runner:
    """One run under way."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.folder = Run(request.out, request.plan())
        self.begun_s = time.monotonic()
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.left_out: list[LeftOut] = []
        self.datasets: list[DataSet] = []
        self.planned: list[Planned] = []
        self.scheduler = Scheduler([])
        self.progress = Progress()

    def run(self) -> Run:
        """All data sets, then the manifest."""
        if self.folder.finished:
            return self.folder
        self._prepare()
        try:
            # Other builds come last: they take what time is left.
            scratches: list[dict[str, Any]] = [{} for _ in self.datasets]
            for number in range(self.request.settings.builds):
                for index, data in enumerate(self.datasets):
                    self._build(data, index, number, scratches[index])
        finally:
            self.progress.close()
        self._finish()
        return self.folder

    def _prepare(self) -> None:
        request, settings = self.request, self.request.settings
        for spec in request.datasets:
            self.progress.note(f"preparing {spec}")
            queries = PHOTO_QUERIES if spec.startswith("photos:") else settings.queries
            self.datasets.append(open_dataset(spec, queries=queries, cache=request.cache, seed=settings.seed))
        names_differ(self.datasets)
        self.folder.begin()
        everything: list[Planned] = []
        for engine in request.engines:
            try:
                can = capabilities(engine)
            except BackendError as error:
                self.left_out.append(LeftOut("*", engine.name, "everything", str(error)))
                continue
            for index, data in enumerate(self.datasets):
                points, missing = grid(index, data, engine, can, settings, request.cases)
                everything += points
                self.left_out += missing
        todo = [plan for plan in everything if not self.folder.has(plan.point)]
        minutes = request.minutes
        self.scheduler = Scheduler(todo, None if minutes is None else self.begun_s + 60 * minutes)
        if len(todo) < len(everything):
            self.progress.note(f"going on: {len(everything) - len(todo)} of {len(everything)} points are there already")
        # Loads stay in the plan, since what follows needs them.
        self.planned = [plan for plan in everything if plan.point in self.scheduler.todo or plan.point.case == "load"]

    def _build(self, data: DataSet, index: int, number: int, scratch: dict[str, Any]) -> None:
        """One build of every engine on one data set: load all, then measure in turns."""
        mine = [p for p in self.planned if p.dataset_index == index and p.build_index == number]
        if not any(self.scheduler.fits(plan) for plan in mine):
            return
        contexts: dict[str, Context] = {}
        try:
            wanted = {plan.point.engine for plan in mine if plan.point in self.scheduler.todo}
            for plan in mine:
                if plan.point.case == "load" and plan.point.engine in wanted:
                    self.scheduler.begin(plan)
                    contexts[plan.point.engine] = self._context(data, plan, scratch)
                    if not self._loaded(contexts[plan.point.engine], plan):
                        del contexts[plan.point.engine]
            settle(self.request.settings.settle_s)
            points = [p for p in mine if p.point.engine in contexts and p.point.case != "load"]
            order = _in_turns(points, [engine.name for engine in self.request.engines])
            while (chosen := self.scheduler.next(order)) is not None:
                self._measure(contexts[chosen.point.engine], chosen)
            for plan in mine:
                self._no_time(plan)
            self._keep_truths(data, contexts)
        except BaseException:
            # Ctrl-C, or a full disk: the stores stay for whoever goes on.
            _close_raw(scratch)
            for context in contexts.values():
                context.session.close()
            raise
        _close_raw(scratch)
        for context in contexts.values():
            context.session.remove()

    def _context(self, data: DataSet, plan: Planned, scratch: dict[str, Any]) -> Context:
        engine = next(e for e in self.request.engines if e.name == plan.point.engine)
        name = f"bench_{data.digest()[:8]}_{plan.build.name}"
        spec = CollectionSpec(name, data.dim, data.metric, data.encoder, plan.build.index)
        stores = self.request.out / "stores"
        session = Session(engine, spec, stores / engine.name / data.name / plan.build.name)
        return Context(
            data, session, self.request.settings, self.request.cache, stores / "work", self.request.clock, scratch
        )

    def _loaded(self, context: Context, plan: Planned) -> bool:
        """Load the collection, unless an interrupted run left it there; False when the engine fails."""
        try:
            if self.folder.has(plan.point):
                if context.session.is_loaded(len(context.data.vectors)):
                    return True
                # It was measured before; what follows needs it again.
                context.session.discard()
                CASES["load"].measure(context, plan.point)
                return True
            # What a run that was killed may have left half-written.
            context.session.discard()
        except (BackendError, OSError, RuntimeError, ValueError) as error:
            self._fail(context, plan, error)
            return False
        return self._measure(context, plan)

    def _measure(self, context: Context, plan: Planned) -> bool:
        point = plan.point
        start_s = time.monotonic()
        try:
            block = CASES[point.case].measure(context, point)
        except Exception as error:
            self._fail(context, plan, error)
            return False
        took_s = time.monotonic() - start_s
        block.facts["measured_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.folder.store(point, block)
        self.scheduler.done(plan, took_s)
        self.progress.done(_told(plan), took_s, _queries(block), self.scheduler.points_left, self.scheduler.left_s)
        return True

    def _no_time(self, plan: Planned) -> None:
        if plan.point in self.scheduler.todo:
            self.scheduler.drop(plan)
            why = f"{self.request.minutes:g} minutes were not enough"
            self.left_out.append(LeftOut(plan.point.dataset, plan.point.engine, _told(plan), why))

    def _fail(self, context: Context, plan: Planned, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        self.scheduler.drop(plan)
        self.progress.note(f"{plan.point.engine}: {_told(plan)} failed: {why}")
        self.left_out.append(LeftOut(plan.point.dataset, plan.point.engine, _told(plan), why))
        if plan.point.case == "load":
            context.session.close()
            self._give_up(plan)

    def _give_up(self, load: Planned) -> None:
        """Nothing can be measured on a collection that could not be loaded."""
        key = (load.point.dataset, load.point.engine, load.build.name)
        lost = [p for p in self.planned if (p.point.dataset, p.point.engine, p.build.name) == key and p is not load]
        for plan in lost:
            self.scheduler.drop(plan)
            self.left_out.append(LeftOut(key[0], key[1], _told(plan), "its collection could not be loaded"))
        gone = {plan.point for plan in (load, *lost)}
        self.planned = [plan for plan in self.planned if plan.point not in gone]

    def _keep_truths(self, data: DataSet, contexts: Mapping[str, Context]) -> None:
        """Keep the neighbours that recall was measured against, for whoever checks it."""
        for context in list(contexts.values())[:1]:
            filters = [
                Filter(column, share)
                for column in self.request.settings.columns
                for share in self.request.settings.selectivities
            ]
            for chosen in [None, *(filters if "filtered" in self.request.cases else [])]:
                self.folder.store_truth(data.name, chosen.name if chosen else "all", context.truth(chosen))

    def _finish(self) -> None:
        for plan in self.planned:
            self._no_time(plan)
        measured = list(self.folder.blocks())
        blocks = [block for _, block in measured]
        servers = {p.engine: version for p, block in measured if (version := block.facts.get("server_version"))}
        first = min((block.facts["measured_at"] for block in blocks), default=self.started)
        self.folder.finish(
            {
                "plan": self.folder.plan,
                "started": min(first, self.started),
                "resumed": first < self.started,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "minutes": round((time.monotonic() - self.begun_s) / 60, 2),
                "points": len(blocks),
                "usual_calibration_ns": usual_calibration_ns(blocks),
                "machine": machine.machine(),
                "versions": machine.versions(),
                "servers": servers,
                "commit": machine.commit(),
                "seed": self.request.settings.seed,
                "datasets": {
                    data.name: {
                        **data.origin,
                        "rows": len(data.vectors),
                        "dim": data.dim,
                        "metric": data.metric,
                        "queries": len(data.queries),
                        "captions": len(data.captions),
                        "digest": data.digest(),
                    }
                    for data in self.datasets
                },
                "engines": {engine.name: _engine_json(engine) for engine in self.request.engines},
                "left_out": [asdict(entry) for entry in self.left_out],
            }
        )
        shutil.rmtree(self.request.out / "stores", ignore_errors=True)
        took = clock_time(time.monotonic() - self.begun_s)
        self.progress.note(f"measured {len(blocks)} points in {took}; left out {len(self.left_out)}")


def _in_turns(points: Iterable[Planned], engines: Sequence[str]) -> list[Planned]:
    """Repetition by repetition and case by case, the engines in turns, each turn begun by another engine.

    So a slow minute of the machine meets all engines alike, and no engine always follows the same one.
    """
    slots: dict[tuple[bool, int, int, int], dict[str, Planned]] = {}
    counts: dict[tuple[str, str, int], int] = {}
    order = {case: place for place, case in enumerate(CASES)}
    for plan in points:
        point = plan.point
        key = (point.engine, point.case, point.repetition)
        counts[key] = counts.get(key, -1) + 1
        # Opening in a new process closes the store here, and with it the raw client: so that comes last.
        slot = (point.case == "opened", point.repetition, order[point.case], counts[key])
        slots.setdefault(slot, {})[point.engine] = plan
    result: list[Planned] = []
    for turn, (_, own) in enumerate(sorted(slots.items(), key=lambda entry: entry[0])):
        first = turn % max(1, len(engines))
        result += [own[name] for name in [*engines[first:], *engines[:first]] if name in own]
    return result


def _told(plan: Planned) -> str:
    point = plan.point
    params = " ".join(f"{name}={value}" for name, value in point.params.items() if value is not None)
    return f"{point.case} {point.engine} {point.dataset} {params} r{point.repetition}"


def _queries(block: Block) -> int:
    return len(block.arrays.get("query", ()))


def _close_raw(scratch: dict[str, Any]) -> None:
    """Close the raw clients; they hold the stores of their sessions."""
    for key in [key for key in scratch if key.startswith("raw ")]:
        scratch.pop(key).close()


def _engine_json(engine: Engine) -> dict[str, Any]:
    config = engine.config
    return {
        "url": shown(engine.url),
        "embedded": engine.embedded,
        "efforts": list(config.efforts),
        "notes": list(config.notes),
        "builds": [
            {
                "name": build.name,
                "kind": build.index.kind,
                "quantization": build.index.quantization,
                "params": dict(build.index.params),
                "reasons": dict(build.reasons),
            }
            for build in config.builds
        ],
    }
