"""What ``openclip:`` names: an architecture, its weights, and how these want to be run."""

from __future__ import annotations

import difflib
import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval.encoders.base import EncoderError
from retrieval.encoders.weights import fetch_file, hub_files

logger = logging.getLogger(__name__)

_WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz")
# Families trained with QuickGELU, as their files are called.
_QUICK_GELU_FILES = re.compile(r"quick-?gelu|openai|dfn[25]b|metaclip", re.IGNORECASE)
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Checkpoint:
    """A model to build. `source` is what open_clip calls it; `config` its architecture as it will be built."""

    source: str
    config: dict[str, Any]
    weights: Path
    quick_gelu: bool
    preprocess: dict[str, Any] = field(default_factory=dict)

    @property
    def described(self) -> bool:
        """Whether a folder describes architecture, weights and preprocessing together."""
        return self.source.startswith("local-dir:")


def resolve(spec: str) -> Checkpoint:
    """Find what `spec` names, downloading it if need be; raises `EncoderError` saying what is wrong.

    spec: ``MODEL/TAG``, ``MODEL/PATH`` (``ViT-B-32//abs/x.pt``, ``ViT-B-32/./x.pt``), ``hf-hub:org/name``
    or ``local-dir:PATH``.
    """
    if spec.startswith("hf-hub:"):
        repository = spec.removeprefix("hf-hub:")
        if not _REPOSITORY.fullmatch(repository):
            raise EncoderError(f"{repository!r} is not the name of a hub repository: write hf-hub:ORGANISATION/NAME")
        folder = fetch_file(repository, ["open_clip_config.json"]).parent
        fetch_file(repository, hub_files(f"{repository}/")[1])
        return _from_folder(folder)
    if spec.startswith("local-dir:"):
        return _from_folder(Path(spec.removeprefix("local-dir:")).expanduser())
    return _from_registry(spec)


def _from_folder(folder: Path) -> Checkpoint:
    from open_clip.factory import _find_checkpoint_in_dir

    description = folder / "open_clip_config.json"
    try:
        config = json.loads(description.read_text("utf-8"))["model_cfg"]
        complete = {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys()
    except OSError as error:
        raise EncoderError(f"{description}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoderError(f"{description}: not the description of an open_clip model: {error!r}") from None
    if not complete:
        raise EncoderError(f"{description}: model_cfg needs embed_dim, vision_cfg and text_cfg")
    weights = _find_checkpoint_in_dir(folder)
    if weights is None:
        raise EncoderError(f"{folder}: has no weights: put open_clip_model.safetensors there")
    return Checkpoint(f"local-dir:{folder}", config, Path(weights), bool(config.get("quick_gelu")))


def _from_registry(spec: str) -> Checkpoint:
    import open_clip

    model, separator, pretrained = spec.partition("/")
    config = open_clip.get_model_config(model)
    if config is None:
        near = difflib.get_close_matches(model, open_clip.list_models(), n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "open_clip.list_models() has their names"
        raise EncoderError(f"open_clip knows no model {model!r}: {hint}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not separator or not pretrained:
        raise EncoderError(f"openclip:{model} names no weights: add /TAG or /PATH; its tags: {_listed(tags)}")
    if pretrained in tags:
        return _from_tag(model, pretrained, config)
    path = Path(pretrained).expanduser()
    if path.is_file():
        return _from_file(model, path, config)
    if "/" in pretrained or path.suffix in _WEIGHT_SUFFIXES or path.exists():
        raise EncoderError(f"no file with weights at {path.absolute()}")
    raise EncoderError(f"{model} has no weights tagged {pretrained!r}: its tags: {_listed(tags)}")


def _listed(tags: list[str]) -> str:
    return ", ".join(tags) if tags else "none"


def _from_tag(model: str, tag: str, config: dict[str, Any]) -> Checkpoint:
    from open_clip.pretrained import get_pretrained_cfg

    published = get_pretrained_cfg(model, tag)
    built, trained = bool(config.get("quick_gelu")), bool(published.get("quick_gelu"))
    if trained and not built:
        # open_clip itself only warns here and gives wrong vectors; so do its users' collections then.
        logger.info("%s/%s was trained with QuickGELU: it is built with it", model, tag)
        config = {**config, "quick_gelu": True}
    weights = fetch_file(*hub_files(published["hf_hub"]))
    wanted = ("mean", "std", "interpolation", "resize_mode", "fill_color")
    preprocess = {key: published[key] for key in wanted if key in published}
    return Checkpoint(model, config, weights, built or trained, preprocess)


def _from_file(model: str, path: Path, config: dict[str, Any]) -> Checkpoint:
    quick_gelu = bool(config.get("quick_gelu"))
    if not quick_gelu and _QUICK_GELU_FILES.search(path.name):
        logger.warning(
            "%s looks like weights trained with QuickGELU, but %s is built with GELU, which would give wrong "
            "vectors: if so, use %s-quickgelu",
            *(path.name, model, model),
        )
    return Checkpoint(model, config, path, quick_gelu)
