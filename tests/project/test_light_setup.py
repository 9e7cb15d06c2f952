"""The set-up of `make setup` in an environment of its own: everything but the strong models works, without PyTorch.

And what the README says to type can be typed there, in order.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.documents import FENCE, READMES
from tests.support.fake_openai import FakeOpenAI
from tests.support.local_server import required
from tests.support.repository import ROOT

pytestmark = pytest.mark.slow

NOT_THERE = ("torch", "torchvision", "open_clip", "transformers", "efficientnet_lite_pytorch", "sentence_transformers")
OFFLINE = r"No matching distribution|ConnectionError|Temporary failure|error sending request|dns error"
MAX_MEGABYTES = 800
MARK = "=== typed: "
Sightline = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree in which `make setup` has been run. Where packages cannot be had, the tests skip."""
    copy = tmp_path_factory.mktemp("light") / "sightline"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={sys.executable}", "VENV=.venv"],
        cwd=copy,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if re.search(OFFLINE, done.stderr):
        if "packages" in required():
            pytest.fail(f"packages are required by SIGHTLINE_TEST_REQUIRE: {done.stderr[-500:]}")
        pytest.skip("no packages can be installed here")
    assert done.returncode == 0, done.stderr[-2000:]
    return copy


@pytest.fixture(scope="module")
def environment(place: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "PYTHON"))}
    return kept | {"SIGHTLINE_HOME": str(place / "home"), "OPENAI_API_KEY": "sk-thekeythekeythekey"}


@pytest.fixture(scope="module")
def sightline(place: Path, environment: dict[str, str]) -> Sightline:
    """Runs the installed command in the copy; it must succeed unless another code is expected."""

    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [".venv/bin/sightline", *arguments],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return call


@pytest.fixture(scope="module")
def indexed(place: Path, sightline: Sightline) -> Path:
    """The demo has been run."""
    sightline("demo", "--no-stamps")
    pictures = place / "home" / "demo" / "pictures"
    sightline("index", str(pictures / "captions.jsonl"))
    return pictures / "photos"


def test_nothing_heavy_is_installed(place: Path) -> None:
    (packages,) = (place / ".venv").glob("lib/python*/site-packages")
    assert [name for name in NOT_THERE if (packages / name).exists()] == []
    size = sum(file.lstat().st_size for file in (place / ".venv").rglob("*"))
    assert size < MAX_MEGABYTES * 1e6


def test_the_demo_finds_what_it_asks_for(sightline: Sightline) -> None:
    found = json.loads(sightline("demo", "--no-stamps", "--json").stdout)["searches"]
    best = [Path(search["hits"][0]["uri"]).name for search in found[:3]]
    assert best == ["coffee.png", "chelsea.png", "rocket.jpg"]


@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
def test_search(mode: str, indexed: Path, sightline: Sightline) -> None:
    found = json.loads(sightline("search", "a rocket on its launch pad", "--mode", mode, "--json").stdout)
    assert Path(found["hits"][0]["uri"]).name == "rocket.jpg"


def test_lookup(indexed: Path, sightline: Sightline) -> None:
    found = json.loads(sightline("lookup", str(indexed / "coffee.png"), "--json").stdout)
    assert "coffee" in found["hits"][0]["text"]


def test_ask(indexed: Path, sightline: Sightline) -> None:
    with FakeOpenAI() as server:
        asked = sightline(
            "ask", "what is on the launch pad?", "--model", "openai:fake-text", "--model-url", server.base_url, "--json"
        )
    answer = json.loads(asked.stdout)
    assert "rocket" in answer["answer"]
    assert answer["sources"]


