"""The command that writes an encoder as ONNX, on a small random model."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.encoders.onnx_model import OnnxEncoder
from tests.support.cli import Run, paint
from tests.support.small_models import make

pytestmark = pytest.mark.slow


def test_export_writes_a_model_that_the_encoder_name_loads(run: Run, tmp_path: Path) -> None:
    name = make("ViT-B-32", tmp_path / "model")
    paint(tmp_path / "photos" / "red.png", "red", (80, 60))
    done = run("encoders", "export", name, "exported", "--photos", "photos", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json["precision"] == "fp32"
    assert min(done.json["image_cosine"], done.json["text_cosine"]) >= 0.9999
    encoder = OnnxEncoder(str(tmp_path / "exported"))
    assert encoder.fingerprint == done.json["fingerprint"]
    again = run("encoders", "export", name, "exported")
    assert (again.code, again.err) == (
        1,
        f"error: {tmp_path}/exported: is there already: name a folder that is new or empty\n",
    )
    told = run("encoders", "export", name, "smaller", "--int8").out.splitlines()
    assert told[0].startswith(f"{name} written to smaller: int8, ")
    assert told[-1] == "use it with --encoder onnx:smaller"


@pytest.mark.parametrize(("photos", "reason"), [("absent", "is no folder"), (".", "has no pictures")])
def test_photos_to_compare_on_must_be_there(photos: str, reason: str, run: Run) -> None:
    done = run("encoders", "export", "openclip:ViT-B-32/openai", "exported", "--photos", photos)
    assert (done.code, done.err) == (2, f"error: --photos {photos}: {reason}\n")
