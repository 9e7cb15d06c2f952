"""Where model files are on this machine, and how they get there."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.encoders.base import EncoderError

logger = logging.getLogger(__name__)

# A dead hub must not keep anyone waiting: the hub's own client would retry for minutes.
HUB_TIMEOUT_S = 10.0

# What a tokenizer and the configuration of a text tower consist of; never a program.
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_TEXT_FILES = (
    *_VOCABULARIES,
    *("tokenizer.model", "merges.txt", "config.json", "tokenizer_config.json", "special_tokens_map.json"),
)


def cache_folder() -> Path:
    """Sightline's own folder for what can be made again: $SIGHTLINE_HOME, else the user's cache folder."""
    home = os.environ.get("SIGHTLINE_HOME")
    if home:
        return Path(home).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("sightline")


def hub_files(hf_hub: str) -> tuple[str, tuple[str, ...]]:
    """Repository and possible file names, best first, of open_clip's ``org/name/`` or ``org/name/file``."""
    repository, _, name = hf_hub.rpartition("/")
    if not name:
        return repository, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    stem, _, suffix = name.rpartition(".")
    return repository, ((f"{stem}.safetensors", name) if suffix in ("bin", "pth") else (name,))


def check_repository(repository: str) -> None:
    """Raise `EncoderError` for what cannot be the name of a hub repository. Uses no network."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public in its documentation

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise EncoderError(
            f"{repository} cannot be a repository of the hub: "
            "a name there has no -- or .., does not end in -, . or .git, "
            "and has 96 letters at most"
        ) from None


def find_file(repository: str, names: Sequence[str]) -> Path | None:
    """The first of `names` that is here: in `drop_folder` or the hub's cache. Uses no network."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        dropped = drop_folder(repository) / name
        if dropped.is_file():
            return dropped
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    return None


def drop_folder(repository: str) -> Path:
    """Where a person without a connection puts the files of a hub repository."""
    return cache_folder() / "models" / repository


def fetch_file(repository: str, names: Sequence[str]) -> Path:
    """The first of `names` that is here, or that the hub has: downloaded then, with a progress bar.

    Raises `EncoderError` saying which file to put where, `HUB_TIMEOUT_S` after a hub does not answer.
    """
    found = find_file(repository, names)
    if found is not None:
        return found
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    reason = "the hub has no such file"
    for name in names:
        try:
            get_hf_file_metadata(hf_hub_url(repository, name), timeout=HUB_TIMEOUT_S)
            logger.info("downloading %s of %s", name, repository)
            return Path(hf_hub_download(repository, name))
        except EntryNotFoundError as error:
            reason = _reason(error)
        except Exception as error:
            # Offline mode, no connection, a timeout, a gated repository, a full disk: each its own type.
            reason = _reason(error)
            break
    raise EncoderError(_how_to_get(repository, names, reason))


def find_text_folder(repository: str) -> Path | None:
    """The folder with the vocabulary of `repository` if it is here. Uses no network."""
    found = find_file(repository, _VOCABULARIES)
    return found.parent if found else None


def fetch_text_folder(repository: str) -> Path:
    """A folder with the tokenizer and text configuration of `repository`; errors as `fetch_file`."""
    folder = find_text_folder(repository)
    if folder is not None:
        return folder
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        with contextlib.suppress(EntryNotFoundError):
            get_hf_file_metadata(hf_hub_url(repository, "tokenizer.json"), timeout=HUB_TIMEOUT_S)
        return Path(snapshot_download(repository, allow_patterns=list(_TEXT_FILES)))
    except Exception as error:
        names = ("tokenizer.json", "tokenizer_config.json", "config.json")
        raise EncoderError(_how_to_get(repository, names, _reason(error), every=True)) from None


def find_folder(repository: str, names: Sequence[str]) -> Path | None:
    """The folder that a person made for `repository`, or that of the hub's cache with all of `names`."""
    dropped = drop_folder(repository)
    if dropped.is_dir():
        return dropped
    from huggingface_hub import try_to_load_from_cache

    cached = [try_to_load_from_cache(repository, name) for name in names]
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[0]).removesuffix(names[0]))
    return None


