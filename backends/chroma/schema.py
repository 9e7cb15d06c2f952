"""How a collection is made in Chroma, and where its spec is kept."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from backends.base import CollectionSpec, Unsupported
from backends.checks import COLLECTION_NAME
from backends.chroma.connection import Connection
from backends.errors import BackendError, CollectionNotFound

SPEC = "sightline"
PREFIX, SUFFIX = "sightline-", "-c"
# Vectors of unit length are compared by their dot product: for its cosine Chroma scales them and gives back other bits.
SPACES = {"cosine": "ip", "dot": "ip", "l2": "l2"}
# With these recall was 1.00 over 20,000 clustered vectors, near to the data and on its far side, under filters of 50 to
# 0.1%; with Chroma's own (16, 100, 100) it was 0.86 on the far side under a filter of 50%.
DEFAULT_M, DEFAULT_EF_CONSTRUCTION, EF_SEARCH = 32, 200, 400
MAX_M = 512
# How long a collection may still be listed of which a part is gone.
DROP_POLLS, DROP_POLL_S = 20, 0.05


@dataclass(slots=True, eq=False)
class Handle:
    """A collection as it was found: Chroma's own object, which has an id that no later one of this name gets."""

    spec: CollectionSpec
    stored: Any
    writer: threading.RLock


class Collections:
    """The collections of one Chroma that Sightline made; others are neither listed nor touched."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, Handle] = {}
        self._writers: dict[str, threading.RLock] = {}
        self._mutex = threading.Lock()

    def names(self) -> list[str]:
        """Their names, sorted."""
        found = self._connection.read(lambda client: client.list_collections())
        return sorted(stored.name[len(PREFIX) : -len(SUFFIX)] for stored in found if _is_ours(stored))

    def find(self, name: str) -> Handle:
        """The collection as it is remembered, or as it is now. Raises `CollectionNotFound`."""
        self._connection.check_open()
        return self._known.get(name) or self.find_now(name)

    def find_now(self, name: str) -> Handle:
        """The collection as it is now."""
        self._connection.check_open()
        if not isinstance(name, str) or not COLLECTION_NAME.match(name):
            raise CollectionNotFound(f"no collection {name!r} in {self._connection.place}")
        self.forget(name)
        stored = self._connection.read(
            lambda client: client.get_collection(PREFIX + name + SUFFIX, embedding_function=None), name
        )
        if not _is_ours(stored):
            raise CollectionNotFound(f"no collection {name!r} in {self._connection.place}")
        with self._mutex:
            writer = self._writers.setdefault(str(stored.id), threading.RLock())
            found = self._known[name] = Handle(CollectionSpec.from_json(stored.metadata[SPEC]), stored, writer)
        return found

    def is_gone(self, at: Handle, error: Exception) -> bool:
        """Whether that is why a call failed: the collection was dropped, though another one may have its name by now.

        While it is being dropped Chroma says many things, and may still list it.
        """
        if type(error) is not BackendError:
            return isinstance(error, CollectionNotFound)
        for _ in range(DROP_POLLS):
            try:
                if self.find_now(at.spec.name).stored.id != at.stored.id:
                    return True
            except CollectionNotFound:
                return True
            time.sleep(DROP_POLL_S)
        return False

    def forget(self, name: str) -> None:
        """Look the collection up anew when it is asked for next."""
        self._known.pop(name, None)

    def create(self, spec: CollectionSpec) -> None:
        """Make an empty collection."""
        self._connection.check_room()
        hnsw = {"space": SPACES[spec.metric], "ef_search": EF_SEARCH, **_graph(spec)}
        with self._connection.calling(spec.name) as client:
            client.create_collection(
                PREFIX + spec.name + SUFFIX,
                metadata={SPEC: spec.to_json()},
                configuration={"hnsw": hnsw},
                embedding_function=None,
            )

    def set_encoder(self, name: str, fingerprint: str) -> None:
        """Store another encoder's fingerprint in the spec."""
        at = self.find_now(name)
        spec = replace(at.spec, encoder=fingerprint)
        with self._connection.calling(name):
            at.stored.modify(metadata={SPEC: spec.to_json()})
        # Chroma says nothing where the collection is gone.
        self.find_now(name)

    def drop(self, name: str) -> None:
        """Remove a collection; silent when it is not there."""
        try:
            at = self.find_now(name)
            with self._connection.calling(name) as client:
                client.delete_collection(PREFIX + name + SUFFIX)
        except CollectionNotFound:
            return
        finally:
            self.forget(name)
        with self._mutex:
            self._writers.pop(str(at.stored.id), None)


def _is_ours(stored: Any) -> bool:
    name = stored.name
    return name.startswith(PREFIX) and name.endswith(SUFFIX) and isinstance((stored.metadata or {}).get(SPEC), str)


def _graph(spec: CollectionSpec) -> dict[str, int]:
    params = spec.index.params
    m = params.get("m", DEFAULT_M)
    if not 2 <= m <= MAX_M:
        raise Unsupported(f"Chroma takes m from 2 to {MAX_M} for hnsw, not {m}")
    return {"max_neighbors": m, "ef_construction": params.get("ef_construction", DEFAULT_EF_CONSTRUCTION)}
