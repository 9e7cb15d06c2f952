"""Pictures a second of `compact` beside those of another revision, in turns.

    python -m benchmarks.paired_rates REVISION [--rounds N] [--folder PICTURES] [--json FILE]

The revision's files are unpacked, and a process of each side encodes the same pictures, and indexes them into a new
faiss:// store, one after the other and in changing order, so that a slow moment of the machine meets both.
Both use the Python and packages that run this, of which the revision may need some more. Loading and a first pass are
not timed. First the vectors are compared: rates of encoders that place a picture elsewhere are not worth comparing.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_pictures import make_pictures
from benchmarks.side_by_side import alternately
from benchmarks.suite.machine import machine
from benchmarks.suite.tables import markdown_table
from retrieval.images.formats import IMAGE_SUFFIXES

HERE = Path(__file__).parents[1]
TASKS = ("encode", "index")
SIDES = ("before", "now")
#: By how much a number of a vector may differ.
TOLERANCE = 1e-5

# Runs in both trees, so it uses no more than what both have; it answers each line of standard input by one of JSON.
_CHILD = """
import json, resource, sys, tempfile, time
from pathlib import Path
import numpy as np
from backends import connect
from indexers import index
from retrieval.encoders import load_encoder

def processor_s():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

def indexed(folder):
    with tempfile.TemporaryDirectory() as home, connect(f"faiss://{home}/store") as backend:
        report = index(folder, backend, encoder, "pictures")
        assert report.indexed, report

folder, place = Path(sys.argv[1]), Path(sys.argv[2])
files = [Path(file) for file in json.loads(sys.argv[3])]
encoder = load_encoder("compact", device="cpu")
np.save(place, encoder.encode_images(files))
tasks = {"encode": lambda: encoder.encode_images(files), "index": lambda: indexed(folder)}
# Of the pictures alone: a new text side moves none of them.
print(json.dumps(getattr(encoder, "image_space", encoder.fingerprint)), flush=True)
for line in sys.stdin:
    used_s, start_s = processor_s(), time.perf_counter()
    tasks[line.strip()]()
    print(json.dumps([time.perf_counter() - start_s, processor_s() - used_s]), flush=True)
"""


class PairError(Exception):
    """A revision that cannot be compared with this one: one line that says why."""


class Side:
    """A process that runs the encoder of one tree."""

    def __init__(self, process: subprocess.Popen[str], vectors: Path) -> None:
        self._process = process
        self.fingerprint = str(self._answer())
        self.vectors = np.load(vectors)

    def do(self, task: str) -> tuple[float, float]:
        """Seconds that a task takes, on the clock and of the processor."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{task}\n")
        self._process.stdin.flush()
        wall_s, processor_s = self._answer()
        return wall_s, processor_s

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PairError("the encoder of a side failed, see above")
        return json.loads(line)


@contextmanager
def side(tree: Path, folder: Path, vectors: Path) -> Iterator[Side]:
    """The encoder of the tree `tree`, at work on the pictures of `folder`. Raises `PairError`."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "SIGHTLINE_HOME": str(vectors.parent)}
    command = [sys.executable, "-P", "-c", _CHILD, str(folder), str(vectors), json.dumps(_pictures(folder))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=tree
    ) as process:
        try:
            yield Side(process, vectors)
        finally:
            process.kill()


def _pictures(folder: Path) -> list[str]:
    return sorted(str(file) for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def unpack(revision: str, tree: Path) -> None:
    """Write the files of a revision into `tree`. Raises `PairError`."""
    git = ["git", "-C", str(HERE), "archive", "--format=tar", revision]
    done = subprocess.run(git, capture_output=True, check=False)
    if done.returncode:
        raise PairError(f"{revision}: {done.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(tree, filter="data")


def compare(trees: tuple[Path, Path], folder: Path, rounds: int) -> dict[str, Any]:
    """Pictures a second and processor seconds a picture of both trees, (before, now), for each task and round.

    Raises `PairError` where their vectors are not the same.
    """
    count = len(_pictures(folder))
    if not count:
        raise PairError(f"{folder}: holds no pictures")
    found: dict[str, Any] = {task: {name: [] for name in SIDES} for task in TASKS}
    with tempfile.TemporaryDirectory(prefix="sightline-") as place, ExitStack() as stack:
        both = []
        for name, tree in zip(SIDES, trees, strict=True):
            both.append(stack.enter_context(side(tree, folder, Path(place, f"{name}.npy"))))
        largest = difference(*both)
        for round_ in range(rounds + 1):
            for number, task in alternately(TASKS, round_):
                wall_s, processor_s = both[number].do(task)
                if round_:  # the one before them warms up
                    found[task][SIDES[number]].append({"per_s": count / wall_s, "processor_s": processor_s / count})
    return {"pictures": count, "largest_difference": largest, "tasks": found}


def difference(before: Side, now: Side) -> float:
    """By how much the sides' vectors differ at most. Raises `PairError` where that is more than TOLERANCE."""
    if before.fingerprint != now.fingerprint:
        raise PairError(f"the fingerprints differ: {before.fingerprint} before, {now.fingerprint} now")
    largest = float(np.abs(before.vectors - now.vectors).max())
    if largest > TOLERANCE:
        raise PairError(f"the vectors differ by up to {largest:.1e}, more than {TOLERANCE:.0e}")
    return largest


def table(report: dict[str, Any]) -> str:
    """Medians of both sides, and the ratio now / before: that of the medians, and the least and largest of a round."""
    rows = []
    for task, sides in report["tasks"].items():
        for what, key, unit in (("images/s", "per_s", 1.0), ("processor ms an image", "processor_s", 1e3)):
            before, now = ([each[key] * unit for each in sides[name]] for name in SIDES)
            middle = statistics.median(before), statistics.median(now)
            ratios = [after / first for first, after in zip(before, now, strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            rows.append((task, what, *(f"{each:.1f}" for each in middle), f"{statistics.median(ratios):.2f}", spread))
    return "\n".join(markdown_table(("task", "", "before", "now", "ratio", "of rounds"), rows)) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired_rates", description=__doc__.partition("\n")[0])
    parser.add_argument("revision", help="of this repository, as git names it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="pictures; 60 of 640 x 480 are made unless given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        with tempfile.TemporaryDirectory(prefix="sightline-") as place:
            before = Path(place, "before")
            unpack(given.revision, before)
            folder = given.folder or Path(place, "pictures")
            if given.folder is None:
                make_pictures(folder, (640, 480), 60)
            report = compare((before, HERE), folder.resolve(), given.rounds)
    except PairError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if given.json:
        written = {"revision": given.revision, "machine": machine(), **report}
        given.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    same = f"{report['pictures']} images, vectors within {report['largest_difference']:.1e} of {given.revision}'s"
    sys.stdout.write(f"{same}\n\n{table(report)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
