"""Which processor an encoder runs on, and in which precision."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor, wait

from retrieval.encoders.base import EncoderError
from retrieval.images import available_cores

PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def choose_device(device: str = "auto") -> str:
    """The torch device for `device`: auto takes CUDA, else Apple's MPS, else the CPU.

    Raises `EncoderError` for a name that is none of auto, cpu, cuda, cuda:N and mps, or a device not here.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise EncoderError(f"no device is called {device!r}: use auto, cpu, cuda, cuda:N or mps")
    if device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(device.partition(":")[2] or 0) >= count:
            raise EncoderError(f"device {device} is not here: this machine has {count} usable CUDA devices")
    if device == "mps" and not torch.backends.mps.is_available():
        raise EncoderError("device mps is not here: it needs an Apple GPU")
    return device


def choose_precision(precision: str, device: str) -> str:
    """fp32, fp16 or bf16 for `device`: auto takes fp16 on CUDA and fp32 elsewhere.

    Raises `EncoderError` for another name, and for fp16 on a CPU, whose torch kernels lack it or crawl.
    """
    if precision not in PRECISIONS:
        raise EncoderError(f"no precision is called {precision!r}: use {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "fp16" if device.startswith("cuda") else "fp32"
    if precision == "fp16" and device == "cpu":
        raise EncoderError("precision fp16 is for GPUs: use fp32 or bf16 on the CPU")
    return precision


def one_core_threads() -> ThreadPoolExecutor:
    """Start threads, one for each core that torch may use, in each of which torch computes on one core.

    Small networks are run on several cores this way: with torch's own threads every layer ends in a
    barrier, and one core that is busy elsewhere, with decoding for instance, holds up all of them.
    """
    import torch

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
