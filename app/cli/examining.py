"""Looking over an installation: what is there, what answers, and what to do about the rest. Nothing is changed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from app.core.settings import Settings

FINE, NOTE, WRONG = "ok", "note", "wrong"
WITHIN_S = 3.0
MAX_ANSWER_BYTES = 1 << 20
#: Less than this is too little to index with, and to download an encoder into.
LITTLE_DISK_BYTES = 2 << 30
#: Of each extra that widens what Sightline reads or answers with: a module that it brings, and what for.
EXTRAS = {
    "chat": ("langchain", "answers by a model of a server or a vendor"),
    "offline": ("xllamacpp", "answers by a small model in this process"),
    "openclip": ("open_clip", "any CLIP model, and GPUs"),
    "heic": ("pillow_heif", "photographs of iPhones"),
    "mcp": ("mcp", "tools for assistants"),
    "parquet": ("pyarrow", "export and import"),
    "bench": ("matplotlib", "comparing databases"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is (`FINE`, `NOTE` or `WRONG`), what was seen, and what to do about it if anything."""

    about: str
    state: str
    seen: str
    todo: str | None = None


def examine(settings: Settings) -> Iterator[Finding]:
    """What there is to say, part by part, as it is found: servers and models are each asked for some seconds."""
    yield _python()
    yield _settings()
    for about, look in _PARTS:
        try:
            yield from look(settings)
        except Exception as error:
            # One part's trouble must not hide the others.
            yield Finding(about, WRONG, _line(error))


def _line(error: BaseException) -> str:
    from backends.redaction import redact

    return redact(" ".join(str(error).split())) or type(error).__name__


def _python() -> Finding:
    try:
        version = importlib.metadata.version("sightline")
    except importlib.metadata.PackageNotFoundError:
        version = "run from its sources"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Finding("sightline", FINE, f"{version}, Python {platform.python_version()}, {machine}")


def _settings() -> Finding:
    from app.core.settings import Settings, config_files, variable

    files = [str(path) for path in config_files() if path.is_file()]
    variables = sorted(name for setting in fields(Settings) if (name := variable(setting.name)) in os.environ)
    seen = f"from {', '.join(files + variables)}" if files or variables else "all at their defaults"
    return Finding("settings", FINE, seen)


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not there.is_dir():
        yield Finding("home", WRONG, f"{there} is no folder", "set SIGHTLINE_HOME to one")
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Finding("home", WRONG, f"{there} may not be written", "set SIGHTLINE_HOME to a folder that may")
    else:
        free_bytes = shutil.disk_usage(there).free
        seen = f"{home}{'' if home.exists() else ' (not made yet)'}, {free_bytes / 1e9:.1f} GB of disk left"
        if free_bytes < LITTLE_DISK_BYTES:
            yield Finding("home", NOTE, seen, "make room: an index takes about 3 KB an item, an encoder up to 4 GB")
        else:
            yield Finding("home", FINE, seen)


def _store(settings: Settings) -> Iterator[Finding]:
    """The engine that the setting names, and the collections in it."""
    import backends
    from backends.errors import BackendError
    from backends.redaction import scheme_of, shown
    from backends.registry import canonical

    place = shown(settings.backend)
    scheme = scheme_of(canonical(settings.backend)) or ""
    info = backends.engines().get(scheme)
    if info is None:
        known = ", ".join(sorted(backends.engines()))
        yield Finding("store", WRONG, f"{place}: no engine is called {scheme!r}", f"use one of {known}")
        return
    folder = Path(unquote(urlsplit(canonical(settings.backend)).path)) if info.in_folder else None
    if folder is not None and not folder.exists():
        # Connecting would make it.
        yield from _client(scheme, place)
        yield Finding("store", NOTE, f"{place} is not made yet", "fill it: sightline index FOLDER")
        return
    try:
        with backends.connect(settings.backend) as store:
            names = store.collections()
            yield Finding("store", FINE if names else NOTE, f"{place} answers", None if names else _FILL)
            for name in names:
                spec = store.describe(name)
                yield _collection(name, store.count(name), spec.encoder, settings)
    except (BackendError, ValueError) as error:
        # It says itself what to do.
        yield Finding("store", WRONG, _line(error))


_FILL = "fill it: sightline index FOLDER"


def _client(scheme: str, place: str) -> Iterator[Finding]:
    import backends
    from backends.errors import Unavailable

    try:
        backends.load(scheme)
    except Unavailable as error:
        yield Finding("store", WRONG, f"{place}: {_line(error)}")


def _collection(name: str, items: int, fingerprint: str, settings: Settings) -> Finding:
    from app.cli.context import encoder_name
    from retrieval.encoders.catalogue import may_start

    about = f"collection {name}"
    encoder = encoder_name(fingerprint, settings.home)
    if encoder is None:
        todo = "name it at the first search: --encoder NAME"
        return Finding(about, NOTE, f"{items:,} items; its encoder {fingerprint} was never used on this machine", todo)
    if not may_start(encoder):
        return Finding(about, WRONG, f"{items:,} items; its encoder {encoder} is not here", _how_to_get(encoder))
    return Finding(about, FINE, f"{items:,} items by {encoder}")


def _how_to_get(encoder: str) -> str:
    if encoder.startswith("openclip:"):
        return "pip install 'sightline[openclip]'"
    return f"the first use downloads {encoder}, where there is a connection; docs/encoders.md says how without one"


