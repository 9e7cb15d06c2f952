"""Uploaded pictures are kept as long as anything names them, and no longer; and additions tell the truth."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from app.core.references import References
from app.core.uploaded import UploadedFiles
from app.http.app import Limits, create_app
from backends import connect
from backends.base import Backend, CollectionSpec, Record, Unavailable
from tests.support.cli import Run, paint
from tests.support.repository import ROOT
from tests.support.service import is_problem
from tests.support.serving import serving
from tests.support.tiers import tiered
from tests.support.toy import ColourEncoder

ENGINES = ["exact://", "faiss:///{dir}", "pgvector-embedded:///{dir}"]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[str], Backend]]:
    """Opens a store in a folder that a name chooses."""
    made: list[Backend] = []

    def call(url: str) -> Backend:
        made.append(connect(url))
        return made[-1]

    yield call
    for backend in made:
        backend.close()


@contextmanager
def served(store: Backend, home: Path, collection: str = "c", **options: Any) -> Iterator[httpx.Client]:
    limits = Limits(rate=None, decoding_wait_s=60)
    app = create_app(store, ColourEncoder(), collection, home=home, roots=[home], limits=limits, **options)
    with serving(app) as client:
        yield client


def picture(seed: int, size: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def add(client: httpx.Client, *files: tuple[str, bytes], items: Any = (), collection: str = "c") -> dict[str, Any]:
    answer = client.post(
        f"/v1/items?collection={collection}",
        files=[("files", file) for file in files] or {"none": ""},
        data={"items": json.dumps(list(items))},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def shows(client: httpx.Client, item_id: str, collection: str = "c") -> bool:
    answer = client.get(f"/v1/items/{quote(item_id, safe='')}/image?collection={collection}")
    assert answer.status_code in (200, 404), answer.text
    return answer.status_code == 200


def remove(client: httpx.Client, item_id: str, collection: str = "c") -> None:
    assert client.delete(f"/v1/items/{item_id}?collection={collection}", timeout=60).status_code in (200, 404)


def files(home: Path) -> list[str]:
    """The uploaded files."""
    return sorted(path.name for path in (home / "uploads").rglob("*") if path.is_file())


# What is named stays, what is not goes


@pytest.mark.parametrize("url", tiered(ENGINES))
def test_a_picture_is_kept_until_its_last_item_goes(url: str, home: Path, opened: Any, tmp_path: Path) -> None:
    store = opened(url.format(dir=str(tmp_path / "store").lstrip("/")))
    with served(store, home) as client:
        for name in ("A", "B"):
            add(client, ("x.png", picture(1)), items=[{"file": "x.png", "id": name, "text": f"the {name}"}])
        add(client, ("x.png", picture(1)))
        (kept,) = files(home)
        own = f"img-{kept.partition('.')[0]}"
        for gone, left in (("A", ["B", own]), (own, ["B"])):
            remove(client, gone)
            assert [shows(client, name) for name in left] == [True] * len(left)
        remove(client, "B")
        assert files(home) == []
        assert store.count("c") == 0


def test_other_collections_of_the_store_keep_it(home: Path, opened: Any) -> None:
    store = opened("exact://")
    with served(store, home) as client:
        item = add(client, ("x.png", picture(1)))["items"][0]["id"]
        (record,) = store.get("c", [item], with_vectors=True)
        store.create(CollectionSpec("copy", len(record.vector), encoder=ColourEncoder().fingerprint))
        # By another id, and without what Sightline writes of a picture's content.
        store.upsert("copy", [Record("mine", record.vector, "image", None, record.uri)])
        remove(client, item)
        assert shows(client, "mine", "copy")
        # So does dropping the collection that it was uploaded into.
        again = add(client, ("x.png", picture(1)), ("y.png", picture(2)))["items"][0]["id"]
        assert client.delete("/v1/collections/c").status_code == 204
        assert shows(client, "mine", "copy")
        assert len(files(home)) == 1
        assert again == item
        remove(client, "mine", "copy")
        assert files(home) == []


def test_of_a_large_collection_the_content_is_asked_for(
    home: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.uploaded.READ_THROUGH", -1)
    store = opened("exact://")
    with served(store, home) as client:
        for name in ("A", "B"):
            add(client, ("x.png", picture(1)), items=[{"file": "x.png", "id": name}])
        item = add(client, ("x.png", picture(1)))["items"][0]["id"]
        monkeypatch.setattr(store, "scan", lambda *_, **__: pytest.fail("read the whole collection"))
        for gone in ("A", item):
            remove(client, gone)
            assert shows(client, "B")
        remove(client, "B")
        assert files(home) == []


def test_other_stores_of_the_home_keep_it(home: Path, opened: Any, tmp_path: Path) -> None:
    urls = [f"faiss://{tmp_path}/one", f"faiss://{tmp_path}/two"]
    with served(opened(urls[0]), home) as one, served(opened(urls[1]), home) as two:
        item = add(one, ("x.png", picture(1)))["items"][0]["id"]
        add(two, ("x.png", picture(1)))
        remove(one, item)
        assert shows(two, item)
        assert one.get(f"/v1/items/{item}").status_code == 404
        add(one, ("x.png", picture(1)))
        assert one.delete("/v1/collections/c").status_code == 204
        assert shows(two, item)
        remove(two, item)
        assert files(home) == []


def test_what_copies_and_indexes_keeps_it_too(isolated: Path, opened: Any, tmp_path: Path, run: Run) -> None:
    urls = [f"faiss://{tmp_path}/{name}" for name in ("one", "two", "three")]
    with connect(urls[0]) as store, served(store, isolated) as client:
        item = add(client, ("x.png", picture(1)))["items"][0]["id"]
    assert run("copy", f"{urls[0]}/c", f"{urls[1]}/c").code == 0
    assert run("index", isolated / "uploads", "--backend", urls[2], "--collection", "c").code == 0
    for number, url in enumerate(urls):
        with connect(url) as store, served(store, isolated) as client:
            assert shows(client, item)
            remove(client, item)
        assert len(files(isolated)) == (number < 2), url


def test_an_index_job_over_the_uploads_keeps_them(home: Path, opened: Any) -> None:
    store = opened("exact://")
    with served(store, home) as client:
        item = add(client, ("x.png", picture(1)))["items"][0]["id"]
        job = client.post("/v1/index", json={"folder": str(home / "uploads"), "collection": "d"}).json()
        while (job := client.get(f"/v1/jobs/{job['id']}").json())["ended_s"] is None:
            pass
        assert job["report"]["indexed"] == 1
        remove(client, item)
        assert shows(client, item, "d")


def test_dropping_by_command_removes_what_nothing_names(isolated: Path, tmp_path: Path, run: Run) -> None:
    url = f"faiss://{tmp_path}/one"
    with connect(url) as store, served(store, isolated) as client:
        add(client, ("x.png", picture(1)), ("y.png", picture(2)))
        add(client, ("x.png", picture(1)), collection="c")
        assert client.post("/v1/collections", json={"name": "d"}).status_code == 201
        item = add(client, ("x.png", picture(1)), collection="d")["items"][0]["id"]
    assert run("drop", "c", "--yes", "--backend", url).code == 0
    assert [name.partition(".")[0] for name in files(isolated)] == [item.removeprefix("img-")]


def test_another_picture_under_an_id_takes_the_place_of_the_old_one(home: Path, opened: Any) -> None:
    store = opened("exact://")
    with served(store, home) as client:
        for seed, words in ((1, "a first"), (2, "a second"), (2, "a third")):
            done = add(client, ("x.png", picture(seed)), items=[{"file": "x.png", "id": "A", "text": words}])
            assert (done["added"], done["updated"]) == (1, seed > 1)
        assert len(files(home)) == 1
        assert shows(client, "A")
        # Nor are the captions left that were of the picture before.
        assert sorted(record.text for page in store.scan("c") for record in page.records) == ["a third", "a third"]


def test_what_is_not_an_upload_is_never_removed(home: Path, opened: Any, tmp_path: Path) -> None:
    store, vector = opened("exact://"), ColourEncoder().encode_texts(["red"])[0]
    digest = "0123456789abcdef" * 2
    outside = [
        paint(tmp_path / "photos" / f"{digest}.png", "red"),
        paint(home / f"{digest}.png", "red"),
        paint(home / "uploads" / "c" / "mine.png", "red"),
        paint(home / "uploads" / "c" / "deep" / f"{digest}.png", "red"),
    ]
    (home / "uploads" / "link").symlink_to(tmp_path / "photos")
    uris = [path.as_uri() for path in outside]
    uris += [(home / "uploads" / "link" / f"{digest}.png").as_uri()]
    uris += [f"file://{home}/uploads/c/../../{digest}.png", f"file://{home}/uploads/%00/{digest}.png"]
    with served(store, home) as client:
        add(client, ("x.png", picture(1)))
        store.upsert("c", [Record(str(n), vector, "image", None, uri) for n, uri in enumerate(uris)])
        for number in range(len(uris)):
            remove(client, str(number))
        assert all(path.is_file() for path in outside)


# Faults and races


@pytest.mark.parametrize("url", tiered(ENGINES))
def test_uploads_and_deletions_at_once_never_part_item_and_picture(
    url: str, home: Path, opened: Any, tmp_path: Path
) -> None:
    store = opened(url.format(dir=str(tmp_path / "store").lstrip("/")))
    with served(store, home) as client:
        for seed in range(8):
            item = add(client, ("x.png", picture(seed)))["items"][0]["id"]
            about = [{"file": "x.png", "id": "other", "text": f"the {seed}"}]
            turns: list[Callable[[], object]] = [
                lambda seed=seed: add(client, ("x.png", picture(seed))),
                lambda item=item: remove(client, item),
                lambda seed=seed, about=about: add(client, ("x.png", picture(seed)), items=about),
                lambda: remove(client, "other"),
                lambda seed=seed: add(client, ("x.png", picture(seed))),
            ]
            at_once(turns)
            for name in (item, "other"):
                stored = client.get(f"/v1/items/{name}").status_code == 200
                assert stored == shows(client, name), (seed, name)
            for name in (item, "other"):
                remove(client, name)
        UploadedFiles(home / "uploads", store).sweep()
        assert files(home) == []
        assert store.count("c") == 0


def at_once(turns: list[Callable[[], object]]) -> None:
    """Call all in threads that begin together; what one raises is raised."""
    ready, failures = threading.Barrier(len(turns)), []

    def work(turn: Callable[[], object]) -> None:
        ready.wait(20)
        try:
            turn()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(turn,)) for turn in turns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_deletion_in_the_middle_of_an_upload(
    moment: str, home: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever side of the other's write it falls on."""
    store = opened("exact://")
    real = store.upsert
    with served(store, home) as client:
        item = add(client, ("x.png", picture(1)))["items"][0]["id"]

        def meanwhile(name: str, records: Any) -> None:
            if moment == "after":
                real(name, records)
            monkeypatch.setattr(store, "upsert", real)
            remove(client, item)
            if moment == "before":
                real(name, records)

        monkeypatch.setattr(store, "upsert", meanwhile)
        add(client, ("x.png", picture(1)))
        assert client.get(f"/v1/items/{item}").status_code == (200 if moment == "before" else 404)
        assert shows(client, item) == (moment == "before")
        assert len(files(home)) == (moment == "before")


