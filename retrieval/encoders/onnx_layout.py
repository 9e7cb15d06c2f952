"""The files of a model that ``onnx:`` names: where they are, whether they are whole, and what they say of themselves.

The layout is that in which Immich publishes CLIP models on the hub, so that one reader serves both; an export adds
a manifest.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from retrieval.encoders.base import EncoderError
from retrieval.encoders.preprocess import Preprocessing
from retrieval.encoders.token_ids import TextSettings, load_tokenizer, text_settings
from retrieval.encoders.weights import (
    check_repository,
    fetch_folder,
    fetch_missing,
    file_sha256,
    find_folder,
    read_object,
)

CONFIG = "config.json"
PREPROCESSING = "visual/preprocess_cfg.json"
IMAGE_TOWER = "visual/model.onnx"
TOKENIZER = "textual/tokenizer.json"
TOKENIZER_CONFIG = "textual/tokenizer_config.json"
TEXT_TOWER = "textual/model.onnx"
DESCRIPTIONS = (CONFIG, PREPROCESSING, TOKENIZER, TOKENIZER_CONFIG)
TOWERS = (IMAGE_TOWER, TEXT_TOWER)
#: Written last by an export: what it was made of, its fingerprint, and the hash of each file that decides the vectors.
MANIFEST = "sightline.json"
MANIFEST_FORMAT = 1

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Of the hub's files those of other runtimes are left there.
_FETCHED = ("config.json", "visual/*", "textual/*")
_LEFT = ("*/*/*", "*.armnn", "*.rknn")

# Where ONNX's messages hold tensors: the numbers of fields, and what they hold. (Reading them so needs no package.)
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


@dataclass(frozen=True)
class OnnxFiles:
    """A model's folder and what its descriptions say. `name` chooses it again, wherever one then is.

    tokenizer: that of the folder, loaded: in a multilingual model it takes a second.
    """

    name: str
    folder: Path
    dim: int
    preprocessing: Preprocessing
    text: TextSettings
    tokenizer: Any
    fingerprint: str


def locate(spec: str) -> OnnxFiles:
    """Find the model that `spec` names, a folder or ``OWNER/NAME`` on the hub, downloaded if need be.

    Raises `EncoderError` saying which file is missing or damaged and, for the hub, which to put where.
    """
    folder = Path(spec).expanduser()
    if spec and folder.is_dir():
        return describe(folder.resolve(), f"onnx:{folder.resolve()}")
    if not _REPOSITORY.fullmatch(spec):
        raise EncoderError(
            f"no folder {folder.absolute()}: onnx: names a folder of an export, or OWNER/NAME on the hub"
        )
    try:
        check_repository(spec)
        fetched = fetch_folder(spec, DESCRIPTIONS, TOWERS, allow=_FETCHED, ignore=_LEFT)
    except EncoderError as error:
        raise EncoderError(f"no folder {spec} here, and {error}") from None
    # Which weights lie in folders of their own, only the towers say.
    fetch_missing(spec, fetched, _missing(fetched))
    return describe(fetched, f"onnx:{spec}")


def is_here(repository: str) -> bool:
    """Whether the hub's model starts without a download. Uses no network."""
    folder = find_folder(repository, (*DESCRIPTIONS, *TOWERS))
    try:
        return folder is not None and not _missing(folder)
    except EncoderError:
        return False


def describe(folder: Path, name: str) -> OnnxFiles:
    """Read the descriptions in `folder`, and compare its files with the manifest where there is one.

    Files that the model does not use do not matter. Raises `EncoderError` naming the file that is wrong.
    """
    missing = _missing(folder)
    if missing:
        raise EncoderError(f"{folder}: is no exported model: it has no {', no '.join(missing)}")
    config = read_object(folder / CONFIG)
    preprocessing = Preprocessing.of(read_object(folder / PREPROCESSING))
    text_config = config.get("text_cfg", {})
    dim = config.get("embed_dim")
    if not isinstance(dim, int) or not isinstance(text_config, dict):
        raise EncoderError(f"{folder / CONFIG}: is not the description of an open_clip model: it needs embed_dim")
    tokenizer = load_tokenizer(folder / TOKENIZER)
    text = text_settings(text_config, tokenizer, folder / TOKENIZER_CONFIG)
    hashes = hash_files(folder)
    fingerprint = _manifest_fingerprint(folder, hashes) or own_fingerprint(hashes)
    return OnnxFiles(name, folder, dim, preprocessing, text, tokenizer, fingerprint)


