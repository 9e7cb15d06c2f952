"""Any CLIP model that was exported to ONNX as an encoder, without torch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders.base import EncoderError, ImageInput
from retrieval.encoders.onnx_layout import IMAGE_TOWER, TEXT_TOWER, locate
from retrieval.encoders.onnx_session import choose_onnx_device, open_session, session_options
from retrieval.encoders.token_ids import TokenReader
from retrieval.images.decode import ImageError, available_cores, map_images

if TYPE_CHECKING:
    import onnxruntime

T = TypeVar("T")

# Rows per run: on a CPU more bring nothing (ViT-B-32, two cores), a GPU wants to be filled.
_BATCH_CPU, _BATCH_GPU = 8, 64
_TYPES: dict[str, type[np.generic]] = {
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class OnnxEncoder:
    """Images and texts by the two towers of an exported model; see `retrieval.encoders.base.Encoder`.

    spec: what follows ``onnx:``, as `retrieval.encoders.onnx_layout.locate` reads it. device: see
    `retrieval.encoders.onnx_session.choose_onnx_device`. precision is that of the files: only auto is taken.
    Pictures are prepared as open_clip prepares them, to the bit, and texts are its tokens. A tower is loaded
    when it is first used. Texts longer than the model's context are cut, which is logged once. Raises `EncoderError`.
    """

    def __init__(self, spec: str, *, device: str = "auto", precision: str = "auto") -> None:
        if precision != "auto":
            raise EncoderError(f"precision {precision} is not for onnx: models, whose files have their own: use auto")
        self.device = choose_onnx_device(device)
        files = locate(spec)
        self.name, self.dim, self.fingerprint = files.name, files.dim, files.fingerprint
        self.context_length = files.text.context_length
        self._prepare = files.preprocessing
        self._tokens = TokenReader(files.name, files.tokenizer, files.text)
        self._batch = _BATCH_CPU if self.device == "cpu" else _BATCH_GPU
        self._image_tower = _Tower(files.folder / IMAGE_TOWER, self.device, self.dim)
        self._text_tower = _Tower(files.folder / TEXT_TOWER, self.device, self.dim)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32 rows of unit length, in the order given; n may be 0."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("encode_texts takes a sequence of strings")
        return self._stack(self._text_tower(*self._tokens(part)) for part in _in_parts(texts, self._batch))

    def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        """(n, dim) float32 rows of unit length, in the order given; n may be 0.

        Paths are decoded in threads as `retrieval.images.decode.load_image` does; raises the first `ImageError`.
        """
        if isinstance(images, str | Path | Image.Image):
            raise TypeError("encode_images takes a sequence of images")
        # A whole batch is decoded ahead, so that the next is ready when the tower has done this one.
        ahead = max(self._batch, 2 * available_cores())
        with contextlib.closing(map_images(images, self._prepare, prefetch=ahead)) as prepared:
            return self._stack(
                self._image_tower(np.stack(part)) for part in _in_parts(_or_raise(prepared), self._batch)
            )

    def _stack(self, rows: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        stacked = np.concatenate([np.empty((0, self.dim), np.float32), *rows])
        if not np.isfinite(stacked).all():
            raise EncoderError(f"{self.name}: gives no finite vectors on device {self.device}: try --device cpu")
        stacked /= np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), np.float32(1e-12))
        return stacked


class _Tower:
    """One graph, loaded when it is first run. Thread-safe."""

    def __init__(self, model: Path, device: str, dim: int) -> None:
        self._model, self._device, self._dim = model, device, dim
        self._loading = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None

    def __call__(self, *arrays: NDArray[np.generic]) -> NDArray[np.float32]:
        """The rows for a batch; `arrays` are its inputs, of which a graph takes the first or all.

        A mask comes second among `arrays`, wherever the graph has it.
        """
        session = self._opened()
        wanted = sorted(session.get_inputs(), key=lambda given: "mask" in given.name.lower())
        feed = {
            given.name: array.astype(_TYPES[given.type], copy=False)
            for given, array in zip(wanted, arrays, strict=False)
        }
        # Immich's graphs are made for one row, ours for any number.
        rows = wanted[0].shape[0]
        step = rows if isinstance(rows, int) else len(arrays[0])
        parts = [
            session.run(None, {name: array[start : start + step] for name, array in feed.items()})[0]
            for start in range(0, len(arrays[0]), step)
        ]
        made = np.concatenate(parts).astype(np.float32, copy=False)
        if made.shape != (len(arrays[0]), self._dim):
            raise EncoderError(f"{self._model}: gives vectors of shape {made.shape[1:]}, not of {self._dim} numbers")
        return made

    def _opened(self) -> onnxruntime.InferenceSession:
        with self._loading:
            if self._session is None:
                options = session_options(available_cores())
                session = open_session(self._model, device=self._device, options=options)
                inputs = session.get_inputs()
                if len(inputs) > 2 or not all(given.type in _TYPES for given in inputs):
                    told = ", ".join(f"{given.name} {given.type}" for given in inputs)
                    raise EncoderError(f"{self._model}: is no tower of a CLIP model: its inputs are {told}")
                self._session = session
            return self._session


def _or_raise(prepared: Iterable[NDArray[np.float32] | ImageError]) -> Iterator[NDArray[np.float32]]:
    for item in prepared:
        if isinstance(item, ImageError):
            raise item
        yield item


def _in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    part: list[T] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
