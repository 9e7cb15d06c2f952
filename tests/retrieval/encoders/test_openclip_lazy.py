"""An open_clip model that was loaded before is loaded, and torch with it, when it is used; on a small random model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from backends import connect
from retrieval.encoders import EncoderError
from retrieval.encoders.openclip import OpenClipEncoder
from tests.support.cli import paint
from tests.support.repository import ROOT
from tests.support.small_models import make


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found out is kept where only this test looks."""
    monkeypatch.setenv("SIGHTLINE_HOME", str(tmp_path / "home"))


@pytest.fixture
def name(tmp_path: Path) -> str:
    return make("ViT-B-32", tmp_path / "model")


@pytest.fixture
def spec(name: str) -> str:
    return name.removeprefix("openclip:")


def is_loaded(encoder: OpenClipEncoder) -> bool:
    return encoder._towers is not None


def test_the_second_time_it_is_loaded_when_it_is_used(spec: str) -> None:
    first = OpenClipEncoder(spec, device="cpu")
    again = OpenClipEncoder(spec, device="cpu")
    assert (is_loaded(first), is_loaded(again)) == (True, False)
    for what in ("name", "fingerprint", "dim", "context_length"):
        assert getattr(again, what) == getattr(first, what)
    assert not is_loaded(again)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(again.encode_texts, [["a cat"]] * 4))
    assert is_loaded(again)
    for vectors in found:
        np.testing.assert_allclose(vectors, first.encode_texts(["a cat"]), atol=1e-6)


def test_changed_files_are_looked_at_anew(spec: str, tmp_path: Path) -> None:
    first = OpenClipEncoder(spec, device="cpu")
    (weights,) = (tmp_path / "model").rglob("*.bin")
    state = torch.load(weights, weights_only=True)
    torch.save({key: value * 2 for key, value in state.items()}, weights)
    os.utime(weights, (1, 1))
    changed = OpenClipEncoder(spec, device="cpu")
    assert is_loaded(changed)
    assert changed.fingerprint != first.fingerprint


def test_another_description_beside_the_weights_is_read(spec: str, tmp_path: Path) -> None:
    first = OpenClipEncoder(spec, device="cpu")
    (description,) = (tmp_path / "model").rglob("open_clip_config.json")
    known = json.loads(description.read_text())
    known["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    description.write_text(json.dumps(known))
    assert OpenClipEncoder(spec, device="cpu").fingerprint != first.fingerprint


def test_files_that_change_before_the_first_use_are_refused(spec: str, tmp_path: Path) -> None:
    OpenClipEncoder(spec, device="cpu")
    waiting = OpenClipEncoder(spec, device="cpu")
    (weights,) = (tmp_path / "model").rglob("*.bin")
    state = torch.load(weights, weights_only=True)
    torch.save({key: value * 2 for key, value in state.items()}, weights)
    os.utime(weights, (1, 1))
    with pytest.raises(EncoderError, match=r"its files are not those that it had before: run this again$"):
        waiting.encode_texts(["a cat"])
    assert OpenClipEncoder(spec, device="cpu").fingerprint != waiting.fingerprint


@pytest.mark.parametrize("kept", ["{", "[]", '{"%s": 1}', '{"%s": {"files": {}}}', '{"%s": {"files": {"x": []}}}'])
def test_what_was_kept_may_be_lost_or_damaged(kept: str, spec: str, tmp_path: Path) -> None:
    first = OpenClipEncoder(spec, device="cpu")
    memory = tmp_path / "home" / "openclip.json"
    (key,) = json.loads(memory.read_text())
    memory.write_text(kept.replace("%s", json.dumps(key)[1:-1]))
    again = OpenClipEncoder(spec, device="cpu")
    assert is_loaded(again)
    assert again.fingerprint == first.fingerprint


_COMMAND = """
import sys
from app.main import main
code = main(sys.argv[1:])
print("torch" in sys.modules, "open_clip" in sys.modules, code)
"""


@pytest.mark.slow
def test_a_keyword_search_and_an_unchanged_index_run_import_no_torch(name: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for colour in ("red", "green"):
        paint(photos / f"{colour}.png", colour)
        (photos / f"{colour}.txt").write_text(f"something {colour}")
    store = ["--backend", f"faiss://{tmp_path}/store", "--device", "cpu"]

    def run(*arguments: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        return done.stdout.splitlines()[-1].split()

    assert run("index", str(photos), "--encoder", name, *store) == ["True", "True", "0"]
    assert run("index", str(photos), *store) == ["False", "False", "0"]
    assert run("search", "red", "--mode", "keyword", *store) == ["False", "False", "0"]
    assert run("search", "red", *store) == ["True", "True", "0"]
    with connect(f"faiss://{tmp_path}/store") as backend:
        assert backend.count("default") == 4
