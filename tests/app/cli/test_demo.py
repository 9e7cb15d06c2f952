"""The demo over a toy space of colours, and once over the real default."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

import app.cli.demo
from app.cli.demo import gather
from tests.support.cli import Run, paint, sightline
from tests.support.toy import ColourEncoder


@pytest.fixture
def stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stamps like Debian's: pictures beside texts in many languages."""
    folder = tmp_path / "stamps"
    paint(folder / "animals" / "frog.png", "green")
    (folder / "animals" / "frog.txt").write_text("A green frog.\nde.utf8=Ein Frosch.\nar.utf8=ضفدع\n")
    paint(folder / "animals" / "unnamed.png", "red")
    paint(folder / "food" / "latin.png", "yellow")
    (folder / "food" / "latin.txt").write_bytes("A crème.\n".encode("latin-1"))
    monkeypatch.setattr(app.cli.demo, "STAMPS", folder)
    return folder


def test_demo_searches_five_ways_and_writes_the_page(run: Run, isolated: Path, stamps: Path) -> None:
    done = run("demo", "--json").json
    assert [search["title"] for search in done["searches"]] == [
        *["Words to pictures"] * 3,
        "Picture to words",
        "Picture and words",
    ]
    assert all(len(search["hits"]) == 5 for search in done["searches"])
    assert done["searches"][3]["hits"][0]["modality"] == "text"
    assert [term["weight"] for term in done["searches"][4]["terms"]] == [1.0, 1.0, -1.0]
    page = Path(done["page"])
    assert page == isolated / "demo" / "results.html"
    assert page.read_text(encoding="utf-8").count('<section id="q') == 5
    found = done["report"]["found"]
    assert found == 25, "two dozen photographs and the one stamp that has an English description"
    again = run("demo")
    assert again.code == 0
    assert f"({found} unchanged)" in again.err
    assert f"results page: {page}" in again.out
    (collection,) = run("collections", "--json").json["collections"]
    assert (collection["name"], collection["items"]) == ("default", done["report"]["images"] + done["report"]["texts"])


def test_what_the_demo_prints_last_can_be_typed(run: Run, isolated: Path) -> None:
    lines = run("demo", "--no-stamps").out.splitlines()
    commands = [shlex.split(line, comments=True) for line in lines[lines.index("Try next:") + 1 :]]
    assert [command[-3:] for command in commands[:1]] == [["search", "a", "rocket"]]
    assert "http://127.0.0.1:8000/" in lines[-1]
    for command in commands[:-1]:
        done = run(*command[command.index("search" if "search" in command else "lookup") :])
        assert done.code == 0, (command, done.err)
    assert commands[-1][-1] == "serve"


def test_a_store_that_holds_something_else_is_left_alone(run: Run, isolated: Path, tmp_path: Path) -> None:
    paint(tmp_path / "mine" / "red.png", "red")
    assert run("index", tmp_path / "mine").code == 0
    done = run("demo", "--no-stamps")
    assert "is left alone: the demo has a store of its own" in done.err
    assert [each["items"] for each in run("collections", "--json").json["collections"]] == [1]
    commands = [shlex.split(line, comments=True) for line in done.out.splitlines()[-3:]]
    for command in commands[:-1]:
        again = run(*command[command.index("search" if "search" in command else "lookup") :])
        assert again.code == 0, (command, again.err)
    assert commands[-1][-4:-2] == ["--backend", f"faiss://{isolated}/demo/index"]


def test_a_collection_elsewhere_in_the_store_counts_as_something_else(run: Run, tmp_path: Path) -> None:
    paint(tmp_path / "mine" / "red.png", "red")
    assert run("index", tmp_path / "mine", "--collection", "mine").code == 0
    assert "is left alone" in run("demo", "--no-stamps").err


def test_demo_without_the_stamps(run: Run, stamps: Path) -> None:
    assert run("demo", "--no-stamps", "--json").json["report"]["found"] == 24


def test_gathered_captions_are_english(tmp_path: Path, stamps: Path) -> None:
    manifest = gather(tmp_path / "out", stamps=stamps)
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    assert [line["caption"] for line in lines if line["kind"] == "stamp"] == ["A green frog."]
    for line in lines:
        with Image.open(tmp_path / "out" / line["path"]) as image:
            image.verify()
    assert not [path for path in (tmp_path / "out").rglob("*") if ".partial" in path.name]


def test_the_manifest_names_every_photograph_once() -> None:
    lines = [json.loads(line) for line in Path(app.cli.demo.__file__).with_name("demo.jsonl").read_text().splitlines()]
    assert len({line["file"] for line in lines}) == len(lines) == 24
    assert all(line["captions"] and line["from"] in app.cli.demo.PACKAGES for line in lines)
    named = {app.cli.demo.LOOKUP, *(value for value, _ in app.cli.demo.COMPOSED if "/" in value)}
    assert named <= {f"photos/{line['file']}" for line in lines}


def test_without_the_packages_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "skimage" else find(name))
    failed = run("demo")
    assert failed.code == 1
    assert "scikit-image" in failed.err
    assert "pip install 'sightline[demo]'" in failed.err
    assert failed.err.count("\n") == 1


@pytest.mark.slow
def test_real_default_end_to_end(tmp_path: Path, isolated: Path) -> None:
    """Two photographs, indexed by compact into faiss://, and found from another process."""
    skimage = pytest.importorskip("skimage")
    for name in ("chelsea.png", "coffee.png"):
        with Image.open(Path(skimage.__file__).parent / "data" / name) as picture:
            (tmp_path / "photos").mkdir(exist_ok=True)
            picture.save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "chelsea.txt").write_text("the face of a tabby cat")
    done = sightline("index", str(tmp_path / "photos"), "--json", timeout_s=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["images"], report["texts"]) == (2, 1)
    assert "small default" in done.stderr
    assert (isolated / "index").is_dir()
    found = sightline("search", "a hot drink", "--json", timeout_s=300)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    assert [Path(hit["uri"]).name for hit in json.loads(found.stdout)["hits"]] == ["coffee.png"]


def test_a_stamp_that_changes_is_copied_again(tmp_path: Path, stamps: Path, encoder: ColourEncoder) -> None:
    gather(tmp_path / "out", stamps=stamps)
    copy = tmp_path / "out" / "stamps" / "animals" / "frog.png"
    before = copy.read_bytes()
    paint(stamps / "animals" / "frog.png", "blue", size=(100, 100))
    gather(tmp_path / "out", stamps=stamps)
    assert copy.read_bytes() != before
