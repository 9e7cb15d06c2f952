"""Threads for networks too small to be spread over cores."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from retrieval.images.decode import available_cores


def one_core_threads() -> ThreadPoolExecutor:
    """Start threads, one for each core that torch may use, in each of which torch computes on one core.

    Small networks are run on several cores this way: with torch's own threads every layer ends in a
    barrier, and one core that is busy elsewhere, with decoding for instance, holds up all of them.
    """
    cores = torch.get_num_threads()
    workers = min(cores, available_cores())
    pool = ThreadPoolExecutor(workers, thread_name_prefix="encode")
    everyone = threading.Barrier(workers)

    def start() -> None:
        # OpenMP keeps a thread's number of threads with that thread, set from torch's default on first use.
        torch.get_num_threads()
        torch.set_num_threads(1)
        everyone.wait()

    wait([pool.submit(start) for _ in range(workers)])
    torch.set_num_threads(cores)  # the default again, for every other thread
    return pool
