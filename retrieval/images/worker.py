"""A process that decodes pictures for another: it can be ended, which a thread in a decoder cannot.

Started by `decode_pool` only, as a program of its own that imports Pillow and this package's decoding, nothing else.
It reads requests from standard input and writes answers to standard output, each a length, a JSON head of that
length, and bytes; it ends when its input does, and takes no notice of Ctrl-C, which is for who started it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import struct
import sys
from pathlib import Path
from typing import IO, Any

from retrieval.images.decode import ImageError, planned
from retrieval.images.headers import Header
from retrieval.images.malloc import give_back
from retrieval.images.parts import PartOfFile
from retrieval.images.plan import Wanted

_LENGTH = struct.Struct("<I")
#: Memory over what a picture was counted to take that is let be, before the system refuses more.
_SPARE_BYTES = 256 * 1024 * 1024
_SPARE_S = 1
#: After a picture of this size the freed memory goes back to the system at once; see `pool.KEPT_BYTES`.
_LARGE_BYTES = 16 * 1024 * 1024


def main() -> None:
    """Answer requests until there are no more."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    _few_threads()
    # What a decoder or a library prints must not get between the answers.
    sys.stdout = sys.stderr
    while (request := receive_head(requests)) is not None:
        data = requests.read(request["bytes"])
        head, pixels = _answered(request, data)
        del data
        send(answers, head, pixels)
        del pixels
        if request["peak_bytes"] >= _LARGE_BYTES:
            gc.collect()
            give_back()


def receive_head(stream: IO[bytes]) -> Any:
    """The next message's head; None at the end of the stream, also in the middle of one."""
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    head = stream.read(_LENGTH.unpack(length)[0])
    return json.loads(head) if len(head) == _LENGTH.unpack(length)[0] else None


def send(stream: IO[bytes], head: dict[str, Any], data: bytes) -> None:
    """Write one message."""
    encoded = json.dumps(head).encode()
    stream.write(_LENGTH.pack(len(encoded)) + encoded)
    stream.write(data)
    stream.flush()


def _answered(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    wanted = Wanted(**request["wanted"])
    try:
        _bound(request["peak_bytes"], request["cpu_s"])
        source = PartOfFile(data, request["part"]) if request["part"] else data
        header = Header(*request["header"])
        with planned(source, wanted, max_pixels=request["max_pixels"], header=header) as plan:
            image = plan.decode()
        return {"size": image.size}, image.tobytes()
    except ImageError as error:
        return {"error": str(error)}, b""
    except MemoryError:
        return {"error": f"image of {len(data)} bytes: not enough memory to decode it"}, b""


def _few_threads() -> None:
    """One thread a picture: others are decoded beside it, and each thread has buffers of its own."""
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.options.DECODE_THREADS = 1


def _bound(peak_bytes: int, cpu_s: float) -> None:
    """Have the system end this process past its time, and refuse memory past what was counted with room to spare."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    until_s = int(used.ru_utime + used.ru_stime + cpu_s + _SPARE_S)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    # Not every system takes every limit; who started this one ends it then.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (until_s, hard))
    mapped = _mapped_bytes()
    if mapped is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (mapped + 2 * peak_bytes + _SPARE_BYTES, hard))


def _mapped_bytes() -> int | None:
    """The address space in use, where Linux's /proc tells."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
