"""Which processor an encoder runs on, and in which precision."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from pathlib import Path

from retrieval.encoders.base import EncoderError

PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def choose_device(device: str = "auto") -> str:
    """The torch device for `device`: auto takes CUDA, else Apple's MPS, else the CPU.

    torch is imported only to ask it for a GPU. Raises `EncoderError` for a name that is none of auto, cpu, cuda,
    cuda:N and mps, or a device not here.
    """
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    if device != "auto" and not re.fullmatch(r"mps|cuda(:\d+)?", device):
        raise EncoderError(f"no device is called {device!r}: use auto, cpu, cuda, cuda:N or mps")
    require("torch", f"device {device}")
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
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


def require(module: str, purpose: str) -> None:
    """Raise `EncoderError`, which says how to get it, where a module of the extra openclip is missing."""
    if importlib.util.find_spec(module) is None:
        raise EncoderError(f"{purpose} needs the extra openclip: pip install 'sightline[openclip]'")


# What drivers of NVIDIA and AMD put there, and Windows' subsystem for Linux.
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def _may_have_gpu() -> bool:
    """Whether torch is worth asking for a GPU: importing it takes seconds."""
    if importlib.util.find_spec("torch") is None:
        return False
    on_apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    return on_apple or os.name == "nt" or any(Path(file).exists() for file in _GPU_FILES)
