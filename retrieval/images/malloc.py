"""How the C library keeps memory: shared by the threads of a process, and given back when it is free."""

from __future__ import annotations

import ctypes
import functools
import os
import platform

from retrieval.images.decode import available_cores

#: Of mallopt(3): how many heaps ("arenas") there may be.
_M_ARENA_MAX = -8
_CHOSEN = "MALLOC_ARENA_MAX"


def share_heaps() -> None:
    """Have all threads use as many heaps of glibc as there are processor cores; call it before there are threads.

    glibc gives threads up to eight heaps for each core, and what is freed in one is of no use to the others. A
    service has a thread for each request, so that the room of pictures long gone adds up in all of them. Does
    nothing where MALLOC_ARENA_MAX says what is wanted, or on another C library.
    """
    libc = _glibc()
    if libc is not None and _CHOSEN not in os.environ:
        libc.mallopt(_M_ARENA_MAX, max(2, available_cores()))


def give_back() -> None:
    """Have glibc return what is free of its heaps, which it keeps otherwise; nothing elsewhere."""
    trim = getattr(_glibc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