def _encoder(settings: Settings) -> Iterator[Finding]:
    import onnxruntime

    from retrieval.encoders.catalogue import CATALOGUE, installed, may_start

    name = settings.encoder
    # That of Azure asks a service, and is in every build.
    providers = [each.removesuffix("ExecutionProvider") for each in onnxruntime.get_available_providers()]
    providers = [each for each in providers if each != "Azure"]
    runs = f"ONNX Runtime {onnxruntime.__version__} on {', '.join(providers)}"
    card = next((card for card in CATALOGUE if card.name == name), None)
    if card is not None and not installed(card):
        todo = f"the first use downloads {card.size_bytes / 1e6:,.0f} MB"
        if name.startswith("openclip:") and not may_start(name):
            todo = f"{_how_to_get(name)}; {todo}"
        yield Finding("encoder", NOTE, f"{name} is not here yet; {runs}", todo)
    elif not may_start(name):
        yield Finding("encoder", WRONG, f"{name} is not here; {runs}", _how_to_get(name))
    else:
        yield Finding("encoder", FINE, f"{name}; {runs}")


def _model(settings: Settings) -> Iterator[Finding]:
    """The model that answers questions: whether it is installed, and whether its server answers and has it."""
    from retrieval.llms import OFFLINE, ModelError

    name = settings.model or OFFLINE
    try:
        if name == OFFLINE:
            seen, todo = _offline(), None
        elif name.startswith("transformers:"):
            seen, todo = _in_process(name.partition(":")[2]), None
        else:
            seen, todo = _served(name, settings.model_url)
    except ModelError as error:
        # Whoever only searches needs none.
        yield Finding("model", WRONG if settings.model else NOTE, f"{name}: {_line(error)}")
        return
    yield Finding("model", WRONG if todo else FINE, f"{name}: {seen}", todo)


def _offline() -> str:
    from retrieval.llms import ModelError
    from retrieval.llms.smollm import INSTALL, find_weights

    path = find_weights()
    if importlib.util.find_spec("xllamacpp") is None:
        raise ModelError(f"its weights are here, and llama.cpp is not: {INSTALL}")
    return f"installed, {path.stat().st_size / 1e6:.0f} MB; small and weak, in English; sees no pictures"


def _in_process(path: str) -> str:
    from retrieval.llms import ModelError

    if importlib.util.find_spec("transformers") is None:
        raise ModelError("needs the extra: pip install 'sightline[transformers]'")
    folder = Path(path).expanduser()
    return f"the folder {folder} is here" if folder.is_dir() else "of the hub: the first use looks for it"


def _served(name: str, url: str) -> tuple[str, str | None]:
    """What the model's server says, and what to do where it does not have it."""
    from retrieval.llms import load_model

    # It raises for a package or a key that is missing.
    load_model(name, base_url=url or None)
    provider, _, model = name.partition(":")
    if provider == "ollama":
        base = (url or os.environ.get("OLLAMA_HOST") or "http://127.0.0.1:11434").rstrip("/")
        if "://" not in base:
            base = f"http://{base}" if urlsplit(f"//{base}").port else f"http://{base}:11434"
        address, list_of, key, variable = f"{base}/api/tags", "models", "name", "OLLAMA_API_KEY"
    elif provider == "openai":
        base = (url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1").rstrip("/")
        address, list_of, key, variable = f"{base}/models", "data", "id", "OPENAI_API_KEY"
    else:
        return "its package and key are here; whether it answers shows at the first question", None
    return _listed(address, model, variable, lambda answer: [str(each[key]) for each in answer[list_of]])


def _listed(
    address: str, model: str, variable: str, names_in: Callable[[dict[str, list[dict[str, str]]]], list[str]]
) -> tuple[str, str | None]:
    from backends.redaction import shown

    host = urlsplit(address).netloc
    request = urllib.request.Request(address)  # noqa: S310 - http or https: `load_model` refuses others
    if api_key := os.environ.get(variable):
        # Not to where the server may send on: the key is this one's.
        request.add_unredirected_header("Authorization", f"Bearer {api_key}")
    try:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:  # noqa: S310
            names = names_in(json.loads(answer.read(MAX_ANSWER_BYTES)))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return f"{host} refuses the key", f"set {variable} to one that it takes"
        return f"{host} answers with status {error.code} to {urlsplit(address).path}", "check model_url"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        return f"{shown(address)} does not answer ({_line(reason if isinstance(reason, BaseException) else error)})", (
            "start it, or set model_url to where it runs"
        )
    if model in names or f"{model}:latest" in names:
        return f"{host} has it", None
    has = ", ".join(sorted(names)[:8]) or "none"
    return f"{host} answers, and has no such model", f"set model to one of its own: {has}"


def _extras(settings: Settings) -> Iterator[Finding]:
    del settings
    missing = [name for name, (module, _) in EXTRAS.items() if importlib.util.find_spec(module) is None]
    if not missing:
        yield Finding("extras", FINE, f"{', '.join(EXTRAS)} are installed")
        return
    seen = "; ".join(f"{name}: {EXTRAS[name][1]}" for name in missing)
    yield Finding(
        "extras", NOTE, f"not installed: {seen}", f"pip install 'sightline[{','.join(missing)}]', or what you need"
    )


_PARTS: tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...] = (
    ("home", _home),
    ("encoder", _encoder),
    ("store", _store),
    ("model", _model),
    ("extras", _extras),
)
