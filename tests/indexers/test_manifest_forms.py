"""Manifests as spreadsheets, data sets and people write them, given as a file and found in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from indexers import IndexingError, Options, open_source
from indexers.listing import Listing

BOTH = {"a.png": ("one",), "b.png": ("two",)}


def folder(path: Path) -> Path:
    for name in ("a", "b"):
        path.mkdir(exist_ok=True)
        Image.new("RGB", (12, 8), "red").save(path / f"{name}.png")
    return path


def captions(found: Listing) -> dict[str, tuple[str, ...]]:
    return {entry.path: entry.captions for entry in found.entries if entry.captions}


FORMS = {
    "a byte order mark": ("captions.csv", "\ufefffile,caption\r\na.png,one\r\nb.png,two\r\n"),
    "sep": ("captions.csv", "sep=;\r\nfile;caption\r\na.png;one\r\nb.png;two\r\n"),
    "quoted sep": ("captions.csv", '"sep=|"\nfile|caption\na.png|one\nb.png|two\n'),
    "a blank line first": ("captions.csv", "\n \nfile,caption\na.png,one\nb.png,two\n"),
    "a comment first": ("captions.csv", "# made by a tool\n#, for you\nfile,caption\na.png,one\nb.png,two\n"),
    "blanks behind delimiters": (
        "captions.csv",
        'image_name| comment_number| comment\na.png| 0| "one"\nb.png| 0| two\n',
    ),
    "no header": ("captions.csv", "a.png,one\nb.png,two\n"),
    "trailing delimiters": ("captions.csv", "file,caption,,\na.png,one,,\nb.png,two,,\n"),
    "more trailing delimiters": ("captions.csv", "file,caption\na.png,one,,\nb.png,two\n"),
    "an index of pandas": ("captions.csv", "Unnamed: 0,file,caption\n0,a.png,one\n1,b.png,two\n"),
    "an index without a name": ("captions.csv", ",file,caption\n0,a.png,one\n1,b.png,two\n"),
    "old Mac": ("captions.csv", "file,caption\ra.png,one\rb.png,two\r"),
    "Flickr8k of Kaggle": ("captions.txt", "image,caption\na.png,one\nb.png,two\n"),
    "Flickr8k's own": ("Flickr8k.token.txt", "a.png#0\tone\nb.png#0\ttwo\n"),
    "imagefolder": ("metadata.jsonl", '{"file_name": "a.png", "text": "one"}\n{"file_name": "b.png", "text": "two"}\n'),
    "imagefolder of a table": ("metadata.csv", "file_name,text\na.png,one\nb.png,two\n"),
    "a list": (
        "captions.jsonl",
        json.dumps([{"file": "a.png", "caption": "one"}, {"file": "b.png", "caption": "two"}]),
    ),
    "a list over lines": (
        "captions.json",
        json.dumps([{"file": "a.png", "caption": "one"}, {"file": "b.png", "caption": "two"}], indent=1),
    ),
    "names to captions": ("captions.json", json.dumps({"a.png": "one", "b.png": ["two"]})),
    "COCO": (
        "captions_val2017.json",
        json.dumps(
            {
                "info": {"year": 2017},
                "images": [{"id": 7, "file_name": "a.png", "license": 4}, {"id": 9, "file_name": "b.png"}],
                "annotations": [
                    {"image_id": 9, "id": 1, "caption": "two"},
                    {"image_id": 7, "id": 2, "caption": "one"},
                    {"image_id": 8, "id": 3, "caption": "of none"},
                ],
            }
        ),
    ),
    "Karpathy": (
        "captions.json",
        json.dumps(
            {
                "images": [
                    {"filename": "a.png", "sentences": [{"raw": "one", "tokens": ["one"]}], "split": "train"},
                    {"filename": "b.png", "sentences": [{"raw": "two"}]},
                ]
            }
        ),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_manifest_is_read_however_it_is_written(tmp_path: Path, form: str) -> None:
    name, content = FORMS[form]
    root = folder(tmp_path / "set")
    (root / name).write_text(content, encoding="utf-8", newline="")
    inside = open_source(root).listing()
    assert captions(inside) == BOTH
    assert (inside.quarantined, inside.ignored) == ([], 0)
    if "token" not in name:
        alone = open_source(root / name).listing()
        assert captions(alone) == BOTH
        assert alone.quarantined == []


def test_one_open_quote_drops_its_line_and_no_other(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    rows = ["file,caption", 'a.png,"say "hi" now"', 'a.png,"never closed', "a.png,one", 'b.png,"two"', "b.png,2,3"]
    (root / "captions.csv").write_text("\n".join(rows) + "\n")
    found = open_source(root).listing()
    assert captions(found) == BOTH
    assert [(item.path, item.reason.partition(":")[0]) for item in found.quarantined] == [
        ("captions.csv:2", "is not a table row"),
        ("captions.csv:3", "is not a table row"),
        ("captions.csv:6", "has 3 columns where the header has 2"),
    ]


def test_many_open_quotes_take_no_time(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    lines = ["file,caption", *('a.png,"open' if n % 2 else "a.png,x" for n in range(6000)), "b.png,two"]
    (root / "captions.csv").write_text("\n".join(lines))
    found = open_source(root).listing()
    assert captions(found)["b.png"] == ("two",)


def test_repeated_columns(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    (root / "captions.csv").write_text("file,caption,caption,tag,tag\na.png,one,uno,x,y\n")
    (entry, _) = open_source(root).listing().entries
    assert (entry.captions, entry.metadata) == (("one", "uno"), {"tag": "x", "tag_2": "y"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "sensor,value\n1,2\n"),
        ("metadata.jsonl", '{"sensor": 1}\n'),
        ("metadata.jsonl", "not JSON\n"),
        ("captions.json", '{"a": 1}'),
        ("captions.json", "{"),
    ],
)
def test_what_only_has_a_manifests_name_is_counted_as_data(tmp_path: Path, name: str, content: str) -> None:
    root = folder(tmp_path / "set")
    (root / name).write_text(content)
    found = open_source(root).listing()
    assert (len(found.entries), found.quarantined, found.ignored) == (2, [], 1)


def test_a_text_called_captions_is_a_text(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    (root / "captions.txt").write_text("Captions of my pictures, by hand.\n\nThe boat is blue.\n")
    assert [entry.kind for entry in open_source(root).listing().entries] == ["image", "image", "document"]


def test_annotations_beside_the_pictures_folder(tmp_path: Path) -> None:
    folder(tmp_path / "val2017")
    (tmp_path / "annotations").mkdir()
    manifest = tmp_path / "annotations" / "captions_val2017.json"
    manifest.write_text(FORMS["COCO"][1])
    source = open_source(manifest, options=Options(image_root=tmp_path / "val2017"))
    found = source.listing()
    assert captions(found) == BOTH
    assert source.name == str(manifest.resolve())
    manifest.write_text(json.dumps([{"file": "../annotations/secret.png", "caption": "x"}]))
    assert "leads outside" in source.listing().quarantined[0].reason
    for path, options, reason in (
        (manifest, Options(image_root=tmp_path / "nowhere"), "is not a folder"),
        (tmp_path / "val2017", Options(image_root=tmp_path), "goes with a manifest"),
        (tmp_path / "val2017" / "a.png", Options(image_root=tmp_path), "goes with a manifest"),
        (manifest, Options(encoding="klingon"), "no encoding is called 'klingon'"),
    ):
        with pytest.raises(IndexingError, match=reason):
            open_source(path, options=options)


TEXT = {
    "GB18030": "一只黑白相间的猫坐在窗台上晒太阳",
    "BIG5": "一隻黑白相間的貓坐在窗台上曬太陽",
    "SHIFT_JIS": "窓辺で日向ぼっこをしている白黒の猫です",
    "UTF-16": "eine Katze auf der Fensterbank",
    "UTF-16-LE": "eine Straße im Frühling",
    "KOI8-R": "кошка сидит на окне",
}


@pytest.mark.parametrize("encoding", TEXT)
def test_a_named_encoding_is_the_one(tmp_path: Path, encoding: str) -> None:
    root = folder(tmp_path / "set")
    data = f"file,caption\na.png,{TEXT[encoding]}\n".encode(encoding)
    (root / "captions.csv").write_bytes(data)
    found = open_source(root, options=Options(encoding=encoding)).listing()
    assert captions(found) == {"a.png": (TEXT[encoding],)}
    assert found.notes == []


@pytest.mark.parametrize("encoding", ["GB18030", "BIG5", "SHIFT_JIS", "UTF-16"])
def test_the_encoding_of_a_caption_beside_a_picture_is_guessed(tmp_path: Path, encoding: str) -> None:
    root = folder(tmp_path / "set")
    (root / "a.txt").write_bytes(TEXT[encoding].encode(encoding))
    found = open_source(root).listing()
    assert captions(found) == {"a.png": (TEXT[encoding],)}
    assert [note.path for note in found.notes] == ([] if encoding == "UTF-16" else ["a.txt"])


def test_what_does_not_fit_the_named_encoding_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    (root / "captions.csv").write_bytes(b"file,caption\na.png,\xff\xff\n")
    found = open_source(root, options=Options(encoding="GB18030")).listing()
    assert [item.reason for item in found.quarantined] == ["is not text in GB18030: --encoding names another"]
