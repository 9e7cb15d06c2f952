"""The files of docs/serving, as far as they can be checked without Docker and a cluster; its clients run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.hosts import TrustedProxies
from app.http.app import create_app
from app.reference import commands
from backends import connect
from backends.base import CollectionSpec, Record
from tests.support.cli import paint
from tests.support.repository import ROOT
from tests.support.serving import running
from tests.support.toy import ColourEncoder

yaml = pytest.importorskip("yaml", reason="pip install 'sightline[test]'")

PAGE = ROOT / "docs" / "serving.md"
FILES = ROOT / "docs" / "serving"
#: Words after which Sightline's own arguments begin.
_CALL = re.compile(r"(?:^|[\s/])sightline (?=(?:keys|index|serve)\b)(.*)")


def read(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")


def calls() -> list[tuple[str, list[str]]]:
    """Every command line of Sightline in the files, with the file that it is in."""
    found = []
    for file in sorted(FILES.iterdir()):
        for line in file.read_text(encoding="utf-8").splitlines():
            if match := _CALL.search(line):
                text = re.split(r" >|&&|\"\]|`", match[1])[0]
                found.append((file.name, shlex.split(text)))
    docker = re.search(r"^CMD (\[.*\])$", read("Dockerfile"), re.MULTILINE)
    assert docker
    return [*found, ("Dockerfile", yaml.safe_load(docker[1]))]


@pytest.mark.parametrize(("file", "arguments"), calls())
def test_every_command_line_is_one(file: str, arguments: list[str]) -> None:
    del file
    command: Any = commands()[arguments[0]]
    rest = arguments[1:]
    if rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_there_are_as_many_command_lines_as_one_sees() -> None:
    assert [file for file, _ in calls()].count("sightline.service") == 3
    assert len(calls()) >= 7


def test_the_image_has_what_the_package_is_made_of() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = re.search(r"^ARG EXTRAS=(.*)$", read("Dockerfile"), re.MULTILINE)
    assert extras
    assert set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])
    copied = set(re.findall(r"^COPY (.*) \S+$", read("Dockerfile"), re.MULTILINE))
    sources = {word for line in copied for word in line.split()}
    assert all((ROOT / word).exists() for word in sources)
    assert {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]} <= sources


def test_compose_publishes_on_loopback_and_reads_pictures_only() -> None:
    services = yaml.safe_load(read("compose.yaml"))["services"]
    assert services["sightline"]["ports"] == ["127.0.0.1:8000:8000"]
    assert "ports" not in services["qdrant"]
    assert any(volume.endswith(":/photos:ro") for volume in services["sightline"]["volumes"])
    beside = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert services["qdrant"]["image"] == beside["qdrant"]["image"]


def test_the_manifest_holds_together() -> None:
    parts = {part["kind"]: part for part in yaml.safe_load_all(read("kubernetes.yaml"))}
    pod = parts["Deployment"]["spec"]["template"]
    assert parts["Deployment"]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert parts["Service"]["spec"]["selector"] == pod["metadata"]["labels"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    claim = volumes["data"]["persistentVolumeClaim"]["claimName"]
    assert claim == parts["PersistentVolumeClaim"]["metadata"]["name"]
    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    assert {mount["name"] for each in containers for mount in each["volumeMounts"]} <= set(volumes)
    assert len({each["image"] for each in containers}) == 1
    port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
    assert parts["Service"]["spec"]["ports"][0]["targetPort"] == port


def test_whoever_comes_through_the_proxy_needs_a_key() -> None:
    served = [arguments for file, arguments in calls() if file != "Dockerfile" and arguments[0] == "serve"]
    assert len(served) == 2
    assert all("--public" in arguments for arguments in served)


def test_the_page_works_behind_the_proxy(tmp_path: Path) -> None:
    values = {"$http_host": "photos.example.org", "$remote_addr": "203.0.113.7", "$scheme": "https"}
    passed = dict(re.findall(r"^\s*proxy_set_header (\S+) (\S+);$", read("nginx.conf"), re.MULTILINE))
    headers = {name: values.get(value, value) for name, value in passed.items()}
    backend, encoder = connect("exact://"), ColourEncoder()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    app = create_app(backend, encoder, "c", home=tmp_path, hosts=["*"], proxies=TrustedProxies.parse("127.0.0.1"))
    with running(app) as port:
        url = f"http://127.0.0.1:{port}/v1/search"
        for origin, status in (("https://photos.example.org", 200), ("https://other.example.org", 403)):
            assert httpx.post(url, json={"text": "red"}, headers=headers | {"Origin": origin}).status_code == status


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_the_unit_is_one(tmp_path: Path) -> None:
    unit = tmp_path / "sightline.service"
    # The program has to be there for the check, and the user may be.
    text = read("sightline.service").replace("/opt/sightline/.venv/bin/sightline", sys.executable)
    unit.write_text(re.sub(r"^(User|Group)=.*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert str(unit.name) not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service over two painted pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    backend, encoder = connect("exact://"), ColourEncoder()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    for colour in ("red", "green"):
        path = paint(folder / f"{colour}.png", colour)
        backend.upsert("c", [Record(f"img-{colour}", encoder.encode_images([path])[0], "image", None, path.as_uri())])
    with running(create_app(backend, encoder, "c", roots=[folder])) as port:
        yield f"http://127.0.0.1:{port}"


def node() -> str | None:
    """Node, of this machine or of the package that drives browsers."""
    found = shutil.which("node")
    if found is None:
        import playwright

        bundled = Path(playwright.__file__).parent / "driver" / "node"
        found = str(bundled) if bundled.exists() else None
    return found


@pytest.mark.parametrize("language", ["python", "javascript", "sh"])
def test_the_clients_run(language: str, service: str, tmp_path: Path) -> None:
    block = re.search(rf"```{language} client\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block
    program = {"python": sys.executable, "javascript": node(), "sh": "sh"}[language]
    if program is None:
        pytest.skip("needs Node")
    file = tmp_path / f"client.{'mjs' if language == 'javascript' else language}"
    file.write_text(block[1], encoding="utf-8")
    done = subprocess.run(
        [program, str(file)],
        env={**os.environ, "SIGHTLINE_URL": service},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "img-red" in done.stdout
    assert done.stdout.index("img-red") < done.stdout.index("img-green")
