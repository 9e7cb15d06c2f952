"""Where encoders compute, and in which precision."""

from __future__ import annotations

import torch

from retrieval.encoders.base import EncoderError

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
