"""Heaps of the C library are shared by threads."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from retrieval.images.decode import available_cores

ALLOCATE = """
import ctypes, threading
from retrieval.images.malloc import share_heaps
share_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
together = threading.Barrier(32)
def work():
    together.wait()
    held = [libc.malloc(50_000) for _ in range(20)]
    together.wait()
    for block in held:
        libc.free(block)
threads = [threading.Thread(target=work) for _ in range(32)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


def heaps(**environment: str) -> int:
    """How many heaps a process has after 32 threads at once."""
    base = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE], env=base | environment, capture_output=True, text=True, check=True, timeout=60
    )
    return sum(line.startswith("Arena ") for line in done.stderr.splitlines())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps of glibc")
def test_threads_share_as_many_heaps_as_there_are_cores() -> None:
    assert 1 < heaps() <= max(2, available_cores())
    assert heaps(MALLOC_ARENA_MAX="1") == 1
    # What it would be otherwise.
    assert heaps(MALLOC_ARENA_MAX="12") > max(2, available_cores()) or available_cores() > 6
