"""Records, specs, arguments and `connect`: what is accepted, what is refused and how it is said."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import backends
from backends import connect, engines
from backends.base import (
    NO_VECTOR,
    CollectionSpec,
    Corrupt,
    DimensionMismatch,
    IndexSpec,
    Record,
    Unavailable,
    prepare_queries,
    prepare_records,
)
from backends.checks import check_search, plain_metadata, unit_length
from backends.conformance import strategies
from backends.exact.backend import ExactBackend

SPEC = CollectionSpec("c", 3)


def row(*values: float) -> Any:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": ""}, "non-empty string"),
        ({"id": 7}, "non-empty string, not 7"),
        ({"id": None}, "non-empty string"),
        ({"id": "a\x00"}, "NUL"),
        ({"id": "\udc00"}, "lone surrogate"),
        ({"id": "x" * 513}, "513 bytes"),
        ({"id": "é" * 257}, "514 bytes"),
        ({"modality": "video"}, "record 'r': modality must be 'image' or 'text'"),
        ({"text": "a\x00b"}, "record 'r': text contains a NUL"),
        ({"text": "\ud800"}, "record 'r': text is not valid Unicode"),
        ({"text": "x" * 65_536}, "65536 bytes"),
        ({"uri": "x" * 8_193}, "record 'r': uri has 8193 bytes"),
        ({"metadata": {"modality": "image"}}, "reserved"),
        ({"metadata": {"a b": 1}}, "record 'r': field name 'a b'"),
        ({"metadata": {"": 1}}, "field name ''"),
        ({"metadata": {"a": None}}, "metadata field 'a' is a NoneType"),
        ({"metadata": {"a": {"b": 1}}}, "is a dict"),
        ({"metadata": {"a": float("nan")}}, "only finite"),
        ({"metadata": {"a": 2**63}}, "64-bit"),
        ({"metadata": {"a": np.datetime64("2020")}}, "is a datetime64; allowed are"),
        ({"metadata": {"a": [1]}}, "lists hold strings only"),
        ({"metadata": {"a": ["x\x00"]}}, "NUL"),
        ({"metadata": {"a": b"x"}}, "is a bytes"),
        ({"metadata": {"a": "x" * 65_536}}, "metadata has 65545 bytes; the limit is 65535"),
    ],
)
def test_unusable_records_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Record(**{"id": "r", "vector": None, **fields})
    assert "\n" not in str(caught.value)


def test_records_as_large_as_allowed() -> None:
    record = Record("é" * 256, None, "text", "x" * 65_535, "u" * 8_192, {"f" * 64: "x" * 65_463})
    assert record.modality == "text"


@settings(deadline=None)
@given(strategies.ids().filter(lambda i: len(i.encode()) <= 512), strategies.texts(), strategies.metadata())
def test_usable_records_are_accepted(record_id: str, text: str, metadata: Any) -> None:
    record = Record(record_id, None, "text", text, text[:1000], metadata)
    assert record == Record(record_id, None, "text", text, text[:1000], metadata)


def test_records_are_equal_by_content() -> None:
    first = Record("a", row(1, 2, 3), metadata={"tags": ("x", "y")})
    assert first == Record("a", row(1, 2, 3), metadata={"tags": ["x", "y"]})
    assert first != Record("a", row(1, 2, 4), metadata={"tags": ["x", "y"]})
    assert first != Record("a", None, metadata={"tags": ["x", "y"]})
    assert first != Record("a", row(1, 2, 3))
    assert first != "a"
    with pytest.raises(TypeError):
        hash(first)
    assert plain_metadata(first.metadata) == {"tags": ["x", "y"]}


@pytest.mark.parametrize("name", ["a", "A", "photos", "my_photos-2", "a" * 63])
def test_usable_collection_names(name: str) -> None:
    assert CollectionSpec(name, 1).name == name


@pytest.mark.parametrize("name", ["", "1a", "_a", "-a", "a b", "a.b", "a/b", "ä", "a\n", "a" * 64, "a;b", None, 3])
def test_unusable_collection_names_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=r"collection name .* is not usable"):
        CollectionSpec(name, 3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dim": 0}, "dim must be"),
        ({"dim": -1}, "dim must be"),
        ({"dim": 16_385}, "16384"),
        ({"dim": 3.0}, "dim must be"),
        ({"dim": True}, "dim must be"),
        ({"metric": "euclid"}, "metric must be one of"),
        ({"encoder": "a\x00"}, "encoder fingerprint contains a NUL"),
    ],
)
def test_unusable_specs_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CollectionSpec(**{"name": "c", "dim": 3, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "annoy"}, "index kind must be one of"),
        ({"quantization": "int4"}, "quantization must be one of"),
        ({"params": {"m": 8}}, "'m' does not belong to auto"),
        ({"kind": "flat", "params": {"nlist": 8}}, "does not belong to flat"),
        ({"kind": "hnsw", "params": {"nlist": 8}}, r"known: \['ef_construction', 'm'\]"),
        ({"kind": "hnsw", "params": {"m": 0}}, "1 to 65,536"),
        ({"kind": "hnsw", "params": {"m": 1.5}}, "must be an integer"),
        ({"kind": "hnsw", "params": {"m": True}}, "must be an integer"),
        ({"kind": "ivf", "params": {"nlist": 65_537}}, "1 to 65,536"),
    ],
)
def test_unusable_indexes_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IndexSpec(**fields)


def test_specs_survive_json() -> None:
    for spec in (
        SPEC,
        CollectionSpec("x", 512, "l2", "é 'q' \"d\" \n 😀", IndexSpec("hnsw", "int8", {"m": 8, "ef_construction": 90})),
        CollectionSpec("y", 1, "dot", "", IndexSpec("ivf", "half", {"nlist": 4})),
    ):
        assert CollectionSpec.from_json(spec.to_json()) == spec
        assert "\n" not in spec.to_json()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"name": "c"}', "null"])
def test_damaged_spec_json_is_corrupt(text: str) -> None:
    with pytest.raises(Corrupt, match="not readable"):
        CollectionSpec.from_json(text)
    changed = {**json.loads(SPEC.to_json()), "dim": "three"}
    with pytest.raises(Corrupt):
        CollectionSpec.from_json(json.dumps(changed))


def test_records_are_prepared() -> None:
    kept, rows = prepare_records(
        [Record("a", row(3, 0, 4)), Record("b", row(0, 1, 0)), Record("a", row(0, 0, 2), text="last")], SPEC
    )
    assert [(r.id, r.text) for r in kept] == [("a", "last"), ("b", None)]
    assert {vector.dtype for vector in rows} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(rows, [[0, 0, 1], [0, 1, 0]])
    assert prepare_records([], SPEC) == ([], [])


def test_records_without_a_vector_are_prepared_among_others() -> None:
    assert (NO_VECTOR.shape, NO_VECTOR.dtype, NO_VECTOR.flags.writeable) == ((0,), np.float32, False)
    given = [Record("a", NO_VECTOR), Record("b", row(3, 0, 4)), Record("c", np.empty(0)), Record("d", row(0, 2, 0))]
    kept, rows = prepare_records([*given, Record("b", NO_VECTOR), Record("a", row(0, 0, 5))], SPEC)
    assert [r.id for r in kept] == ["a", "b", "c", "d"]
    assert [vector.tolist() for vector in rows] == [[0, 0, 1], [], [], [0, 1, 0]]
    with pytest.raises(ValueError, match="record 'd': its vector is the zero"):
        prepare_records([*given[:3], Record("d", row(0, 0, 0))], SPEC)
    assert Record("a", NO_VECTOR) == Record("a", np.empty(0, np.float32)) != Record("a", None)


def test_other_metrics_keep_lengths() -> None:
    for metric in ("dot", "l2"):
        spec = CollectionSpec("c", 3, metric)
        np.testing.assert_array_equal(prepare_records([Record("a", row(3, 0, 4))], spec)[1], [[3, 0, 4]])
        np.testing.assert_array_equal(prepare_queries([[0, 0, 0]], spec), [[0, 0, 0]])


@pytest.mark.parametrize(
    ("vector", "error", "said"),
    [
        (None, ValueError, "record 'bad' was read without its vector"),
        (row(1, 2), DimensionMismatch, r"shape \(2,\); collection 'c' holds \(3,\)"),
        (np.ones((1, 3)), DimensionMismatch, r"shape \(1, 3\)"),
        (row(1, np.nan, 0), ValueError, "record 'bad': its vector has NaN"),
        (row(1, np.inf, 0), ValueError, "record 'bad': its vector has NaN or infinite"),
        (np.array([1e300, 0, 0]), ValueError, "record 'bad': its vector has NaN or infinite"),
        (row(0, 0, 0), ValueError, "record 'bad': its vector is the zero vector"),
    ],
)
def test_bad_vectors_are_named(vector: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        prepare_records([Record("good", row(1, 0, 0)), Record("bad", vector)], SPEC)


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        ([1.0, 0, 0], r"shape \(3,\); collection 'c' takes \(q, 3\)"),
        ([[1.0, 0]], r"shape \(1, 2\)"),
        ([[1, 0, 0], [0, 0, 0]], "query vector 1 is the zero vector"),
        ([[1, 0, 0], [0, np.nan, 0]], "query vector 1 has NaN"),
        ([[1e300, 0, 0]], "query vector 0 has NaN or infinite"),
    ],
)
def test_bad_queries_are_named(queries: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prepare_queries(queries, SPEC)


def test_unit_rows_are_left_bit_for_bit() -> None:
    rows = np.random.default_rng(1).standard_normal((50, 64)).astype(np.float32)
    once = unit_length(rows)
    np.testing.assert_allclose(np.linalg.norm(once, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(unit_length(once), once)
    tiny = unit_length(row(1e-30, 0, 0)[None, :])
    np.testing.assert_array_equal(tiny, [[1, 0, 0]])


def test_search_arguments() -> None:
    capabilities = ExactBackend.capabilities
    check_search(1, None, capabilities)
    check_search(10**6, 1, capabilities)
    for k in (0, -1, 1.0, True, None):
        with pytest.raises(ValueError, match="k must be a positive integer"):
            check_search(k, None, capabilities)  # type: ignore[arg-type]
    for effort in (0, -1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"effort must be in \(0, 1\]"):
            check_search(1, effort, capabilities)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is not a backend URL"),
        ("/some/folder", "needs a scheme, e.g. faiss:///path/to/dir"),
        ("faiss:/dir", "is not a backend URL"),
        ("nosuch://x", "no engine serves 'nosuch' URLs; known are .*exact://, faiss:///dir"),
        ("://x", "is not a backend URL"),
        ("exact://host", "takes nothing after it"),
        ("exact:///dir?a=1", "takes nothing after it"),
        ("nosuch://[::1", "cannot be read"),
    ],
)
def test_unusable_urls_are_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        connect(url)


def test_a_missing_client_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = backends.EngineInfo(
        scheme="nosuch",
        backend="no_such_client.module:Backend",
        extra="nosuch",
        example="nosuch://",
        summary="a client that is not installed",
    )
    monkeypatch.setitem(engines(), "nosuch", engine)
    with pytest.raises(Unavailable, match=r"'no_such_client'.*pip install 'sightline\[nosuch\]'"):
        connect("nosuch://")
    broken = backends.EngineInfo(
        scheme="nosuch",
        backend="backends.nosuch:Backend",
        extra="nosuch",
        example="nosuch://",
        summary="a module of ours that is missing",
    )
    monkeypatch.setitem(engines(), "nosuch", broken)
    with pytest.raises(ModuleNotFoundError, match=r"backends\.nosuch"):
        connect("nosuch://")


def test_importing_backends_imports_no_client() -> None:
    code = "import sys, backends, backends.base; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"faiss", "torch", "open_clip", "transformers", "sqlite3", "PIL", "pytest", "hypothesis", "qdrant_client"}
    assert not heavy & set(ended.stdout.split())
    assert "numpy" in ended.stdout.split()


def test_every_scheme_has_a_summary_and_an_example_of_itself() -> None:
    for scheme, engine in engines().items():
        assert engine.example.startswith(f"{scheme}://")
        assert engine.summary
        assert ":" in engine.backend
