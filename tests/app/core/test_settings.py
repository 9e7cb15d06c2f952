"""Settings: their order, their checks, and where an error says they were set."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

import backends
from app.core.settings import Settings, SettingsError, config_files, default_backend, variable
from backends.base import CollectionSpec


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_later_place_wins(tmp_path: Path) -> None:
    user, here = config_files(tmp_path)
    load = lambda flags=None, env=None: Settings.load(flags, env=env or {}, folder=tmp_path)  # noqa: E731
    assert load().k == 10
    write(user, 'k = 11\ncollection = "user"')
    assert (load().k, load().collection) == (11, "user")
    write(here, "k = 12")
    assert (load().k, load().collection) == (12, "user")
    assert load(env={"SIGHTLINE_K": "13"}).k == 13
    assert load({"k": 14, "collection": None}, {"SIGHTLINE_K": "13"}).k == 14


def test_home_holds_the_default_store(tmp_path: Path) -> None:
    odd = tmp_path / "a b#c%20ü"
    settings = Settings.load({"home": odd}, env={}, folder=tmp_path)
    assert settings.home == odd
    assert settings.backend == default_backend(odd) == Settings.load(env={variable("home"): str(odd)}).backend
    with backends.connect(settings.backend) as backend:
        backend.create(CollectionSpec("default", 4))
    assert (odd / "index").is_dir(), "whatever the path holds, the URL leads back to it"


def test_a_relative_home_in_a_file_is_relative_to_the_file(tmp_path: Path) -> None:
    write(tmp_path / "sightline.toml", 'home = "data"')
    assert Settings.load(env={}, folder=tmp_path).home == tmp_path / "data"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kk = 3", "'kk'"),
        ("k = 'many'", "k must be an integer"),
        ("k = 0", "k must be an integer from 1"),
        ("k = true", "k must be an integer"),
        ("precision = 'fp8'", "precision must be one of auto, fp32, fp16, bf16"),
        ("backend = ''", "backend must be a non-empty string"),
        ("collection = 3", "collection must be a non-empty string"),
        ("home = 3", "home must be a string"),
        ("k = ", "not valid TOML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "sightline.toml", text)
    with pytest.raises(SettingsError) as caught:
        Settings.load(env={}, folder=tmp_path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(SettingsError, match="SIGHTLINE_K must be an integer, not 'x'"):
        Settings.load(env={"SIGHTLINE_K": "x"})
    with pytest.raises(SettingsError, match="set in the environment"):
        Settings.load(env={"SIGHTLINE_PRECISION": "fp8"})
    with pytest.raises(SettingsError, match="set in the command line"):
        Settings.load({"k": -1}, env={})


def test_files_that_cannot_be_settings(tmp_path: Path) -> None:
    (tmp_path / "sightline.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot read"):
        Settings.load(env={}, folder=tmp_path)
    (tmp_path / "sightline.toml").rmdir()
    (tmp_path / "sightline.toml").write_bytes(b"k = 3 # \xff")
    with pytest.raises(SettingsError, match="not valid TOML"):
        Settings.load(env={}, folder=tmp_path)


def test_settings_are_frozen_and_described() -> None:
    settings = Settings.load(env={})
    with pytest.raises(AttributeError):
        settings.k = 3  # type: ignore[misc]
    assert all(setting.metadata["help"] for setting in fields(Settings))
