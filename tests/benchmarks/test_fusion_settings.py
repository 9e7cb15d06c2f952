"""The benchmark of fusion: what it asks, and that it tells a list that helps from one that harms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import fusion
from benchmarks.fusion import NOT_FOUND, Recall, Settings, margin
from tests.support.toy import PALETTE, ColourEncoder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "images").mkdir()
    lines = []
    for number, (colour, rgb) in enumerate(PALETTE.items()):
        Image.new("RGB", (16 + number, 16), rgb).save(tmp_path / "images" / f"shot{number}.png")
        captions = [f"a {colour} square of paper", f"paper that is {colour} all over"]
        lines.append(json.dumps({"file": f"images/shot{number}.png", "captions": captions}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return Settings(tmp_path, ColourEncoder(), None)


def test_what_is_asked_is_not_stored(settings: Settings) -> None:
    for setting in ("half", "all", "texts"):
        parts = list(settings.parts(setting))
        assert len(parts) == settings.rounds == 2
        for part in parts:
            stored = {r.text for page in part.retriever.backend.scan("relevance") for r in page.records if r.text}
            assert not stored & {each.query for each in part.asked}
            assert bool(stored) == any(each.captioned for each in part.asked)
    assert [each.query for part in settings.parts("names") for each in part.asked] == [
        f"shot{number}" for number in range(len(PALETTE))
    ]


def test_each_way_is_measured(settings: Settings) -> None:
    found = fusion.measure(settings, "names")["names"]
    assert found["keywords"] == Recall(100.0, 100.0)
    assert found["worth"].at_10 == found["vectors"].at_10 == 100.0, "there are fewer than ten"
    assert set(fusion.measure(settings, "half")) == {"half", "half: with a caption", "half: without"}


def test_recall_and_margin() -> None:
    recall = Recall.of(np.array([0, 0, 9, 10, NOT_FOUND]))
    assert (recall.at_1, recall.at_10) == (40.0, 60.0)
    found = {"vectors": Recall(40, 90), "keywords": Recall(50, 60), "worth": Recall(55, 88), "ranks": Recall(0, 0)}
    assert margin(found) == -2
