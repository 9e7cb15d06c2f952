"""Encoders by name: ``compact`` (the offline default), ``onnx:FOLDER`` and ``openclip:MODEL/PRETRAINED``."""

from __future__ import annotations

from retrieval.encoders.base import Encoder, EncoderError, ImageInput

__all__ = ["DEFAULT_ENCODER", "Encoder", "EncoderError", "ImageInput", "load_encoder"]

DEFAULT_ENCODER = "compact"


def load_encoder(name: str = DEFAULT_ENCODER, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Load the encoder called `name`.

    Args:
        name: ``compact``, or the quicker ``compact-int8``; ``onnx:FOLDER`` or ``onnx:OWNER/NAME``, exported
            models that need no torch; or ``openclip:MODEL/PRETRAINED`` (hub tag or local file).
        device: auto, cpu, cuda or cuda:N; with torch mps too, with ONNX Runtime coreml, openvino and directml.
        precision: auto, fp32, fp16 or bf16; auto alone for ``onnx:``.

    Raises:
        EncoderError: an unknown name, or weights that are neither here nor downloadable.
    """
    if name == "compact":
        from retrieval.encoders.compact import CompactEncoder

        return CompactEncoder(device=device, precision=precision)
    if name == "compact-int8":
        from retrieval.encoders.compact_int8 import CompactInt8Encoder

        return CompactInt8Encoder(device=device, precision=precision)
    scheme, separator, rest = name.partition(":")
    if scheme == "openclip" and separator:
        from retrieval.encoders.openclip import OpenClipEncoder

        return OpenClipEncoder(rest, device=device, precision=precision)
    if scheme == "onnx" and separator:
        from retrieval.encoders.onnx_model import OnnxEncoder

        return OnnxEncoder(rest, device=device, precision=precision)
    raise EncoderError(
        f"no encoder is called {name!r}: use compact, compact-int8, onnx:FOLDER or openclip:MODEL/PRETRAINED; "
        "see sightline encoders"
    )
