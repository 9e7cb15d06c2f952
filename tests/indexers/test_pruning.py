"""What has gone can be removed, whichever run brought it and however its folder was named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backends.exact.backend import ExactBackend
from indexers import IndexingError, IndexReport, index
from retrieval.places import places_of
from tests.support.counting_encoder import CountingEncoder


class Library:
    """A folder of three pictures, one of them below, and a store."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "photos"
        (self.root / "2024").mkdir(parents=True)
        for number, name in enumerate(("one.png", "2024/two.png", "2024/three.png")):
            self.picture(name, number)
        (self.root / "2024" / "two.txt").write_text("a caption of two")
        self.backend, self.encoder = ExactBackend(), CountingEncoder()

    def picture(self, name: str, number: int) -> None:
        Image.new("RGB", (40, 30), (40 * number, 9, 9)).save(self.root / name)

    def index(self, path: Path, **options: Any) -> IndexReport:
        self.encoder.reset()
        return index(path, self.backend, self.encoder, "photos", **options)

    def files(self) -> list[str]:
        records = [r for page in self.backend.scan("photos") for r in page.records if r.modality == "image"]
        return sorted(Path(place.uri).name for record in records for place in places_of(record))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


def test_a_prune_of_the_parent_takes_what_the_child_brought(library: Library) -> None:
    library.index(library.root)
    library.index(library.root / "2024")
    (library.root / "2024" / "two.png").unlink()
    (library.root / "2024" / "two.txt").unlink()
    assert library.index(library.root).missing == 1
    assert library.index(library.root, prune=True).pruned == 1
    assert library.files() == ["one.png", "three.png"]
    assert library.backend.count("photos") == 2
    assert library.index(library.root, prune=True).pruned == 0


def test_a_prune_of_the_child_takes_what_the_parent_brought(library: Library) -> None:
    library.index(library.root)
    (library.root / "2024" / "three.png").unlink()
    assert library.index(library.root / "2024", prune=True).pruned == 1
    assert library.files() == ["one.png", "two.png"]


def test_a_prune_by_another_spelling_of_the_folder(library: Library, tmp_path: Path) -> None:
    library.index(library.root)
    (library.root / "one.png").unlink()
    (tmp_path / "link").symlink_to(library.root)
    assert library.index(tmp_path / "link" / "2024" / "..", prune=True).pruned == 1
    assert library.files() == ["three.png", "two.png"]


def test_a_moved_library_can_be_pruned_at_its_old_place(library: Library, tmp_path: Path) -> None:
    library.index(library.root)
    moved = tmp_path / "pictures"
    library.root.rename(moved)
    (moved / "one.png").unlink()
    report = library.index(moved, prune=True)
    assert (report.renamed, report.pruned, library.encoder.images) == (2, 0, [])
    with pytest.raises(IndexingError, match="is not there, but 1 records came from it: is the disk mounted"):
        library.index(library.root, prune=True)
    with pytest.raises(IndexingError, match="no such file"):
        library.index(library.root)
    assert library.index(library.root, prune=True, prune_empty=True).pruned == 1
    assert library.files() == ["three.png", "two.png"]


def test_a_path_from_which_nothing_came_is_misspelt(library: Library) -> None:
    library.index(library.root)
    with pytest.raises(IndexingError, match="no such file"):
        library.index(library.root / "2025", prune=True, prune_empty=True)


def test_a_folder_or_file_that_vanished_can_be_pruned_by_itself(library: Library) -> None:
    library.index(library.root)
    shutil.rmtree(library.root / "2024")
    assert library.index(library.root / "2024", prune=True, prune_empty=True).pruned == 2
    (library.root / "one.png").unlink()
    assert library.index(library.root / "one.png", prune=True, prune_empty=True).pruned == 1
    assert library.backend.count("photos") == 0


def test_a_prune_leaves_what_another_run_brought_and_is_still_there(library: Library, tmp_path: Path) -> None:
    hidden = library.root / ".private"
    hidden.mkdir()
    Image.new("RGB", (40, 30), "white").save(hidden / "secret.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (40, 30), "green").save(elsewhere / "far.png")
    for folder in (hidden, elsewhere, library.root):
        library.index(folder)
    (elsewhere / "far.png").unlink()
    assert library.index(library.root, prune=True).pruned == 0
    assert library.files() == ["far.png", "one.png", "secret.png", "three.png", "two.png"]
    shutil.rmtree(hidden)
    assert library.index(library.root, prune=True).pruned == 1
    assert library.files() == ["far.png", "one.png", "three.png", "two.png"]


def test_a_changed_picture_replaces_what_another_run_brought(library: Library) -> None:
    library.index(library.root / "2024")
    library.picture("2024/two.png", 5)
    report = library.index(library.root)
    assert (report.indexed, report.missing) == (2, 0)
    assert library.files() == ["one.png", "three.png", "two.png"]


def test_texts_of_a_manifest_that_is_gone_go_with_the_folder(library: Library) -> None:
    manifest = library.root / "words.jsonl"
    manifest.write_text('{"text": "a line"}\n{"text": "another line"}\n')
    library.index(manifest)
    library.index(library.root)
    manifest.unlink()
    assert library.index(library.root).missing == 2
    assert library.index(library.root, prune=True).pruned == 2
    assert library.backend.count("photos") == 4


def test_texts_of_a_manifest_whose_name_is_not_utf8_stay_while_it_may_be_there(library: Library) -> None:
    manifest = Path(os.fsdecode(os.fsencode(library.root) + b"/caf\xe9.jsonl"))
    manifest.write_text('{"text": "a line"}\n')
    library.index(manifest)
    assert library.index(library.root, prune=True).pruned == 0
    assert library.backend.count("photos") == 5


def test_a_link_whose_target_cannot_be_reached_keeps_its_item(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = library.root.resolve() / "link.png"
    link.symlink_to("one.png")
    library.index(library.root)
    resolve = Path.resolve

    def refusing(path: Path, strict: bool = False) -> Path:
        if path == link:
            raise PermissionError(13, "Permission denied")
        return resolve(path, strict=strict)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "resolve", refusing)
        report = library.index(library.root, prune=True)
    (told,) = report.quarantined
    assert told.reason == "is a link whose target is not readable: permission denied"
    assert (report.pruned, library.files()) == (0, ["link.png", "one.png", "three.png", "two.png"])
    (library.root / "one.png").unlink()
    assert "leads nowhere" in library.index(library.root, prune=True).quarantined[0].reason
    assert library.files() == ["three.png", "two.png"]
