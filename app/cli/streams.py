"""The three standard streams, of which a shell may have closed any: ``<&-``, ``>&-``, ``2>&-``."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Literal, TextIO

NO_OUTPUT = "standard output is closed or cannot be written, so that nothing can be shown: send it to a file or a pipe"


def complete() -> None:
    """Put something where a standard stream is closed, so that no file opened later takes its number.

    From a closed input nothing is read. What is written to a closed output fails, as it does to every
    program; messages for a closed error stream are lost, and the exit code tells.
    """
    if sys.stdin is None:
        sys.stdin = _filled(0, os.O_RDONLY, "r")
    if sys.stdout is None:
        # Opened for reading, so that whatever writes to it finds out.
        sys.stdout = _filled(1, os.O_RDONLY, "w")
    if sys.stderr is None:
        sys.stderr = _filled(2, os.O_WRONLY, "w")


def _filled(number: int, flags: int, mode: Literal["r", "w"]) -> TextIO:
    try:
        os.fstat(number)
        is_free = False
    except OSError:
        is_free = True
    null = os.open(os.devnull, flags)
    if is_free and null != number:
        os.dup2(null, number)
        os.close(null)
        null = number
    return open(null, mode, encoding="utf-8", errors="backslashreplace", closefd=False)


def abandon_output() -> None:
    """Throw away what is still to be written to stdout: the interpreter must not try it again at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        sys.stdout.flush()


def settle_errors() -> None:
    """Throw away messages that could not be written to stderr, or the interpreter's last try changes the exit code."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stderr.fileno())
            os.close(null)
            sys.stderr.flush()


def require_output() -> None:
    """Raise OSError where nothing can be written to stdout, before something is done whose result is shown once."""
    with contextlib.suppress(ValueError):
        os.write(sys.stdout.fileno(), b"")


def output_fails() -> bool:
    """Whether what was written to stdout so far cannot be: it is flushed for that."""
    try:
        sys.stdout.flush()
        require_output()
    except (OSError, ValueError):
        return True
    return False
