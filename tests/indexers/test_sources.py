"""What sources list: folders with sidecars and manifests, tables in every dialect, JSON lines, hostile names."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zlib
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

from backends.base import Record
from backends.exact.backend import ExactBackend
from indexers import IndexingError, IndexReport, index, open_source
from indexers.sources import Listing
from tests.support.counting_encoder import CountingEncoder


def picture(path: Path, colour: object = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), colour).save(path)  # type: ignore[arg-type]
    return path


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def listing(path: Path | str, stdin: str | None = None) -> Listing:
    return open_source(path, stdin=None if stdin is None else io.StringIO(stdin)).listing()


def reasons(found: Listing | IndexReport) -> dict[str, str]:
    return {q.path: q.reason for q in found.quarantined}


def records(source: Path | str, stdin: str | None = None) -> tuple[IndexReport, list[Record]]:
    backend = ExactBackend()
    opened = open_source(source, stdin=None if stdin is None else io.StringIO(stdin))
    report = index(opened, backend, CountingEncoder(), "c")
    found = [r for page in backend.scan("c") for r in page.records] if backend.collections() else []
    return report, sorted(found, key=lambda r: (r.modality, r.text or "", r.id))


def test_folder_is_listed_sorted_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/z.PNG", "a/.hidden.jpg", ".git/x.jpg", "A.jpeg", "notes.MD", "film.mov", "é.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = listing(tmp_path)
    assert [(e.path, e.kind) for e in found.entries] == [
        ("A.jpeg", "image"),
        ("a/z.PNG", "image"),
        ("b.jpg", "image"),
        ("notes.MD", "document"),
        ("é.webp", "image"),
    ]
    assert found.ignored == 1


def test_sidecars_give_captions_and_are_no_documents(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.txt").write_text("\ufeffone\n\n  two   words  \none\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("both")
    (tmp_path / "b.png.txt").write_text("only png")
    (tmp_path / "c.txt").write_text("a document")
    found = {e.path: e for e in listing(tmp_path).entries}
    assert set(found) == {"a.jpg", "b.jpg", "b.png", "c.txt"}
    assert found["a.jpg"].captions == ("one", "two words")
    assert found["b.jpg"].captions == ("both",)
    assert found["b.png"].captions == ("only png", "both")


def test_unusable_sidecars_are_reported_and_the_image_stays(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.png", (ord(name), 0, 0))
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\x01")
    (tmp_path / "b.txt").write_text("word " * 20_000)
    (tmp_path / "c.txt").write_text("")
    (tmp_path / "d.txt").write_bytes(b"a\x00b")
    report, _ = records(tmp_path)
    assert report.indexed == 4
    assert set(reasons(report)) == {"a.txt", "b.txt", "d.txt"}
    assert "not UTF-8" in reasons(report)["a.txt"]
    assert "more than the 65536 allowed" in reasons(report)["b.txt"]
    assert "NUL" in reasons(report)["d.txt"]


@pytest.mark.parametrize(
    "name",
    [
        'it\'s "quoted".jpg',
        "emoji 🐈‍⬛.jpg",
        "new\nline.jpg",
        "שלום.jpg",
        "percent%20#?&.jpg",
        "back\\slash.jpg",
        "a" * 240 + ".jpg",
        "tab\t;'--.jpg",
        "..jpg.jpg",
    ],
)
def test_hostile_names_round_trip_through_uri_and_path(tmp_path: Path, name: str) -> None:
    path = picture(tmp_path / "root" / f"x{name}")
    report, (record,) = records(tmp_path / "root")
    assert report.indexed == 1
    assert record.metadata["path"] == f"x{name}"
    assert record.uri is not None
    assert record.uri.isascii()
    assert unquote_to_bytes(record.uri.removeprefix("file://")) == os.fsencode(path.resolve())


def test_names_that_are_not_utf8_work(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    picture(tmp_path / "x.png").rename(os.fsdecode(raw))
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("a caption")
    report, (image, caption) = records(tmp_path)
    assert (report.indexed, report.quarantined) == (1, [])
    assert image.uri is not None
    assert unquote_to_bytes(image.uri.removeprefix("file://")) == raw
    assert image.metadata["path"] == caption.metadata["path"] == r"caf\xe9.png"
    assert image.text == "a caption"


def test_links_are_not_followed_outside_and_loops_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    picture(root / "a.png")
    picture(tmp_path / "outside" / "secret.png", "blue")
    (root / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "file.png").symlink_to(tmp_path / "outside" / "secret.png")
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "broken.png").symlink_to(root / "nowhere")
    found = listing(root)
    assert [e.path for e in found.entries] == ["a.png", "inside.png"]
    assert set(reasons(found)) == {"self", "out", "file.png", "broken.png"}
    assert "outside" in reasons(found)["out"]
    report, (record,) = records(root)
    assert report.duplicates == 1
    assert record.metadata["path"] == ["a.png", "inside.png"]


def test_broken_empty_huge_and_special_files_are_quarantined_and_the_rest_goes_on(tmp_path: Path) -> None:
    picture(tmp_path / "fine.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "noise.jpg").write_bytes(os.urandom(500))
    whole = picture(tmp_path / "cut.jpg", "green").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "bomb.png").write_bytes(bomb(20_000, 20_000))
    (tmp_path / "large.png").write_bytes(bomb(11_000, 11_000))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.md").write_text("")
    (tmp_path / "blank.md").write_text(" \n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait\x01")
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01\x02")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.png"))
        report, found = records(tmp_path)
    assert [r.metadata["path"] for r in found] == ["fine.png"]
    why = reasons(report)
    assert set(why) == {
        "empty.jpg",
        "noise.jpg",
        "cut.jpg",
        "bomb.png",
        "large.png",
        "pipe.png",
        "socket.png",
        "empty.md",
        "blank.md",
        "latin.txt",
        "binary.txt",
    }
    assert why["empty.jpg"] == why["empty.md"] == "is empty"
    assert "not an image" in why["noise.jpg"]
    assert why["bomb.png"].startswith("has 20000 x 20000 pixels, more than the 100000000 allowed")
    assert why["large.png"].startswith("has 11000 x 11000 pixels, more than the 100000000 allowed")
    assert why["pipe.png"] == why["socket.png"] == "is a pipe, socket or device, not a file"
    assert why["blank.md"] == "has no words"
    assert "not UTF-8 text (byte 3)" in why["latin.txt"]
    assert "NUL" in why["binary.txt"]
    assert all("\n" not in reason for reason in why.values())


def test_jsonl_manifest_of_the_coco_form_is_read_as_it_is(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "1.jpg")
    lines = [
        {"file": "images/1.jpg", "captions": ["a cat", "the cat"], "license": "CC", "width": 640, "height": 479},
        {"file": "images/1.jpg", "captions": ["a cat", "third"], "license": "other"},
        {"file": "images/gone.jpg", "caption": "x"},
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    report, found = records(tmp_path)
    image = found[0]
    assert image.text == "a cat\nthe cat\nthird"
    assert image.metadata["license"] == "CC"
    assert (image.metadata["width"], image.metadata["height"]) == (12, 8)
    assert [r.metadata["license"] for r in found[1:]] == ["CC"] * 3
    assert reasons(report) == {"captions.jsonl:3": "'images/gone.jpg': no such file"}
    again, same = records(tmp_path / "captions.jsonl")
    assert again.indexed == 1
    assert [r.id for r in same] == [r.id for r in found]
    assert same[0].metadata["source"] == str((tmp_path / "captions.jsonl").resolve())


def test_malformed_lines_are_quarantined_with_their_number(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    lines = [
        b'{"file": "a.png", "caption": "fine"}',
        b"{broken",
        b"",
        b"[1, 2]",
        b'{"caption": 7, "file": "a.png"}',
        b'{"file": 3}',
        b'{"year": 3}',
        b'{"file": "a.png", "caption": "nul \\u0000"}',
        b'{"file": "a.png", "caption": "half \\ud800"}',
        b"[" * 100_000,
        b'{"file": "a.png", "caption": "last \\u2028 line"}',
    ]
    (tmp_path / "captions.jsonl").write_bytes(b"\r\n".join(lines))
    report, found = records(tmp_path)
    assert found[0].text == "fine\nlast line"
    why = reasons(report)
    assert set(why) == {f"captions.jsonl:{n}" for n in (2, 4, 5, 6, 7, 8, 9, 10)}
    assert "not JSON" in why["captions.jsonl:2"]
    assert "one JSON object" in why["captions.jsonl:4"]
    assert "NUL" in why["captions.jsonl:8"]
    assert "surrogate" in why["captions.jsonl:9"]


def test_paths_that_leave_the_root_are_quarantined(tmp_path: Path) -> None:
    root = tmp_path / "root"
    picture(tmp_path / "secret.png", "blue")
    picture(root / "sub" / "a.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    files = [
        "../../secret.png",
        str(tmp_path / "secret.png"),
        "../link.png",
        "https://x.org/a.png",
        "a\x00b",
        "sub",
        ".",
        "x" * 5000,
        "../sub/a.png",
        "/etc/passwd",
        "file:///etc/passwd",
    ]
    (root / "sub" / "captions.jsonl").write_text("\n".join(json.dumps({"file": f, "caption": "c"}) for f in files))
    report, found = records(root)
    assert [r.metadata["path"] for r in found] == ["sub/a.png", "sub/a.png"]
    why = reasons(report)
    for number in (1, 2, 3, 10):
        assert "leads outside" in why[f"sub/captions.jsonl:{number}"]
    assert "URLs are not fetched" in why["sub/captions.jsonl:4"]
    assert "URLs are not fetched" in why["sub/captions.jsonl:11"]
    assert all(f"sub/captions.jsonl:{n}" in why for n in (5, 6, 7, 8))
    assert "sub/captions.jsonl:9" not in why


def test_metadata_names_are_folded_and_clashes_have_a_rule(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    line = {
        "path": "a.png",
        "Date taken": "1990",
        "date-taken": "1991",
        "Äußere Größe": 2,
        "2020": True,
        "***": "x",
        "modality": "m",
        "source": "s",
        "format": "tiff",
        "camera": "Leica",
        "tags": ["a", "b"],
        "none": None,
        "empty": [],
        "nested": {"a": 1},
        "numbers": [1],
        "huge": 2**70,
        "nan": float("nan"),
        "year": 1990,
        "score": 0.5,
    }
    (tmp_path / "captions.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({"file": "a.png", "nested": {}}))
    report, (record,) = records(tmp_path)
    assert record.metadata == {
        "path": "a.png",
        "source": str(tmp_path.resolve()),
        "width": 12,
        "height": 8,
        "format": "png",
        "bytes": (tmp_path / "a.png").stat().st_size,
        "date_taken": "1990",
        "date_taken_2": "1991",
        "auere_groe": 2,
        "_2020": True,
        "manifest_modality": "m",
        "manifest_source": "s",
        "camera": "Leica",
        "tags": ["a", "b"],
        "year": 1990,
        "score": 0.5,
    }
    why = [q.reason for q in report.quarantined]
    assert {q.path for q in report.quarantined} == {"captions.jsonl:1"}
    assert "field 'nested' was left out: nested objects cannot be stored (and 1 more lines)" in why
    for field in ("***", "numbers", "huge", "nan"):
        assert any(f"field {field!r} was left out" in reason for reason in why)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", 'file,caption,year,code\na.png,"A, ""quoted"" cat",1990,007\n'),
        ("captions.csv", '\ufeffFile;Caption;Year;Code\r\na.png;A, "quoted" cat;1990;007\r\n'),
        ("captions.tsv", 'Image\tcaption\tyear\tcode\na.png\tA, "quoted" cat\t1990\t007\n'),
        ("captions.csv", 'filename|text|year|code\na.png|A, "quoted" cat|1990|007'),
    ],
)
def test_table_dialects_read_alike(tmp_path: Path, name: str, content: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    report, (image, caption) = records(tmp_path)
    assert report.quarantined == []
    assert caption.text == image.text == 'A, "quoted" cat'
    assert (image.metadata["year"], image.metadata["code"]) == (1990, "007")


def test_utf16_tables_with_byte_order_mark_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "captions.tsv").write_bytes("file\tcaption\na.png\tżółw\n".encode("utf-16"))
    _, (image, _) = records(tmp_path)
    assert image.text == "żółw"


def test_table_columns_have_one_type_each(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png", (ord(name), 0, 0))
    (tmp_path / "captions.csv").write_text(
        "file,number,mixed,real,flag,gap\na.png,1,1,1.5,true,\nb.png,-2,x,2,FALSE,3\nc.png,0,,1e3,true,\n"
    )
    _, found = records(tmp_path)
    rows = {str(r.metadata["path"]): r.metadata for r in found}
    assert [rows[p]["number"] for p in sorted(rows)] == [1, -2, 0]
    assert [rows[p].get("mixed") for p in sorted(rows)] == ["1", "x", None]
    assert [rows[p]["real"] for p in sorted(rows)] == [1.5, 2.0, 1000.0]
    assert [rows[p]["flag"] for p in sorted(rows)] == [True, False, True]
    assert [rows[p].get("gap") for p in sorted(rows)] == [None, 3, None]


def test_malformed_table_rows_are_quarantined_with_their_line(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    content = 'file,caption\na.png,"two\nlines"\na.png,one,too many\n\na.png,"open" quote\nb.png,missing\na.png,last\n'
    (tmp_path / "captions.csv").write_text(content)
    report, found = records(tmp_path)
    assert found[0].text == "two lines\nlast"
    assert set(reasons(report)) == {"captions.csv:4", "captions.csv:6", "captions.csv:7"}
    assert "has 3 columns" in reasons(report)["captions.csv:4"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "is empty"), ("a,b\n1,2\n", "header must name"), ("\n\n", "header")],
)
def test_tables_without_usable_header_are_reported(tmp_path: Path, content: str, reason: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text(content)
    report, _ = records(tmp_path)
    assert report.indexed == 1
    assert reason in reasons(report)["captions.csv"]
    with pytest.raises(IndexingError, match=reason):
        listing(tmp_path / "captions.csv")


def test_manifests_list_files_of_any_name_and_windows_paths(tmp_path: Path) -> None:
    picture(tmp_path / "sub" / "x.png").rename(tmp_path / "sub" / "photo")
    (tmp_path / "captions.csv").write_text("path,caption\nsub\\photo,hello\n")
    report, (image, _) = records(tmp_path)
    assert report.indexed == 1
    assert image.metadata["path"] == "sub/photo"
    assert image.metadata["format"] == "png"


def test_stdin_takes_paths_texts_and_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    lines = [
        {"path": "a.png", "caption": "a caption", "id": "my/id", "year": 1},
        {"text": "a passage\nof two lines", "id": 7, "lang": "en"},
        {"text": "no id"},
        {"text": "no id"},
        {"text": "other", "id": "7"},
        {"path": "../x.png"},
    ]
    report, found = records("-", "\n".join(json.dumps(line) for line in lines))
    assert (report.indexed, report.duplicates) == (3, 1)
    by_id = {r.id: r for r in found}
    assert by_id["my/id"].modality == "image"
    assert by_id["my/id"].metadata["year"] == 1
    assert by_id["7"].text == "a passage\nof two lines"
    assert by_id["7"].metadata == {"lang": "en", "source": "stdin"}
    caption = next(r for r in found if r.text == "a caption" and r.modality == "text")
    assert caption.metadata["image"] == "my/id"
    assert "id '7' is taken" in reasons(report)["stdin.jsonl:5"]
    assert "outside" in reasons(report)["stdin.jsonl:6"]
    with pytest.raises(IndexingError, match="prune"):
        index("-", ExactBackend(), CountingEncoder(), "c", prune=True)


def test_stdin_takes_of_what_is_said_twice_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        picture(tmp_path / name, colour)
    monkeypatch.chdir(tmp_path)
    lines = [
        {"path": "a.png", "caption": "one", "id": "P1"},
        {"path": "a.png", "caption": "two", "id": "P2"},
        {"path": "b.png", "id": "P1"},
        {"path": "b.png", "caption": "late", "id": "P3"},
        {"text": "same words", "id": "T", "year": 1},
        {"text": "same words", "id": "T", "year": 2},
        {"text": "same words", "id": "T", "year": 1},
    ]
    report, found = records("-", "\n".join(json.dumps(line) for line in lines))
    told = reasons(report)
    assert "the id 'P2', which has the id 'P1'" in told["stdin.jsonl:2"]
    assert "the id 'P3', which has the id 'P1'" in told["stdin.jsonl:4"]
    assert "id 'P1' is taken by a.png" in told["b.png"]
    assert "id 'T' is taken by stdin.jsonl:5" in told["stdin.jsonl:6"]
    assert (report.found, report.indexed, report.duplicates) == (5, 2, 1)
    by_id = {r.id: r for r in found}
    assert by_id["P1"].text == "one"
    assert by_id["T"].metadata["year"] == 1


def test_content_under_an_id_of_ones_own_is_embedded_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend, encoder = ExactBackend(), CountingEncoder()

    def run(colour: str, text: str) -> IndexReport:
        picture(tmp_path / "a.png", colour)
        lines = f'{{"path": "a.png", "id": "i"}}\n{{"text": "{text}", "id": "t"}}'
        return index(open_source("-", stdin=io.StringIO(lines)), backend, encoder, "c")

    assert run("red", "one").indexed == 2
    assert run("red", "one").unchanged == 2
    assert run("blue", "two").indexed == 2
    assert encoder.images == [(255, 0, 0), (0, 0, 255)]
    assert encoder.texts == ["one", "two"]
    assert backend.count("c") == 2


def test_stdin_replaces_what_it_names_again_and_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend, encoder = ExactBackend(), CountingEncoder()
    picture(tmp_path / "a.png", "red")
    picture(tmp_path / "b.png", "blue")
    lines = '{"path": "a.png"}\n{"path": "b.png"}\n{"text": "t"}'
    index(open_source("-", stdin=io.StringIO(lines)), backend, encoder, "c")
    picture(tmp_path / "a.png", "green")
    report = index(open_source("-", stdin=io.StringIO('{"path": "a.png"}')), backend, encoder, "c")
    assert (report.indexed, report.missing, report.pruned) == (1, 0, 0)
    assert sorted(str(r.metadata.get("path")) for page in backend.scan("c") for r in page.records) == [
        "None",
        "a.png",
        "b.png",
    ]
    assert encoder.images == [(255, 0, 0), (0, 0, 255), (0, 128, 0)]


def test_what_cannot_be_a_source_says_so(tmp_path: Path) -> None:
    with pytest.raises(IndexingError, match="no such file"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(IndexingError, match="cannot be indexed"):
        open_source("a\x00b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IndexingError, match="neither a folder nor a file"):
        open_source(tmp_path / "pipe")


def test_markdown_becomes_passages_with_headings(tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text("# Guide\n\nIntro.\n\n## Install\n\nRun it.\n\n```sh\n# no heading\n```\n")
    backend, encoder = ExactBackend(), CountingEncoder()
    index(tmp_path, backend, encoder, "c")
    found = sorted((r for page in backend.scan("c") for r in page.records), key=lambda r: str(r.metadata["passage"]))
    assert [(r.text, r.metadata["heading"], r.metadata["line"]) for r in found] == [
        ("Intro.", "Guide", 3),
        ("Run it.\n\n```sh\n# no heading\n```", "Guide > Install", 7),
    ]
    assert encoder.texts == ["Guide\nIntro.", "Guide > Install\nRun it.\n\n```sh\n# no heading\n```"]
    assert all(r.id.startswith("txt-") and r.modality == "text" for r in found)
    assert found[0].uri == (tmp_path / "guide.md").resolve().as_uri()
