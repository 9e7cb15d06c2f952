"""`python -m benchmarks.chat --answers`: the table of a labelled set, and what it says of files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.chat.__main__ import main
from tests.support.cli import paint

CAPTIONS = {"red": "a brown dog runs along a red beach", "green": "two men in brown aprons cook"}
ROWS = [
    {
        "id": "A",
        "lang": "en",
        "question": "What does the dog do?",
        "answer_template": "A dog runs along a beach {000001}. It clearly has a ginger tail {000001}.",
        "sentences": [
            {"text": "A dog runs along a beach {000001}.", "label": "right"},
            {"text": "It clearly has a ginger tail {000001}.", "label": "right"},
        ],
        "wrong_variant": {"text": "The beach is green {000001}."},
    },
    {
        "id": "B",
        "lang": "zh",
        "question": "男人在做什么？",
        "answer_template": "两个男人在做饭{000002}。他们戴着帽子{000002}。",
        "sentences": [
            {"text": "两个男人在做饭{000002}。", "label": "right"},
            {"text": "他们戴着帽子{000002}。", "label": "wrong"},
        ],
    },
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    lines = []
    for number, (colour, caption) in enumerate((CAPTIONS | {"blue": "a blue kite"}).items(), start=1):
        file = paint(tmp_path / f"000000{number:06}.png", colour)
        lines.append(json.dumps({"file": file.name, "captions": [caption]}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


def test_the_table_of_a_set(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, kept = dataset / "answers.jsonl", dataset / "out.json"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), "utf-8")
    assert main([str(dataset), "--answers", str(file), "--json", str(kept)]) == 0
    out = capsys.readouterr().out
    assert "| mark | all | 3 | 3 | 0 | 0 | 0 | 1 of 2 |" in out
    assert "| mark | zh | 1 | 1 | 0 | 0 | 0 | 0 of 1 |" in out
    assert "| verify | all | 3 | 3 | 0 | 0 | 0 | 2 of 2 |" in out
    assert "Structured answers kept to the letter: 20 of 20\n" in out
    marked = json.loads(kept.read_text("utf-8"))["mark"]
    assert [each["verdict"] for each in marked] == ["stated", "seen", "contradicted", "seen", "seen"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "answers.jsonl:1: no answer of a set"),
        ('{"id": "A"}', "answers.jsonl:1: no answer of a set"),
        (json.dumps(ROWS[0]).replace("000001", "999999"), "A: no photograph of the collection is called 999999"),
    ],
)
def test_what_is_no_set(dataset: Path, capsys: pytest.CaptureFixture[str], content: str, told: str) -> None:
    (dataset / "answers.jsonl").write_text(content, "utf-8")
    assert main([str(dataset), "--answers", str(dataset / "answers.jsonl")]) == 1
    assert told in capsys.readouterr().err