def test_an_upload_in_the_middle_of_a_deletion(home: Path, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes, and is all done, between the look for who names the file and its end."""
    store = opened("exact://")
    with served(store, home) as client:
        item = add(client, ("x.png", picture(1)))["items"][0]["id"]
        looked = UploadedFiles._still_named

        def meanwhile(self: UploadedFiles, names: Any) -> set[str]:
            found = looked(self, names)
            monkeypatch.setattr(UploadedFiles, "_still_named", looked)
            add(client, ("x.png", picture(1)))
            return found

        monkeypatch.setattr(UploadedFiles, "_still_named", meanwhile)
        remove(client, item)
        assert shows(client, item)


def test_where_it_cannot_be_known_who_names_a_file_it_stays(
    home: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened("exact://")

    def away(*_: object, **__: object) -> None:
        raise Unavailable("gone")

    with served(store, home) as client:
        item = add(client, ("x.png", picture(1)))["items"][0]["id"]
        with monkeypatch.context() as patch:
            patch.setattr(store, "upsert", away)
            patch.setattr(store, "collections", away)
            is_problem(client.post("/v1/items", files={"files": picture(2)}), 503)
            remove(client, item)
        assert len(files(home)) == 2
        UploadedFiles(home / "uploads", store).sweep()
        assert files(home) == []
        # Nor is anything removed, or taken, while the file of references is damaged.
        item = add(client, ("x.png", picture(1)))["items"][0]["id"]
        (home / "uploads.sqlite").write_bytes(b"no database" * 100)
        remove(client, item)
        assert len(files(home)) == 1
        refused = add(client, ("y.png", picture(2)))["items"][0]["error"]
        assert refused == "cannot be kept: the service's log says why"


KILLED = """
import os, signal, sys
from pathlib import Path
import backends
from app.core.uploaded import UploadedFiles
from backends.base import CollectionSpec, Record

where, url, home, name = sys.argv[1:]
with backends.connect(url) as store:
    uploads = UploadedFiles(Path(home) / "uploads", store)
    if "c" not in store.collections():
        store.create(CollectionSpec("c", 2))
    with uploads.holding() as hold:
        uploads.keep(hold, "c", name, b"a picture")
        if where == "kept":
            os.kill(os.getpid(), signal.SIGKILL)
        path = Path(home, "uploads", "c", name).resolve()
        store.upsert("c", [Record("a", [1, 0], "image", None, path.as_uri())])
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("where", ["kept", "stored"])
def test_killed_at_any_moment_it_loses_nothing_that_is_named(where: str, home: Path, tmp_path: Path) -> None:
    url, name = f"faiss://{tmp_path}/store", f"{'a' * 32}.png"
    child = subprocess.run(
        [sys.executable, "-c", KILLED, where, url, str(home), name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL
    (home / "uploads" / "c" / ".x.png.1.ab.tmp").write_bytes(b"half")
    os.utime(home / "uploads" / "c" / ".x.png.1.ab.tmp", (0, 0))
    with connect(url) as store:
        uploads = UploadedFiles(home / "uploads", store)
        # The killed one's hold keeps it until somebody sweeps.
        uploads.release([f"c/{name}"])
        assert name in files(home)
        uploads.sweep()
        assert files(home) == ([name] if where == "stored" else [])


def test_a_store_in_memory_uses_nothing_after_its_process(home: Path, opened: Any) -> None:
    references = References(home / "uploads.sqlite")
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = f"memory {int(child.stdout)} ab {socket.gethostname()}"
    references.take("t", dead, ["c/x"])
    references.give_back("t")
    assert references.forget_dead() == ["c/x"]
    assert references.used_by(dead) == []
    with served(opened("exact://"), home) as client:
        item = add(client, ("x.png", picture(1)))["items"][0]["id"]
        assert references.forget_dead() == []
        assert shows(client, item)


# What is acknowledged is stored


def test_of_what_a_request_says_twice_one_is_taken_and_counted(home: Path, opened: Any) -> None:
    store = opened("exact://")
    with served(store, home) as client:
        for what, given, items, taken, refused in (
            (
                "two files, one id",
                [("x.png", picture(1)), ("y.png", picture(2))],
                [{"file": "x.png", "id": "same"}, {"file": "y.png", "id": "same"}],
                ["x.png"],
                {"y.png": "its id 'same' is taken by 'x.png'"},
            ),
            (
                "two files of one name that is described",
                [("x.png", picture(3)), ("x.png", picture(4)), ("z.png", picture(5))],
                [{"file": "x.png", "id": "other"}],
                ["x.png", "z.png"],
                {"x.png": "another file of this request has this name"},
            ),
            (
                "two texts, one id",
                [],
                [{"text": "first words", "id": "T"}, {"text": "second words", "id": "T"}, {"text": "third"}],
                ["items[0]", "items[2]"],
                {"items[1]": "its id 'T' is taken by 'items[0]'"},
            ),
            (
                "a file and a text, one id",
                [("x.png", picture(6))],
                [{"file": "x.png", "id": "U"}, {"text": "words", "id": "U"}],
                ["x.png"],
                {"items[1]": "its id 'U' is taken by 'x.png'"},
            ),
            (
                "one file described twice",
                [("x.png", picture(7))],
                [{"file": "x.png", "id": "P1", "text": "one"}, {"file": "x.png", "id": "P2", "text": "two"}],
                ["x.png"],
                {"items[1]": "items[0] describes the file 'x.png' already"},
            ),
            (
                "one content, described in two ways",
                [("x.png", picture(8)), ("y.png", picture(8))],
                [{"file": "x.png", "text": "one"}, {"file": "y.png", "text": "two"}],
                ["x.png"],
                {"y.png": "has the same content, and says something else"},
            ),
        ):
            before = {r.id for page in store.scan("c") for r in page.records} if "c" in store.collections() else set()
            done = add(client, *given, items=items)
            after = {r.id for page in store.scan("c") for r in page.records if not r.id.startswith("cap-")}
            assert [row["name"] for row in done["items"] if row["error"] is None] == taken, what
            told = {row["name"]: row["error"] for row in done["items"] if row["error"] is not None}
            assert list(told) == list(refused), what
            assert all(words in told[name] for name, words in refused.items()), (what, told)
            assert (done["added"], done["failed"], done["updated"]) == (len(taken), len(refused), 0), what
            assert len(after - before) == len(taken), what
        assert client.get("/v1/items/T").json()["text"] == "first words"
        assert len(files(home)) == 6


def test_the_same_again_is_one_item_and_counted_once(home: Path, opened: Any) -> None:
    with served(opened("exact://"), home) as client:
        done = add(client, ("x.png", picture(1)), ("y.png", picture(1)), items=[{"text": "w"}, {"text": "w"}])
        assert (done["added"], done["updated"], done["failed"]) == (2, 0, 0)
        assert len({row["id"] for row in done["items"]}) == 2
        again = add(client, ("z.png", picture(1)), ("n.png", picture(2)))
        assert (again["added"], again["updated"], again["failed"]) == (2, 1, 0)
        # Nor is what fails taken for there.
        broken = picture(3)[:90]
        failed = add(client, ("x.png", broken), ("y.png", broken), ("z.png", picture(4)))
        assert [row["error"] is None for row in failed["items"]] == [False, False, True]
        assert (failed["added"], failed["failed"]) == (1, 2)


def test_an_id_whose_first_claim_was_refused_is_free(home: Path, opened: Any) -> None:
    with served(opened("exact://"), home) as client:
        items = [{"file": "x.png", "id": "A"}, {"file": "y.png", "id": "A"}]
        done = add(client, ("x.png", b"no picture"), ("y.png", picture(1)), items=items)
        assert [row["id"] for row in done["items"]] == [None, "A"]
        assert shows(client, "A")


def test_another_caption_replaces_the_one_before_beside_the_files_own_words(home: Path, opened: Any) -> None:
    exif = Image.Exif()
    exif[0x010E] = "written into the file"
    out = io.BytesIO()
    Image.new("RGB", (24, 24), "teal").save(out, "JPEG", exif=exif)
    store = opened("exact://")
    with served(store, home) as client:
        for text in ("first words\nin two lines", "second words"):
            add(client, ("x.jpg", out.getvalue()), items=[{"file": "x.jpg", "text": text}])
        found = {record.modality: record.text for page in store.scan("c") for record in page.records}
    assert found == {"image": "second words\nwritten into the file", "text": "second words"}
    assert store.count("c") == 2
