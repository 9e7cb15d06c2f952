"""What the command says of a folder as people have it."""

from __future__ import annotations

from pathlib import Path

from tests.support.cli import Run
from tests.support.folders import jpeg, make_folder


def test_the_command_says_it_in_a_line_by_kind(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "library"
    make_folder(root)
    result = run("index", str(root), "--exclude", "takeout/", "--json")
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    assert "left out: 2 thumbnails of a NAS (@eaDir)" in lines
    assert "left out: 9 excluded files (takeout, .jpg)" in lines
    assert "not read: 1 archive (.zip): unpack them" in lines
    assert "note: photos/moving.gif: it is an animation: its first frame is taken" in lines
    report = result.json
    assert {"what", "count", "names", "why", "paths", "told", "is_litter"} == report["not_read"][0].keys()


def test_names_are_escaped_for_people_and_exact_in_json(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "library"
    root.mkdir()
    for name in ("new\nline.jpg", "tab\t.jpg", "\u202egpj.exe.jpg"):
        (root / name).write_bytes(b"no picture")
    (root / "fine\n\u202e.png").write_bytes(jpeg(1))
    result = run("index", str(root), "--json")
    lines = result.err.splitlines()
    for shown in (r"new\nline.jpg", r"tab\t.jpg", r"\u202egpj.exe.jpg"):
        assert any(line.startswith(f"skipped {shown} (") for line in lines), lines
    paths = {item["path"] for item in result.json["quarantined"]}
    assert paths == {"new\nline.jpg", "tab\t.jpg", "\u202egpj.exe.jpg"}
    shown = run("search", "--json", "--min-relevance", "0", "anything")
    (hit,) = shown.json["hits"]
    assert hit["uri"].endswith("/fine%0A%E2%80%AE.png")
    assert hit["metadata"]["path"] == "fine\n\u202e.png"
    assert r"fine\n\u202e.png" in run("search", "--min-relevance", "0", "anything").out
