"""The files of a model that ``onnx:`` names: where they are, whether they are whole, and what they say of themselves.

The layout is that in which Immich publishes CLIP models on the hub, so that one reader serves both; an export adds
a manifest.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrieval.encoders.base import EncoderError
from retrieval.encoders.preprocess import Preprocessing
from retrieval.encoders.token_ids import TextSettings, text_settings
from retrieval.encoders.weights import fetch_folder, file_sha256, find_folder

CONFIG = "config.json"
PREPROCESSING = "visual/preprocess_cfg.json"
IMAGE_TOWER = "visual/model.onnx"
TOKENIZER = "textual/tokenizer.json"
TOKENIZER_CONFIG = "textual/tokenizer_config.json"
TEXT_TOWER = "textual/model.onnx"
DESCRIPTIONS = (CONFIG, PREPROCESSING, TOKENIZER, TOKENIZER_CONFIG)
TOWERS = (IMAGE_TOWER, TEXT_TOWER)
#: Written last by an export: what it was made of, its fingerprint, and the hash of each file.
MANIFEST = "sightline.json"
MANIFEST_FORMAT = 1

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# Of the hub's files those of other runtimes are left there.
_FETCHED = ("config.json", "visual/*", "textual/*")
_LEFT = ("*/*/*", "*.armnn", "*.rknn")


@dataclass(frozen=True)
class OnnxFiles:
    """A model's folder and what its descriptions say. `name` chooses it again, wherever one then is."""

    name: str
    folder: Path
    dim: int
    preprocessing: Preprocessing
    text: TextSettings
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
    return describe(fetch_folder(spec, DESCRIPTIONS, TOWERS, allow=_FETCHED, ignore=_LEFT), f"onnx:{spec}")


def is_here(repository: str) -> bool:
    """Whether the hub's model starts without a download. Uses no network."""
    folder = find_folder(repository, (*DESCRIPTIONS, *TOWERS))
    return folder is not None and not _missing(folder)


def describe(folder: Path, name: str) -> OnnxFiles:
    """Read the descriptions in `folder`, and compare its files with the manifest where there is one."""
    missing = _missing(folder)
    if missing:
        raise EncoderError(f"{folder}: is no exported model: it has no {', no '.join(missing)}")
    config = _read(folder / CONFIG)
    preprocessing = Preprocessing.of(_read(folder / PREPROCESSING))
    text_config = config.get("text_cfg", {})
    dim = config.get("embed_dim")
    if not isinstance(dim, int) or not isinstance(text_config, dict):
        raise EncoderError(f"{folder / CONFIG}: is not the description of an open_clip model: it needs embed_dim")
    text = text_settings(text_config, folder / TOKENIZER, folder / TOKENIZER_CONFIG)
    hashes = hash_files(folder)
    fingerprint = _manifest_fingerprint(folder, hashes) or own_fingerprint(hashes, preprocessing, text)
    return OnnxFiles(name, folder, dim, preprocessing, text, fingerprint)


def _missing(folder: Path) -> list[str]:
    return [file for file in (*DESCRIPTIONS, *TOWERS) if not (folder / file).is_file()]


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of the towers, with weights that lie in files beside them, and of the tokenizer."""
    found = sorted(
        path.relative_to(folder).as_posix()
        for tower in ("visual", "textual")
        for path in (folder / tower).iterdir()
        if path.is_file() and path.suffix not in (".json", ".armnn", ".rknn", ".txt", ".md") and path.name[0] != "."
    )
    return {file: file_sha256(folder / file) for file in (*found, TOKENIZER)}


def own_fingerprint(hashes: dict[str, str], preprocessing: Preprocessing, text: TextSettings) -> str:
    """Names the vector space of files that belong to no other."""
    identity = {"files": hashes, "preprocessing": asdict(preprocessing), "text": asdict(text)}
    return f"onnx:{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]}"


def _manifest_fingerprint(folder: Path, hashes: dict[str, str]) -> str | None:
    """What the manifest says, once all files are those that it was written for; None without one."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = _read(path)
    if manifest.get("format") != MANIFEST_FORMAT or not isinstance(manifest.get("fingerprint"), str):
        raise EncoderError(f"{path}: was written by another version: export the model again")
    changed = [file for file, digest in hashes.items() if manifest["files"].get(file) != digest]
    if changed:
        raise EncoderError(f"{folder / changed[0]}: is not the file that was exported: export the model again")
    return str(manifest["fingerprint"])


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise EncoderError(f"{path}: is not a JSON object")
    return value
