"""``sightline reindex``: what it says, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.cli import reindex as command
from backends.wrappers import aliases
from tests.support.cli import Run
from tests.support.reindexing import Turned


@pytest.fixture(autouse=True)
def turned(monkeypatch: pytest.MonkeyPatch) -> Turned:
    """The encoder that is loaded for any name."""
    encoder = Turned()

    def load(name: str, settings: Any) -> Turned:
        del name, settings
        return encoder

    monkeypatch.setattr(command, "load_named", load)
    # What other programs take to notice the switch is not waited for.
    monkeypatch.setattr(aliases, "SEEN_S", 0.0)
    return encoder


@pytest.mark.usefixtures("colours")
class TestReindex:
    def test_it_switches_and_says_what_became_of_the_old_vectors(self, run: Run) -> None:
        done = run("reindex", "--encoder", "turned")
        assert done.code == 0
        assert "encoded 10 items with turned" in done.out
        assert "default has the new vectors; the earlier ones are default-before" in done.out
        listed = {each["name"]: each for each in run("collections", "--json").json["collections"]}
        assert {name: each["fingerprint"] for name, each in listed.items()} == {
            "default": "turned:1",
            "default-before": "toy:1",
        }
        assert run("drop", "default-before", "--yes").code == 0
        assert [each["name"] for each in run("collections", "--json").json["collections"]] == ["default"]

    def test_its_report_is_one_object(self, run: Run) -> None:
        found = run("reindex", "--encoder", "turned", "--no-switch", "--json").json
        assert (found["encoded"], found["switched"], found["before"]) == (10, False, None)
        assert found["comparison"]["neighbours"] == 5

    def test_lost_pictures_hold_the_switch_up(self, run: Run, colours: Path) -> None:
        (colours / "red.png").unlink()
        done = run("reindex", "--encoder", "turned")
        assert done.code == 1
        assert "could not be encoded: img-red" in done.err
        assert "'default' keeps its vectors, as 1 items could not be encoded" in done.err
        assert run("reindex", "--encoder", "turned", "--allow-failed").code == 0

    def test_an_encoder_has_to_be_named(self, run: Run) -> None:
        done = run("reindex")
        assert done.code == 1
        assert done.err == "error: name the new encoder: --encoder NAME; sightline encoders lists them\n"


def test_a_collection_that_is_not_there_is_said(run: Run) -> None:
    assert "no collection 'default'" in run("reindex", "--encoder", "turned").err
