"""No test touches the user's home, or settings; and a run says at its end which engines it was a test of."""

from __future__ import annotations

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backends
from app.main import main
from backends import redaction
from backends.base import CollectionSpec, Record
from backends.conformance import BackendSuite
from benchmarks.fake_openai import Behaviour, FakeOpenAI
from tests.support import workers
from tests.support.cli import Outcome, Run, paint
from tests.support.local_server import LocalServer, give_up_all_but, required, untested
from tests.support.toy import ColourEncoder, KeptBackend

#: What the conformance suite came to, by scheme; and why an engine's checks were skipped, by class.
OUTCOMES: dict[str, Counter[str]] = defaultdict(Counter)
SKIPPED: dict[str, str] = {}
#: What SIGHTLINE_TEST_REQUIRE may name beside engines: a browser, and an index that packages can be installed from.
PROGRAMS = {"chromium", "packages"}


def pytest_configure() -> None:
    # A shell that starts the tests in the background has them, and so what they start, ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    return workers.processes()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> workers.Scheduling:
    return workers.Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if workers.is_worker(config):
        workers.arrange(config, items)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator[None]:
    data = yield
    return workers.sendable(data)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    LocalServer.marked = workers.servers_of(item) if item.get_closest_marker("server") else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    yield
    # Another process may wait for a server. Fixtures of a module may use theirs to its end.
    if workers.is_worker(item.config) and (nextitem is None or nextitem.path != item.path):
        give_up_all_but(frozenset() if nextitem is None else workers.servers_of(nextitem))


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test, and no settings from outside."""
    for name in list(os.environ):
        # The key of the session's own server is not a setting.
        if name.startswith("SIGHTLINE_") and name not in ("SIGHTLINE_TEST_REQUIRE", "SIGHTLINE_WEAVIATE_API_KEY"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SIGHTLINE_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "share"))
    return home / "data"


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """What the tests of a module have taken for a secret is none to those that follow in this process."""
    before = dict(redaction._remembered)
    yield
    redaction._remembered.clear()
    redaction._remembered.update(before)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> ColourEncoder:
    """The encoder that every name loads; what was asked for is in its name."""
    model = ColourEncoder()

    def load(name: str = "compact", *, device: str = "auto", precision: str = "auto") -> ColourEncoder:
        if name.startswith("other"):
            return ColourEncoder(name, fingerprint="other:9")
        model.name = name
        return model

    monkeypatch.setattr("retrieval.encoders.load_encoder", load)
    return model


@pytest.fixture
def run(
    encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run one command line in `tmp_path` over the store ``kept://``."""
    engine = backends.EngineInfo(
        scheme="kept", backend="tests.support.toy:KeptBackend", example="kept://", summary="for tests"
    )
    monkeypatch.setitem(backends.engines(), "kept", engine)
    monkeypatch.setattr(KeptBackend, "stores", {})
    monkeypatch.setenv("SIGHTLINE_BACKEND", "kept://")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def colours(run: Run, encoder: ColourEncoder, tmp_path: Path) -> Path:
    """The collection ``default`` with a picture and a caption for each of five colours; returns the folder."""
    store = KeptBackend.connect("kept://")
    store.create(CollectionSpec("default", encoder.dim, encoder=encoder.fingerprint))
    for number, colour in enumerate(("red", "green", "blue", "yellow", "black")):
        path = paint(tmp_path / "pictures" / f"{colour}.png", colour)
        text = f"a {colour} square"
        common = {"number": number, "tags": ["flat", colour]}
        image, words = encoder.encode_images([path])[0], encoder.encode_texts([text])[0]
        store.upsert(
            "default",
            [
                Record(f"img-{colour}", image, "image", text, path.as_uri(), common),
                Record(f"txt-{colour}", words, "text", text, path.as_uri(), common),
            ],
        )
    return tmp_path / "pictures"


@pytest.fixture(scope="module")
def _running() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as running:
        yield running


@pytest.fixture
def server(_running: FakeOpenAI) -> FakeOpenAI:
    """The fake OpenAI server, honest and fast again, having received nothing."""
    _running.behaviour = Behaviour()
    _running.received.clear()
    _running.abandoned = _running.finished = 0
    return _running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    report = yield
    suite = getattr(item, "cls", None)
    if isinstance(suite, type) and issubclass(suite, BackendSuite):
        store = getattr(item, "funcargs", {}).get("store")
        if store is not None and report.when == "call":
            # The suite is also run over sample engines, which stand behind no scheme of ours.
            if type(store.backend).__module__.startswith("backends.") or getattr(suite, "stands_in", False):
                report.user_properties.append(("tested", store.url.partition("://")[0]))
        elif report.skipped and store is None:
            report.user_properties.append(("skipped suite", suite.__name__))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # Of tests that ran in another process only the report comes here.
    properties = dict(report.user_properties)
    if report.when == "call" and "tested" in properties:
        OUTCOMES[str(properties["tested"])][report.outcome] += 1
    elif "skipped suite" in properties:
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        SKIPPED[str(properties["skipped suite"])] = reason


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not OUTCOMES and not required() - PROGRAMS:
        return
    terminalreporter.section("engines")
    for scheme, counts in sorted(OUTCOMES.items()):
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items(), key=lambda pair: pair[0]))
        terminalreporter.line(f"{scheme}: the conformance suite, {told}")
    for scheme in sorted(set(backends.engines()) - set(OUTCOMES)):
        terminalreporter.line(f"{scheme}: not tested in this run")
    for suite, reason in sorted(SKIPPED.items()):
        terminalreporter.line(f"{suite}: {reason}")
    for scheme in sorted(untested(required() - PROGRAMS, OUTCOMES)):
        terminalreporter.line(f"{scheme}: REQUIRED, but not tested")


def pytest_sessionfinish(session: pytest.Session) -> None:
    give_up_all_but(frozenset())
    if workers.is_worker(session.config):
        return
    # Where single tests were chosen, nothing is said about the rest.
    chosen = (
        session.config.option.keyword or session.config.option.markexpr or session.config.args_source.name == "ARGS"
    )
    if untested(required() - PROGRAMS, OUTCOMES) and not chosen and session.exitstatus == 0:
        session.exitstatus = 1
