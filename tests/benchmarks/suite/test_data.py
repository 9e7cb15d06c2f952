"""Data sets of the benchmark: files of public formats, and the user's own photos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import indexers
from backends import connect
from benchmarks.suite import photos
from benchmarks.suite.cases import texts
from benchmarks.suite.context import Settings
from benchmarks.suite.datasets import DataError, DataSet, open_dataset, row_id, row_of
from benchmarks.suite.engines import choose
from benchmarks.suite.runner import Request, run
from benchmarks.suite.summaries import results
from tests.support.toy import PALETTE, ColourEncoder

ROWS = np.random.default_rng(1).standard_normal((30, 6)).astype(np.float32)


def read(path: Path, queries: int = 5) -> DataSet:
    return open_dataset(str(path), queries=queries, cache=path.parent)


def write_vecs(path: Path, rows: np.ndarray) -> Path:
    with path.open("wb") as stream:
        for row in rows:
            stream.write(np.int32(len(row)).tobytes() + row.tobytes())
    return path


@pytest.mark.parametrize(("suffix", "kind"), [("fvecs", np.float32), ("bvecs", np.uint8), ("ivecs", np.int32)])
def test_vecs_with_their_queries_beside_them(tmp_path: Path, suffix: str, kind: type) -> None:
    stored, asked = (np.abs(ROWS * 50).astype(kind), np.abs(ROWS[:4] * 20).astype(kind))
    write_vecs(tmp_path / f"sift_query.{suffix}", asked)
    data = read(write_vecs(tmp_path / f"sift_base.{suffix}", stored))
    assert data.metric == "l2"
    assert (data.vectors == stored.astype(np.float32)).all()
    assert (data.queries == asked.astype(np.float32)).all()


def test_without_queries_some_rows_are_held_out(tmp_path: Path) -> None:
    data = read(write_vecs(tmp_path / "x.fvecs", ROWS))
    assert (len(data.vectors), len(data.queries)) == (25, 5)
    together = np.concatenate([data.vectors, data.queries])
    assert (np.sort(together, axis=0) == np.sort(ROWS, axis=0)).all()


def test_hdf5_of_ann_benchmarks(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "glove.hdf5", "w") as file:
        file["train"], file["test"] = ROWS, ROWS[:3] * 2
        file.attrs["distance"] = "angular"
    data = read(tmp_path / "glove.hdf5")
    assert data.metric == "cosine"
    assert np.allclose(data.vectors, ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True), atol=1e-6)
    assert np.allclose(data.queries, data.vectors[:3], atol=1e-6)
    with h5py.File(tmp_path / "odd.hdf5", "w") as file:
        file["train"], file["test"] = ROWS, ROWS
        file.attrs["distance"] = "jaccard"
    with pytest.raises(DataError, match="jaccard"):
        read(tmp_path / "odd.hdf5")


def test_parquet(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"id": list(range(30)), "emb": ROWS.tolist()}), tmp_path / "x.parquet")
    data = read(tmp_path / "x.parquet")
    assert (len(data.vectors), data.dim, data.metric) == (25, 6, "cosine")
    parquet.write_table(pa.table({"vector": [[1.0, 2.0], [1.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(DataError, match=r"differ in length|of one length"):
        read(tmp_path / "ragged.parquet")
    parquet.write_table(pa.table({"name": ["a"]}), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="its columns are name"):
        read(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no vector"),
        (np.int32(6).tobytes() + b"123", "damaged"),
        (np.int32(-1).tobytes() * 4, "damaged"),
        (np.array([1, 7, 2, 7], np.int32).tobytes(), "differ in length"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.ivecs").write_bytes(content)
    with pytest.raises(DataError, match=f"bad.ivecs.*{message}|{message}"):
        read(tmp_path / "bad.ivecs")


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    for name, message in (("x.csv", "no file"), ("s3://b/x", "names no data set"), ("clustered:9x", "names no")):
        with pytest.raises(DataError, match=message):
            open_dataset(name, queries=1, cache=tmp_path)
    with pytest.raises(DataError, match="length 0"):
        DataSet("x", np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32))
    with pytest.raises(DataError, match="finite"):
        DataSet("x", np.full((2, 3), np.nan, np.float32), np.ones((1, 3), np.float32))


def test_made_sets_are_the_same_again_and_another_with_another_seed(tmp_path: Path) -> None:
    digests = [
        open_dataset(spec, queries=5, cache=tmp_path).digest()
        for spec in ("clustered:200x8", "clustered:200x8@1", "clustered:200x8@2", "uniform:200x8")
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_only_ids_of_rows_are_rows() -> None:
    assert row_of(row_id(17)) == 17
    for other in ("17", "row-17", "row-x", "", "row-0000000017", "row-00000001²"):
        assert row_of(other) == -2


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight pictures of one colour each with two captions; one of them says another colour."""
    folder = tmp_path / "album"
    folder.mkdir()
    lines = []
    for name, colour in PALETTE.items():
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.png")
        wrong = "blue" if name == "red" else name
        lines.append({"file": f"{name}.png", "captions": [f"all {name}", f"something {wrong}"]})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for module in (photos, texts):
        monkeypatch.setattr(module, "load_encoder", lambda name, **_: ColourEncoder(name))
    return folder


