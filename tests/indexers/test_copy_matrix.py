"""A -> B -> A, over every ordered pair of the engines that open here: what comes back is what was there.

An engine takes part as soon as its scheme is in `backends.engines()` and can be opened: embedded ones in a
folder, servers through the modules in tests/support that start them, else their tests are skipped with the reason.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import backends
from backends import Backend
from backends.base import CollectionSpec, Record, Unavailable
from backends.conformance.oracle import payload
from backends.conformance.samples import HOSTILE, metadata_of, vectors
from backends.filters import MetadataValue
from indexers.archive import export_collection, import_collection
from indexers.transfer import copy
from tests.support.open_engines import OPEN
from tests.support.tiers import tiered

DIM = 12
SPEC = CollectionSpec("matrix", DIM, "cosine", "an encoder's ✓ fingerprint")


def records() -> list[Record]:
    """Some 300: every hostile string as id, text, uri and metadata, and every type of metadata."""
    odd: tuple[dict[str, MetadataValue], ...] = (
        {},
        {"v": 0},
        {"v": 0.0},
        {"v": -0.5},
        {"v": 1},
        {"v": 1.0},
        {"v": True},
        {"v": False},
        {"v": "1"},
        {"v": ""},
        {"v": []},
        {"v": [""]},
        {"v": ["a", "a"]},
        {"v": 2**53 + 1},
        {"v": 2**63 - 1},
        {"v": -(2**63)},
        {"v": 1e300},
        {"v": 5e-324},
        {"v": 0.1},
        {"V": "case", "v": "Case"},
        {"id": "a", "vector": 1, "text": "t", "score": 2.5},
        {f"field_{i}": i for i in range(100)},
        {"tags": [f"tag{i}" for i in range(300)]},
        {"v": "é" * 20_000},
    )
    plain = 300 - len(HOSTILE) - len(odd)
    rows = vectors(300, DIM, seed=17) * np.float32(3.7)
    made = [Record(h, rows[i], "text", h, h, {"v": h, "tags": [h, "x"]}) for i, h in enumerate(HOSTILE)]
    made += [Record(f"odd {i}", rows[len(made) + i], metadata=fields) for i, fields in enumerate(odd)]
    made += [
        Record(
            f"p{i:03}",
            rows[len(HOSTILE) + len(odd) + i],
            "text" if i % 3 else "image",
            None if i % 4 else f"text {i}",
            None if i % 5 else f"file:///p/{i}.jpg",
            metadata_of(i),
        )
        for i in range(plain)
    ]
    return made


# No package has the server; its adapter is the one of qdrant-local, which is here.
NOT_HERE = {"qdrant"}
ENGINES = [scheme for scheme in backends.engines() if scheme not in NOT_HERE]


class Engines:
    """Every engine is opened once, by the first test that asks, and filled with the records at once."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._open: dict[str, Backend] = {}
        self._missing: dict[str, str] = {}
        self._content: dict[str, dict[str, Record]] = {}
        self._names = 0

    def __getitem__(self, scheme: str) -> Backend:
        if scheme in self._missing:
            pytest.skip(self._missing[scheme])
        if scheme not in self._open:
            folder = Path(
                self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True))
            )
            try:
                backend = backends.connect(OPEN[scheme](folder, self._stack))
            except (Unavailable, pytest.skip.Exception) as error:
                self._missing[scheme] = f"{scheme}: {error}"
                pytest.skip(self._missing[scheme])
            self._open[scheme] = self._stack.enter_context(backend)
            backend.drop(SPEC.name)
            backend.create(SPEC)
            self._stack.callback(backend.drop, SPEC.name)
            backend.upsert(SPEC.name, records())
            self._content[scheme] = content(backend, SPEC.name)
        return self._open[scheme]

    def content(self, scheme: str) -> dict[str, Record]:
        """What the engine holds of the records."""
        assert self[scheme]
        return self._content[scheme]

    def name(self) -> str:
        """A collection name that no test has used."""
        self._names += 1
        return f"copy_{os.getpid()}_{self._names}"


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    with ExitStack() as stack:
        yield Engines(stack)


def content(backend: Backend, name: str) -> dict[str, Record]:
    """All records by id."""
    return {record.id: record for page in backend.scan(name, batch=128) for record in page.records}


def same(found: dict[str, Record], wanted: dict[str, Record], tolerance: float) -> None:
    """Ids, texts, uris, modalities and metadata are equal, types included; vectors to the bit, or the tolerance."""
    assert sorted(found) == sorted(wanted)
    for record_id, record in wanted.items():
        other = found[record_id]
        assert payload(other) == payload(record)
        assert other.vector.dtype == record.vector.dtype == np.float32
        if tolerance == 0:
            assert other.vector.tobytes() == record.vector.tobytes(), f"vector of {record_id!r}"
        else:
            np.testing.assert_allclose(other.vector, record.vector, rtol=tolerance, atol=tolerance, err_msg=record_id)


def test_every_scheme_takes_part_or_is_excused() -> None:
    assert set(ENGINES) <= set(OPEN), "tell this test how to open the new engine"


@pytest.mark.slow
@pytest.mark.parametrize("there", tiered(ENGINES))
@pytest.mark.parametrize("here", tiered(ENGINES))
def test_there_and_back(engines: Engines, here: str, there: str) -> None:
    source, target, wanted = engines[here], engines[there], engines.content(here)
    away, back = engines.name(), engines.name()
    tolerance = max(source.capabilities.vector_tolerance, target.capabilities.vector_tolerance)
    try:
        report = copy(source, SPEC.name, target, away)
        assert (report.written, report.unchanged, report.extra) == (len(wanted), 0, 0)
        assert report.vector_error <= tolerance
        assert report.parity.mean_overlap >= 0.99
        same(content(target, away), wanted, tolerance)
        assert copy(source, SPEC.name, target, away).written == 0, "a copy that is there is not made again"
        assert copy(target, away, source, back).written == len(wanted)
        same(content(source, back), wanted, tolerance)
        for backend, name in ((target, away), (source, back)):
            assert (backend.describe(name).encoder, backend.describe(name).metric) == (SPEC.encoder, SPEC.metric)
    finally:
        target.drop(away)
        source.drop(back)


@pytest.mark.parametrize("scheme", tiered(ENGINES))
def test_an_archive_and_back(engines: Engines, tmp_path: Path, scheme: str) -> None:
    backend, name = engines[scheme], engines.name()
    wanted = engines.content(scheme)
    assert export_collection(backend, SPEC.name, tmp_path / "archive") == len(wanted)
    try:
        report = import_collection(tmp_path / "archive", backend, name)
        assert (report.written, report.extra) == (len(wanted), 0)
        same(content(backend, name), wanted, backend.capabilities.vector_tolerance)
        assert backend.describe(name).encoder == SPEC.encoder
    finally:
        backend.drop(name)


@pytest.mark.parametrize("scheme", tiered(ENGINES))
def test_what_was_written_is_what_is_there(engines: Engines, scheme: str) -> None:
    same(engines.content(scheme), engines.content("exact"), engines[scheme].capabilities.vector_tolerance)
    given = {record.id: payload(record) for record in records()}
    assert {record_id: payload(record) for record_id, record in engines.content(scheme).items()} == given
    assert len(given) == 300
