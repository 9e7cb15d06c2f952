"""How a collection is made, found and removed, and the row in it that says what it is.

A collection of VikingDB has one index here, whose name is another for every time that it is made: who knows an earlier
one is told that there is no such index. What `describe` tells is a row of its own, so that an API key, which reads rows
only, is enough to search.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from backends.base import NO_VECTOR, CollectionExists, CollectionSpec
from backends.errors import BackendError, Corrupt, Unavailable, Unsupported
from backends.kit.json_text import decode, encode
from backends.vikingdb.connection import Refused, VikingServer
from backends.vikingdb.records import (
    BODY,
    ENCODER_KEY,
    HAS,
    HIGH,
    ID,
    LOW,
    META,
    META_KEY,
    PARTS,
    POSITION,
    SLOTS,
    STAMP,
    VECTOR,
    new_stamp,
    rows_of,
    stored_dim,
)
from backends.vikingdb.rows import Rows

MAX_DIM = 4096
READY_S, DROP_S, POLL_S = 900.0, 120.0, 0.05
PAGE = 100
DISTANCES = {"cosine": "ip", "dot": "ip"}
_PLAIN, _HYPHENS = "sl_", "sh_"


@dataclass(frozen=True, slots=True)
class Stored:
    """A collection as VikingDB has it: its spec and the index that answers for it."""

    spec: CollectionSpec
    rows: Rows


def stored_name(name: str) -> str:
    """The name of a collection in VikingDB, which has no hyphens in names."""
    if "-" not in name:
        return _PLAIN + name
    return _HYPHENS + name.replace("_", "_u").replace("-", "_h")


def given_name(stored: str) -> str | None:
    """The name behind a `stored_name`; None for collections of others."""
    if stored.startswith(_PLAIN):
        return stored.removeprefix(_PLAIN)
    if stored.startswith(_HYPHENS):
        return stored.removeprefix(_HYPHENS).replace("_h", "-").replace("_u", "_")
    return None


def list_all(server: VikingServer) -> list[str]:
    """The names of all collections, sorted."""
    found: list[str] = []
    page = 1
    while True:
        body = {"PageNumber": page, "PageSize": PAGE, "Filter": {}}
        listed = server.control("ListVikingdbCollection", body).get("Collections") or []
        names = (given_name(str(entry.get("CollectionName", ""))) for entry in listed)
        found += [name for name in names if name]
        if len(listed) < PAGE:
            return sorted(found)
        page += 1


def read(server: VikingServer, name: str) -> Stored:
    """The collection as it is now. Raises `CollectionNotFound`."""
    rows = Rows(server, name, stored_name(name), "")
    found = {row[ID]: row[BODY] for row in rows.whole(rows.fetch([META_KEY, ENCODER_KEY]))}
    if META_KEY not in found:
        raise server.not_found(name)
    return parse(server, name, found[META_KEY], found.get(ENCODER_KEY))


def parse(server: VikingServer, name: str, body: str, encoder: str | None = None) -> Stored:
    """What the row about a collection says, and the one about its encoder."""
    try:
        data, changed = decode(body), decode(encoder) if encoder is not None else {}
        spec = CollectionSpec.from_json(data["spec"])
        # One that was written for an earlier collection of this name says nothing of this one.
        if changed.get("index") == data["index"]:
            spec = replace(spec, encoder=changed["encoder"])
        return Stored(spec, Rows(server, name, stored_name(name), data["index"]))
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupt(f"collection {name!r} in {server.address} is not described as ours are: {error}") from error


def create(server: VikingServer, spec: CollectionSpec) -> None:
    """Make a collection, its index and its description, and wait until the index answers."""
    if spec.dim > MAX_DIM:
        raise Unsupported(f"VikingDB has vectors of at most {MAX_DIM:,} dimensions, not {spec.dim:,}")
    name, index = stored_name(spec.name), f"i_{secrets.token_hex(8)}"
    try:
        server.control("CreateVikingdbCollection", {"CollectionName": name, "Fields": _fields(spec.dim)})
    except Refused as error:
        if not error.exists:
            raise
        raise CollectionExists(
            f"collection {spec.name!r} is already in {server.address}; if it cannot be described, making it was "
            "interrupted: drop it first"
        ) from None
    try:
        server.control(
            "CreateVikingdbIndex",
            {
                "CollectionName": name,
                "IndexName": index,
                "VectorIndex": {"IndexType": "flat", "Distance": DISTANCES[spec.metric], "Quant": "float"},
                "ScalarIndex": [HAS, POSITION, *_columns()],
            },
        )
        _wait_ready(Rows(server, spec.name, name, index), _describe(server, spec, index))
    except Refused as error:
        if error.missing:
            raise server.not_found(spec.name) from error
        # Too many indexes, for one: what was made of it is of no use.
        with suppress(BackendError):
            drop(server, spec.name)
        raise


def _describe(server: VikingServer, spec: CollectionSpec, index: str) -> str:
    """Store the row about a collection; the stamp of the write."""
    body = encode({"spec": spec.to_json(), "index": index})
    return _write(Rows(server, spec.name, stored_name(spec.name), index), META_KEY, body, spec.dim)


def set_encoder(stored: Stored, fingerprint: str) -> None:
    """Say which encoder it is of now, in a row that counts for no other collection, whatever others make meanwhile."""
    body = encode({"index": stored.rows.index, "encoder": fingerprint})
    _write(stored.rows, ENCODER_KEY, body, stored.spec.dim)


def _write(rows: Rows, key: str, body: str, dim: int) -> str:
    stamp = new_stamp()
    for row in rows_of(key, body, [META], {}, NO_VECTOR, dim, stamp, "the encoder's fingerprint"):
        rows.upsert([row])
    return stamp


def _wait_ready(rows: Rows, stamp: str) -> None:
    """Return when the index answers with the row about the collection."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            found = rows.fetch_in_index([META_KEY])
            if found.get(META_KEY) == stamp:
                return
            why = "it is still empty"
        except Refused as error:
            if error.code.endswith("Collection") and error.missing:
                raise
            why = str(error)
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the index of collection {rows.name!r} is not ready after {READY_S:.0f} s ({why}): look at VikingDB's "
                "console, then drop the collection and make it again"
            )
        time.sleep(POLL_S)


