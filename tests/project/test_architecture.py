"""The map of the code names what is there, the list of decisions is whole, and the hooks run what `make check` runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import pytest
import yaml

from tests.support.repository import ROOT

MAP = ROOT / "docs" / "architecture.md"
DECISIONS = ROOT / "docs" / "decisions"
HOUSES = ("sightline", "backends", "retrieval", "indexers", "app", "benchmarks", "tests")
FENCE = re.compile(r"^```.*?^```\s*$", re.MULTILINE | re.DOTALL)
DOTTED = re.compile(rf"({'|'.join(HOUSES)})(\.[A-Za-z_]\w*)+")
#: A file or a folder from the root; `tests/test_x.py`, `backends/kit/`, `pyproject.toml`.
PLACE = re.compile(r"[\w.-]+(/[\w.-]+)*(/|\.(py|md|toml|yaml))")
#: Names of files that every engine's folder may have.
IN_EACH_ENGINE = {"__init__.py", "backend.py", "filters.py"}


def quoted(text: str) -> list[str]:
    """What stands in backticks, outside fenced blocks."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def spec_of(module: str) -> ModuleSpec | None:
    """Where a module is, found without importing it or the packages above it."""
    path, spec = [str(ROOT)], None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


@cache
def members(module: str) -> dict[str, ast.stmt]:
    """What a module's source defines, assigns or imports at its top, by name."""
    spec = spec_of(module)
    if spec is None or spec.origin is None:
        return {}
    return dict(named(ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body))


def named(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node
        elif isinstance(node, ast.Assign):
            found = (each for target in node.targets for each in ast.walk(target))
            yield from ((each.id, node) for each in found if isinstance(each, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or what a module has, or a class in it has."""
    parts = name.split(".")
    length = next((n for n in range(len(parts), 0, -1) if spec_of(".".join(parts[:n]))), 0)
    rest = parts[length:]
    if not length or len(rest) > 2:
        return False
    if not rest:
        return True
    found = members(".".join(parts[:length])).get(rest[0])
    if found is None or len(rest) == 1:
        return found is not None
    return isinstance(found, ast.ClassDef) and rest[1] in dict(named(found.body))


def test_every_module_and_function_of_the_map_is_there() -> None:
    words = quoted(MAP.read_text(encoding="utf-8"))
    # The entry-point group has the form of a module, and is none.
    names = [w for w in words if DOTTED.fullmatch(w) and not PLACE.fullmatch(w) and w != "sightline.engines"]
    assert len(set(names)) > 100
    assert [name for name in dict.fromkeys(names) if not is_there(name)] == []


def test_every_file_and_folder_of_the_map_is_there() -> None:
    places = [place for place in quoted(MAP.read_text(encoding="utf-8")) if PLACE.fullmatch(place)]
    assert len(set(places)) > 20
    wrong = [p for p in dict.fromkeys(places) if p not in IN_EACH_ENGINE and not (ROOT / p).exists()]
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("backends.base", True),
        ("backends.base.Backend", True),
        ("backends.base.Backend.upsert", True),
        ("backends.base.Hit.exact", True),
        ("backends.filters.MAX_DEPTH", True),
        ("backends.connect", True),
        ("backends.nowhere", False),
        ("backends.base.Backened", False),
        ("backends.base.Backend.upserted", False),
        ("backends.connect.upsert", False),
    ],
)
def test_a_name_that_is_not_there_is_found_out(name: str, there: bool) -> None:
    assert is_there(name) is there


def test_looking_names_up_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy").mkdir()
    (tmp_path / "heavy" / "__init__.py").write_text("raise ImportError('imported')\n")
    (tmp_path / "heavy" / "inner.py").write_text("x = 1\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert is_there("heavy.inner.x")
    assert not is_there("heavy.inner.y")


def test_every_decision_is_listed_and_has_its_parts() -> None:
    records = sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (DECISIONS / "README.md").read_text(encoding="utf-8"))
    assert listed == records
    assert [name[:4] for name in records] == [f"{number:04d}" for number in range(1, len(records) + 1)]
    for name in records:
        text = (DECISIONS / name).read_text(encoding="utf-8")
        assert text.startswith(f"# {name[:4]} "), name
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences", "What would make us decide again"], name


def test_the_hooks_run_what_make_check_runs() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]] == commands
