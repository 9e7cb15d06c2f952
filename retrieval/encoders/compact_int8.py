"""`compact-int8`: `compact` with the image tower in eight bits, nearly twice as fast.

How it is done, and what each step is worth, as the lowest and the mean cosine of an image's vector with that of
`compact` on 100 COCO photographs:

- Weights of eight bits, with a scale for each channel, activations of eight bits between fixed bounds: 0.9833, 0.9982.
- Bounds of least squared error in place of the largest values: 0.9842, 0.9982.
- The first block in fp32, which has few weights and most of the error: 0.9928, 0.9991.
- What eight bits change in a channel's mean is given back by its bias: 0.9983, 0.9997. A mean over 81 places makes the
  features, so that errors which differ from place to place hardly count.
- The second block in fp32 as well, for a tenth of the speed: 0.9989, 0.9997.

Left out: the convolutions between stages in fp32 too (0.9988, 0.9998, and another tenth).

ONNX Runtime's own operators are written as they are run, over pictures whose channels lie side by side. As pairs of
operators around each layer in fp32 (QDQ), which its optimizer should fuse, the network ran at half of this speed: a
layer whose input serves another one besides, as all do behind a residual sum, stayed in fp32.

On one core with VNNI the tower has 2.2 times the speed of fp32, and 6 times that of the network in torch (channels
last, batch norms folded); decoding and views included, 1.9 and 5.5 times.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.base import EncoderError
from retrieval.encoders.compact import CompactEncoder
from retrieval.encoders.compact_graph import RUNTIME_DOMAIN, Graph, Network, Node
from retrieval.encoders.compact_image import Classifier

VERSION = 1
DATA_FILE = Path(__file__).with_name("compact_int8.npz")
# How many convolutions are left in fp32: the stem, two of the first block and three of the second.
_FP32_CONVOLUTIONS = 6


@dataclass(frozen=True)
class Calibration:
    """What pictures tell of a network before its activations can have eight bits; see `compact_calibration`.

    lows, highs: (p,) between which values each activation is kept, in the order of `activations`. corrections: for each
    convolution but those in fp32 what is added to the bias of its channels.
    """

    lows: NDArray[np.float32]
    highs: NDArray[np.float32]
    corrections: tuple[NDArray[np.float32], ...]
    pictures_sha256: str = ""


class CompactInt8Encoder(CompactEncoder):
    """`compact` with an image tower of eight bits: texts lie where they do there, images nearly.

    On the CPU only, by ONNX Runtime. Its fingerprint is its own, since its images' vectors are: a collection has
    those of one of the two. Raises `EncoderError` for another device or precision.
    """

    def __init__(self, device: str = "auto", precision: str = "auto") -> None:
        if device not in ("auto", "cpu") or precision != "auto":
            asked = f"device {device}" if device not in ("auto", "cpu") else f"precision {precision}"
            raise EncoderError(f"compact-int8 runs on the CPU and has its own precision, so not {asked}: use compact")
        super().__init__(device="cpu")

    @property
    def name(self) -> str:
        """``compact-int8``."""
        return "compact-int8"

    @property
    def image_space(self) -> str:
        """Identity of the image vectors: all that decides those of `compact`, and the calibration."""
        parts = (super().image_space, *calibration_parts(_calibration()))
        return f"compact-int8:{VERSION}:{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"

    def _image_tower_graph(self) -> tuple[Graph, Classifier]:
        graph, classifier = super()._image_tower_graph()
        return int8_graph(graph, _calibration()), classifier


def calibration_parts(calibration: Calibration) -> tuple[str, ...]:
    """Short names of what is in a calibration, for the fingerprint."""
    arrays = (calibration.lows, calibration.highs, *calibration.corrections)
    return tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)


def activations(graph: Graph) -> dict[str, str]:
    """The values of `graph` that are kept in eight bits, in order, each with the value of the node that computes it.

    They differ where a convolution's output is cut to [0, 6], which eight bits between these bounds do by themselves.
    """
    cut = {node.inputs[0]: node.output for node in graph.nodes if node.operator == "Clip"}
    computed = [node for node in graph.nodes if node.operator in ("Conv", "Add")]
    kept = computed[_FP32_CONVOLUTIONS - 1 :]
    return {cut.get(node.output, node.output): node.output for node in kept}


def int8_graph(graph: Graph, calibration: Calibration, *, end: str = "") -> Graph:
    """The image tower `graph` in eight bits, which takes and gives the same.

    end: one of `activations`, in fp32 and with channels last, to be the output in place of `graph`'s; for calibration.
    """
    writer = _Writer(graph, calibration)
    for node in graph.nodes:
        writer.append(node)
        if node.output == end:
            writer.graph.give("activation", writer.dequantized(end))
            break
    return writer.graph


@dataclass(frozen=True)
class _Value:
    """An activation in eight bits: its name in the new graph, and those of its scale and zero point."""

    name: str
    scale: str
    zero: str
    step: np.float32

    @property
    def operands(self) -> tuple[str, str, str]:
        return self.name, self.scale, self.zero


class _Writer:
    """Appends a tower's nodes to a graph, those behind the first block in eight bits."""

    def __init__(self, graph: Graph, calibration: Calibration) -> None:
        self.graph = Graph(dict(graph.inputs))
        self._constants = graph.constants
        kept = activations(graph)
        self._bounds = dict(zip(kept, zip(calibration.lows, calibration.highs, strict=True), strict=True))
        # The value under which what a node computes is known to the nodes behind it.
        self._known_as = {computed: value for value, computed in kept.items()}
        convolutions = [node.output for node in graph.nodes if node.operator == "Conv"][_FP32_CONVOLUTIONS:]
        self._corrections = dict(zip(convolutions, calibration.corrections, strict=False))
        self._first = next(iter(kept))
        self._in_fp32 = True
        self._values: dict[str, _Value] = {}
        self._floats: dict[str, str] = {}
        self._signed = signed_weights_are_exact()

    def append(self, node: Node) -> None:
        """Add what `node` computes."""
        if self._in_fp32:
            self._copy(node)
        elif node.operator == "Conv":
            self._convolve(node)
        elif node.operator == "Add":
            self._sum(node)
        elif node.operator == "GlobalAveragePool":
            pixels = self.graph.constant(np.array([1, 2], np.int64))
            self._floats[node.output] = self.graph.add(
                "ReduceMean", self.dequantized(node.inputs[0]), pixels, keepdims=0
            )
        elif node.operator == "Identity":
            self.graph.give(node.output, self._floats[node.inputs[0]])
        elif node.operator == "Flatten":
            self._floats[node.output] = self._floats[node.inputs[0]]
        elif node.operator != "Clip":
            raise NotImplementedError(f"{node.operator} in eight bits")

    def dequantized(self, value: str) -> str:
        """An activation in fp32, its channels last."""
        return self.graph.add("DequantizeLinear", *self._values[value].operands)

    def _copy(self, node: Node) -> None:
        operands = [
            self.graph.constant(self._constants[name]) if name in self._constants else self._floats.get(name, name)
            for name in node.inputs
        ]
        output = self.graph.add(node.operator, *operands, domain=node.domain, **node.attributes)
        self._floats[node.output] = output
        if node.output == self._first:
            self._in_fp32 = False
            value = self._kept(node.output)
            channels_last = self.graph.add("Transpose", output, perm=(0, 2, 3, 1))
            self._keep(node.output, value, self.graph.add("QuantizeLinear", channels_last, value.scale, value.zero))

    def _kept(self, known_as: str) -> _Value:
        """How an activation is kept, before it is known what computes it."""
        low, high = (float(bound) for bound in self._bounds[known_as])
        step = np.float32((high - low) / 255)
        zero = np.uint8(np.clip(np.rint(-low / step), 0, 255))
        return _Value("", self.graph.constant(np.array(step)), self.graph.constant(np.array(zero)), step)

    def _keep(self, known_as: str, value: _Value, name: str) -> None:
        self._values[known_as] = _Value(name, value.scale, value.zero, value.step)

    def _convolve(self, node: Node) -> None:
        given = self._values[node.inputs[0]]
        kernels, bias = (self._constants[name] for name in node.inputs[1:])
        corrected = bias + self._corrections.get(node.output, np.float32(0))
        narrow, steps = _narrow(kernels, corrected, given.step)
        zeros = np.zeros(len(steps), np.int8)
        if not self._signed:
            narrow, zeros = (narrow.astype(np.int16) + 128).astype(np.uint8), np.full(len(steps), 128, np.uint8)
        weights = [self.graph.constant(array) for array in (narrow, steps, zeros)]
        whole = self.graph.constant(np.rint(corrected / (steps * given.step)).astype(np.int32))
        known_as = self._known_as[node.output]
        value = self._kept(known_as)
        operands = (*given.operands, *weights, value.scale, value.zero, whole)
        name = self.graph.add("QLinearConv", *operands, domain=RUNTIME_DOMAIN, channels_last=1, **node.attributes)
        self._keep(known_as, value, name)

    def _sum(self, node: Node) -> None:
        value = self._kept(node.output)
        operands = [part for name in node.inputs for part in self._values[name].operands]
        name = self.graph.add("QLinearAdd", *operands, value.scale, value.zero, domain=RUNTIME_DOMAIN)
        self._keep(node.output, value, name)


