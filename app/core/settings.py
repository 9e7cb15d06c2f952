"""Settings: defaults < sightline.toml < SIGHTLINE_* variables < command-line flags, in one frozen object."""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from platformdirs import user_config_path, user_data_path

from app.core.hosts import HostList, TrustedProxies

CONFIG_NAME = "sightline.toml"
ENV_PREFIX = "SIGHTLINE_"
MAX_CONFIG_BYTES = 1 << 20
_NUMBERS: dict[str, tuple[Callable[[str], int | float], str]] = {
    "int": (int, "an integer"),
    "float": (float, "a number"),
}
CHECKS = ("auto", "off", "mark", "strict", "verify")
PRECISIONS = ("auto", "fp32", "fp16", "bf16")


class SettingsError(Exception):
    """A setting cannot be used: one line that names it, where it was set, and what it may be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a person can set, checked. `load` builds it from files, environment and flags."""

    home: Path = field(
        default=Path(),
        metadata={"help": "folder for everything Sightline keeps", "shown": "the platform's user data folder"},
    )
    backend: str = field(
        default="", metadata={"help": "URL of the vector database", "shown": "faiss:// in the folder `index` of home"}
    )
    collection: str = field(default="default", metadata={"help": "collection to index into and search in"})
    encoder: str = field(
        default="compact", metadata={"help": "encoder of new collections; a search uses the collection's own"}
    )
    device: str = field(
        default="auto",
        metadata={"help": "where the encoder runs: auto, cpu, cuda, cuda:N, mps, coreml, openvino or directml"},
    )
    precision: str = field(default="auto", metadata={"help": "arithmetic of the encoder: auto, fp32, fp16 or bf16"})
    k: int = field(default=10, metadata={"help": "how many results to show"})
    min_relevance: float = field(
        default=0.8,  # `retrieval.relevance.scorer.RELEVANT`; a test compares them, as importing it here takes long
        metadata={"help": "relevance from 0 to 1 that a search by words shows at least; 0 shows everything"},
    )
    model: str = field(
        default="",
        metadata={
            "help": "model that answers: `openai:gpt-4o`, `ollama:qwen2.5vl`, `transformers:PATH`, `offline:smollm2`",
            "shown": "`offline:smollm2` where it is installed",
        },
    )
    model_url: str = field(
        default="",
        metadata={
            "help": "base URL of an OpenAI-compatible or Ollama server; keys only come from the provider's variables",
            "shown": "the provider's own",
        },
    )
    model_vision: str = field(
        default="auto", metadata={"help": "whether the model sees images: auto (by its name), yes or no"}
    )
    model_tools: str = field(
        default="auto",
        metadata={
            "help": "whether the model may search, count and open items itself: auto, where it can call tools, or no"
        },
    )
    check: str = field(
        default="auto",
        metadata={
            "help": "what is done with an answer's sentences: `off`, `mark`, `strict`, `verify`, or `auto`: strict for "
            "the offline model, mark for others"
        },
    )
    verify_model: str = field(
        default="",
        metadata={"help": "model that judges the sentences with `verify`, as `model`", "shown": "the one that answers"},
    )
    rate_limit: str = field(
        default="6000/minute", metadata={"help": "requests that one caller of the service may make; none for no limit"}
    )
    trusted_proxy: str = field(
        default="",
        metadata={
            "help": "proxies, with commas, that tell by X-Forwarded-For and X-Forwarded-Proto where a request of the "
            "service comes from: addresses and networks, as in `127.0.0.1,10.1.0.0/24`",
            "shown": "none: both headers are ignored",
        },
    )
    fetch_hosts: str = field(
        default="",
        metadata={
            "help": "hosts, with commas, from which the service fetches the image at an address that a request "
            "gives: `images.example.org`, or `*.example.org` for all below it",
            "shown": "none: nothing is fetched",
        },
    )
    watch: str = field(
        default="no",
        metadata={
            "help": "whether the service watches the folders that it may index, and keeps its collection in step: "
            "yes or no"
        },
    )
    batch_size: int = field(default=64, metadata={"help": "items encoded and stored at a time while indexing"})
    max_pixels: int = field(
        default=0,
        metadata={
            "help": "pixels that a picture may have at most to be indexed",
            "shown": "300 million for JPEG, which is made smaller while it is decoded; 100 million for others",
        },
    )

    def __repr__(self) -> str:
        from backends.redaction import shown

        # An address may hold a password.
        told = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        told |= {name: shown(told[name]) for name in ("backend", "model_url") if told[name]}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in told.items())})"

    def __post_init__(self) -> None:
        for name, least, most in (("k", 1, 10_000), ("batch_size", 1, 4096), ("max_pixels", 0, 10**10)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise SettingsError(f"{name} must be an integer from {least} to {most}, not {value!r}")
        gate = self.min_relevance
        if isinstance(gate, bool) or not isinstance(gate, int | float) or not 0 <= gate <= 1:
            raise SettingsError(f"min_relevance must be a number from 0 to 1, not {gate!r}")
        for name in ("backend", "collection", "encoder", "device"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise SettingsError(f"{name} must be a non-empty string, not {value!r}")
        for name in ("model", "model_url", "verify_model"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise SettingsError(f"{name} must be a string, not {value!r}")
        if self.model_vision not in ("auto", "yes", "no"):
            raise SettingsError(f"model_vision must be auto, yes or no, not {self.model_vision!r}")
        if self.model_tools not in ("auto", "no"):
            raise SettingsError(f"model_tools must be auto or no, not {self.model_tools!r}")
        if self.watch not in ("yes", "no"):
            raise SettingsError(f"watch must be yes or no, not {self.watch!r}")
        if self.check not in CHECKS:
            raise SettingsError(f"check must be one of {', '.join(CHECKS)}, not {self.check!r}")
        if not re.fullmatch(r"none|[1-9][0-9]{0,8}/(second|minute|hour)", str(self.rate_limit)):
            raise SettingsError(f"rate_limit must be like 100/second, 6000/minute or none, not {self.rate_limit!r}")
        for name, what, parse in (
            ("trusted_proxy", "addresses", TrustedProxies.parse),
            ("fetch_hosts", "names", HostList.parse),
        ):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise SettingsError(f"{name} must be a string of {what} with commas, not {value!r}")
            try:
                parse(value)
            except ValueError as error:
                raise SettingsError(f"{name} {error}") from None
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Self:
        """Settings of this run; of the same key the later wins: user's file, `folder`'s file, environment, flags.

        flags: values by name, None for those not given. env: defaults to the process's. folder: where to look
        for ``sightline.toml``, by default the current one. Raises SettingsError naming key and place.
        """
        env = os.environ if env is None else env
        values: dict[str, Any] = {}
        places: dict[str, str] = {}
        for place, found in (
            *((str(path), _read_file(path)) for path in config_files(folder)),
            ("the environment", _read_env(env)),
            ("the command line", {name: value for name, value in (flags or {}).items() if value is not None}),
        ):
            values |= found
            places |= dict.fromkeys(found, place)
        home = _home(values.get("home"))
        values["home"] = home
        values.setdefault("backend", default_backend(home))
        try:
            return cls(**values)
        except SettingsError as error:
            origin = places.get(str(error).partition(" ")[0])
            raise SettingsError(f"{error} (set in {origin})" if origin else str(error)) from None


def _home(given: Any) -> Path:
    try:
        path = Path(given or user_data_path("sightline", appauthor=False)).expanduser()
    except RuntimeError:
        raise SettingsError("home is not known, as this user has no home folder: set SIGHTLINE_HOME") from None
    try:
        return path.absolute()
    except FileNotFoundError:
        raise SettingsError(
            f"home {path} is relative to the current folder, which is not there any more: change to another one"
        ) from None


def default_backend(home: Path) -> str:
    """The URL of the embedded store under `home`."""
    return "faiss://" + quote((home / "index").as_posix(), safe="/:")


def variable(name: str) -> str:
    """The environment variable that sets the setting `name`."""
    return ENV_PREFIX + name.upper()


def config_files(folder: Path | None = None) -> list[Path]:
    """Where ``sightline.toml`` is looked for; the later one wins."""
    places = []
    # A user without a home folder has no settings there.
    with contextlib.suppress(RuntimeError):
        places.append(user_config_path("sightline", appauthor=False) / CONFIG_NAME)
    # A current folder that was removed has no settings.
    with contextlib.suppress(FileNotFoundError):
        places.append((folder or Path.cwd()) / CONFIG_NAME)
    return places


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise SettingsError(f"{path} is over {MAX_CONFIG_BYTES:,} bytes: that is no settings file")
    try:
        values = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    known = {setting.name for setting in fields(Settings)}
    for name in values:
        if name not in known:
            raise SettingsError(f"{path}: no setting is called {name!r}; known are {', '.join(sorted(known))}")
    if isinstance(values.get("home"), str):
        values["home"] = path.parent / Path(values["home"]).expanduser()
    elif "home" in values:
        raise SettingsError(f"{path}: home must be a string, not {values['home']!r}")
    return values


def _read_env(env: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        name = variable(setting.name)
        text = env.get(name, "").strip()
        if not text:
            continue
        if setting.type in _NUMBERS:
            read, kind = _NUMBERS[str(setting.type)]
            try:
                values[setting.name] = read(text)
            except ValueError:
                raise SettingsError(f"{name} must be {kind}, not {text!r}") from None
        else:
            values[setting.name] = text
    return values
