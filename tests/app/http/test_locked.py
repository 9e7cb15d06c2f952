"""A store that another process holds: who that is, who is told, and that nobody is told to try again in a moment."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock

from app.core.keys import KeyStore
from app.http.app import Limits, create_app
from backends import connect
from backends.base import CollectionSpec
from backends.errors import Locked, ReadOnly
from tests.support.cli import paint
from tests.support.repository import ROOT
from tests.support.service import is_problem
from tests.support.serving import serving
from tests.support.toy import ColourEncoder

HOLDER = """
import sys
sys.argv = ["/usr/bin/sightline", "serve", "--model-url", "http://key:secret@host"]
import backends
from backends.base import CollectionSpec
with backends.connect(sys.stdin.readline().strip()) as store:
    store.create(CollectionSpec("held", 2))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A store that another process writes to, and that process."""
    url = f"faiss://{tmp_path}/store"
    with connect(url) as store:
        store.create(CollectionSpec("c", ColourEncoder().dim, encoder=ColourEncoder().fingerprint))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(f"{url}\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "held\n"
        yield url, holder.pid
        holder.stdin.close()


def test_it_is_told_who_holds_the_store_and_not_when_to_come_again(
    held: tuple[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, pid = held
    paint(tmp_path / "photos" / "red.png", "red")
    keys = KeyStore(tmp_path / "keys.json")
    reader, writer = ({"X-API-Key": keys.add(scope, scope)[1]} for scope in ("read", "write"))
    caplog.set_level(logging.WARNING)
    with connect(url) as store:
        app = create_app(
            store,
            ColourEncoder(),
            "c",
            home=tmp_path / "home",
            roots=[tmp_path / "photos"],
            keys=keys,
            limits=Limits(rate=None),
        )
        with serving(app) as client:
            refused = client.post("/v1/items", data={"items": '[{"text": "red"}]'}, files={"n": ""}, headers=writer)
            is_problem(refused, 503, f"process {pid} (sightline serve) holds the store")
            assert "retry-after" not in refused.headers
            assert "secret" not in caplog.text
            assert str(tmp_path) not in refused.text
            # Reading goes on, and a job ends at once: to wait for the store would be in vain.
            assert client.post("/v1/search", json={"text": "red"}, headers=reader).status_code == 200
            job = client.post("/v1/index", json={"folder": str(tmp_path / "photos")}, headers=writer).json()
            job = ended(client, job["id"], reader)
            assert (job["state"], "another process holds the store" in job["error"]) == ("failed", True)
            for text in (job["error"], client.get("/v1/jobs", headers=reader).text):
                assert str(pid) not in text
                assert "sightline.lock" not in text
        assert f"locked by process {pid} (sightline serve)" in caplog.text


def ended(client: httpx.Client, job: str, headers: dict[str, str]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (now := client.get(f"/v1/jobs/{job}", headers=headers).json())["ended_s"] is None:
        assert now["progress"] is None or "waiting" not in now["progress"]["stage"]
        assert time.monotonic() < deadline, now
        time.sleep(0.02)
    return now


def test_who_may_only_read_is_told_that_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On engines where even reading needs the folder."""
    with connect("exact://") as store:
        store.create(CollectionSpec("c", ColourEncoder().dim, encoder=ColourEncoder().fingerprint))
        keys = KeyStore(tmp_path / "keys.json")
        reader, writer = ({"X-API-Key": keys.add(scope, scope)[1]} for scope in ("read", "write"))

        def locked(*_: object, **__: object) -> None:
            raise Locked("/secret/sightline.lock is locked by process 7 (x): close it", "process 7 (x)")

        with serving(create_app(store, ColourEncoder(), "c", home=tmp_path, keys=keys)) as client:
            monkeypatch.setattr(store, "get", locked)
            for headers, words in ((reader, "another process holds the store"), (writer, "process 7 (x) holds it")):
                answer = client.get("/v1/items/a", headers=headers)
                is_problem(answer, 503, words.replace("holds it", "holds the store"))
                assert "retry-after" not in answer.headers
                assert "/secret" not in answer.text
                assert ("7" in answer.json()["detail"]) == (headers is writer)


def test_a_command_says_who_holds_the_store(held: tuple[str, int], tmp_path: Path, run: Any) -> None:
    url, pid = held
    paint(tmp_path / "photos" / "red.png", "red")
    outcome = run("index", tmp_path / "photos", "--backend", url, "--collection", "c")
    assert outcome.code == 1
    assert f"is locked by process {pid} (sightline serve)" in outcome.err


def test_a_store_that_may_only_be_read_says_so_to_who_wants_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"faiss://{tmp_path}/store"
    encoder = ColourEncoder()
    with connect(url) as store:
        store.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))

    def acquire(lock: FileLock) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(lock.lock_file))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with connect(url) as store:
        with pytest.raises(ReadOnly, match="choose one that may be written"):
            store.upsert("c", [])
        with serving(create_app(store, encoder, "c", home=tmp_path / "home")) as client:
            answer = client.delete("/v1/collections/c")
            is_problem(answer, 503, "can only be searched")
            assert "retry-after" not in answer.headers
            assert str(tmp_path) not in answer.text
            assert client.post("/v1/search", json={"text": "red"}).status_code == 200
