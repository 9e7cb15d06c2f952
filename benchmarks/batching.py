"""What micro-batching brings: concurrent text queries with it and without, in turns, on one encoder.

    python -m benchmarks.batching [--encoder compact] [--clients 1,8,32] [--seconds 5] [--rounds 3]

Each client is a thread that encodes one query after the other (closed loop). Prints, for every number of
clients, queries a second and the 50th and 99th percentile of the merged latencies: medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence

import numpy as np

from retrieval.encoders import load_encoder
from retrieval.encoders.base import Encoder
from retrieval.encoders.batching import BatchedEncoder

THINGS = ("dog", "cat", "horse", "train", "boat", "kite", "pizza", "clock", "bench", "bridge", "tower", "child")
PLACES = ("on a beach", "in the snow", "at night", "on a street", "under a tree", "by the window", "in a kitchen")


def queries(count: int) -> list[str]:
    """`count` queries of usual length; no two of the first 84 are the same."""
    return [f"a {THINGS[i % len(THINGS)]} {PLACES[i // len(THINGS) % len(PLACES)]}" for i in range(count)]


def closed_loop(encoder: Encoder, clients: int, seconds: float) -> list[float]:
    """The latencies, in seconds, of all queries that `clients` threads ended within about `seconds`."""
    texts = queries(len(THINGS) * len(PLACES))
    latencies: list[list[float]] = [[] for _ in range(clients)]
    ready = threading.Barrier(clients)

    def client(number: int) -> None:
        ready.wait()
        end = time.perf_counter() + seconds
        turn = number
        while (start := time.perf_counter()) < end:
            encoder.encode_texts([texts[turn % len(texts)]])
            latencies[number].append(time.perf_counter() - start)
            turn += clients

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [latency for one in latencies for latency in one]


def measure_batching(
    encoder: Encoder, clients: int, seconds: float, rounds: int
) -> dict[str, tuple[float, float, float]]:
    """Queries/s, p50 and p99 in seconds, with batching and plain; the two take turns."""
    found: dict[str, list[tuple[float, float, float]]] = {"plain": [], "batched": []}
    with BatchedEncoder(encoder) as batched:
        for _ in range(rounds):
            for name, each in (("plain", encoder), ("batched", batched)):
                latencies = closed_loop(each, clients, seconds)
                p50, p99 = np.percentile(latencies, [50, 99])
                found[name].append((len(latencies) / seconds, float(p50), float(p99)))
    return {
        name: (
            statistics.median(one[0] for one in each),
            statistics.median(one[1] for one in each),
            statistics.median(one[2] for one in each),
        )
        for name, each in found.items()
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
    print("| clients | | queries/s | p50 ms | p99 ms |\n|---|---|---|---|---|")  # noqa: T201
    for clients in map(int, options.clients.split(",")):
        for name, (rate, p50, p99) in measure_batching(encoder, clients, options.seconds, options.rounds).items():
            print(f"| {clients} | {name} | {rate:,.0f} | {p50 * 1e3:.1f} | {p99 * 1e3:.1f} |")  # noqa: T201


if __name__ == "__main__":
    main()