@pytest.fixture
def address(place: Path, environment: dict[str, str], indexed: Path) -> Iterator[str]:
    """Where the service answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [".venv/bin/sightline", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 120
            while not _answers(f"http://127.0.0.1:{port}/healthz"):
                assert process.poll() is None
                assert time.monotonic() < until, "the service did not start"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_serve(address: str) -> None:
    body = {"text": "a cup of coffee", "k": 1}
    answer = httpx.post(f"{address}/v1/search", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["hits"][0]["uri"].endswith("coffee.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "x", "--encoder", "openclip:ViT-B-32/openai"), "needs the extra openclip: pip install"),
        (("search", "x", "--device", "cuda"), "device cuda needs the extra openclip: pip install"),
        (("search", "x", "--precision", "bf16"), "compact in bf16 on cpu needs the extra openclip: pip install"),
        (("ask", "x", "--model", "transformers:x/y"), "need the extra transformers: pip install"),
    ],
)
def test_what_needs_torch_says_how_to_get_it(
    arguments: tuple[str, ...], message: str, indexed: Path, sightline: Sightline
) -> None:
    done = sightline(*arguments, code=1)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def typed(place: Path, environment: dict[str, str]) -> dict[str, str]:
    """What each line of the README's blocks prints."""
    return type_all("en", place, environment)


def type_all(readme: str, place: Path, environment: dict[str, str]) -> dict[str, str]:
    """What each line of a README's blocks prints, typed one after the other where nothing has been set up yet."""
    home = place.parent / f"reader-{readme}"
    home.mkdir()
    script = ["exec 2>&1"]
    for match in FENCE.finditer(READMES[readme].read_text(encoding="utf-8")):
        language, code = match["info"].strip(), match["code"]
        if language == "console" and ("activate" in code or "[parquet]" in code):
            lines = [line.removeprefix("$ ") for line in code.splitlines()]
        elif language == "console" and "make demo" in code:
            lines = [line.removeprefix("$ ") for line in code.splitlines() if "make test" not in line]
        elif language == "bash":
            lines = code.splitlines()
        elif language == "python" and "backends.conformance" not in code:
            lines = [f"python -c {shlex.quote(code)}"]
        else:
            continue
        for line in lines:
            script += [f"echo {shlex.quote(MARK + line)}", line]
    variables = {name: value for name, value in environment.items() if name != "SIGHTLINE_HOME"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(script)],
        cwd=place,
        env=variables | {"HOME": str(home), "XDG_DATA_HOME": str(home / ".local" / "share")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Traceback" not in done.stdout
    found = {}
    for section in done.stdout.split(MARK)[1:]:
        line, _, printed = section.partition("\n")
        found[line.partition("#")[0].strip()] = printed
    return found


def test_the_demo_ends_with_what_to_type_next(typed: dict[str, str]) -> None:
    assert "\n  .venv/bin/sightline search a rocket\n" in typed["make demo"]
    assert "open http://127.0.0.1:8000/" in typed["make demo"]


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("sightline search a cup of coffee", r"^1\t.*coffee\.png\tA cup of coffee"),
        ("sightline search cat --term -outdoors", r"^1\t.*chelsea\.png"),
        ("sightline search --image photos/rocket.jpg", r"^1\t.*rocket\.jpg"),
        ("sightline lookup photos/chelsea.png", r"^1\t.*The face of a tabby cat"),
        ("sightline search a rocket --html results.html", r"^results page: .*results\.html\n1\t.*rocket\.jpg"),
        ("sightline search chelsea --mode hybrid", r"^1\t.*chelsea\.png"),
        (
            "sightline search a rocket --collection mine",
            r"^nothing relevant: the nearest miss is at .*\n~1\t.*rocket\.jpg",
        ),
        ("sightline engines", r"^faiss:///dir\t"),
        ("sightline keys add laptop --scope read", r"^sl_[\w-]+$"),
        ('sightline export archive --backend "faiss://$PWD/two"', r"24"),
    ],
)
def test_what_the_readme_says_to_type_prints_what_it_promises(line: str, printed: str, typed: dict[str, str]) -> None:
    assert re.search(printed, typed[line], re.MULTILINE), typed[line]


def test_what_the_chinese_readme_says_to_type_can_be_typed(
    place: Path, environment: dict[str, str], typed: dict[str, str]
) -> None:
    chinese = type_all("zh", place, environment)
    assert len(chinese) == len(typed)
    # Pictures find the same in both; what Chinese words find is another test's matter.
    for line in ("sightline search --image photos/rocket.jpg", "sightline lookup photos/chelsea.png"):
        assert _best(chinese[line]) == _best(typed[line])


def _best(printed: str) -> tuple[str, str]:
    """File and text of the first result, whoever's home it is in."""
    (first,) = (line for line in printed.splitlines() if line.startswith("1\t"))
    *_, path, text = first.split("\t")
    return Path(path).name, text
