"""Giving freed memory back to the system."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable


def give_back() -> None:
    """Have glibc return what is free of its heaps, which it keeps otherwise; nothing elsewhere."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
