"""Where encoders compute, and in which precision."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from retrieval.encoders.base import EncoderError
from retrieval.images import available_cores

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def resolve_device(device: str) -> torch.device:
    """Turn auto, cpu, cuda, cuda:N or mps into a device that is there; auto takes a GPU when there is one.

    Raises `EncoderError`.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise EncoderError(f"no device is called {device!r}: use auto, cpu, cuda, cuda:N or mps") from None
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise EncoderError(f"device {device!r} is not supported: use auto, cpu, cuda, cuda:N or mps")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise EncoderError(f"device {device!r} is not there: PyTorch sees {torch.cuda.device_count()} CUDA GPUs")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise EncoderError("device 'mps' is not there: it needs PyTorch on a Mac with an Apple GPU")
    return chosen


def resolve_precision(precision: str, device: torch.device, auto: str = "fp32") -> torch.dtype:
    """Turn auto, fp32, fp16 or bf16 into a dtype that `device` computes in; auto means `auto`.

    Raises `EncoderError`.
    """
    name = auto if precision == "auto" else precision
    if name not in PRECISIONS:
        raise EncoderError(f"no precision is called {precision!r}: use auto, fp32, fp16 or bf16")
    if name == "fp16" and device.type == "cpu":
        raise EncoderError("fp16 needs a GPU: on a CPU use bf16 or fp32")
    return PRECISIONS[name]


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
