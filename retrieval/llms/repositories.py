"""Where the files of a model of transformers are, and how they get there."""

from __future__ import annotations

import re
from pathlib import Path

from retrieval.encoders.weights import HUB_TIMEOUT_S, drop_folder
from retrieval.llms.base import ModelError

# Configuration, vocabularies, chat templates and safe weights; never a program and never a pickle.
_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model", "vocab.txt", "merges.txt"]


def find_model_folder(source: str) -> Path:
    """The folder `source`, or the one holding the files of the hub repository ``organisation/name``.

    Looked for are, in this order, a folder of that name, the one where a person without a connection put the
    repository's files, the hub's cache, and the hub itself, which is given up after `HUB_TIMEOUT_S`.
    Raises `ModelError` saying which files to put where.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _complete(folder)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source):
        raise ModelError(f"no such folder: {folder}; a model of the hub is named transformers:ORGANISATION/NAME")
    dropped = drop_folder(source)
    if dropped.is_dir():
        return _complete(dropped)
    return _from_hub(source)


def _complete(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json: it is not the folder of a model")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds no *.safetensors: other weights can run programs and are not loaded")
    return folder


def _from_hub(repository: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download

    try:
        return _complete(Path(snapshot_download(repository, allow_patterns=_PATTERNS, local_files_only=True)))
    except Exception:  # noqa: S110 - not in the cache, or not whole: the hub is asked
        pass
    try:
        # One short request first: the hub's own client would retry for minutes.
        get_hf_file_metadata(hf_hub_url(repository, "config.json"), timeout=HUB_TIMEOUT_S)
        return _complete(Path(snapshot_download(repository, allow_patterns=_PATTERNS)))
    except ModelError:
        raise
    except Exception as error:
        # Offline mode, no connection, a timeout, a gated or absent repository, a full disk: each its own type.
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
    raise ModelError(
        f"transformers:{repository} is not on this machine and cannot be downloaded ({reason}): put the repository's "
        f"files into {drop_folder(repository)}"
    )