def drop(server: VikingServer, name: str) -> None:
    """Remove a collection with its indexes; silent when it is not there."""
    stored, deadline = stored_name(name), time.monotonic() + DROP_S
    while True:
        try:
            found = server.control("GetVikingdbCollection", {"CollectionName": stored})
            for index in found.get("IndexNames") or []:
                _forgiving(server, "DeleteVikingdbIndex", {"CollectionName": stored, "IndexName": index})
            server.control("DeleteVikingdbCollection", {"CollectionName": stored})
            return
        except Refused as error:
            if error.missing:
                return
            # An index that is still being removed keeps its collection.
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def _forgiving(server: VikingServer, action: str, body: dict[str, Any]) -> None:
    try:
        server.control(action, body)
    except Refused as error:
        if not error.missing:
            raise


def _columns() -> list[str]:
    return [f"{half}{slot}" for slot in range(SLOTS) for half in (HIGH, LOW)]


def _fields(dim: int) -> list[dict[str, Any]]:
    fields: list[dict[str, Any]] = [
        {"FieldName": ID, "FieldType": "string", "IsPrimaryKey": True},
        {"FieldName": VECTOR, "FieldType": "vector", "Dim": stored_dim(dim)},
        {"FieldName": HAS, "FieldType": "list<string>"},
        {"FieldName": BODY, "FieldType": "text"},
        {"FieldName": STAMP, "FieldType": "string"},
    ]
    return fields + [{"FieldName": name, "FieldType": "int64"} for name in (PARTS, POSITION, *_columns())]
