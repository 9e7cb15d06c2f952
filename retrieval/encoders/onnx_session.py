"""Sessions of ONNX Runtime: on the processor that a device names, with threads that leave other programs alone."""

from __future__ import annotations

import logging
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import EncoderError

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

# What runs a device, and the package that brings it; each of these packages takes the place of `onnxruntime`.
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
}
DEVICES = ("auto", *_PROVIDERS)
# The system that a device needs, as `platform.system` and as people call it.
_SYSTEMS = {"coreml": ("Darwin", "a Mac"), "directml": ("Windows", "Windows")}

# A graph that gives back its input, one float: the least that shows whether a provider starts.
_SMALLEST = (
    b'\x08\x08::\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x04sameZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


def choose_onnx_device(device: str = "auto") -> str:
    """The device for `device` that ONNX Runtime has here: auto takes CUDA where it starts, else the CPU.

    Raises `EncoderError` for a name that is none of DEVICES or cuda:N, and for a provider that is not installed.
    """
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if device == "auto":
        return "cuda" if _PROVIDERS["cuda"][0] in there and _starts("cuda") else "cpu"
    kind = device.partition(":")[0]
    if kind not in _PROVIDERS or not re.fullmatch(r"[a-z]+|cuda:\d+", device):
        raise EncoderError(f"ONNX Runtime has no device {device!r}: use {', '.join(DEVICES)} or cuda:N")
    provider, package = _PROVIDERS[kind]
    if provider not in there:
        system, called = _SYSTEMS.get(kind, ("", ""))
        if system and platform.system() != system:
            raise EncoderError(f"device {device} needs ONNX Runtime's {provider}, which needs {called}")
        step = f"pip uninstall onnxruntime, then pip install {package}"
        if package == "onnxruntime":
            step = f"pip install --force-reinstall {package}"
        raise EncoderError(f"device {device} needs ONNX Runtime's {provider}, which is not installed: {step}")
    return device


def _starts(device: str) -> bool:
    """Whether the provider of `device`, which is compiled in, finds its libraries and a processor."""
    try:
        open_session(_SMALLEST, device=device)
    except EncoderError as error:
        logger.warning("%s; the CPU is used", error)
        return False
    return True


def session_options(threads: int = 0) -> onnxruntime.SessionOptions:
    """Options for a session that computes in `threads` threads; 0 for one a core, 1 for the calling thread alone.

    Idle threads sleep: by default they would spin, and take their core from whatever else wants to run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # what is worth a warning there is no matter of a user's
    return options


def open_session(
    model: Path | bytes, *, device: str = "cpu", options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    """A session of `model`, a file or its content, on a `device` that `choose_onnx_device` gave.

    Raises `EncoderError` for what is no ONNX model, and for a device whose provider does not start.
    """
    import onnxruntime

    kind, _, number = device.partition(":")
    provider = _PROVIDERS[kind][0]
    settings: dict[str, Any] = {"device_id": int(number)} if number else {}
    providers = [(provider, settings)] + ([("CPUExecutionProvider", {})] if kind != "cpu" else [])
    what = model.name if isinstance(model, Path) else "the model"
    try:
        session = onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model,
            sess_options=options or session_options(),
            providers=providers,
            enable_fallback=0,  # it would tell of it on standard output, which is the caller's
        )
    except Exception as error:
        # ONNX Runtime has a dozen types of its own, without a common base, for a file that is damaged or absent.
        where = "" if kind == "cpu" else f" on device {device}"
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(f"{what} cannot be loaded by ONNX Runtime{where}: {reason}") from error
    if session.get_providers()[0] != provider:
        # It falls back to the CPU without an error where the provider's own libraries are missing.
        raise EncoderError(f"device {device}: {provider} does not start: its libraries or the processor are missing")
    return session
