"""A changed spec on a Milvus server.

A server keeps the description that a collection was made with, and 2.3 forgets changed properties when it starts again.
So a changed spec is the description of another collection, a note, which is empty and never loaded. A note is replaced
by one under the other of two names, with a higher number, before the old one goes: at any moment the highest says how
the spec is. It names the creation of its collection; that of a collection which was dropped since counts for nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pymilvus import DataType, MilvusClient

from backends.base import CollectionSpec
from backends.errors import CollectionExists, CollectionNotFound
from backends.milvus.connection import Connection
from backends.milvus.records import MARK, spec_of

# Not the prefix of collections.
PREFIX = "sightlinespec_"
SLOTS = ("a_", "b_")
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Note:
    """A note as it is on the server, under one of its two names."""

    stored: str
    number: int
    spec: CollectionSpec


class Notes:
    """The notes of one server's collections."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def newest(self, stored: str, creation: str) -> Note | None:
        """The note that tells how the spec of this collection is, None where it is as at its creation."""
        # Twice: between one look and the other a writer may have made the new note and removed the old one.
        for _ in range(2):
            found = [note for slot in SLOTS if (note := self._read(_name(stored, slot), creation))]
            if found:
                return max(found, key=lambda note: note.number)
        return None

    def _read(self, stored: str, creation: str) -> Note | None:
        try:
            description = self._connection.call(stored, lambda client: client.describe_collection(stored))
        except CollectionNotFound:
            return None
        spec = spec_of(description)
        of, _, number = description["description"].partition("\n")[2].rpartition(" ")
        return Note(stored, int(number), spec) if spec is not None and of == creation else None

    def write(self, stored: str, creation: str, spec: CollectionSpec) -> None:
        """Make this the spec of the collection."""
        for attempt in range(1, ATTEMPTS + 1):
            old = self.newest(stored, creation)
            number = old.number + 1 if old is not None else 1
            name = next(n for slot in SLOTS if (n := _name(stored, slot)) != (old and old.stored))
            # One of a collection that was dropped, or one that has been replaced by a client that was killed then.
            self._remove(name)
            try:
                self._make(name, f"{MARK}{spec.to_json()}\n{creation} {number}")
            except CollectionExists:
                # By another who sets an encoder at this moment.
                if attempt == ATTEMPTS:
                    raise
                continue
            if old is not None:
                self._remove(old.stored)
            return

    def remove(self, stored: str) -> None:
        """Remove the notes of a collection that was dropped."""
        for slot in SLOTS:
            self._remove(_name(stored, slot))

    def _make(self, stored: str, description: str) -> None:
        schema = MilvusClient.create_schema(description=description)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=8)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        self._connection.call(stored, lambda client: client.create_collection(stored, schema=schema, num_shards=1))

    def _remove(self, stored: str) -> None:
        with contextlib.suppress(CollectionNotFound):
            self._connection.call(stored, lambda client: client.drop_collection(stored))


def _name(stored: str, slot: str) -> str:
    return PREFIX + slot + stored
