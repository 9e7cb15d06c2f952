"""FAISS itself with one SQLite lookup of the hits' columns: what ``faiss://`` is compared with.

Searches read the graph that the adapter built, over vectors in memory. Upserts go into an index and a SQLite
file of their own, durable when they return, as the least that a store on FAISS could do.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from backends.base import Backend, CollectionSpec, Record
from backends.faiss.backend import FaissBackend
from backends.faiss.index import EF_DEFAULT

Floats = NDArray[np.float32]
COLUMNS = "id, modality, text, uri, metadata"


class NativeFaiss:
    """The adapter's own graph, searched with the same efSearch, and one lookup for all hits."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        if not isinstance(backend, FaissBackend):
            raise TypeError(f"not a FAISS backend: {backend!r}")
        self._folder = backend.folder / spec.name
        self._dim = spec.dim
        self._index: Any = None
        self.breadth = EF_DEFAULT
        self._rows: sqlite3.Connection | None = None
        self._temporary = tempfile.TemporaryDirectory(prefix="sightline-native-")
        self.clear()

    def load(self, records: Sequence[Record]) -> None:
        """Read the adapter's graph; its vectors are kept in memory, those of the records in their order."""
        vectors = np.stack([np.asarray(record.vector, np.float32) for record in records])
        state = sqlite3.connect(self._folder / "store.sqlite3")
        described = json.loads(state.execute("SELECT index_file FROM state").fetchone()[0])
        state.close()
        self._index = faiss.read_index(str(self._folder / described["file"]))
        #: As wide as the adapter searches this collection.
        self.breadth = round(EF_DEFAULT * (described.get("widths") or [1.0])[0])
        storage = faiss.IndexFlat(self._dim, faiss.METRIC_INNER_PRODUCT)
        storage.add(vectors)
        self._index.storage = storage
        storage.this.disown()
        self._index.own_fields = True
        self._rows = sqlite3.connect(self._folder / "store.sqlite3", isolation_level=None)
        # As much page cache as the adapter gives each of its connections.
        self._rows.execute("PRAGMA cache_size = -16384")
        self._first = self._rows.execute("SELECT min(row) FROM items").fetchone()[0]

    def search(self, query: Floats, k: int) -> list[str]:
        """The FAISS search, then the lookup."""
        return self._found(query[None], k)[0]

    def among(self, rows: NDArray[np.bool_]) -> Callable[[Floats, int], list[str]]:
        """The same search by FAISS's own filter of rows."""
        bits = np.packbits(rows, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        return lambda query, k: self._found(query[None], k, selector)[0]

    def search_batch(self, queries: Floats, k: int) -> list[list[str]]:
        """FAISS takes all queries in one call, on its own threads."""
        return self._found(queries, k)

    def _found(self, queries: Floats, k: int, selector: Any = None) -> list[list[str]]:
        assert self._rows is not None
        params = faiss.SearchParametersHNSW(efSearch=max(self.breadth, k), **({"sel": selector} if selector else {}))
        _, labels = self._index.search(queries, k, params=params)
        found = []
        for row in labels:
            wanted = [int(label) + self._first for label in row if label >= 0]
            marks = ",".join("?" * len(wanted))
            lookup = f"SELECT row, {COLUMNS} FROM items WHERE row IN ({marks})"  # noqa: S608 (only marks)
            ids = {about[0]: str(about[1]) for about in self._rows.execute(lookup, wanted)}
            found.append([ids[one] for one in wanted])
        return found

    def upsert(self, records: Sequence[Record]) -> None:
        """Rows into SQLite in one transaction, vectors behind one another in a file that is synced, and into FAISS."""
        vectors = np.stack([np.asarray(record.vector, np.float32) for record in records])
        rows = [(r.id, r.modality, r.text, r.uri, json.dumps(dict(r.metadata))) for r in records]
        with self._vectors.open("ab") as file:
            file.write(vectors.tobytes())
            file.flush()
            os.fsync(file.fileno())
        with self._stored:
            self._stored.executemany(f"INSERT OR REPLACE INTO items ({COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows)  # noqa: S608
        self._second.add(vectors)

    def clear(self) -> None:
        """Begin a new second store."""
        self._close_second()
        folder = Path(tempfile.mkdtemp(dir=self._temporary.name))
        self._vectors = folder / "vectors.f32"
        self._stored = sqlite3.connect(folder / "rows.sqlite3")
        self._stored.execute("PRAGMA journal_mode = WAL")
        self._stored.execute("PRAGMA synchronous = FULL")
        self._stored.execute("CREATE TABLE items (id TEXT PRIMARY KEY, modality, text, uri, metadata)")
        self._second = faiss.IndexFlatIP(self._dim)

    def _close_second(self) -> None:
        if hasattr(self, "_stored"):
            self._stored.close()

    def close(self) -> None:
        """Let go of the rows and the second store."""
        self._close_second()
        if self._rows is not None:
            self._rows.close()
        self._temporary.cleanup()
