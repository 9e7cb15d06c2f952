"""Copies, archives and what they refuse; over the exact oracle, and every embedded engine there is."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backends import connect
from backends.base import NO_VECTOR, Backend, CollectionSpec, IndexSpec, Record
from backends.errors import Corrupt
from indexers.archive import MANIFEST, export_collection, import_collection
from indexers.report import Stopped
from indexers.transfer import TransferError, copy, measure_parity

COUNT, DIM = 2_500, 24


def records(count: int = COUNT) -> list[Record]:
    random = np.random.default_rng(3)
    vectors = random.normal(size=(count, DIM)).astype(np.float32)
    return [
        Record(
            f"id/{n} 'é\n",
            vector,
            "text" if n % 3 else "image",
            f"text {n} 🐕" if n % 2 else None,
            f"file:///p/{n}.png" if n % 5 else None,
            {"n": n, "half": n / 2, "even": n % 2 == 0, "tags": [f"t{n % 7}", "ü"], "empty": []},
        )
        for n, vector in enumerate(vectors)
    ]


@pytest.fixture(scope="module")
def source() -> Backend:
    backend = connect("exact://")
    backend.create(CollectionSpec("c", DIM, encoder="some:encoder"))
    backend.upsert("c", records())
    return backend


def content(backend: Backend, name: str) -> dict[str, Record]:
    return {record.id: record for page in backend.scan(name) for record in page.records}


def test_a_copy_equals_its_source(source):
    target = connect("exact://")
    seen: list[tuple[int, int]] = []
    report = copy(source, "c", target, "d", progress=lambda *at: seen.append(at))
    assert (report.written, report.unchanged, report.extra, report.vector_error) == (COUNT, 0, 0, 0.0)
    assert report.parity is not None
    assert (report.parity.mean_overlap, report.parity.least_overlap, report.parity.queries) == (1.0, 1.0, 100)
    assert content(target, "d") == content(source, "c")
    assert target.describe("d").encoder == "some:encoder"
    assert seen == [(1000, COUNT), (2000, COUNT), (COUNT, COUNT)]


def test_a_second_copy_writes_only_what_changed(source):
    target = connect("exact://")
    copy(source, "c", target)
    changed = list(content(target, "c").values())[7]
    target.upsert("c", [Record(changed.id, changed.vector, changed.modality, "edited")])
    target.upsert("c", [Record("only here", np.ones(DIM))])
    report = copy(source, "c", target)
    assert (report.written, report.unchanged, report.extra) == (1, COUNT - 1, 1)
    assert target.get("c", [changed.id])[0].text == changed.text


def test_an_interrupted_copy_goes_on(source):
    target = connect("exact://")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(source, "c", target, progress=stop)
    assert target.count("c") == 1000
    assert copy(source, "c", target).written == COUNT - 1000


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (CollectionSpec("c", DIM, encoder="other"), "encoder"),
        (CollectionSpec("c", 3, encoder="some:encoder"), "dim"),
        (CollectionSpec("c", DIM, "l2", encoder="some:encoder"), "metric"),
    ],
)
def test_a_target_that_holds_something_else_is_refused(source, spec, word):
    target = connect("exact://")
    target.create(spec)
    with pytest.raises(TransferError, match=word):
        copy(source, "c", target)
    assert target.count("c") == 0


def test_a_target_that_loses_a_write_is_found_out(source, monkeypatch):
    target = connect("exact://")
    whole = target.upsert
    monkeypatch.setattr(target, "upsert", lambda name, given: whole(name, list(given)[1:]))
    with pytest.raises(TransferError, match="read back"):
        copy(source, "c", target)


def test_parity_is_measured_by_those_that_have_a_vector(source):
    few = connect("exact://")
    few.create(CollectionSpec("c", DIM))
    few.upsert("c", [replace(record, vector=NO_VECTOR) if n > 4 else record for n, record in enumerate(records())])
    parity = measure_parity(few, "c", few, "c")
    assert parity is not None
    assert (parity.queries, parity.mean_overlap) == (5, 1.0)


def test_parity_notices_other_answers(source):
    target = connect("exact://")
    target.create(CollectionSpec("c", DIM))
    target.upsert("c", records()[: COUNT // 2])
    parity = measure_parity(source, "c", target, "c")
    assert parity is not None
    assert 0.2 < parity.mean_overlap < 0.8


def test_an_empty_collection_copies(source):
    empty = connect("exact://")
    empty.create(CollectionSpec("e", 4, index=IndexSpec("flat")))
    report = copy(empty, "e", connect("exact://"))
    assert (report.written, report.parity) == (0, None)


def test_an_archive_gives_everything_back(source, tmp_path, monkeypatch):
    monkeypatch.setattr("indexers.archive.ROWS_PER_PART", 1100)
    assert export_collection(source, "c", tmp_path / "a") == COUNT
    assert len(list((tmp_path / "a").glob("part-*.parquet"))) == 3
    target = connect("exact://")
    report = import_collection(tmp_path / "a", target, "d")
    assert (report.written, report.vector_error) == (COUNT, 0.0)
    assert content(target, "d") == content(source, "c")
    assert import_collection(tmp_path / "a", target, "d").unchanged == COUNT


def test_unfinished_and_damaged_archives_are_refused(source, tmp_path):
    folder = tmp_path / "a"
    export_collection(source, "c", folder)
    with pytest.raises(TransferError, match="finished archive"):
        export_collection(source, "c", folder)
    part = folder / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Corrupt, match=r"part-00000\.parquet"):
        import_collection(folder, connect("exact://"))
    part.write_bytes(whole)
    manifest = json.loads((folder / MANIFEST).read_text())
    for broken in ({**manifest, "format": "other/9"}, {**manifest, "spec": {}}, [], {"format": manifest["format"]}):
        (folder / MANIFEST).write_text(json.dumps(broken))
        with pytest.raises(Corrupt, match=r"manifest\.json"):
            import_collection(folder, connect("exact://"))
    (folder / MANIFEST).unlink()
    with pytest.raises(Corrupt, match="not finished"):
        import_collection(folder, connect("exact://"))
    assert export_collection(source, "c", folder) == COUNT


def test_a_stop_ends_copies_and_archives_after_the_page_in_hand(source, tmp_path, monkeypatch):
    monkeypatch.setattr("indexers.archive.ROWS_PER_PART", 1000)
    export_collection(source, "c", tmp_path / "whole")
    stop = threading.Event()

    def stopping(done: int, total: int) -> None:
        assert done == 1000
        stop.set()

    target = connect("exact://")
    for work in (
        lambda **watch: copy(source, "c", target, "copied", **watch),
        lambda **watch: import_collection(tmp_path / "whole", target, "read", **watch),
        lambda **watch: export_collection(source, "c", tmp_path / "part", **watch),
    ):
        stop.clear()
        with pytest.raises(Stopped):
            work(progress=stopping, stop=stop)
    assert [target.count(name) for name in ("copied", "read")] == [1000, 1000]
    assert not (tmp_path / "part" / MANIFEST).exists()
    # The rest is done by the same again; and what only compares hears of a stop as well.
    assert copy(source, "c", target, "copied").unchanged == 1000
    assert import_collection(tmp_path / "whole", target, "read").written == COUNT - 1000
    assert export_collection(source, "c", tmp_path / "part") == COUNT
    stop.set()
    with pytest.raises(Stopped):
        measure_parity(source, "c", target, "copied", stop=stop)


def test_an_archive_with_an_id_twice_is_refused_before_anything_is_written(source, tmp_path):
    folder = tmp_path / "a"
    export_collection(source, "c", folder)
    part, manifest = folder / "part-00000.parquet", json.loads((folder / MANIFEST).read_text())
    rows = pq.read_table(part)
    for table, words in (
        (pa.concat_tables([rows, rows.slice(7, 1)]), rf"holds {COUNT + 1} records, and its manifest says {COUNT}"),
        (pa.concat_tables([rows.slice(1), rows.slice(7, 1)]), r"holds the id .* twice"),
    ):
        pq.write_table(table, part)
        manifest["parts"][0]["sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
        (folder / MANIFEST).write_text(json.dumps(manifest))
        target = connect("exact://")
        with pytest.raises(Corrupt, match=words):
            import_collection(folder, target)
        assert target.collections() == []


def test_a_folder_with_other_things_is_left_alone(source, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(TransferError, match=r"letter\.txt"):
        export_collection(source, "c", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_a_manifest_cannot_point_outside_its_folder(source, tmp_path):
    folder = tmp_path / "a"
    export_collection(source, "c", folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / "part-00000.parquet").rename(tmp_path / "part-00000.parquet")
    manifest["parts"][0]["file"] = "../part-00000.parquet"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(Corrupt, match="missing"):
        import_collection(folder, connect("exact://"))
