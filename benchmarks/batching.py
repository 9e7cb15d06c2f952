"""What micro-batching brings: concurrent text queries with it and without, in turns, on one encoder.

    python -m benchmarks.batching [--encoder compact] [--clients 1,8,32] [--seconds 5] [--rounds 3]

Each client is a thread that encodes one query after the other (closed loop). Prints, for every number of
clients, queries a second and the 50th and 99th percentile of the merged latencies: medians over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from backends.kit.clock import RealClock
from benchmarks.side_by_side import alternately
from benchmarks.suite.loops import closed_loop
from benchmarks.suite.metrics import latencies_ns, throughput
from benchmarks.suite.runs import Block
from benchmarks.suite.tables import markdown_table
from retrieval.encoders import load_encoder
from retrieval.encoders.base import Encoder
from retrieval.encoders.batching import BatchedEncoder

THINGS = ("dog", "cat", "horse", "train", "boat", "kite", "pizza", "clock", "bench", "bridge", "tower", "child")
PLACES = ("on a beach", "in the snow", "at night", "on a street", "under a tree", "by the window", "in a kitchen")


def queries(count: int) -> list[str]:
    """`count` queries of usual length; no two of the first 84 are the same."""
    return [f"a {THINGS[i % len(THINGS)]} {PLACES[i // len(THINGS) % len(PLACES)]}" for i in range(count)]


@dataclass(frozen=True)
class Load:
    """What clients got of an encoder: queries a second, and percentiles of their merged latencies in seconds."""

    per_s: float
    p50_s: float
    p99_s: float


def load_of(encoder: Encoder, clients: int, seconds: float) -> Load:
    """Have `clients` threads encode one query after the other for about `seconds`. Raises what the encoder raised."""
    texts = queries(len(THINGS) * len(PLACES))
    failed: list[Exception] = []

    def ask(query: int) -> tuple[()]:
        try:
            encoder.encode_texts([texts[query]])
        except Exception as error:
            failed.append(error)
            raise
        return ()

    everything = itertools.cycle(range(len(texts)))
    recorder = closed_loop(ask, everything, 1, RealClock(), workers=clients, limit_s=seconds)
    if failed:
        raise failed[0]
    block = Block(recorder.arrays())
    p50, p99 = np.percentile(latencies_ns(block) / 1e9, [50, 99])
    return Load(throughput(block), float(p50), float(p99))


def measure_batching(encoder: Encoder, clients: int, seconds: float, rounds: int) -> dict[str, Load]:
    """The load that an encoder takes plain and with batching, in turns: medians over the rounds."""
    names = ("plain", "batched")
    found: tuple[list[Load], list[Load]] = ([], [])
    with BatchedEncoder(encoder) as batched:
        for side, _ in alternately(range(rounds)):
            found[side].append(load_of((encoder, batched)[side], clients, seconds))
    return {
        name: Load(*np.median([astuple(load) for load in each], axis=0))
        for name, each in zip(names, found, strict=True)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", default="compact")
    parser.add_argument("--clients", default="1,8,32", help="numbers of concurrent clients")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    encoder = load_encoder(options.encoder)
    encoder.encode_texts(queries(8))
    rows = [
        (str(clients), name, f"{load.per_s:,.0f}", f"{load.p50_s * 1e3:.1f}", f"{load.p99_s * 1e3:.1f}")
        for clients in map(int, options.clients.split(","))
        for name, load in measure_batching(encoder, clients, options.seconds, options.rounds).items()
    ]
    header = ("clients", "", "queries/s", "p50 ms", "p99 ms")
    sys.stdout.write("\n".join(markdown_table(header, rows)) + "\n")


if __name__ == "__main__":
    main()
