"""Networks as lists of operations, written as ONNX models and run by ONNX Runtime.

The few fields of ONNX that `compact` needs are written here, in some sixty lines of protocol buffers. The package
onnx would do it too, for 25 MB more on disk and 0.05 s of a processor at each start.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.onnx_session import open_session, session_options

# The version of ONNX's operators that the graphs are written in, and of its file format.
_OPSET, _IR_VERSION = 20, 9
# ONNX Runtime's own operators, of which attention is taken.
RUNTIME_DOMAIN = "com.microsoft"
# Numbers of ONNX's enumeration of element types, as the operator Cast takes them.
FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
_ELEMENT_TYPES = {"float32": FLOAT, "uint8": UINT8, "int8": INT8, "int32": INT32, "int64": INT64}
# A constant up to this size is written into the model, where the optimizer sees it; a larger one is handed over as
# it lies in memory.
_INLINE_BYTES = 1024

Attribute: TypeAlias = int | float | str | Sequence[int]
Shape: TypeAlias = Sequence[int | str]


@dataclass(frozen=True)
class Node:
    """One operation of ONNX: `output` is what `operator` makes of `inputs`."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]
    domain: str


@dataclass
class Graph:
    """A network under construction. Values are known by the names that the methods give back."""

    inputs: dict[str, tuple[str, Shape]] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def input(self, name: str, dtype: str, shape: Shape) -> str:
        """Declare what is fed at each run; a dimension that may vary has a name instead of a number."""
        self.inputs[name] = (dtype, shape)
        return name

    def constant(self, array: NDArray[Any]) -> str:
        """Take a weight, as it is: nothing is copied."""
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Attribute) -> str:
        """Append an operation and name its output."""
        output = f"v{len(self.nodes)}"
        self.nodes.append(Node(operator, inputs, output, attributes, domain))
        return output

    def give(self, name: str, value: str) -> None:
        """Make `value` an output of the network, called `name`."""
        self.nodes.append(Node("Identity", (value,), name, {}, ""))
        self.outputs.append(name)

    def to_bytes(self) -> bytes:
        """The network as an ONNX model, whose large constants are only named in it."""
        parts = [_message(1, _node(node)) for node in self.nodes]
        parts += [_message(2, b"compact")]
        parts += [_message(5, _tensor(name, array)) for name, array in self.constants.items()]
        parts += [_message(11, _value(name, *described)) for name, described in self.inputs.items()]
        parts += [_message(12, _message(1, name.encode())) for name in self.outputs]
        domains = (("", _OPSET), (RUNTIME_DOMAIN, 1))
        versions = [_message(8, _message(1, name.encode()) + _number(2, version)) for name, version in domains]
        return _number(1, _IR_VERSION) + _message(7, b"".join(parts)) + b"".join(versions)


class Runner(Protocol):
    """What runs a graph: `Network` here, or torch."""

    def run(self, **inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """The graph's outputs for its inputs, in the order in which the graph gave them."""
        ...


class Network:
    """A graph that is ready to run, on the thread that calls it. Thread-safe; holds no thread of its own."""

    def __init__(self, graph: Graph) -> None:
        import onnxruntime

        options = session_options(threads=1)
        large = {name: array for name, array in graph.constants.items() if array.nbytes > _INLINE_BYTES}
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in large.values()]
        options.add_external_initializers(list(large), values)
        self._session = open_session(graph.to_bytes(), options=options)
        # The session reads them where they are.
        self._kept = values

    def run(self, **inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """The network's outputs for its inputs, in the order in which the graph gave them."""
        outputs: list[NDArray[np.float32]] = self._session.run(None, inputs)
        return outputs


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _number(key: int, value: int) -> bytes:
    return _varint(key << 3) + _varint(value)


def _message(key: int, content: bytes) -> bytes:
    return _varint(key << 3 | 2) + _varint(len(content)) + content


def _node(node: Node) -> bytes:
    parts = [_message(1, name.encode()) for name in node.inputs]
    parts += [_message(2, node.output.encode()), _message(4, node.operator.encode())]
    parts += [_message(5, _attribute(name, value)) for name, value in node.attributes.items()]
    return b"".join([*parts, _message(7, node.domain.encode())])


def _attribute(name: str, value: Attribute) -> bytes:
    head = _message(1, name.encode())
    if isinstance(value, float):
        return head + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, 1)
    if isinstance(value, int):
        return head + _number(3, value) + _number(20, 2)
    if isinstance(value, str):
        return head + _message(4, value.encode()) + _number(20, 3)
    return head + b"".join(_number(8, item) for item in value) + _number(20, 7)


def _tensor(name: str, array: NDArray[Any]) -> bytes:
    head = b"".join(_number(1, size) for size in array.shape)
    head += _number(2, _ELEMENT_TYPES[array.dtype.name]) + _message(8, name.encode())
    if array.nbytes <= _INLINE_BYTES:
        return head + _message(9, array.tobytes())
    # The value of "location" is never read: the session is given the constant under its name.
    return head + _message(13, _message(1, b"location") + _message(2, b"memory")) + _number(14, 1)


def _value(name: str, dtype: str, shape: Shape) -> bytes:
    sizes = b"".join(
        _message(1, _number(1, size) if isinstance(size, int) else _message(2, size.encode())) for size in shape
    )
    tensor = _number(1, _ELEMENT_TYPES[dtype]) + _message(2, sizes)
    return _message(1, name.encode()) + _message(2, _message(1, tensor))
