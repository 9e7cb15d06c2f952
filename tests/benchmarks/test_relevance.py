"""The benchmark of relevance: its figures against known ones, and a run over painted squares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import relevance
from benchmarks.captioned import CachingEncoder, Collections, plain
from benchmarks.encoders import read_dataset
from tests.support.cli import paint
from tests.support.toy import PALETTE, ColourEncoder

COLOURS = ("red", "green", "blue", "yellow", "black", "white")


def test_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    present, absent = rng.integers(0, 20, 200) / 20, rng.integers(0, 15, 77) / 20
    labels = np.r_[np.ones(len(present)), np.zeros(len(absent))]
    assert relevance.auc(present, absent) == pytest.approx(roc_auc_score(labels, np.r_[present, absent]))


def test_shares_below_a_threshold() -> None:
    present, absent = np.array([0.2, 0.8, 0.9, 1.0]), np.array([0.1, 0.3, 0.8, 0.95])
    empty, lost = relevance.empties(present, absent, np.array([0.0, 0.8, 1.1]))
    assert empty.tolist() == [0, 0.5, 1]
    assert lost.tolist() == [0, 0.25, 1]
    assert relevance.at_false_empties(present, absent, 0.0) == 0.25
    assert relevance.at_false_empties(present, absent, 0.25) == 0.5
    assert relevance.at_false_empties(present, absent, 1.0) == 1.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = []
    for colour in COLOURS:
        paint(tmp_path / "data" / f"{colour}.png", colour)
        rows.append({"file": f"{colour}.png", "captions": [f"a {colour} square", f"something {colour}"]})
    (tmp_path / "data" / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    absent = [{"query": f"a {what}", "kind": "thing"} for what in ("lamp", "horse", "tower", "ship")]
    (tmp_path / "absent.jsonl").write_text("\n".join(map(json.dumps, absent)))
    return tmp_path


def test_a_run_prints_and_keeps_its_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert set(COLOURS) <= set(PALETTE)
    monkeypatch.setattr(relevance, "load_encoder", lambda *_, **__: ColourEncoder())
    arguments = [str(folder / "data"), "--absent", str(folder / "absent.jsonl"), "--out", str(folder / "out")]
    assert relevance.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "data: 6 photographs, `toy`, 12 captions, 0 short queries, 4 absent queries" in printed
    assert "| relevance | 100.0% | 100.0% |" in printed
    assert "captioned, searched for images and texts: AUC" in printed
    assert "half captioned, uncaptioned photographs, searched for images: AUC" in printed
    (kept,) = json.loads((folder / "out" / "relevance.json").read_text())
    assert len(kept["relevance"]["present"]) == 12
    assert min(kept["relevance"]["present"]) > max(kept["relevance"]["absent"])
    # Both captions of each colour are asked once, and each absent query of each of the five folds.
    for searched in ("all", "image", "text"):
        found = kept["captioned"][searched]["relevance"]
        assert (len(found["present"]), len(found["absent"])) == (12, 20)
    halves = kept["half_captioned"]
    assert sum(len(halves[name]["lost"]["relevance"]["present"]) for name in ("captioned", "uncaptioned")) == 12
    assert (folder / "out" / "relevance.svg").read_text().startswith("<?xml")


def test_without_absent_queries_it_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert relevance.main([str(folder / "data")]) == 1
    assert "--absent FILE" in capsys.readouterr().err
    (folder / "absent.jsonl").write_text('{"query": 3')
    assert relevance.main([str(folder / "data"), "--absent", str(folder / "absent.jsonl")]) == 1
    assert "not JSON lines" in capsys.readouterr().err


def test_no_fold_holds_what_it_asks(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "data" / "captions.jsonl").read_text().splitlines()]
    # The same words at another photograph would give a caption away as well.
    rows[1]["captions"].append("A red square.")
    (folder / "data" / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = read_dataset(folder / "data")
    collections = Collections.of(folder / "data", dataset, ColourEncoder())
    for half in (False, True):
        asked: list[str] = []
        for fold in collections.folds(half=half):
            stored = [record for page in fold.retriever.backend.scan("relevance") for record in page.records]
            lines = [line for record in stored for line in (record.text or "").split("\n") if line]
            queries = {plain(query) for query in fold.queries}
            assert queries.isdisjoint(map(plain, lines))
            pictures = {record.id: record for record in stored if record.modality == "image"}
            assert len(pictures) == len(COLOURS)
            assert len([r for r in stored if r.modality == "text"]) == len(lines) / 2, "as text and with its image"
            assert sum(image.text is not None for image in pictures.values()) >= 3 - half * 2
            for image, captioned in zip(fold.images, fold.captioned, strict=True):
                assert captioned or pictures[image].text is None
            asked += fold.queries
        assert sorted(asked) == sorted(dataset.captions)


def test_a_text_is_encoded_once(folder: Path) -> None:
    encoder = ColourEncoder()
    remembering = CachingEncoder(encoder)
    first = remembering.encode_texts(["a red square", "something blue", "a red square"])
    again = remembering.encode_texts(["something blue", "a red square"])
    assert encoder.texts == 2
    assert np.array_equal(first, np.array([again[1], again[0], again[1]]))
    assert remembering.encode_texts([]).shape == (0, encoder.dim)
    assert (remembering.name, remembering.fingerprint, remembering.dim) == (encoder.name, "toy:1", encoder.dim)
