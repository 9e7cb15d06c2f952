"""The built-in background queries, which are about all sorts of things, and their vectors."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.base import Encoder
from retrieval.relevance.sample import write_whole

__all__ = ["background_texts", "background_vectors"]

_log = logging.getLogger(__name__)


def background_texts() -> list[str]:
    """The built-in background queries, in order."""
    texts: list[str] = json.loads((files("retrieval.relevance") / "background.json").read_text(encoding="utf-8"))
    return texts


def background_vectors(encoder: Encoder, folder: Path | None) -> NDArray[np.float32]:
    """(m, d) vectors of the background queries, from the folder where they are there; else kept in it."""
    texts = background_texts()
    name = hashlib.sha256(json.dumps([encoder.fingerprint, texts]).encode()).hexdigest()[:32]
    path = None if folder is None else folder / f"background-{name}.npz"
    vectors = _read_vectors(path, (len(texts), encoder.dim))
    if vectors is None:
        vectors = np.asarray(encoder.encode_texts(texts), np.float32)
        _write_vectors(path, vectors)
    return vectors


def _read_vectors(path: Path | None, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    if path is None:
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            vectors: NDArray[np.float32] = arrays["vectors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    usable = vectors.shape == shape and vectors.dtype == np.float32 and bool(np.isfinite(vectors).all())
    return vectors if usable else None


def _write_vectors(path: Path | None, vectors: NDArray[np.float32]) -> None:
    if path is None:
        return
    stream = io.BytesIO()
    np.savez(stream, vectors=vectors)
    try:
        write_whole(path, stream.getvalue())
    except OSError as error:
        _log.info("the background queries' vectors cannot be kept in %s: %s", path.parent, error)
