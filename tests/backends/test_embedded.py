"""What holds of every engine that keeps its collections in a folder of this machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

import backends
from backends import connect
from backends.base import BackendError, CollectionNotFound, CollectionSpec, Unsupported
from backends.conformance.samples import some, vectors
from tests.support.tiers import tiered

SPEC = CollectionSpec("c", 8)
ENGINES = tiered(scheme for scheme, info in backends.engines().items() if info.in_folder)


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that nobody has made."""
    pytest.importorskip(backends.load(request.param).__module__)
    return backends.engines()[request.param].template.format(dir=tmp_path / "store")


def test_reading_what_is_not_there_says_so_and_makes_nothing(url: str, tmp_path: Path) -> None:
    with connect(url, make=False) as backend:
        assert backend.collections() == []
        assert backend.place is not None
        backend.drop("c")
        for read in (
            lambda: backend.describe("c"),
            lambda: backend.get("c", ["r00000"]),
            lambda: backend.count("c"),
            lambda: backend.search("c", vectors(1, 8), 3),
            lambda: backend.search_text("c", "word", 3),
            lambda: list(backend.scan("c")),
            lambda: backend.flush("c"),
            lambda: backend.upsert("c", some(2)),
            lambda: backend.delete("c", ids=["r00000"]),
            lambda: backend.set_encoder("c", "e"),
        ):
            with pytest.raises(CollectionNotFound, match=r"no folder .*store"):
                read()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BackendError, match="closed"):
        backend.collections()


def test_what_is_not_there_is_made_with_the_first_collection(url: str) -> None:
    with connect(url, make=False) as backend:
        backend.create(SPEC)
        backend.upsert("c", some(5))
        assert backend.count("c") == 5
    with connect(url, make=False) as backend:
        assert [hit.id for hit in backend.search("c", vectors(1, 8), 9)[0]] != []
        assert len([record for page in backend.scan("c") for record in page.records]) == 5


def test_what_others_make_meanwhile_is_found(url: str) -> None:
    with connect(url, make=False) as backend:
        assert backend.collections() == []
        with connect(url) as other:
            other.create(SPEC)
            other.upsert("c", some(5))
            other.close()
        assert backend.collections() == ["c"]
        assert backend.count("c") == 5
        backend.drop("c")
        assert backend.collections() == []


def test_one_process_opens_a_folder_twice(url: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with connect(url) as one, connect(url.replace(str(tmp_path), f"{tmp_path}/link")) as other:
        assert one.place == other.place
        one.create(SPEC)
        one.upsert("c", some(20))
        assert other.collections() == ["c"]
        assert other.count("c") == len(other.search("c", vectors(1, 8), 50)[0]) == 20
        scan = one.scan("c", batch=5)
        next(scan)
        one.close()
        for refused in (one.collections, lambda: one.count("c"), lambda: next(scan)):
            with pytest.raises(BackendError, match="closed"):
                refused()
        other.upsert("c", some(30, prefix="more"))
        assert other.delete("c", ids=["r00000"]) == 1
        with suppress(Unsupported):
            assert len(other.search_text("c", "word", 99)) <= 49
        assert len([record for page in other.scan("c") for record in page.records]) == 49
    with connect(url) as again:
        assert again.count("c") == 49
