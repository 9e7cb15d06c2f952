"""The wheel holds everything that the source tree's packages hold, and building it warns of nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.support.repository import ROOT

FOLDERS = ("backends", "retrieval", "indexers", "app", "benchmarks")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[zipfile.ZipFile, str]:
    """The wheel of a copy of the tree, and what building it printed."""
    place = tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, place)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(place)],
        cwd=place,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    (wheel,) = place.glob("*.whl")
    return zipfile.ZipFile(wheel), done.stdout


def test_every_file_of_the_packages_is_in_the_wheel(built: tuple[zipfile.ZipFile, str]) -> None:
    wheel, _ = built
    there = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "app/web/page.js" in there
    assert sorted(there - set(wheel.namelist())) == []


def test_building_warns_of_no_package_left_out(built: tuple[zipfile.ZipFile, str]) -> None:
    assert "importable package" not in built[1]
    assert "Package would be ignored" not in built[1]
