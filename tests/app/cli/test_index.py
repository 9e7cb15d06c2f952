"""`sightline index` and `sightline eval`, over a toy space of colours."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from app.cli.index import PlainLines, describe, duration
from backends.errors import CollectionNotFound
from indexers import Progress
from retrieval.encoders.catalogue import recommended
from tests.support.cli import Run, paint
from tests.support.toy import ColourEncoder, KeptBackend


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, one with a caption beside it, and a broken one."""
    folder = tmp_path / "photos"
    for colour in ("red", "green", "blue"):
        paint(folder / f"{colour}.png", colour)
    (folder / "red.txt").write_text("a red square")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    return folder


def test_index_then_search(run: Run, photos: Path) -> None:
    done = run("index", photos, "--json")
    assert done.code == 0
    report = done.json
    assert {"found", "indexed", "unchanged", "renamed", "quarantined", "seconds"} <= report.keys()
    assert [item["path"] for item in report["quarantined"]] == ["broken.jpg"]
    assert report["images"] == 3
    assert "skipped broken.jpg (" in done.err
    found = run("search", "red", "--k", 1, "--json").json["hits"][0]
    assert found["text"] == "a red square"
    assert found["uri"] == (photos / "red.png").resolve().as_uri()
    assert run("lookup", photos / "red.png", "--json").json["hits"][0]["text"] == "a red square"


def test_a_second_run_embeds_nothing(run: Run, photos: Path, encoder: ColourEncoder) -> None:
    run("index", photos)
    before = encoder.images
    again = run("index", photos, "--json").json
    assert (again["indexed"], again["unchanged"]) == (0, 3)
    assert encoder.images == before
    assert "3 unchanged" in run("index", photos).out


def test_prune_removes_what_has_gone(run: Run, photos: Path) -> None:
    run("index", photos)
    (photos / "blue.png").unlink()
    assert run("index", photos, "--prune", "--json").json["pruned"] == 1
    texts = run("search", "blue", "--json").json["hits"]
    assert not [hit for hit in texts if hit["uri"].endswith("blue.png")]


def test_an_empty_folder_is_pruned_only_when_that_is_said(run: Run, photos: Path) -> None:
    run("index", photos)
    for path in photos.iterdir():
        path.unlink()
    refused = run("index", photos, "--prune")
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert run("index", photos, "--prune-empty", "--json").json["pruned"] == 3
    assert run("search", "red", "--json").json == {"hits": []}


def test_strict_makes_skipped_files_count(run: Run, photos: Path) -> None:
    assert run("index", photos).code == 0
    assert run("index", photos, "--strict").code == 3
    (photos / "broken.jpg").unlink()
    assert run("index", photos, "--strict").code == 0


def test_nothing_to_index_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = run("index", tmp_path / "empty")
    assert empty.code == 1
    assert "nothing to index" in empty.err
    (tmp_path / "empty" / "a.png").write_bytes(b"x")
    broken = run("index", tmp_path / "empty")
    assert broken.code == 1
    assert "could be indexed" in broken.err
    missing = run("index", tmp_path / "missing")
    assert missing.code == 1
    assert missing.err.count("\n") == 1


def test_many_skipped_files_are_counted(run: Run, photos: Path) -> None:
    for number in range(30):
        (photos / f"bad{number}.png").write_bytes(b"x")
    done = run("index", photos)
    assert done.err.count("skipped bad") < 30
    assert "11 more; --json lists them all" in done.err
    assert "31 skipped" in done.out


