"""The stored sample: uniform, current whoever changed the collection, and never more than a cache."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from backends import connect
from backends.base import Backend, CollectionNotFound, CollectionSpec, Record
from retrieval import Retriever
from retrieval.relevance.sample import SampleCache, forget_sample, is_current, take_sample
from retrieval.relevance.scorer import Calibrator
from tests.support.topics import DIM, TopicEncoder, fill, image_of, text_of


@pytest.fixture
def encoder() -> TopicEncoder:
    return TopicEncoder()


@pytest.fixture
def backend(encoder: TopicEncoder) -> Backend:
    store = connect("exact://")
    fill(store, encoder, 60, texts=True)
    return store


def records(ids: range, value: float = 0.0) -> list[Record]:
    rows = np.random.default_rng(len(ids)).normal(size=(len(ids), 4)).astype(np.float32)
    return [Record(f"id-{i}", row + value, "image", uri=f"file:///{i}.jpg") for i, row in zip(ids, rows, strict=True)]


def plain(count: int) -> Backend:
    store = connect("exact://")
    store.create(CollectionSpec("c", 4))
    store.upsert("c", records(range(count)))
    return store


# Drawing


def test_a_small_collection_is_its_own_sample(backend: Backend) -> None:
    taken = take_sample(backend, "c")
    for modality in ("image", "text"):
        sample = taken.samples[modality]
        assert len(sample.ids) == sample.population == 60
        stored = backend.get("c", list(sample.ids), with_vectors=True)
        assert np.array_equal(sample.vectors, [record.vector for record in stored])
    groups = dict(zip(taken.samples["image"].ids, taken.samples["image"].groups.tolist(), strict=True))
    texts = dict(zip(taken.samples["text"].ids, taken.samples["text"].groups.tolist(), strict=True))
    assert groups["image-7-0"] == texts["text-7"] != groups["image-8-0"]


def test_a_sample_is_bounded_uniform_and_does_not_depend_on_order() -> None:
    forward, backward = plain(0), plain(0)
    everything = records(range(3000))
    forward.upsert("c", everything)
    for start in range(3000, 0, -500):
        backward.upsert("c", everything[start - 500 : start][::-1])
    taken = take_sample(forward, "c", 400).samples["image"]
    assert taken.ids == take_sample(backward, "c", 400).samples["image"].ids
    assert (len(taken.ids), taken.population) == (400, 3000)
    numbers = np.array([int(i.removeprefix("id-")) for i in taken.ids])
    # Of 400 out of 3,000 the share in any half is 0.5 +- 0.023.
    assert np.mean(numbers < 1500) == pytest.approx(0.5, abs=0.1)
    assert np.mean(numbers % 2) == pytest.approx(0.5, abs=0.1)


def test_deleting_and_adding_keeps_the_members_that_stay() -> None:
    store = plain(3000)
    before = set(take_sample(store, "c", 400).samples["image"].ids)
    gone = sorted(before)[:50]
    store.delete("c", ids=gone)
    store.upsert("c", records(range(3000, 3100)))
    after = set(take_sample(store, "c", 400).samples["image"].ids)
    assert not after & set(gone)
    assert len(after & before) > 320


def test_items_that_go_while_a_sample_is_taken_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    store = plain(100)
    real = store.get

    def get(name: str, ids: list[str], *, with_vectors: bool = False) -> list[Record]:
        store.delete(name, ids=["id-3", "id-5"])
        return real(name, ids, with_vectors=with_vectors)

    monkeypatch.setattr(store, "get", get)
    taken = take_sample(store, "c").samples["image"]
    assert len(taken.ids) == len(taken.vectors) == len(taken.groups) == 98
    assert not {"id-3", "id-5"} & set(taken.ids)


# Staying current


def changes() -> dict[str, object]:
    def recreate(store: Backend, encoder: TopicEncoder) -> None:
        store.drop("c")
        fill(store, encoder, 60, texts=True)
        store.upsert("c", [Record("image-7-0", image_of(encoder, 4000).vector, "image")])

    def add_one_delete_one(store: Backend, encoder: TopicEncoder) -> None:
        store.delete("c", ids=["image-7-0"])
        store.upsert("c", [image_of(encoder, 500)])

    return {
        "add": lambda store, encoder: store.upsert("c", [image_of(encoder, 500)]),
        "delete": lambda store, encoder: store.delete("c", ids=["image-7-0"]),
        "add one, delete one": add_one_delete_one,
        "replace": lambda store, encoder: store.upsert(
            "c", [Record("image-7-0", image_of(encoder, 500).vector, "image")]
        ),
        "change modality": lambda store, encoder: store.upsert(
            "c", [Record("image-7-0", text_of(encoder, 7).vector, "text")]
        ),
        "recreate": recreate,
    }


@pytest.mark.parametrize("change", changes())
@pytest.mark.parametrize("kept", [True, False])
def test_every_change_of_a_small_collection_is_noticed(
    change: str, kept: bool, backend: Backend, encoder: TopicEncoder, tmp_path: Path
) -> None:
    cache = SampleCache(backend, "c", tmp_path if kept else None)
    before = cache.current()
    assert cache.current() is before, "nothing changed, so nothing is taken"
    changes()[change](backend, encoder)
    assert not is_current(before, backend, "c")
    after = SampleCache(backend, "c", tmp_path).current() if kept else cache.current()
    fresh = take_sample(backend, "c")
    for modality in ("image", "text"):
        assert after.samples[modality].ids == fresh.samples[modality].ids
        assert np.array_equal(after.samples[modality].vectors, fresh.samples[modality].vectors)


def test_a_large_collection_may_change_a_little() -> None:
    store = plain(6000)
    cache = SampleCache(store, "c", size=300)
    before = cache.current()
    store.upsert("c", records(range(6000, 6300)))
    assert cache.current() is before
    store.upsert("c", records(range(6300, 7000)))
    assert cache.current() is not before, "a tenth more"
    before = cache.current()
    store.upsert("c", records(range(0, 7000), value=1.0))
    assert cache.current() is not before, "the same ids, other vectors"


def test_a_search_sees_what_was_added_since(backend: Backend, encoder: TopicEncoder) -> None:
    found = Retriever(backend, encoder, "c")
    assert found.calibrator is not None
    found.calibrator.check_every_s = 0
    (before,) = found.search("topic 500", 1, modality="image")
    backend.upsert("c", [image_of(encoder, 500)])
    (after,) = found.search("topic 500", 1, modality="image")
    assert before.relevance is not None
    assert after.relevance is not None
    assert before.relevance < 0.9 < after.relevance
    assert "image-500-0" in found.calibrator.sample().samples["image"].ids


def test_between_checks_nothing_is_asked_of_the_backend(backend: Backend, encoder: TopicEncoder) -> None:
    calibrator = Calibrator(backend, encoder, "c")
    first = calibrator.sample()
    backend.drop("c")
    assert calibrator.sample() is first
    calibrator.check_every_s = 0
    with pytest.raises(CollectionNotFound):
        calibrator.sample()


def test_a_modality_that_comes_later_is_judged_too(encoder: TopicEncoder) -> None:
    store = connect("exact://")
    fill(store, encoder, 60)
    cache = SampleCache(store, "c")
    assert not cache.current().samples["text"].ids
    store.upsert("c", [text_of(encoder, 1)])
    assert cache.current().samples["text"].ids == ("text-1",)


# The file


def test_what_is_kept_is_read_back_as_it_was(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = SampleCache(backend, "c", tmp_path / "deep" / "folder").current()
    assert [path.suffix for path in (tmp_path / "deep" / "folder").iterdir()] == [".npz"]

    def scan(*_: object, **__: object) -> None:
        raise AssertionError("the collection was read again")

    monkeypatch.setattr(backend, "scan", scan)
    read = SampleCache(backend, "c", tmp_path / "deep" / "folder").current()
    assert read.spec == taken.spec
    for modality in ("image", "text"):
        a, b = read.samples[modality], taken.samples[modality]
        assert (a.ids, a.population) == (b.ids, b.population)
        assert np.array_equal(a.vectors, b.vectors)
        assert np.array_equal(a.groups, b.groups)


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [truncate, flip, lambda data: b"", lambda data: b"no archive", lambda data: data[1:]]
)
def test_a_damaged_file_is_taken_anew(damage, backend: Backend, encoder: TopicEncoder, tmp_path: Path) -> None:
    expected = SampleCache(backend, "c", tmp_path).current()
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    path.write_bytes(damage(good))
    taken = SampleCache(backend, "c", tmp_path).current()
    assert taken.samples["image"].ids == expected.samples["image"].ids
    assert np.array_equal(taken.samples["image"].vectors, expected.samples["image"].vectors)
    assert path.read_bytes() == good


def test_another_collections_file_is_not_believed(backend: Backend, encoder: TopicEncoder, tmp_path: Path) -> None:
    SampleCache(backend, "c", tmp_path).current()
    other = connect("exact://")
    fill(other, encoder, 10)
    assert SampleCache(other, "c", tmp_path).current().samples["image"].population == 10


def test_a_folder_that_cannot_be_written_costs_only_the_work(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Told to the log of a service, not to whoever types a search.
    caplog.set_level(logging.INFO)
    (tmp_path / "file").write_text("in the way")
    assert SampleCache(backend, "c", tmp_path / "file").current().samples["image"].ids
    assert "cannot be kept" in caplog.text


def test_a_sample_is_forgotten_with_its_collection(backend: Backend, tmp_path: Path) -> None:
    SampleCache(backend, "c", tmp_path).current()
    forget_sample(tmp_path, "c")
    assert not list(tmp_path.iterdir())
    forget_sample(tmp_path, "c")
    forget_sample(tmp_path / "nowhere", "c")


def test_threads_share_one_sample(backend: Backend, encoder: TopicEncoder, tmp_path: Path) -> None:
    found = Retriever(backend, encoder, "c", samples=tmp_path)
    values: list[float | None] = []

    def search() -> None:
        values.extend(hit.relevance for hit in found.search("topic 5", 1, modality="image"))

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(values) == 8
    assert len(set(values)) == 1
    assert not list(tmp_path.glob("*.tmp"))


def test_dimensions_are_those_of_the_collection(encoder: TopicEncoder) -> None:
    store = connect("exact://")
    store.create(CollectionSpec("empty", DIM, encoder=encoder.fingerprint))
    sample = take_sample(store, "empty").samples["image"]
    assert sample.vectors.shape == (0, DIM)