def _missing(folder: Path) -> list[str]:
    missing = [file for file in (*DESCRIPTIONS, *TOWERS) if not (folder / file).is_file()]
    return missing or [file for file in _weights(folder) if not (folder / file).is_file()]


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that decides the vectors: descriptions, towers, and the weights that these name."""
    return {file: _hash(folder / file) for file in (*DESCRIPTIONS, *TOWERS, *_weights(folder))}


def own_fingerprint(hashes: dict[str, str]) -> str:
    """Names the vector space of files that belong to no other."""
    return f"onnx:{hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:32]}"


def _weights(folder: Path) -> list[str]:
    """The files in which the towers' graphs say that their weights lie; raises for one outside of `folder`."""
    named = set()
    for tower in TOWERS:
        for location in _locations(folder / tower):
            windows = PureWindowsPath(location)
            if windows.drive or windows.root or ".." in windows.parts or "\0" in location or not windows.name:
                raise EncoderError(f"{folder / tower}: names weights outside of its folder: {location!r}")
            named.add((PurePosixPath(tower).parent / location).as_posix())
    for file in named:
        _check_inside(folder, file)
    return sorted(named)


def _check_inside(folder: Path, file: str) -> None:
    """Refuse what links lead out of `folder`; the hub's cache is made of links to the blobs beside its snapshots."""
    real = folder.resolve()
    places = [real]
    if real.parent.name == "snapshots" and real.parents[1].name.startswith("models--"):
        places.append(real.parents[1] / "blobs")
    try:
        target = (folder / file).resolve()
    except (OSError, RuntimeError, ValueError):
        target = None
    if target is None or not any(target.is_relative_to(place) for place in places):
        raise EncoderError(f"{folder}: its file {file!r} lies outside of this folder: put the file itself there")


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read: {error.strerror or error}") from None


def _locations(model: Path) -> set[str]:
    """The files that the graph `model` names for its tensors, relative to it.

    What is no ONNX graph names none: ONNX Runtime refuses it when it is loaded.
    """
    found: set[str] = set()
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            waiting = [("model", range(len(data)))]
            while waiting:
                kind, place = waiting.pop()
                if kind == "tensor":
                    found.update(_location(data, place))
                    continue
                parts = _PARTS[kind]
                waiting += [
                    (parts[field], value)
                    for field, value in _fields(data, place)
                    if field in parts and isinstance(value, range)
                ]
    except OSError as error:
        raise EncoderError(f"{model}: cannot be read: {error.strerror or error}") from None
    except ValueError:
        return set()
    return found


def _location(data: mmap.mmap, tensor: range) -> Iterator[str]:
    """The file of a tensor whose numbers do not lie in the graph (data_location is EXTERNAL, 1)."""
    entries, outside = [], False
    for field, value in _fields(data, tensor):
        if field == 14:
            outside = value == 1
        elif field == 13 and isinstance(value, range):
            entries.append(value)
    for entry in entries if outside else ():
        pair = {
            field: data[value.start : value.stop] for field, value in _fields(data, entry) if isinstance(value, range)
        }
        if pair.get(1) == b"location":
            yield os.fsdecode(pair.get(2, b""))


def _fields(data: mmap.mmap, place: range) -> Iterator[tuple[int, int | range]]:
    """The fields of a protobuf message: each its number, and a number or where its content lies.

    Raises `ValueError` for what is no message.
    """
    at, end = place.start, place.stop
    while at < end:
        tag, at = _varint(data, at, end)
        if tag & 7 == 0:
            value, at = _varint(data, at, end)
            yield tag >> 3, value
        elif tag & 7 == 2:
            size, at = _varint(data, at, end)
            start, at = at, at + size
            if at > end:
                raise ValueError("a field is longer than its message")
            yield tag >> 3, range(start, at)
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError("no such kind of field")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number does not end")


def _manifest_fingerprint(folder: Path, hashes: dict[str, str]) -> str | None:
    """What the manifest says, once all files are those that it was written for; None without one."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = read_object(path)
    if manifest.get("format") != MANIFEST_FORMAT or not isinstance(manifest.get("fingerprint"), str):
        raise EncoderError(f"{path}: was written by another version: export the model again")
    named = manifest.get("files")
    if not isinstance(named, dict):
        raise EncoderError(f"{path}: does not say which files were exported: export the model again")
    for file in (*hashes, *named):
        if file not in hashes:
            _check_inside(folder, file)
            if not (folder / file).is_file():
                raise EncoderError(f"{folder / file}: is missing, and was exported: export the model again")
        if named.get(file) != (hashes.get(file) or _hash(folder / file)):
            raise EncoderError(f"{folder / file}: is not the file that was exported: export the model again")
    return str(manifest["fingerprint"])
