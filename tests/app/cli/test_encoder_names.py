"""Which name loads the encoder of a collection, as ``encoders.json`` keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli.context import MAX_NAMES, encoder_name, remember_encoder
from retrieval.encoders import load_encoder


@pytest.mark.parametrize("name", ["compact", "compact-int8"])
def test_the_built_in_encoders_are_known_unseen(name: str, home: Path) -> None:
    assert encoder_name(load_encoder(name, device="cpu").fingerprint, home) == name
    assert encoder_name(f"{name}x:1:00", home) is None


def test_the_last_name_used_whose_files_are_here_is_taken(home: Path, tmp_path: Path) -> None:
    model, export = f"openclip:ViT-B-32/{tmp_path}/x.pt", tmp_path / "export"
    export.mkdir()
    remember_encoder("openclip:1", model, home)
    remember_encoder("openclip:1", f"onnx:{export}", home)
    remember_encoder("openclip:2", "openclip:other", home)
    assert encoder_name("openclip:1", home) == f"onnx:{export}"
    export.rmdir()
    assert encoder_name("openclip:1", home) == model
    export.mkdir()
    remember_encoder("openclip:1", model, home)
    assert encoder_name("openclip:1", home) == model
    assert encoder_name("openclip:2", home) == "openclip:other"


def test_where_the_files_of_no_name_are_here_the_last_one_says_what_is_missing(home: Path, tmp_path: Path) -> None:
    for number in range(2):
        remember_encoder("openclip:1", f"onnx:{tmp_path}/gone{number}", home)
    assert encoder_name("openclip:1", home) == f"onnx:{tmp_path}/gone1"


def test_names_are_kept_each_once_and_not_without_end(home: Path) -> None:
    for number in (*range(MAX_NAMES + 3), 5):
        remember_encoder("openclip:1", f"openclip:m/{number}", home)
    (names,) = json.loads((home / "encoders.json").read_text()).values()
    assert len(names) == len(set(names)) == MAX_NAMES
    assert names[:2] == ["openclip:m/5", f"openclip:m/{MAX_NAMES + 2}"]


@pytest.mark.parametrize("kept", ['"a"', "{", '{"openclip:1": 3}', '{"openclip:1": [1]}', "[]"])
def test_a_damaged_file_is_as_none(kept: str, home: Path) -> None:
    home.mkdir()
    (home / "encoders.json").write_text(kept)
    assert encoder_name("openclip:1", home) is None
    remember_encoder("openclip:1", "openclip:m/t", home)
    assert encoder_name("openclip:1", home) == "openclip:m/t"


def test_the_one_name_of_an_earlier_file_is_read(home: Path) -> None:
    home.mkdir()
    (home / "encoders.json").write_text('{"openclip:1": "openclip:m/t"}')
    assert encoder_name("openclip:1", home) == "openclip:m/t"
