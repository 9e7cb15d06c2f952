"""Nothing outside its folder names an engine: what is known of one stands in its descriptor."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import backends
from tests.support.repository import ROOT

HOUSES = ("backends", "retrieval", "indexers", "app", "benchmarks")
FOLDERS = sorted({info.backend.split(".")[1] for info in backends.engines().values()})
# Names of engines, of the clients they are reached by, and of their folders.
NAMES = re.compile(
    r"(?i)(?<![a-z])("
    + "|".join(sorted({*FOLDERS, *backends.engines(), "pymilvus", "psycopg", "postgres"}, key=len, reverse=True))
    + r")(?![a-z])"
)
#: Who may name which engine, and why.
ALLOWED = {
    # The default engine: the store that a command makes where nobody names one, and the example of a URL.
    "app/core/settings.py": {"faiss"},
    "app/cli/options.py": {"faiss"},
    "app/http/schemas/common.py": {"faiss"},
    "app/reference.py": {"faiss"},
    "app/cli/transfer.py": {"faiss"},
    "backends/__init__.py": {"faiss"},
    "benchmarks/chat/__main__.py": {"faiss"},
    "benchmarks/encoder_profile.py": {"faiss"},
    "benchmarks/growth.py": {"faiss"},
    "benchmarks/paired_rates.py": {"faiss"},
    "benchmarks/unchanged.py": {"faiss"},
    "benchmarks/words.py": {"faiss"},
    # The load test starts a database of its own to kill it.
    "benchmarks/load.py": {"faiss", "postgresql"},
    "benchmarks/load_server.py": {"postgresql", "postgres", "pgvector-embedded"},
    "benchmarks/local_postgres.py": {"postgresql", "postgres", "psycopg", "pgvector"},
}
# Also an English word, and the name of the oracle that the conformance suite and the commands use.
COMMON = {"exact"}


def names_in(source: str) -> Iterator[str]:
    """The engines that code names: in its imports, names and strings; docstrings and comments may speak of them."""
    tree = ast.parse(source)
    spoken = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spoken:
            texts = [node.value]
        elif isinstance(node, ast.Import):
            texts = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            texts = [node.module or "", *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        else:
            continue
        for text in texts:
            yield from (found.lower() for found in NAMES.findall(text))


def outside() -> Iterator[Path]:
    """Every module that is no engine's own."""
    for house in HOUSES:
        for path in sorted((ROOT / house).rglob("*.py")):
            if not (house == "backends" and path.relative_to(ROOT).parts[1] in FOLDERS):
                yield path


def test_no_module_names_an_engine_of_another_folder() -> None:
    found = {}
    for path in outside():
        name = path.relative_to(ROOT).as_posix()
        extra = set(names_in(path.read_text("utf-8"))) - ALLOWED.get(name, set()) - COMMON
        if extra:
            found[name] = sorted(extra)
    assert found == {}


def test_the_list_of_what_is_allowed_is_no_longer_than_needed() -> None:
    for name, allowed in ALLOWED.items():
        assert allowed <= set(names_in((ROOT / name).read_text("utf-8"))), name


def test_a_name_in_code_is_found_and_one_in_a_docstring_is_not() -> None:
    assert set(names_in("import pymilvus\nurl = 'weaviate://x'\n")) == {"pymilvus", "weaviate"}
    assert set(names_in("from backends.qdrant import edge\nif engine == 'milvus-lite': pass\n")) == {
        "qdrant",
        "milvus-lite",
    }
    assert list(names_in('def f():\n    """As Milvus does."""\n    # and Qdrant\n')) == []
