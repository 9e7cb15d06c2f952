"""The documents say what is, and their examples run."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from app.cli.main import EXIT_CODES
from app.core.settings import Settings, variable
from app.reference import ENGINES, PAGE, commands, engine_table, reference
from tests.support.documents import READMES, Block, runnable
from tests.support.repository import ROOT

#: Photographs that the examples find in the folder `photos`.
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def test_reference_is_up_to_date() -> None:
    written = (ROOT / PAGE).read_text(encoding="utf-8")
    assert written == reference(), "docs/cli.md is stale: run python -m app.reference"


@pytest.mark.parametrize("language", READMES)
def test_the_readmes_table_of_engines_is_up_to_date(language: str) -> None:
    text = READMES[language].read_text(encoding="utf-8")
    assert ENGINES.findall(text) == [engine_table(language, text)], "a README is stale: run python -m app.reference"


def test_every_command_and_flag_is_in_the_reference() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    for name, command in commands().items():
        section = page.partition(f"## sightline {name}\n")[2].partition("\n## ")[0]
        assert command.help.splitlines()[0].rstrip(".") in " ".join(section.split()), name
        for parameter in command.params:
            for option in parameter.opts if parameter.opts[0].startswith("-") else ():
                assert option in section, f"{name} {option}"


def test_every_setting_and_exit_code_is_in_the_reference() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    for setting in fields(Settings):
        assert f"| `{setting.name}` | `{variable(setting.name)}` |" in page
    for code in EXIT_CODES:
        assert f"| {code} | " in page
    used = set(re.findall(r"Exit\((\d+)\)", "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))))
    assert used
    assert {int(code) for code in used} <= EXIT_CODES.keys()


def test_blocks_are_found() -> None:
    text = "a\n```python\nx = 1\n```\n```console\n$ no\n```\n```python skip\nno\n```\n\n```bash\ntrue\n```\n"
    assert runnable(text) == [Block("python", "x = 1\n", 3), Block("bash", "true\n", 13)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run examples in: `photos` with captions, `sightline` on the path, and what the demo leaves behind."""
    skimage = pytest.importorskip("skimage")
    folder = tmp_path / "work"
    (folder / "photos").mkdir(parents=True)
    for name in PHOTOS:
        shutil.copy(Path(skimage.__file__).parent / "data" / name, folder / "photos" / name)
    (folder / "photos" / "chelsea.txt").write_text("the face of a tabby cat")
    (folder / "photos" / "coffee.txt").write_text("a cup of coffee on a red saucer")
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "sightline"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m app "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    subprocess.run([program, "demo", "--no-stamps"], cwd=folder, check=True, capture_output=True, timeout=120)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("language", READMES)
def test_the_readmes_examples_run(language: str, workplace: Path) -> None:
    readme = READMES[language]
    for block in runnable(readme.read_text(encoding="utf-8")):
        script = ["-c", block.code] if block.language == "python" else ["-euo", "pipefail", "-c", block.code]
        program = sys.executable if block.language == "python" else "bash"
        done = subprocess.run(
            [program, *script], cwd=workplace, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{readme.name}:{block.line}\n{block.code}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
