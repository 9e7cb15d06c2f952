"""Running the command line in this process, and a store with pictures to run it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import backends
from app.main import main
from backends.base import CollectionSpec, Record
from tests.support.toy import PALETTE, ColourEncoder, KeptBackend


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> ColourEncoder:
    """The encoder that every name loads; what was asked for is in its name."""
    model = ColourEncoder()

    def load(name: str = "compact", *, device: str = "auto", precision: str = "auto") -> ColourEncoder:
        if name.startswith("other"):
            return ColourEncoder(name, fingerprint="other:9")
        model.name = name
        return model

    monkeypatch.setattr("retrieval.encoders.load_encoder", load)
    return model


@pytest.fixture
def run(
    encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run one command line in `tmp_path` over the store ``kept://``."""
    engine = backends.EngineInfo(
        scheme="kept", backend="tests.support.toy:KeptBackend", example="kept://", summary="for tests"
    )
    monkeypatch.setitem(backends.engines(), "kept", engine)
    monkeypatch.setattr(KeptBackend, "stores", {})
    monkeypatch.setenv("SIGHTLINE_BACKEND", "kept://")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code, captured.out, captured.err)

    return call


def paint(path: Path, colour: str, size: tuple[int, int] = (48, 32)) -> Path:
    """Write a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, PALETTE[colour]).save(path)
    return path


@pytest.fixture
def colours(run: Run, encoder: ColourEncoder, tmp_path: Path) -> Path:
    """The collection ``default`` with a picture and a caption for each of five colours; returns the folder."""
    store = KeptBackend.connect("kept://")
    store.create(CollectionSpec("default", encoder.dim, encoder=encoder.fingerprint))
    for number, colour in enumerate(("red", "green", "blue", "yellow", "black")):
        path = paint(tmp_path / "pictures" / f"{colour}.png", colour)
        text = f"a {colour} square"
        common = {"number": number, "tags": ["flat", colour]}
        image, words = encoder.encode_images([path])[0], encoder.encode_texts([text])[0]
        store.upsert(
            "default",
            [
                Record(f"img-{colour}", image, "image", text, path.as_uri(), common),
                Record(f"txt-{colour}", words, "text", text, path.as_uri(), common),
            ],
        )
    return tmp_path / "pictures"
