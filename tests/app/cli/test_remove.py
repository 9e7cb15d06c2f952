"""`sightline remove`, and what commands say of files that are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cli import Run, paint


@pytest.fixture
def photos(tmp_path: Path, run: Run) -> Path:
    """Three pictures, one of them in a folder of its own and with a caption; indexed."""
    folder = tmp_path / "photos"
    for name in ("red", "green", "2024/blue"):
        paint(folder / f"{name}.png", name.rpartition("/")[2])
    (folder / "2024" / "blue.txt").write_text("a blue square")
    assert run("index", folder).code == 0
    return folder


def names(run: Run) -> list[str]:
    hits = run("search", "red", "--min-relevance", 0, "--json").json["hits"]
    return sorted(hit["uri"].rpartition("/")[2] for hit in hits)


def test_by_path_by_id_and_by_filter(run: Run, photos: Path) -> None:
    looked = run("remove", photos / "2024", "--dry-run")
    assert (looked.code, looked.out) == (0, "")
    assert "would remove 1 item and 1 caption of 'default'" in looked.err
    assert names(run) == ["blue.png", "green.png", "red.png"]
    shutil.rmtree(photos / "2024")
    done = run("remove", photos / "2024", "--json")
    assert done.json == {"dry_run": False, "items": 1, "captions": 1, "kept_elsewhere": 0}
    assert names(run) == ["green.png", "red.png"]
    item = run("search", "green", "--k", 1, "--min-relevance", 0, "--json").json["hits"][0]["id"]
    assert "removed 1 item" in run("remove", item).err
    assert names(run) == ["red.png"]
    assert run("remove", "--where", '{"path": "red.png"}').code == 0
    assert names(run) == []


def test_many_need_a_yes(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.remove.MANY", 2)
    refused = run("remove", photos)
    assert refused.code == 1
    assert "removing 3 items and 1 caption of 'default' needs a yes: add --yes" in refused.err
    assert len(names(run)) == 3
    assert "removed 3 items and 1 caption" in run("remove", photos, "--yes").err
    assert names(run) == []


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "say what to remove"),
        (("",), 2, "say what to remove"),
        (("x", "--where", '{"a": 1}'), 2, "one of them"),
        (("/nowhere/at/all",), 1, "nothing of 'default' has the id '/nowhere/at/all' or came from that path"),
        (("--where", "{}"), 1, "true of every item"),
        (("x", "--collection", "other"), 1, "no collection 'other'"),
    ],
)
def test_what_cannot_be_removed_says_so(
    run: Run, photos: Path, arguments: tuple[str, ...], code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    refused = run("remove", *arguments)
    assert refused.code == code
    assert told in refused.err
    assert len(names(run)) == 3


def test_index_says_what_is_missing(run: Run, photos: Path) -> None:
    (photos / "red.png").unlink()
    assert "1 indexed file is no longer there; --prune removes it" in run("index", photos).err
    (photos / "green.png").unlink()
    assert "2 indexed files are no longer there; --prune removes them" in run("index", photos).err
    assert "no longer there" not in run("index", photos, "--prune").err


def test_a_prune_tells_a_misspelt_folder_from_one_that_is_gone(run: Run, photos: Path) -> None:
    misspelt = run("index", photos.parent / "fotos", "--prune-empty")
    assert misspelt.code == 1
    assert "fotos cannot be indexed: no such file" in misspelt.err
    shutil.rmtree(photos)
    assert "is the disk mounted?" in run("index", photos, "--prune").err
    assert run("index", photos, "--prune-empty", "--json").json["pruned"] == 3


def test_a_path_that_is_gone_says_how_to_remove_it_and_can_be_pruned(run: Run, photos: Path) -> None:
    shutil.rmtree(photos)
    assert "sightline remove takes what came from it" in run("index", photos).err
    refused = run("index", photos, "--prune")
    assert refused.code == 1
    assert "is not there, but 4 records came from it: is the disk mounted?" in refused.err
    assert run("index", photos, "--prune-empty", "--json").json["pruned"] == 3
    assert names(run) == []


def test_a_search_marks_what_is_gone(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "red.png").unlink()
    hits = run("search", "red", "--min-relevance", 0, "--json").json["hits"]
    assert {hit["uri"].rpartition("/")[2] for hit in hits if hit["gone"]} == {"red.png"}
    shown = run("search", "red", "--min-relevance", 0, "--html", tmp_path / "page.html")
    assert "1 of these files is no longer there" in shown.err
    assert (tmp_path / "page.html").read_text().count("file is gone") == 1