def test_photos_of_a_folder(album: Path, tmp_path: Path) -> None:
    data = open_dataset(f"photos:{album}@toy", queries=100, cache=tmp_path / "cache")
    assert len(data.vectors) == 8
    assert len(data.captions) == 16
    # The pictures follow the captions as queries, each the answer to itself.
    assert len(data.queries) == 16 + 8
    assert data.answers is not None
    assert (data.queries[16:] == data.vectors[data.answers[16:]]).all()
    names = [photos.file_of(data.uris[row]).stem for row in data.answers[:16]]
    assert all(name in caption for name, caption in zip(names, data.captions, strict=True) if "blue" not in caption)


def test_encoded_photos_are_kept_until_a_file_changes(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders: list[ColourEncoder] = []

    def counted(name: str, **_: object) -> ColourEncoder:
        encoders.append(ColourEncoder(name))
        return encoders[-1]

    monkeypatch.setattr(photos, "load_encoder", counted)
    for _ in range(2):
        open_dataset(f"photos:{album}@toy", queries=10, cache=tmp_path / "cache")
    Image.new("RGB", (50, 30), (1, 2, 3)).save(album / "red.png")
    open_dataset(f"photos:{album}@toy", queries=10, cache=tmp_path / "cache")
    assert [encoder.images for encoder in encoders] == [8, 0, 8]


def test_photos_of_a_collection(album: Path, tmp_path: Path) -> None:
    url = f"faiss://{tmp_path / 'store'}"
    with connect(url) as backend:
        indexers.index(album, backend, ColourEncoder(), "holiday")
    data = open_dataset(f"photos:{url}#holiday@toy", queries=100, cache=tmp_path)
    assert (len(data.vectors), len(data.captions), data.name) == (8, 16, "photos-holiday")
    with pytest.raises(DataError, match="names no collection"):
        open_dataset(f"photos:{url}", queries=10, cache=tmp_path)


def test_a_collection_of_another_encoder_is_refused(album: Path, tmp_path: Path) -> None:
    url = f"faiss://{tmp_path / 'store'}"
    with connect(url) as backend:
        indexers.index(album, backend, ColourEncoder(fingerprint="other:1"), "holiday")
    with pytest.raises(DataError, match="indexed with other:1"):
        open_dataset(f"photos:{url}#holiday@toy", queries=10, cache=tmp_path)


@pytest.mark.slow
def test_quality_and_the_way_from_words_to_pictures(album: Path, tmp_path: Path) -> None:
    settings = replace(Settings(), queries=16, repetitions=1, warmup=2, builds=1)
    request = Request(
        tmp_path / "run",
        [f"photos:{album}@toy"],
        choose(["exact://"]),
        settings,
        tmp_path / "cache",
        ("load", "quality", "end_to_end", "keyword"),
    )
    rows = {row.case: row for row in results(run(request)).rows}
    # One caption of sixteen says another colour, so it finds another picture first.
    assert rows["quality"].extra["R@1"] == pytest.approx(15 / 16)
    assert rows["quality"].extra["R@10"] == 1.0
    assert 15 / 16 < rows["quality"].extra["MRR"] < 1.0
    stages = [rows["end_to_end"].extra[f"{name}_ms"] for name in texts.STAGES]
    assert min(stages) > 0
    whole_ms = rows["end_to_end"].summary.percentiles_ms
    assert sum(stages) < 2 * whole_ms["p99.9"]
    assert rows["keyword"].summary.recall.value == 1.0
    assert rows["end_to_end"].summary.errors == 0


def test_nothing_is_fetched_from_elsewhere() -> None:
    for uri in ("http://example.org/a.jpg", "file://elsewhere/a.jpg", ""):
        with pytest.raises(DataError, match="not a file on this machine"):
            photos.file_of(uri)
