"""Processor seconds of commands from a cold start, beside those of another checkout.

    python -m benchmarks.cold_starts FOLDER --before CHECKOUT [--rounds N]

FOLDER holds pictures, which each checkout first indexes into a home of its own. Then both run the same commands in
turn, so that what else the machine does meets both alike, and with the same Python and packages. Processor seconds are
those of all threads and child processes; what waits is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).parents[1]
QUERY = "a dog on a beach"
STARTED_WITHIN_S = 120.0


@dataclass(frozen=True)
class Checkout:
    """A tree of the repository, and the home that its commands use."""

    tree: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which its commands run: no setting from outside."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SIGHTLINE_")}
        return kept | {"SIGHTLINE_HOME": str(self.home), "PYTHONPATH": str(self.tree)}

    def command(self, *arguments: str) -> float:
        """Processor seconds of one command. Raises `subprocess.CalledProcessError` where it fails."""
        before = _children_s()
        subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            check=True,
        )
        return _children_s() - before

    def served(self) -> float:
        """Processor seconds of a service until it has answered its first search."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "app", "serve", "--port", str(port)]
        with subprocess.Popen(command, cwd=self.home, env=self.environment, stderr=subprocess.DEVNULL) as process:
            try:
                _wait_for(url, process)
                body = json.dumps({"text": QUERY}).encode()
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(f"{url}/v1/search", body, headers)  # noqa: S310
                with urllib.request.urlopen(request, timeout=STARTED_WITHIN_S) as answer:  # noqa: S310
                    answer.read()
                times = psutil.Process(process.pid).cpu_times()
            finally:
                process.terminate()
        return float(times.user + times.system + times.children_user + times.children_system)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):  # noqa: S310
                return
        except urllib.error.URLError:
            time.sleep(0.05)
    raise SystemExit("the service did not start: run `sightline serve` to see why")


def runs(folder: Path) -> dict[str, Callable[[Checkout], float]]:
    """What is measured, by name."""
    return {
        "--help": lambda checkout: checkout.command("--help"),
        "search": lambda checkout: checkout.command("search", QUERY),
        "search --mode keyword": lambda checkout: checkout.command("search", "dog", "--mode", "keyword"),
        "index, unchanged": lambda checkout: checkout.command("index", str(folder)),
        "serve, first search": lambda checkout: checkout.served(),
    }


def compare(folder: Path, before: Checkout, now: Checkout, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """For each run the processor seconds (before, now) of each round."""
    found: dict[str, list[tuple[float, float]]] = {}
    for checkout in (before, now):
        checkout.home.mkdir(exist_ok=True)
        checkout.command("index", str(folder))
        checkout.command("search", QUERY)  # writes bytecode, and vectors that are kept
    for name, run in runs(folder).items():
        found[name] = [(run(before), run(now)) for _ in range(rounds)]
    return found


def table(found: dict[str, list[tuple[float, float]]]) -> str:
    """The medians, their ratio, and the least and largest ratio of a round, as Markdown."""
    lines = ["| command | before, s | now, s | ratio | of rounds |", "|---|---|---|---|---|"]
    for name, pairs in found.items():
        before, now = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [after / first for first, after in pairs]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"| {name} | {before:.2f} | {now:.2f} | {now / before:.2f} | {spread} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both checkouts and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_starts", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="pictures to index")
    parser.add_argument("--before", type=Path, required=True, help="another checkout of the repository")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sightline-") as place:
        before, now = Checkout(given.before.resolve(), Path(place, "before")), Checkout(HERE, Path(place, "now"))
        found = compare(given.folder.resolve(), before, now, given.rounds)
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main()
