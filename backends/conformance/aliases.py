"""Checks of aliases: what `backends.wrappers.aliases` does over any engine."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from backends.base import CollectionNotFound
from backends.conformance.samples import some
from backends.conformance.store import Store
from backends.wrappers.aliases import HOLDER, with_aliases


class AliasChecks:
    """A name is pointed at another collection at once, and nobody who searches by it ever finds none."""

    def test_an_alias_is_switched_at_once(self, store: Store) -> None:
        before, after, name = store.collection(), store.collection(), store.name()
        records = some(12)
        store.backend.upsert(before, records[:5])
        store.backend.upsert(after, records)
        backend = with_aliases(store.backend)
        try:
            backend.point({name: before})
            assert (backend.count(name), backend.describe(name).name) == (5, name)
            assert name in backend.collections()
            assert not {HOLDER, before} & set(backend.collections())
            counts: list[int] = []
            stop = threading.Event()

            def look() -> None:
                while not stop.is_set():
                    counts.append(len(backend.search(name, np.array([records[0].vector]), 20)[0]))

            thread = threading.Thread(target=look)
            thread.start()
            try:
                backend.point({name: after})
                backend.drop(before)
            finally:
                stop.set()
                thread.join()
            assert set(counts) <= {5, 12}
            assert backend.count(name) == 12
            # A handle of its own, as another process would have.
            assert with_aliases(store.backend).count(name) == 12
            backend.drop(name)
            assert not {name, after} & set(backend.collections())
            with pytest.raises(CollectionNotFound):
                backend.count(name)
        finally:
            store.backend.drop(HOLDER)
