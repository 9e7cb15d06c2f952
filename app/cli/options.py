"""The flags that commands share, declared once, and groups of them that a command takes as one parameter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.core.settings import Settings

Backend = Annotated[str | None, typer.Option("--backend", metavar="URL", help="Vector database, e.g. faiss:///dir.")]
Collection = Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Collection to work on.")]
Encoder = Annotated[
    str | None,
    typer.Option("--encoder", metavar="NAME", help="compact, onnx:… or openclip:…; see sightline encoders."),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N, mps, coreml, openvino or directml."),
]
Precision = Annotated[str | None, typer.Option("--precision", metavar="NAME", help="auto, fp32, fp16 or bf16.")]
K = Annotated[int | None, typer.Option("--k", metavar="N", help="How many results.")]
WhereJson = Annotated[
    str | None,
    typer.Option("--where", metavar="JSON", help='Only items that match, e.g. \'{"year": {"$gte": 1990}}\'.'),
]
ModalityName = Annotated[
    str | None,
    typer.Option("--modality", metavar="KIND", help="image, text or any. Default: images, or texts if none match."),
]
Offset = Annotated[int, typer.Option("--offset", metavar="N", help="Skip this many results.")]
Effort = Annotated[
    float | None,
    typer.Option("--effort", metavar="X", help="Search effort over 0 to 1: speed against recall."),
]
Mode = Annotated[
    str,
    typer.Option("--mode", metavar="MODE", help="vector (by meaning), keyword (by words), or hybrid (both)."),
]
Fusion = Annotated[
    str,
    typer.Option("--fusion", metavar="HOW", help="How lists are merged: by what scores are worth, or by ranks."),
]
Diversity = Annotated[
    float,
    typer.Option("--diversity", metavar="X", help="0 to below 1: the more, the less alike the first 100 results are."),
]
GroupDuplicates = Annotated[
    float | None,
    typer.Option("--group-duplicates", metavar="X", help="Fold results of at least this cosine into one, e.g. 0.95."),
]
MinRelevance = Annotated[
    float | None,
    typer.Option("--min-relevance", metavar="X", help="Only what is as relevant as this, from 0 to 1."),
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained results page.")]
Open = Annotated[bool, typer.Option("--open", help="Open the results page in the browser.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Model that answers: openai:gpt-4o, ollama:qwen2.5vl, …"),
]
ModelUrl = Annotated[
    str | None, typer.Option("--model-url", metavar="URL", help="Base URL of an OpenAI-compatible or Ollama server.")
]
ModelVision = Annotated[
    str | None, typer.Option("--model-vision", metavar="WHETHER", help="Whether it sees images: auto, yes or no.")
]
ModelTools = Annotated[
    str | None, typer.Option("--model-tools", metavar="WHETHER", help="Whether it may search itself: auto or no.")
]
Check = Annotated[
    str | None,
    typer.Option("--check", metavar="HOW", help="What is done with each sentence: auto, off, mark, strict or verify."),
]
VerifyModel = Annotated[
    str | None, typer.Option("--verify-model", metavar="NAME", help="Model that judges with --check verify.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Short for --check strict.")]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """A group of flags: each field is one."""


@dataclass(frozen=True, kw_only=True)
class StoreFlags(Flags):
    """Which collection of which store."""

    backend: Backend = None
    collection: Collection = None


@dataclass(frozen=True, kw_only=True)
class EncoderFlags(Flags):
    """Which encoder, and how it computes."""

    encoder: Encoder = None
    device: Device = None
    precision: Precision = None


@dataclass(frozen=True, kw_only=True)
class SearchFlags(EncoderFlags, StoreFlags):
    """Which collection, and the encoder of what is looked for in it or added to it."""


@dataclass(frozen=True, kw_only=True)
class ModelFlags(Flags):
    """Which model answers, and what is done with its answer."""

    model: Model = None
    model_url: ModelUrl = None
    model_vision: ModelVision = None
    model_tools: ModelTools = None
    check: Check = None
    verify_model: VerifyModel = None
    strict: Strict = False


@dataclass(frozen=True, kw_only=True)
class OutputFlags(Flags):
    """Where results go: a page, the browser, JSON; else a table."""

    html: Html = None
    open_page: Open = False
    as_json: Json = False


def load_settings(*groups: Flags, **flags: Any) -> Settings:
    """The settings of this run, over which these flags win. Raises `SettingsError` naming the flag."""
    for group in groups:
        flags |= vars(group)
    if flags.pop("strict", False):
        flags["check"] = "strict"
    return Settings.load(flags)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer takes it: each parameter that is a group of flags is replaced by those flags."""
    groups: dict[str, type[Flags]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and issubclass(group, Flags):
            groups[parameter.name] = group
            parameters += inspect.signature(group, eval_str=True).parameters.values()
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def call(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{flag: given.pop(flag) for flag in inspect.signature(group).parameters})
        command(**given)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
