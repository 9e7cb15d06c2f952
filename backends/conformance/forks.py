"""A check of forks: a child of the process that opened a store works with it or is refused, and harms nobody."""

from __future__ import annotations

import os

import pytest

from backends.base import BackendError, Unavailable
from backends.conformance.forking import FORKS, RECORDS, WORKED
from backends.conformance.store import Store
from backends.errors import Locked


class ForkChecks:
    """Whoever forks, a server before its workers for one, finds its store unharmed."""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_a_forked_child_works_or_is_refused(self, store: Store) -> None:
        url, name = store.fresh_place(), store.name()
        answer = store.ask("fork", url, name, f"{store.sizes.hangs_s / 4} {url}")
        for told in answer["children"]:
            assert told.pop("close", WORKED) == WORKED, "close must be silent"
            own = told.pop("connect", WORKED)
            assert own in (WORKED, BackendError.__name__), f"a store that the child opens itself: {own}"
            assert set(told.values()) in ({WORKED}, {BackendError.__name__}), told
        assert len(answer["children"]) == FORKS + 1
        assert (answer["count"], answer["hits"]) == (2 * RECORDS, 3), "the parent goes on"
        if not store.capabilities.persistent:
            return
        written = 0
        if store.capabilities.concurrent_writers:
            assert answer["second writer"] == {"written": 5}
            written = 5
        else:
            error = answer["second writer"].get("error")
            assert error in (Locked.__name__, Unavailable.__name__), (
                "the child gave away what keeps a second writer out"
            )
        with store.connect(url) as backend:
            assert backend.count(name) == 2 * RECORDS + written
            assert len([r for page in backend.scan(name) for r in page.records]) == 2 * RECORDS + written
            backend.drop(name)
