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
from backends.conformance import BackendSuite
from tests.support.local_server import required

#: What the conformance suite came to, by scheme; and why an engine's checks were skipped, by class.
OUTCOMES: dict[str, Counter[str]] = defaultdict(Counter)
SKIPPED: dict[str, str] = {}
#: What SIGHTLINE_TEST_REQUIRE may name beside engines; `tests.support.browser` sees to it.
PROGRAMS = {"chromium"}


def pytest_configure() -> None:
    # A shell that starts the tests in the background has them, and so what they start, ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    report = yield
    suite = getattr(item, "cls", None)
    if isinstance(suite, type) and issubclass(suite, BackendSuite):
        store = getattr(item, "funcargs", {}).get("store")
        if store is not None and report.when == "call":
            scheme = store.url.partition("://")[0]
            # The suite is also run over sample engines, which stand behind no scheme of ours.
            if type(store.backend).__module__.startswith("backends."):
                OUTCOMES[scheme][report.outcome] += 1
        elif report.skipped and store is None:
            SKIPPED[suite.__name__] = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
    return report


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
    for scheme in sorted(required() - PROGRAMS - set(OUTCOMES)):
        terminalreporter.line(f"{scheme}: REQUIRED, but not tested")


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Where single tests were chosen, nothing is said about the rest.
    chosen = (
        session.config.option.keyword or session.config.option.markexpr or session.config.args_source.name == "ARGS"
    )
    if required() - PROGRAMS - set(OUTCOMES) and not chosen and session.exitstatus == 0:
        session.exitstatus = 1
