"""The command line where streams are closed, and where folders are gone, read-only, full or no folders.

Every command runs in a process of its own. A folder is made read-only by a mount in a namespace of the
child's where the tests run as root, whom permissions do not stop, else by its permissions.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from backends import connect
from backends.base import CollectionSpec, Record
from tests.support.cli import paint
from tests.support.old_words import age_faiss
from tests.support.repository import ROOT

pytestmark = pytest.mark.slow

IS_ROOT = os.getuid() == 0


@dataclass
class Place:
    """A home with an indexed collection, and running commands there."""

    home: Path
    pictures: Path
    item: str
    env: dict[str, str] = field(default_factory=dict)

    def run(
        self, command: str, streams: str = "", *, cwd: str | Path = "/", before: str = "", **env: str | None
    ) -> subprocess.CompletedProcess[str]:
        """The outcome of a command line; `streams` are a shell's redirections, `before` what the shell does first."""
        line = f"{before}{shlex.quote(sys.executable)} -m app {command} {streams}"
        given = {**os.environ, "PYTHONPATH": str(ROOT), "SIGHTLINE_HOME": str(self.home), **self.env, **env}
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", line] if "mount" in before else ["bash", "-c", line],
            cwd=cwd,
            env={name: value for name, value in given.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr
        return done


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("adverse")
    for colour in ("red", "green"):
        paint(folder / "pictures" / f"{colour}.png", colour).with_suffix(".txt").write_text(f"a {colour} square")
    place = Place(folder / "home", folder / "pictures", "")
    assert place.run(f"index {place.pictures}").returncode == 0
    found = place.run("search red --mode keyword --min-relevance 0 --json")
    place.item = json.loads(found.stdout)["hits"][0]["id"]
    return place


@pytest.fixture
def place(indexed: Place, tmp_path: Path) -> Place:
    """A copy of it for a test that may harm it."""
    shutil.copytree(indexed.home, tmp_path / "home")
    return Place(tmp_path / "home", indexed.pictures, indexed.item)


def read_only(*folders: Path) -> str:
    """What a shell does first so that these may not be written."""
    if IS_ROOT:
        steps = [f"mount --bind {shlex.quote(str(f))} {shlex.quote(str(f))}" for f in folders]
        steps += [f"mount -o remount,ro,bind {shlex.quote(str(f))}" for f in folders]
        return " && ".join(steps) + " && exec "
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
    return ""


@pytest.fixture(autouse=True)
def writable_again(tmp_path: Path) -> Iterator[None]:
    yield
    for path in (tmp_path, *tmp_path.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(path.stat().st_mode | stat.S_IRWXU)


def one_line(done: subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    assert done.returncode == code, done
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


# Streams


@pytest.mark.parametrize("command", ["--version", "--help", "collections --json", "similar {item}", "keys", "encoders"])
def test_a_closed_output_is_said(indexed: Place, command: str) -> None:
    done = indexed.run(command.format(item=indexed.item), ">&-")
    assert done.returncode == 1
    assert "standard output is closed" in done.stderr.splitlines()[-1]
    with_errors = indexed.run(command.format(item=indexed.item), ">&- 2>&- <&-")
    assert (with_errors.returncode, with_errors.stderr) == (1, "")


def test_what_shows_nothing_needs_no_output(place: Place) -> None:
    assert place.run("drop default --yes", ">&-").returncode == 0
    one_line(place.run("keys add x", ">&-"), "standard output is closed")
    # Nobody could have read it.
    assert json.loads(place.run("keys --json").stdout) == {"keys": []}


def test_a_full_disk_behind_the_output_is_said(indexed: Place) -> None:
    one_line(indexed.run("collections", "> /dev/full"), "standard output", "No space left")


@pytest.mark.parametrize("command", ["search red", "show {item}", "collections", "engines", "keys add x"])
def test_closed_input_and_errors_do_no_harm(place: Place, command: str) -> None:
    done = place.run(command.format(item=place.item), "<&- 2>&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_a_full_disk_behind_the_messages_stops_nothing(place: Place) -> None:
    done = place.run(f"index {place.pictures}", "2> /dev/full")
    assert done.returncode == 0, done
    assert place.run("nope", "2> /dev/full").returncode == 2


def test_files_do_not_take_the_place_of_closed_streams(place: Place) -> None:
    # What is printed by accident would be written into the store.
    assert place.run(f"index {place.pictures} --prune", "<&- >&- 2>&-").returncode == 1
    assert place.run("similar " + place.item).returncode == 0


def test_commands_that_read_end_at_a_closed_input(indexed: Place) -> None:
    assert indexed.run("chat", "<&-").returncode == 0
    assert indexed.run("mcp", "<&-").returncode == 0


def test_a_reader_that_goes_early_is_no_error_to_see(indexed: Place) -> None:
    done = indexed.run("encoders", "2>&1 | head -1", before="set -o pipefail; ")
    assert done.stdout.count("\n") == 1
    assert done.returncode in (0, 1)


# Homes and folders


def test_a_read_only_home_with_its_store_is_searched(place: Place) -> None:
    before = read_only(place.home)
    for command in ("search red", f"similar {place.item}", f"show {place.item}", "collections", "keys", "ask red"):
        done = place.run(command, before=before)
        assert done.returncode == 0, done
        assert done.stdout
        assert "cannot" not in done.stderr
    one_line(place.run("keys add x", before=before), "cannot write")
    one_line(place.run("drop default --yes", before=before), "choose one that may be written")
    again = place.run(f"index {place.pictures}", before=before)
    assert again.returncode in (0, 1)
    assert again.stderr.startswith("note: nothing can be kept")


def test_a_home_that_is_a_file_is_only_missed_where_it_is_needed(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    elsewhere = {"SIGHTLINE_HOME": str(file), "SIGHTLINE_BACKEND": f"faiss://{place.home / 'index'}"}
    for command in ("search red", f"similar {place.item}", "collections", f"index {place.pictures}"):
        assert place.run(command, **elsewhere).returncode == 0
    for command in ("search red", "collections", "keys", "keys add x", "export out", f"index {place.pictures}"):
        one_line(place.run(command, SIGHTLINE_HOME=str(file)), "set SIGHTLINE_HOME")


def test_words_are_found_without_a_home_to_keep_them_in(indexed: Place, tmp_path: Path) -> None:
    assert indexed.run(f"export {tmp_path}/out").returncode == 0
    (tmp_path / "file").write_text("")
    place = Place(tmp_path / "file", tmp_path, "", {"SIGHTLINE_BACKEND": f"qdrant-edge://{tmp_path / 's'}"})
    assert place.run(f"import {tmp_path}/out").returncode == 0
    done = place.run("search red --mode keyword --min-relevance 0 --json")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["hits"][0]["id"] == indexed.item


def test_a_current_folder_that_is_gone_stops_only_what_is_relative_to_it(place: Place, tmp_path: Path) -> None:
    gone = f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && "
    for command in ("search red", f"show {place.item}", "collections --json", "keys", f"index {place.pictures}"):
        done = place.run(command, before=gone)
        assert done.returncode == 0, done
    one_line(place.run("index pictures", before=gone))
    one_line(place.run("keys", before=gone, SIGHTLINE_HOME="home"), "current folder", code=2)


def test_no_home_variable(place: Place, tmp_path: Path) -> None:
    without = {"HOME": None, "XDG_DATA_HOME": None, "XDG_CONFIG_HOME": None}
    assert place.run("collections", **without).returncode == 0
    # A user that the system does not know has no other home.
    if IS_ROOT:
        done = subprocess.run(
            [sys.executable, "-c", UNKNOWN_USER],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SIGHTLINE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd="/",
        )
        done.stderr = done.stderr.partition("then\n")[2]
        assert done.returncode == 2
        assert "set SIGHTLINE_HOME" in done.stderr.splitlines()[0]


# The first command imports what the user without rights may not read.
UNKNOWN_USER = """
import os, sys
from app.main import main
main(["keys", "remove", "x"])
del os.environ["SIGHTLINE_HOME"]
os.setuid(54321)
sys.stderr.write("then\\n")
code = main(["keys", "remove", "x"])
os.environ["SIGHTLINE_HOME"] = "/nowhere"
assert main(["keys"]) == 0
sys.exit(code)
"""


@pytest.mark.skipif(not IS_ROOT, reason="only root mounts a small disk; CI runs as root")
def test_a_full_disk_is_said_in_a_line(place: Place, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    full = f"mount -t tmpfs -o size=64k none {small} && head -c 60000 /dev/zero > {small}/fill 2> /dev/null; exec "
    env = {"SIGHTLINE_HOME": str(small / "home"), "SIGHTLINE_BACKEND": f"faiss://{place.home / 'index'}"}
    assert place.run("search red", before=full, **env).returncode == 0
    one_line(place.run("keys add " + "x" * 90, before=full.replace("60000", "99999"), **env), "No space left")
    done = place.run(f"export {small}/out", before=full, **env)
    assert done.returncode == 1
    assert "No space left" in done.stderr


# A store that may only be read


def records(prefix: str) -> list[Record]:
    return [Record(f"{prefix}{i}", np.eye(4)[i % 4], "text", f"word{i}") for i in range(10)]


READER = """
import json, os, sys
import numpy as np
from backends import connect
for line in sys.stdin:
    told = {}
    try:
        with connect(f"faiss://{sys.argv[1]}") as store:
            for _ in range(2):
                told["count"] = store.count("c")
                told["found"] = len(store.search("c", np.eye(4)[:1], 100)[0])
                told["words"] = [hit.id for hit in store.search_text("c", "word3", 100)]
    except Exception as error:
        told["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(told), flush=True)
"""


@dataclass
class Reader:
    process: subprocess.Popen[str]

    def ask(self) -> dict[str, object]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())  # type: ignore[no-any-return]


@pytest.fixture
def readers() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.communicate(timeout=60)


def reader_of(folder: Path, readers: list[subprocess.Popen[str]]) -> Reader:
    line = f"{read_only(folder)}{shlex.quote(sys.executable)} -c {shlex.quote(READER)} {shlex.quote(str(folder))}"
    argv: Sequence[str] = ["unshare", "-m", "bash", "-c", line] if IS_ROOT else ["bash", "-c", line]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    readers.append(process)
    return Reader(process)


def made(folder: Path) -> None:
    with connect(f"faiss://{folder}") as store:
        store.create(CollectionSpec("c", 4))
        store.upsert("c", records("r"))


WHOLE = {"count": 10, "found": 10, "words": ["r3"]}


@pytest.mark.parametrize("words", ["new", "of an earlier version"])
def test_a_read_only_store_is_searched(tmp_path: Path, readers: list[subprocess.Popen[str]], words: str) -> None:
    made(tmp_path / "s")
    if words != "new":
        age_faiss(tmp_path / "s" / "c" / "store.sqlite3")
    reader = reader_of(tmp_path / "s", readers)
    assert reader.ask() == reader.ask() == WHOLE
    assert not list((tmp_path / "s").rglob("*-wal"))


WRITER = """
import os, sys
from backends import connect
from tests.app.cli.test_adverse import made, records
made(sys.argv[1])
store = connect(f"faiss://{sys.argv[1]}")
store.upsert("c", records("q"))
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_is_read_or_refused(tmp_path: Path, readers: list[subprocess.Popen[str]]) -> None:
    folder = tmp_path / "s"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", WRITER, str(folder)], env=env, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (folder / "c" / "store.sqlite3-wal").stat().st_size
    shutil.copytree(folder, tmp_path / "without")
    (tmp_path / "without" / "c" / "store.sqlite3-shm").unlink()
    assert reader_of(folder, readers).ask() == {"count": 20, "found": 20, "words": ["q3", "r3"]}
    # Without the file that readers share, what is in the log cannot be read: never half of it.
    told = reader_of(tmp_path / "without", readers).ask()
    assert "holds writes that cannot be read" in str(told["error"])
    with connect(f"faiss://{tmp_path / 'without'}") as store:
        assert store.count("c") == 20


@pytest.mark.skipif(not IS_ROOT, reason="who cannot write by permission only would stop the writer, too; CI is root")
def test_a_reader_that_may_not_write_sees_every_commit(tmp_path: Path, readers: list[subprocess.Popen[str]]) -> None:
    folder = tmp_path / "s"
    made(folder)
    reader = reader_of(folder, readers)
    assert reader.ask() == WHOLE
    with connect(f"faiss://{folder}") as store:
        store.upsert("c", records("q"))
        assert reader.ask()["count"] == 20
        store.delete("c", ids=["q3"])
        assert reader.ask()["words"] == ["r3"]
        store.flush("c")
        assert reader.ask()["count"] == 19
    assert reader.ask()["count"] == 19


@pytest.mark.parametrize(
    ("scheme", "reason"),
    [("qdrant-edge", "locks it"), ("milvus-lite", "starts a server"), ("pgvector-embedded", "starts a server")],
)
def test_engines_that_have_to_write_say_why(tmp_path: Path, scheme: str, reason: str) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    place = Place(tmp_path / "home", tmp_path, "")
    done = place.run(f"collections --backend {scheme}://{folder}", before=read_only(folder))
    one_line(done, "may not be written", reason)