def fetch_folder(
    repository: str, names: Sequence[str], last: Sequence[str], *, allow: Sequence[str], ignore: Sequence[str]
) -> Path:
    """A folder that has the files `names` and `last` of `repository`, downloaded if need be, with a progress bar.

    With them comes whatever `allow` matches and `ignore` does not; `last` comes last, so that a folder that has
    these is whole. Raises `EncoderError` saying which files to put where.
    """
    found = find_folder(repository, (*names, *last))
    if found is not None:
        return found
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download

    try:
        get_hf_file_metadata(hf_hub_url(repository, last[0]), timeout=HUB_TIMEOUT_S)
        logger.info("downloading %s", repository)
        snapshot_download(repository, allow_patterns=list(allow), ignore_patterns=[*ignore, *last])
        return Path(snapshot_download(repository, allow_patterns=list(last)))
    except Exception as error:
        raise _not_fetched(repository, (*names, *last), error) from None


def fetch_missing(repository: str, folder: Path, names: Sequence[str]) -> None:
    """Download the files `names` into `folder`, which `fetch_folder` gave; what a person made is left alone.

    Raises `EncoderError` saying which files to put where.
    """
    if not names or folder == drop_folder(repository):
        return
    from huggingface_hub import snapshot_download

    try:
        # The folder of the hub's cache is called by the commit that its files are of.
        snapshot_download(repository, revision=folder.name, allow_patterns=[glob.escape(name) for name in names])
    except Exception as error:
        raise _not_fetched(repository, names, error) from None


def _not_fetched(repository: str, names: Sequence[str], error: Exception) -> EncoderError:
    from huggingface_hub import hf_hub_url

    return EncoderError(
        f"the model's files are not here and cannot be downloaded ({_reason(error)}): on a connected machine get "
        f"{', '.join(names)} of {hf_hub_url(repository, '').partition('/resolve/')[0]}, with what lies "
        f"beside the .onnx files, and put them under these names into {drop_folder(repository)}; "
        "the encoder compact needs no download"
    )


def _reason(error: Exception) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    text = str(error).partition("\n")[0].strip()[:200] or type(error).__name__
    return text if isinstance(error, HfHubHTTPError) else f"no connection to {constants.ENDPOINT}: {text}"


def _how_to_get(repository: str, names: Sequence[str], reason: str, *, every: bool = False) -> str:
    from huggingface_hub import hf_hub_url

    wanted = (" and " if every else " or ").join(hf_hub_url(repository, name) for name in names)
    return (
        f"the model's files are not here and cannot be downloaded ({reason}): on a connected machine get {wanted}, "
        f"and put it into {drop_folder(repository)}; the encoder compact needs no download"
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex, remembered by path, size and time of change.

    Hashing a gigabyte takes seconds, at each start; the memory of it is lost without harm.
    """
    path = path.resolve()
    status = path.stat()
    stamp = [status.st_size, status.st_mtime_ns]
    memory = cache_folder() / "sha256.json"
    known = read_memory(memory)
    entry = known.get(str(path))
    if isinstance(entry, list) and entry[:2] == stamp and len(entry) == 3:
        return str(entry[2])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_memory(memory, {**known, str(path): [*stamp, digest]})
    return digest


def read_memory(memory: Path) -> dict[str, object]:
    """What `write_memory` kept in a file; nothing where there is none, or it is damaged."""
    try:
        known = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def write_memory(memory: Path, known: dict[str, object]) -> None:
    """Keep what can be found out again in a file, where that can be written."""
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, delete=False, encoding="utf-8") as file:
            json.dump(known, file)
        Path(file.name).replace(memory)
    except OSError as error:
        logger.debug("cannot remember what was found out of weights in %s: %s", memory, error)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that describes a model. Raises `EncoderError` for anything else."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise EncoderError(f"{path}: is not a JSON object")
    return value
