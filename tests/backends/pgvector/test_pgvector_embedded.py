"""The life of the embedded PostgreSQL server: shared by processes, stopped by the last, safe from crashes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from backends import connect
from backends.base import CollectionSpec, Corrupt, Unavailable
from backends.conformance import Twin
from backends.conformance.samples import some, vectors

pytestmark = pytest.mark.server

CHILD = """
import json, sys, time
from backends import connect
from backends.conformance.samples import some
backend = connect(sys.argv[1])
backend.upsert("photos", some(20, prefix=sys.argv[2]))
print(json.dumps(backend.count("photos")), flush=True)
for line in sys.stdin:
    if line.strip() == "close":
        backend.close()
    print(json.dumps("done"), flush=True)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True) as made:
        yield Path(made) / "db"


def servers_in(folder: Path) -> list[psutil.Process]:
    """The living PostgreSQL processes at work in the folder."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            alive = process.info["name"] == "postgres" and process.status() != psutil.STATUS_ZOMBIE
            if alive and Path(process.cwd()) == folder / "data":
                found.append(process)
        except psutil.Error:
            continue
    return found


def child(folder: Path, prefix: str) -> subprocess.Popen[str]:
    """A second process that has stored 20 records and keeps the backend open until told."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, f"pgvector-embedded://{folder}", prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) >= 20
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)


def filled(folder: Path) -> Twin:
    backend = connect(f"pgvector-embedded://{folder}")
    twin = Twin(backend, CollectionSpec("photos", 8))
    twin.upsert(some(30))
    return twin


def test_the_last_of_several_users_stops_the_server(folder: Path) -> None:
    twin = filled(folder)
    again = connect(f"pgvector-embedded://{folder}")
    first, second = child(folder, "a"), child(folder, "b")
    twin.oracle.upsert("photos", [*some(20, prefix="a"), *some(20, prefix="b")])
    twin.same_records()
    twin.backend.close()
    assert again.count("photos") == 70
    again.close()
    assert servers_in(folder), "two other processes use it"
    end(first)
    assert servers_in(folder), "one other process uses it"
    end(second)
    assert not servers_in(folder), "a process that ends without close() gives its use back"
    with connect(f"pgvector-embedded://{folder}") as backend:
        twin.backend = backend
        twin.same_records()
    assert not servers_in(folder)


def test_a_killed_user_takes_nothing_with_it_and_is_not_counted(folder: Path) -> None:
    twin = filled(folder)
    process = child(folder, "a")
    twin.oracle.upsert("photos", some(20, prefix="a"))
    process.kill()
    end(process)
    twin.same_records()
    process = child(folder, "a")
    twin.backend.close()
    process.kill()
    end(process)
    assert servers_in(folder), "nobody was left to stop it"
    with connect(f"pgvector-embedded://{folder}") as backend:
        twin.backend = backend
        twin.same_records()
    assert not servers_in(folder)


def test_a_killed_server_is_started_again_under_an_open_backend(folder: Path) -> None:
    twin = filled(folder)
    pid = int((folder / "data" / "postmaster.pid").read_text().split("\n")[0])
    os.kill(pid, signal.SIGKILL)
    twin.same_records()
    twin.upsert(some(50, seed=3))
    twin.same_hits(vectors(2, 8), 10)
    twin.backend.close()
    assert not servers_in(folder)


def test_a_stale_process_number_keeps_nobody_out(folder: Path) -> None:
    """After a crash of the machine, the number of the old server may be that of any other program."""
    twin = filled(folder)
    pid_file = folder / "data" / "postmaster.pid"
    lines = pid_file.read_text().split("\n")
    twin.backend.close()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    with connect(f"pgvector-embedded://{folder}") as backend:
        twin.backend = backend
        twin.same_records()


def test_an_interrupted_first_start_is_repeated(folder: Path) -> None:
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    twin = filled(folder)
    twin.same_records()
    twin.backend.close()
    assert not (folder / "data.new").exists()


def test_a_folder_of_something_else_is_refused(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(Corrupt, match=r"not a PostgreSQL database.*another folder"):
        connect(f"pgvector-embedded://{folder}")
    assert [path.name for path in (folder / "data").iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    "name", ["my photos, 'best' \"of\" $(touch hacked) `x` %41 #1 üñ;", "deep/" * 20 + "d"], ids=["hostile", "long"]
)
def test_folders_of_any_name(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder / name
    url = "pgvector-embedded://" + str(place).replace("%", "%25").replace("#", "%23")
    with connect(url) as backend:
        backend.create(CollectionSpec("photos", 8))
        backend.upsert("photos", some(3))
    with connect(url) as backend:
        assert backend.count("photos") == 3
        assert backend.search("photos", np.ones((1, 8)), 1)[0][0].exact
    assert servers_in(place) == []
    assert not [path for path in folder.rglob("hacked") if path.is_file()]


@pytest.mark.parametrize(
    "url",
    ["pgvector-embedded://", "pgvector-embedded:///", "pgvector-embedded://host/dir", "pgvector-embedded:///dir?x=1"],
)
def test_urls_that_name_no_folder_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"pgvector-embedded:///(absolute/)?dir"):
        connect(url)


def test_only_the_owner_may_connect(folder: Path) -> None:
    twin = filled(folder)
    try:
        sockets = list((folder / "data").glob(".s.PGSQL.*[0-9]"))
        assert len(sockets) == 1
        assert sockets[0].stat().st_mode & 0o077 == 0
        assert (folder / "data").stat().st_mode & 0o077 == 0
        listening = [c for p in servers_in(folder) for c in p.net_connections("inet") if c.status == "LISTEN"]
        assert listening == []
    finally:
        twin.backend.close()


def test_a_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    folder.parent.joinpath("file").write_text("")
    with pytest.raises(Unavailable, match="file"):
        connect(f"pgvector-embedded://{folder.parent}/file/db")


def test_it_is_durable(folder: Path) -> None:
    twin = filled(folder)
    names = ("fsync", "full_page_writes", "synchronous_commit")
    with twin.backend as backend:
        shown = [backend._database.run(lambda c, n=n: c.execute(f"SHOW {n}").fetchone()) for n in names]  # type: ignore[attr-defined]
    assert shown == [("on",)] * 3
