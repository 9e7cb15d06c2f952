"""The API's description says what is, and generated requests meet nothing that it does not say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.http.app import create_app
from backends import connect
from tests.support.fuzzing import fuzz
from tests.support.repository import ROOT
from tests.support.toy import ColourEncoder

PAGE = ROOT / "docs" / "http.md"


@pytest.fixture
def described(tmp_path: Path) -> dict[str, Any]:
    app = create_app(connect("exact://"), ColourEncoder(), "c", home=tmp_path)
    schema = app.openapi()
    app.state.service.close()
    return schema


def test_the_guide_names_every_operation_with_its_scope(described: dict[str, Any]) -> None:
    rows = dict(re.findall(r"^\| `([A-Z]+ /\S+)` \| (\S+) \|", PAGE.read_text("utf-8"), re.MULTILINE))
    operations = {
        f"{method.upper()} {path}": operation.get("x-scope", "–")
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert rows == operations


def test_every_operation_documents_its_problems(described: dict[str, Any]) -> None:
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert operation.get("summary"), path
            responses = operation["responses"]
            assert {"400", "431", "500"} <= set(responses), path
            if "x-scope" in operation:
                assert {"401", "403", "429", "503"} <= set(responses), path
            like_openai = operation.get("x-errors") == "openai"
            if "requestBody" in operation:
                assert {"408", "413", "415"} <= set(responses), path
            if "requestBody" in operation or like_openai:
                assert ("422" in responses) != like_openai, path
            kind = "application/json" if like_openai else "application/problem+json"
            for status, response in responses.items():
                if int(status) >= 400:
                    assert list(response["content"]) == [kind], (path, status)
    assert {"bearer", "key"} == set(described["components"]["securitySchemes"])
    for body in ("SearchBody", "ChatBody", "CompletionBody"):
        assert described["components"]["schemas"][body]["examples"]


@pytest.mark.slow
def test_generated_requests_find_nothing_undocumented() -> None:
    pytest.importorskip("schemathesis")
    outcome = fuzz(ColourEncoder(), 12, phases="examples,fuzzing")
    assert outcome.code == 0, outcome.text[-8000:]
    assert outcome.cases >= 200, outcome.text[-2000:]
