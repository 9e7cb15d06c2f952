"""The tests keep their own rules: no module takes from a module of tests, and their folders are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import ROOT

TESTS = ROOT / "tests"
#: Folders that are like no folder of the code.
OF_THEIR_OWN = {"project", "support"}
TEST_MODULE = re.compile(r"\btests(?:\.\w+)*\.test_\w+")


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_in(source: str, package: str) -> Iterator[str]:
    """Every dotted name that a module of `package` imports, and every string that may be code or a name to import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def taken_from_tests(root: Path) -> dict[str, list[str]]:
    """The test modules that others name, by who names them. Its own module's child process may import it again."""
    found = {}
    for path in sorted((root / "tests").rglob("*.py")):
        own = module_of(path, root)
        package = own if path.name == "__init__.py" else own.rpartition(".")[0]
        named = {m for text in names_in(path.read_text("utf-8"), package) for m in TEST_MODULE.findall(text)}
        others = sorted(name for name in named - {own} if (root / f"{name.replace('.', '/')}.py").is_file())
        if others:
            found[own] = others
    return found


def test_no_module_takes_from_a_module_of_tests() -> None:
    assert taken_from_tests(ROOT) == {}


@pytest.mark.parametrize(
    "line",
    [
        "from tests.app.test_first import helper",
        "from tests.app import test_first",
        "import tests.app.test_first",
        "from .test_first import helper",
        "from . import test_first",
        "from ..app.test_first import helper",
        "    from tests.app.test_first import helper",
        "first = importlib.import_module('tests.app.test_first')",
        "CHILD = 'from tests.app.test_first import helper'",
    ],
)
@pytest.mark.parametrize("name", ["test_second", "conftest", "helpers", "__init__"])
def test_a_planted_import_is_found(tmp_path: Path, name: str, line: str) -> None:
    folder = tmp_path / "tests" / "app"
    folder.mkdir(parents=True)
    (folder / "test_first.py").write_text("def helper(): ...\nCHILD = 'from tests.app.test_first import helper'\n")
    (folder / f"{name}.py").write_text(f"def f():\n{line}\n" if line.startswith(" ") else line)
    own = "tests.app" if name == "__init__" else f"tests.app.{name}"
    assert taken_from_tests(tmp_path) == {own: ["tests.app.test_first"]}


def test_support_and_conftest_may_be_taken_from(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "app"
    folder.mkdir(parents=True)
    for name in ("conftest", "helpers"):
        (folder / f"{name}.py").write_text("")
    lines = ("from tests.app import conftest", "from tests.app.helpers import f", "from .conftest import f")
    (folder / "test_first.py").write_text("\n".join(lines))
    assert taken_from_tests(tmp_path) == {}


def test_every_folder_of_tests_is_a_package_like_one_of_the_code() -> None:
    for folder in {path.parent for path in TESTS.rglob("*.py")}:
        assert (folder / "__init__.py").is_file(), folder
        place = folder.relative_to(TESTS)
        assert place.parts[:1] == () or place.parts[0] in OF_THEIR_OWN or (ROOT / place).is_dir(), folder
