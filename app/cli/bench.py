"""The command that benchmarks engines: it starts the servers that are asked for, then runs ``python -m benchmarks``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import note
from app.core.errors import CommandError
from app.core.settings import Settings

ROOT = Path(__file__).parents[2]


@dataclass
class Started:
    """Servers for a benchmark: what to ask for instead of their names, their data, and what clients need."""

    engines: list[str] = field(default_factory=list)
    data_dirs: dict[str, Path] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def bench(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's folder; repeat the command to go on.")],
    engines: Annotated[
        str,
        typer.Option(
            "--engines",
            metavar="LIST",
            help="Names or URLs, with commas; `embedded` are those without a server, `all` starts the servers, too.",
        ),
    ] = "embedded",
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="SET",
            help="clustered:NxD, uniform:NxD, photos:DIR, photos:URL#COLLECTION, or an .hdf5, .fvecs or .parquet file.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small grid on a small set, in under two minutes.")] = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="M", help="Leave out what does not fit into this time.")
    ] = None,
    cases: Annotated[
        str | None, typer.Option("--cases", metavar="LIST", help="Only these, e.g. frontier,filtered.")
    ] = None,
    need: Annotated[
        str | None, typer.Option("--need", metavar="TEXT", help="Rank by, e.g. 'recall >= 0.95, 10% filter, p99'.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of data, orders and arrivals.")] = 1,
) -> None:
    """Compare vector databases on made vectors or your own photos, and write a report.

    A server that is named (milvus, weaviate) is started as `engines up` does, and stopped afterwards, unless it
    ran already. Ctrl-C leaves a folder with which the same command goes on.
    """
    home = Settings.load({}).home
    given = ["run", "--out", str(out), "--seed", str(seed), "--cache", str(home / "benchmarks")]
    for entry in data or []:
        given += ["--data", entry]
    if quick:
        given.append("--quick")
    for flag, value in (("--minutes", minutes), ("--cases", cases), ("--need", need)):
        if value is not None:
            given += [flag, str(value)]
    from app.core.local_servers import servers

    chosen = ["embedded", *servers()] if engines == "all" else engines.split(",")
    names = [name.strip() for name in chosen if name.strip()]
    with _servers(names, home, needed=engines != "all") as started:
        given += ["--engines", ",".join(started.engines)]
        for name, folder in started.data_dirs.items():
            given += ["--data-dir", f"{name}={folder}"]
        code = _run(given, started.environment)
    if code:
        raise typer.Exit(code)


@contextlib.contextmanager
def _servers(names: Sequence[str], home: Path, *, needed: bool) -> Iterator[Started]:
    """Start the servers among the names; those that ran already are left running at the end."""
    from app.core import local_servers as servers

    started, mine = Started(), []
    try:
        for name in names:
            if name not in servers.servers():
                started.engines.append(name)
                continue
            ran = servers.running(name, home) is not None
            try:
                if not ran:
                    note(f"starting {name} …")
                there = servers.up(name, home)
            except servers.ServerError as error:
                if needed:
                    raise CommandError(str(error)) from None
                note(f"note: left out {name}: {error}")
                continue
            if not ran:
                mine.append(name)
            started.engines.append(there.url)
            started.environment |= there.environment
            if (folder := there.log.parent / "data").is_dir():
                started.data_dirs[name] = folder
        yield started
    finally:
        for name in mine:
            servers.down(name, home)


def _run(given: Sequence[str], environment: dict[str, str]) -> int:
    """Run the benchmark in a process of its own, whose memory holds nothing else; its exit code."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *given], env={**os.environ, **environment, "PYTHONPATH": paths}
    )
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # Ctrl-C reached it, too; it puts away what it has and ends by itself.
            continue
