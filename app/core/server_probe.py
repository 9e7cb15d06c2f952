"""Asking servers which are there: several at once, each for a short time, without changing anything."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.local_servers import Running

ANSWERS, SILENT, REFUSED = "answers", "does not answer", "refused: wrong key"
NO_KEY = "needs a key"
WITHIN_S = 2.0
# Connecting takes several steps; whoever has not finished them by then does not answer.
PATIENCE_S = 2 * WITHIN_S


@dataclass(slots=True)
class Answer:
    """What one server said. `url` is for asking only and may hold a key; `shown` is for people.

    `state` is ANSWERS, SILENT, REFUSED, NO_KEY or ``failed``; `version` is its own words, `error` one line.
    """

    url: str = field(repr=False)
    shown: str
    origin: str
    state: str = SILENT
    version: str | None = None
    error: str | None = None


def places(scheme: str, home: Path, configured: str) -> list[Answer]:
    """The servers of a scheme to be asked: the one that `up` started, the default address, the setting `backend`."""
    from app.core import local_servers as servers
    from backends import engines
    from backends.redaction import shown
    from backends.registry import canonical

    info = engines()[scheme]
    found: list[Answer] = []
    running = servers.running(scheme, home) if scheme in servers.servers() else None
    if running is not None:
        found.append(Answer(_keyed(running, info.key_variable), shown(running.url), "engines up"))
    default = default_address(scheme)
    if default and all(answer.shown != default for answer in found):
        found.append(Answer(default, default, "default address"))
    if canonical(configured).partition("://")[0] == scheme and info.server_version:
        address = shown(configured)
        # The setting's key is the one that its user means to work with.
        found = [answer for answer in found if answer.shown != address or answer.origin == "engines up"]
        if all(answer.shown != address for answer in found):
            found.append(Answer(configured, address, "setting backend"))
    return found


def default_address(scheme: str) -> str | None:
    """Where a server of this scheme listens when nobody says otherwise; None for an engine in process."""
    from backends import engines

    return engines()[scheme].default_url


def _keyed(running: Running, variable: str | None) -> str:
    """The URL of a server that `up` started, with the key that this server was given."""
    key = running.environment.get(variable or "")
    return running.url.replace("://", f"://:{quote(key, safe='')}@", 1) if key else running.url


def ask(answers: Sequence[Answer], *, within_s: float = PATIENCE_S) -> None:
    """Fill in the answers, all at once; returns after `within_s` even where one is still silent."""
    # Daemons, since an address that swallows packets may hold a thread for longer than anyone wants to wait.
    threads = [threading.Thread(target=_ask, args=(answer,), daemon=True) for answer in answers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _ask(answer: Answer) -> None:
    from backends import versions
    from backends.errors import Denied, KeyMissing, Unavailable
    from backends.redaction import redact

    try:
        answer.version = versions.of_server(answer.url, within_s=WITHIN_S)
        answer.state = ANSWERS
    except KeyMissing as error:
        answer.state, answer.error = NO_KEY, str(error)
    except Denied as error:
        answer.state, answer.error = REFUSED, str(error)
    except Unavailable as error:
        answer.error = str(error)
    except Exception as error:
        # One engine's trouble must not hide the others.
        said = " ".join(redact(str(error), foreign=True).split())
        answer.state, answer.error = "failed", said or type(error).__name__
