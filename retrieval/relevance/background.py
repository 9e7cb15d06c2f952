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

__all__ = ["BACKGROUND_LANGUAGES", "background_texts", "background_vectors", "text_language"]

#: The languages that have background queries of their own beside English.
BACKGROUND_LANGUAGES = ("ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "zh", "zh-TW")
# A text in Latin letters whose language cannot be told is judged by some queries of each of these.
_LATIN = ("de", "es", "fr", "it", "nl", "pl", "pt", "tr")
_LATIN_STEP = 4

_log = logging.getLogger(__name__)


def background_texts(language: str = "en") -> list[str]:
    """The built-in background queries in a language, in order; for ``und`` some of each language in Latin letters.

    Of a language that has none, the English ones.
    """
    if language == "und":
        return [
            text
            for first, each in enumerate(_LATIN)
            for text in background_texts(each)[first % _LATIN_STEP :: _LATIN_STEP]
        ]
    name = f"background_{language}.json" if language in BACKGROUND_LANGUAGES else "background.json"
    texts: list[str] = json.loads((files("retrieval.relevance") / name).read_text(encoding="utf-8"))
    return texts


def text_language(encoder: Encoder, text: str) -> str:
    """As which language an encoder reads a text: what its `text_language` says; ``en`` for one that has none."""
    tell = getattr(encoder, "text_language", None)
    return str(tell(text)) if callable(tell) else "en"


def background_vectors(encoder: Encoder, folder: Path | None, language: str = "en") -> NDArray[np.float32]:
    """(m, d) vectors of the background queries in a language, from the folder where they are there; else kept in it.

    Those that the encoder takes for English stand for English queries, and are left out for another language.
    """
    texts = background_texts(language)
    name = hashlib.sha256(json.dumps([encoder.fingerprint, texts]).encode()).hexdigest()[:32]
    path = None if folder is None else folder / f"background-{name}.npz"
    least = len(texts) if language == "en" else 1
    vectors = _read_vectors(path, range(least, len(texts) + 1), encoder.dim)
    if vectors is None:
        if language != "en":
            texts = [text for text in texts if text_language(encoder, text) != "en"]
        vectors = np.asarray(encoder.encode_texts(texts), np.float32)
        _write_vectors(path, vectors)
    return vectors


def _read_vectors(path: Path | None, counts: range, dim: int) -> NDArray[np.float32] | None:
    if path is None:
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            vectors: NDArray[np.float32] = arrays["vectors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    shaped = vectors.ndim == 2 and len(vectors) in counts and vectors.shape[1] == dim
    return vectors if shaped and vectors.dtype == np.float32 and bool(np.isfinite(vectors).all()) else None


def _write_vectors(path: Path | None, vectors: NDArray[np.float32]) -> None:
    if path is None:
        return
    stream = io.BytesIO()
    np.savez(stream, vectors=vectors)
    try:
        write_whole(path, stream.getvalue())
    except OSError as error:
        _log.info("the background queries' vectors cannot be kept in %s: %s", path.parent, error)
