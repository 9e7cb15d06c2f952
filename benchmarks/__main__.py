"""The benchmark's command line: ``python -m benchmarks run --out DIR`` and ``python -m benchmarks report DIR``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from platformdirs import user_cache_path

from backends.errors import BackendError
from benchmarks.suite.cases import CASES
from benchmarks.suite.check import check, told
from benchmarks.suite.datasets import DataError
from benchmarks.suite.engines import EngineError, choose
from benchmarks.suite.plan import FULL, FULL_DATA, QUICK, QUICK_DATA
from benchmarks.suite.ranking import DEFAULT_NEED, NeedError, parse_need
from benchmarks.suite.report import write_report
from benchmarks.suite.runner import Request, run
from benchmarks.suite.runs import Run, RunError

# Besides the time to start and to write the report.
QUICK_MINUTES = 1.6


def parser() -> argparse.ArgumentParser:
    """The two commands and their flags."""
    main_parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare engines on your own data.")
    commands = main_parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="measure what is not measured yet, then write the report")
    runs.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder; repeat to go on")
    runs.add_argument(
        "--engines",
        default="embedded",
        metavar="LIST",
        help="names of configurations, URLs, or embedded for those without a server (%(default)s)",
    )
    runs.add_argument(
        "--data",
        action="append",
        metavar="SET",
        help="clustered:NxD, uniform:NxD, photos:DIR, photos:URL#COLLECTION, or a file; may be repeated",
    )
    runs.add_argument("--quick", action="store_true", help="a small grid on a small set, in under two minutes")
    runs.add_argument("--minutes", type=float, metavar="M", help="leave out what does not fit into this time")
    runs.add_argument("--cases", metavar="LIST", help=f"of {', '.join(CASES)}")
    runs.add_argument("--repetitions", type=int, metavar="N", help="blocks of each point")
    runs.add_argument("--queries", type=int, metavar="N", help="queries of each block")
    runs.add_argument("--seed", type=int, default=1, metavar="N", help="of data, orders and arrivals (%(default)s)")
    runs.add_argument("--cache", type=Path, metavar="DIR", help="where exact neighbours and encoded photos are kept")
    runs.add_argument(
        "--data-dir",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="where a server keeps its data, to measure it",
    )
    reports = commands.add_parser("report", help="write the report of a run again, from its raw results")
    reports.add_argument("folder", type=Path, metavar="DIR")
    reports.add_argument(
        "--check", action="store_true", help="recompute recall and R@k from the raw ids by ir-measures"
    )
    for command in (runs, reports):
        command.add_argument("--need", default=DEFAULT_NEED, metavar="TEXT", help="what to rank by (%(default)r)")
    return main_parser


def request_of(options: argparse.Namespace) -> Request:
    """What the flags ask for. Raises EngineError, RunError."""
    settings = replace(QUICK if options.quick else FULL, seed=options.seed)
    for name in ("repetitions", "queries"):
        value = getattr(options, name)
        if value is not None:
            if value < 1:
                raise RunError(f"--{name} must be at least 1, not {value}")
            settings = replace(settings, **{name: value})
    if options.minutes is not None and not options.minutes > 0:
        raise RunError(f"--minutes must be more than 0, not {options.minutes:g}")
    cases = options.cases.split(",") if options.cases else list(CASES)
    unknown = [case for case in cases if case not in CASES]
    if unknown:
        raise RunError(f"there is no case {unknown[0]!r}; there are {', '.join(CASES)}")
    # Nothing can be measured on what was not loaded.
    cases = [case for case in CASES if case in {"load", *cases}]
    data_dirs = {}
    for entry in options.data_dir:
        name, separator, folder = entry.partition("=")
        if not separator or not Path(folder).is_dir():
            raise RunError(f"--data-dir takes NAME=DIR with a folder that is there, not {entry!r}")
        data_dirs[name] = Path(folder)
    engines = choose([name for name in options.engines.split(",") if name], data_dirs)
    if not engines:
        raise EngineError("--engines names no engine")
    minutes = options.minutes if options.minutes is not None else QUICK_MINUTES if options.quick else None
    datasets = options.data or list(QUICK_DATA if options.quick else FULL_DATA)
    cache = options.cache or user_cache_path("sightline") / "benchmarks"
    return Request(options.out, datasets, engines, settings, cache, cases, minutes, options.quick)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    options = parser().parse_args(arguments)
    # Ended like Ctrl-C by whoever asks politely, too: the folder can be gone on with.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        need = parse_need(options.need)
        if options.command == "run":
            done = run(request_of(options))
        else:
            done = Run(options.folder)
        for path in write_report(done, need):
            sys.stdout.write(f"{path}\n")
        if done.manifest["left_out"]:
            sys.stderr.write(f"left out {len(done.manifest['left_out'])} things; report.md says what and why\n")
        if options.command == "report" and options.check:
            checked = check(done)
            sys.stdout.write("".join(f"{line}\n" for line in told(checked)))
            return 0 if all(one.agrees for one in checked) else 1
        return 0
    except (RunError, DataError, EngineError, NeedError, BackendError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        where = options.out if options.command == "run" else options.folder
        sys.stderr.write(f"\nstopped: what was measured is in {where}; repeat the command to go on\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
