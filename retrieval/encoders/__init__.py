"""Encoders by name: ``compact`` (the offline default) and ``openclip:MODEL/PRETRAINED``."""

from __future__ import annotations

from retrieval.encoders.base import Encoder, EncoderError, ImageInput

__all__ = ["DEFAULT_ENCODER", "Encoder", "EncoderError", "ImageInput", "load_encoder"]

DEFAULT_ENCODER = "compact"


def load_encoder(name: str = DEFAULT_ENCODER, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Load the encoder called `name`: ``compact`` or ``openclip:MODEL/PRETRAINED`` (hub tag or local file).

    device: auto, cpu, cuda, cuda:N or mps. precision: auto, fp32, fp16 or bf16. Raises `EncoderError`
    for an unknown name, or weights that are neither here nor downloadable.
    """
    if name == "compact":
        from retrieval.encoders.compact import CompactEncoder

        return CompactEncoder(device=device, precision=precision)
    scheme, separator, rest = name.partition(":")
    if scheme == "openclip" and separator:
        from retrieval.encoders.openclip import OpenClipEncoder

        return OpenClipEncoder(rest, device=device, precision=precision)
    if scheme == "onnx" and separator:
        from retrieval.encoders.onnx_model import OnnxEncoder

        return OnnxEncoder(rest, device=device, precision=precision)
    raise EncoderError(
        f"no encoder is called {name!r}: use compact, or openclip:MODEL/PRETRAINED; see sightline encoders"
    )