def test_lines_of_json_on_stdin(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({"file": "photos/red.png", "caption": "something red", "year": 1990})
    monkeypatch.setattr(sys, "stdin", io.StringIO(line + "\n"))
    assert run("index", "-", "--json").json["images"] == 1
    assert run("search", "red", "--where", '{"year": 1990}', "--json").json["hits"][0]["text"] == "something red"


def test_the_small_default_is_named_once(run: Run, photos: Path) -> None:
    first = run("index", photos)
    assert first.err.count("small default that works offline") == 1
    assert "sightline encoders" in first.err
    assert f"--encoder {recommended('a laptop')} finds more" in first.err
    assert "small default" not in run("index", photos).err
    assert "small default" not in run("index", photos, "--collection", "b", "--encoder", "compact").err


def test_index_keeps_to_the_collections_encoder(run: Run, photos: Path, encoder: ColourEncoder) -> None:
    assert run("index", photos, "--encoder", "toy").code == 0
    assert run("index", photos).code == 0
    assert encoder.name == "toy"
    refused = run("index", photos, "--encoder", "other")
    assert refused.code == 1
    assert "toy:1" in refused.err
    assert "other:9" in refused.err


def test_usage_errors(run: Run, photos: Path) -> None:
    for arguments in (["--index-kind", "tree"], ["--quantization", "int3"], ["--batch-size", "0"]):
        failed = run("index", photos, *arguments)
        assert failed.code == 2, failed.err
        assert failed.err.count("\n") == 1
    bad_name = run("index", photos, "--collection", "../x")
    assert bad_name.code in (1, 2)
    assert bad_name.err.count("\n") <= 2


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(
    run: Run, tmp_path: Path, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        paint(tmp_path / "many" / f"{number}.png", "red", size=(10 + number, 10))
    encode = encoder.encode_images

    def interrupted(images: list[Path]) -> object:
        if encoder.images == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return encode(images)

    monkeypatch.setattr(encoder, "encode_images", interrupted)
    stopped = run("index", tmp_path / "many", "--batch-size", 2, "--json")
    assert stopped.code == 130
    assert stopped.json["interrupted"] is True
    assert "go on from there" in stopped.err
    done = stopped.json["indexed"]
    assert 4 <= done < 12
    monkeypatch.setattr(encoder, "encode_images", encode)
    before = encoder.images
    rest = run("index", tmp_path / "many", "--json")
    assert rest.code == 0
    assert (rest.json["indexed"], rest.json["unchanged"]) == (12 - done, done)
    assert encoder.images - before == 12 - done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_progress_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    moment = Progress("indexing", 1200, 5000, 43.21, 88, 2, "a/b.png")
    assert describe(moment) == "indexing: 1,200 of 5,000, 43.2/s, 1 min 28 s left, 2 skipped"
    assert describe(Progress("listing", 0, None, 0.0, None, 0, "")) == "listing: 0"
    assert [duration(s) for s in (0.2, 59, 60, 3725)] == ["0 s", "59 s", "1 min 00 s", "1 h 02 min"]
    lines = PlainLines()
    lines(moment)
    assert capsys.readouterr().err == "", "the first line comes after ten seconds"
    lines._last -= 11
    lines(moment)
    assert capsys.readouterr().err.count("1,200 of 5,000") == 1


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """A manifest of five colours, of which blue and yellow have each other's captions."""
    swapped = {"blue": "yellow", "yellow": "blue"}
    lines = []
    for colour in ("red", "green", "blue", "yellow", "black"):
        paint(tmp_path / "images" / f"{colour}.png", colour)
        said = swapped.get(colour, colour)
        lines.append(json.dumps({"file": f"images/{colour}.png", "captions": [f"a {said} square", f"{said} all over"]}))
    manifest = tmp_path / "captions.jsonl"
    manifest.write_text("\n".join(lines))
    return manifest


def test_eval_measures_both_ways(run: Run, captions: Path) -> None:
    report = run("eval", captions, "--json").json
    assert list(report) == ["text_to_image", "image_to_text"]
    for direction in report.values():
        assert list(direction) == ["R@1", "R@5", "R@10", "median_rank"]
        assert (direction["R@1"], direction["R@10"], direction["median_rank"]) == (60, 100, 1)
    assert KeptBackend.stores == {}, "nothing touches the store"


def test_eval_in_a_given_store_leaves_nothing_behind(run: Run, captions: Path) -> None:
    mine = run("eval", captions, "--json").json
    assert run("eval", captions, "--backend", "kept://", "--json").json == mine
    assert KeptBackend.connect("kept://").collections() == []


def test_eval_drops_its_collection_when_it_fails(run: Run, captions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CollectionNotFound("gone")

    monkeypatch.setattr(KeptBackend, "search", fail)
    assert run("eval", captions, "--backend", "kept://").code == 1
    assert KeptBackend.connect("kept://").collections() == []


def test_eval_leaves_out_what_cannot_be_read(run: Run, captions: Path) -> None:
    (captions.parent / "images" / "black.png").write_bytes(b"broken")
    (captions.parent / "images" / "red.png").unlink()
    done = run("eval", captions, "--json")
    assert done.code == 0
    assert "black.png" in done.err
    assert "red.png" in done.err
    assert "3 images" in done.err


def test_eval_needs_captions(run: Run, tmp_path: Path) -> None:
    paint(tmp_path / "plain" / "red.png", "red")
    failed = run("eval", tmp_path / "plain")
    assert failed.code == 1
    assert "captions" in failed.err