def _narrow(
    kernels: NDArray[np.float32], bias: NDArray[np.float32], step: np.float32
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Kernels as whole numbers from -127 to 127, and what one of them is worth in each channel."""
    largest = np.abs(kernels).max(axis=(1, 2, 3)) / 127
    # A channel that is never on has kernels near 0 and a large bias, which is counted in 32 bits.
    steps = np.maximum(np.maximum(largest, 1e-6), np.abs(bias) / step / 2**30).astype(np.float32)
    return np.rint(kernels / steps[:, None, None, None]).astype(np.int8), steps


@lru_cache(maxsize=1)
def signed_weights_are_exact() -> bool:
    """Whether this processor multiplies bytes with signed bytes exactly.

    x86 without VNNI adds two such products in 16 bits, which do not hold them. There the weights are handed over
    unsigned: the numbers are the same, and with VNNI, which has no such products, it takes 2.5 times as long.
    """
    graph = Graph()
    large = graph.input("large", "uint8", (1, 1, 1, 64))
    one, zero = graph.constant(np.array(1, np.float32)), graph.constant(np.array(0, np.uint8))
    weights = graph.constant(np.full((16, 64, 1, 1), 127, np.int8))
    ones, zeros = graph.constant(np.ones(16, np.float32)), graph.constant(np.zeros(16, np.int8))
    step = graph.constant(np.array(255 * 127 * 64 / 200, np.float32))
    operands = (large, one, zero, weights, ones, zeros, step, zero)
    made = graph.add("QLinearConv", *operands, domain=RUNTIME_DOMAIN, channels_last=1)
    graph.give("products", graph.add("DequantizeLinear", made, one, zero))
    (products,) = Network(graph).run(large=np.full((1, 1, 1, 64), 255, np.uint8))
    return bool((products == 200).all())


def load_calibration(path: Path = DATA_FILE) -> Calibration:
    """Read the shipped data file."""
    with np.load(path, allow_pickle=False) as data:
        ends = np.cumsum(data["channels"])[:-1]
        return Calibration(
            lows=data["lows"],
            highs=data["highs"],
            corrections=tuple(np.split(data["corrections"].astype(np.float32), ends)),
            pictures_sha256=str(data["pictures_sha256"]),
        )


@lru_cache(maxsize=1)
def _calibration() -> Calibration:
    return load_calibration()
