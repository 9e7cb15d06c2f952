"""What is known of an open_clip model without loading it: what was found out when it was loaded before."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from retrieval.encoders.checkpoints import Checkpoint
from retrieval.encoders.weights import cache_folder, read_memory, write_memory

_MEMORY = "openclip.json"


class Identity(NamedTuple):
    """What a command that encodes nothing asks of an encoder."""

    fingerprint: str
    dim: int
    context_length: int


def recall_identity(spec: str) -> Identity | None:
    """What `remember_identity` kept of the model `spec`; None for another version of open_clip, or changed files.

    It is as sure as `retrieval.encoders.weights.file_sha256`, which knows an unchanged file by size and time of change.
    The architecture and the preprocessing are of open_clip's version, or of the description beside the weights.
    """
    entry = read_memory(cache_folder() / _MEMORY).get(_key(spec))
    if not isinstance(entry, dict) or not isinstance(files := entry.get("files"), dict) or not files:
        return None
    if any(_stamp(Path(file)) != stamp for file, stamp in files.items()):
        return None
    match [entry.get(field) for field in Identity._fields]:
        case [str(fingerprint), int(dim), int(context_length)]:
            return Identity(fingerprint, dim, context_length)
    return None


def stamps(checkpoint: Checkpoint) -> dict[str, list[int]]:
    """By what the files of `checkpoint` are known to be unchanged, to be asked before they are read."""
    used = [checkpoint.weights]
    if checkpoint.described:
        # Which file of a folder holds the weights follows from what else is there.
        used += [checkpoint.weights.parent, checkpoint.weights.with_name("open_clip_config.json")]
    return {str(file.absolute()): _stamp(file) for file in used}


def remember_identity(spec: str, found: Identity, files: dict[str, list[int]]) -> None:
    """Keep what was found out of the model `spec` by loading it from `files`, which are those of `stamps`."""
    memory = cache_folder() / _MEMORY
    write_memory(memory, {**read_memory(memory), _key(spec): {**found._asdict(), "files": files}})


def _key(spec: str) -> str:
    """The model's name, with the place of a file or folder that it names from where the program runs."""
    path = Path(spec.partition(":" if spec.startswith("local-dir:") else "/")[2]).expanduser()
    return json.dumps([metadata.version("open_clip_torch"), spec, str(path.absolute()) if path.exists() else ""])


def _stamp(file: Path) -> list[int]:
    """By what an unchanged file is known; nothing of one that is not there."""
    try:
        status = file.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
