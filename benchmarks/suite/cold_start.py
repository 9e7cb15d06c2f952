"""A new process that opens a store and searches it; run by `benchmarks.suite.cases.loading.opened`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil


def main(name: str, queries_file: str, k: int, folder: str) -> None:
    """Print one JSON object: seconds to import, connect and first answer, latencies of the rest, memory."""
    queries = np.load(queries_file)
    before_bytes = psutil.Process().memory_info().rss
    url = os.environ["SIGHTLINE_BENCH_URL"]
    start_s = time.perf_counter()
    from backends import load

    load(url.partition("://")[0])
    imported_s = time.perf_counter()
    from benchmarks.suite.engines import connect, memory_bytes, server_pids

    ready_s = time.perf_counter()
    with connect(url) as backend:
        connected_s = time.perf_counter()
        backend.search(name, queries[:1], k)
        first_s = time.perf_counter()
        latencies = []
        for query in queries[1:]:
            begun_ns = time.perf_counter_ns()
            backend.search(name, query[None], k)
            latencies.append(time.perf_counter_ns() - begun_ns)
        told = {
            "import_s": imported_s - start_s,
            "connect_s": connected_s - ready_s,
            "first_search_s": first_s - connected_s,
            "latency_ns": latencies,
            "client_bytes": psutil.Process().memory_info().rss,
            "client_before_bytes": before_bytes,
            "server_bytes": memory_bytes(server_pids(url, Path(folder) if folder else None)),
        }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
