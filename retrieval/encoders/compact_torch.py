"""The towers of `compact` in torch, for GPUs and half precision: the same graphs, one operation after another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from retrieval.encoders.compact_graph import FLOAT, INT32, Graph, Node

Tensor: TypeAlias = torch.Tensor

_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CASTS = {FLOAT: torch.float32, INT32: torch.int32}


class TorchNetwork:
    """Runs a graph of `compact` on a torch device. Thread-safe.

    precision: fp32, fp16 or bf16; what goes in and comes out is float32 whatever it is.
    """

    def __init__(self, graph: Graph, device: str, precision: str) -> None:
        self._graph = graph
        self._device = device
        self._dtype = _PRECISIONS[precision]
        # Copied: an array over a file may not be written to, which torch has no name for.
        self._constants = {name: self._moved(np.array(array)) for name, array in graph.constants.items()}
        # What each node is the last to read: kept longer, every activation of a batch would fill the device.
        last = {name: at for at, node in enumerate(graph.nodes) for name in node.inputs}
        self._spent: list[list[str]] = [[] for _ in graph.nodes]
        for name, at in last.items():
            if name and name not in graph.constants and name not in graph.outputs:
                self._spent[at].append(name)
        self._lock = threading.Lock()

    def run(self, **inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """The graph's outputs for its inputs, in the order in which the graph gave them."""
        # One at a time: a GPU is no quicker with two, and their memory would add up.
        with self._lock, torch.inference_mode():
            values = self._constants | {name: self._moved(array) for name, array in inputs.items()}
            for node, spent in zip(self._graph.nodes, self._spent, strict=True):
                operands = [values[name] if name else None for name in node.inputs]
                values[node.output] = _OPERATORS[node.operator](node, *operands)
                del operands
                for name in spent:
                    del values[name]
            return [values[name].float().cpu().numpy() for name in self._graph.outputs]

    def _moved(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)


def _cast(node: Node, values: Tensor) -> Tensor:
    return values.to(_CASTS[node.attributes["to"]])


def _convolve(node: Node, values: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    top, left, bottom, right = node.attributes["pads"]
    padded = functional.pad(values.to(kernels.dtype), (left, right, top, bottom))
    return functional.conv2d(padded, kernels, bias, node.attributes["strides"], groups=node.attributes["group"])


def _attend(node: Node, query: Tensor, key: Tensor, value: Tensor, _bias: None, mask: Tensor) -> Tensor:
    by_head = (*query.shape[:2], node.attributes["num_heads"], -1)
    q, k, v = (part.reshape(by_head).transpose(1, 2) for part in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, mask[:, None, None].bool()).transpose(1, 2).flatten(2)


def _norm(node: Node, values: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.layer_norm(values, scale.shape, scale, bias, node.attributes["epsilon"])


# Those of ONNX's operators that the two towers are made of.
_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda _, a, b: a + b,
    "Cast": _cast,
    "Clip": lambda _, values, least, most: values.clamp(least, most),
    "Concat": lambda _, *parts: torch.cat(parts),
    "Conv": _convolve,
    "Flatten": lambda _, values: values.flatten(1),
    "Gather": lambda _, table, rows: table[rows],
    "Gelu": lambda _, values: functional.gelu(values),
    "Gemm": lambda _, values, weight, bias: functional.linear(values, weight, bias),
    "GlobalAveragePool": lambda _, values: values.mean((2, 3), keepdim=True, dtype=torch.float32),
    "Greater": lambda _, a, b: a > b,
    "Identity": lambda _, values: values,
    "LayerNormalization": _norm,
    "MatMul": lambda _, a, b: a @ b,
    "MultiHeadAttention": _attend,
    "Reshape": lambda _, values, shape: values.reshape(shape.tolist()),
    "Shape": lambda _, values: torch.tensor(values.shape, device=values.device),
    "Squeeze": lambda _, values, axis: values.squeeze(int(axis)),
    "Sub": lambda _, a, b: a - b,
    "Transpose": lambda node, values: values.permute(node.attributes["perm"]),
    "Unsqueeze": lambda _, values, axis: values.unsqueeze(int(axis)),
}
