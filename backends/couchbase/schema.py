"""How a collection is made: one of Couchbase's in the scope ``sightline``, and an entry in the catalogue there.

The entry decides: a collection without one was not made in full, and is nobody's. Its key is made of the name, so of
several who make one name one succeeds.
"""

from __future__ import annotations

import re
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass

from backends.base import CollectionSpec
from backends.couchbase.connection import DUPLICATE_KEY, SCOPE, CouchbaseServer, Refused
from backends.couchbase.records import key_of
from backends.errors import BackendError, CollectionExists, CollectionNotFound, Denied, Unavailable, Unsupported

CATALOGUE = "catalogue"
#: Dimensions that a vector index takes.
MAX_DIM = 4_096
# How long a new collection may take to be known to every service.
_APPEARS_S = 60.0
# No create takes so long, and no clocks differ by so much.
_ABANDONED_S = 86_400.0
_KEYSPACE = re.compile(r"m([0-9a-f]{8})[0-9a-f]{32}")
_POLL_S = 0.05
_SIMILARITY = {"cosine": "COSINE", "dot": "DOT", "l2": "L2"}


@dataclass(frozen=True, slots=True)
class Stored:
    """A collection as stored: its spec, the keyspace of its documents, and whether its vector index was built."""

    spec: CollectionSpec
    keyspace: str
    indexed: bool

    @property
    def similarity(self) -> str:
        """Its metric in Couchbase's word."""
        return _SIMILARITY[self.spec.metric]

    @property
    def wants_index(self) -> bool:
        """Whether its spec allows a vector index."""
        return self.spec.index.kind != "flat" and self.spec.dim <= MAX_DIM


def prepare(server: CouchbaseServer) -> None:
    """Make the scope and its catalogue where they are not yet; safe to call from any number of processes at once."""
    answer = server.manage("GET", "/scopes", wait=False)
    if not (isinstance(answer, dict) and isinstance(answer.get("scopes"), list)):
        raise Unavailable(f"what answers at {server.address} is no Couchbase Server: check host and port")
    scopes = {scope["name"]: scope for scope in answer["scopes"]}
    if SCOPE not in scopes:
        _make(server, "/scopes", SCOPE)
    there = {each["name"] for each in scopes.get(SCOPE, {}).get("collections", ())}
    if CATALOGUE not in there:
        _make_collection(server, CATALOGUE)
    _remove_abandoned(server, there)


def _remove_abandoned(server: CouchbaseServer, there: set[str]) -> None:
    """Remove collections that a create has left which ended half-way, a day ago or earlier."""
    old = {name for name in there if (made := _KEYSPACE.fullmatch(name)) and _is_abandoned(int(made[1], 16))}
    if not old:
        return
    rows = server.query(f"SELECT d.keyspace FROM {server.keyspace(CATALOGUE)} AS d")  # noqa: S608
    for keyspace in old - {row["keyspace"] for row in rows}:
        # Who may not remove any may still search.
        with suppress(Denied, Refused):
            _remove(server, keyspace)


def _is_abandoned(made_s: int) -> bool:
    return time.time() - made_s > _ABANDONED_S


def _new_keyspace() -> str:
    """A name that no other has, and that says when it was made."""
    return f"m{int(time.time()):08x}{uuid.uuid4().hex}"


def _make(server: CouchbaseServer, path: str, name: str) -> None:
    try:
        server.manage("POST", path, f"name={name}")
    except Refused as error:
        # Another process made it meanwhile.
        if "already exists" not in str(error):
            raise


def _make_collection(server: CouchbaseServer, name: str) -> None:
    """Make one of Couchbase's collections, and return when statements on it are carried out."""
    _make(server, f"/scopes/{SCOPE}/collections", name)
    deadline = time.monotonic() + _APPEARS_S
    while True:
        try:
            server.define(f"CREATE PRIMARY INDEX IF NOT EXISTS ON {server.keyspace(name)}")
        except Refused as error:
            if not error.missing:
                raise
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{server.address}: a new collection was not ready within {_APPEARS_S:.0f} s: try again later"
                ) from error
            time.sleep(_POLL_S)
        else:
            return


def create(server: CouchbaseServer, spec: CollectionSpec) -> None:
    """Make a collection. Raises `CollectionExists` where there is one of its name."""
    if spec.index.kind == "ivf" and spec.dim > MAX_DIM:
        raise Unsupported(f"Couchbase has no vector index for more than {MAX_DIM} dimensions: index kind flat has none")
    exists = CollectionExists(f"collection {spec.name!r} is already in {server.address}")
    if _entries(server, spec.name):
        raise exists
    keyspace = _new_keyspace()
    try:
        _make_collection(server, keyspace)
        entry = {"name": spec.name, "spec": spec.to_json(), "keyspace": keyspace, "indexed": False}
        server.query(
            f"INSERT INTO {server.keyspace(CATALOGUE)} (KEY, VALUE) VALUES ($key, $entry)",  # noqa: S608
            {"key": key_of(spec.name), "entry": entry},
            writes=True,
        )
    except BackendError as error:
        # Of one that has lost the server what is left goes a day later.
        with suppress(Unavailable):
            there = _entries(server, spec.name)
            # A statement whose answer was lost was carried out twice, and finds what it wrote itself.
            if any(each["keyspace"] == keyspace for each in there):
                return
            _remove(server, keyspace)
            if isinstance(error, Refused) and error.may_exist and (there or DUPLICATE_KEY in error.codes):
                raise exists from error
        raise


def _entries(server: CouchbaseServer, name: str) -> list[dict[str, object]]:
    return server.query(
        f"SELECT d.spec, d.keyspace, d.indexed FROM {server.keyspace(CATALOGUE)} AS d USE KEYS $keys",  # noqa: S608
        {"keys": [key_of(name)]},
    )


def read(server: CouchbaseServer, name: str) -> Stored:
    """The collection of this name as it is now. Raises `CollectionNotFound`."""
    for entry in _entries(server, name):
        return Stored(CollectionSpec.from_json(str(entry["spec"])), str(entry["keyspace"]), bool(entry["indexed"]))
    raise CollectionNotFound(f"no collection {name!r} in {server.address}")


def list_all(server: CouchbaseServer) -> list[str]:
    """The names of all collections, sorted."""
    rows = server.query(f"SELECT d.name FROM {server.keyspace(CATALOGUE)} AS d")  # noqa: S608
    return sorted(row["name"] for row in rows)


def set_encoder(server: CouchbaseServer, stored: Stored, fingerprint: str) -> bool:
    """Change the fingerprint of this very collection; whether it was there."""
    spec = CollectionSpec(stored.spec.name, stored.spec.dim, stored.spec.metric, fingerprint, stored.spec.index)
    return _change(server, stored, "spec", spec.to_json())


def _change(server: CouchbaseServer, stored: Stored, field: str, value: object) -> bool:
    rows = server.query(
        f"UPDATE {server.keyspace(CATALOGUE)} AS d USE KEYS $keys SET d.{field} = $value "  # noqa: S608
        "WHERE d.keyspace = $keyspace RETURNING d.name",
        {"keys": [key_of(stored.spec.name)], "value": value, "keyspace": stored.keyspace},
        writes=True,
    )
    return bool(rows)


def drop(server: CouchbaseServer, name: str) -> None:
    """Remove a collection; silent where there is none."""
    # A statement whose answer was lost is carried out twice, and the second time there is nothing to tell.
    found = {str(each["keyspace"]) for each in _entries(server, name)}
    rows = server.query(
        f"DELETE FROM {server.keyspace(CATALOGUE)} AS d USE KEYS $keys RETURNING d.keyspace",  # noqa: S608
        {"keys": [key_of(name)]},
        writes=True,
    )
    for keyspace in found | {str(row["keyspace"]) for row in rows}:
        _remove(server, keyspace)


def _remove(server: CouchbaseServer, keyspace: str) -> None:
    try:
        server.manage("DELETE", f"/scopes/{SCOPE}/collections/{keyspace}")
    except Refused as error:
        if not error.missing:
            raise


def build(server: CouchbaseServer, stored: Stored) -> None:
    """Build the vector index over what is there, and say so in the catalogue."""
    lists = stored.spec.index.params.get("nlist", "")
    server.define(
        f"CREATE VECTOR INDEX IF NOT EXISTS `{stored.keyspace}_v` ON {server.keyspace(stored.keyspace)}(v VECTOR) "
        f'WITH {{"dimension":{stored.spec.dim},"similarity":"{stored.similarity}","description":"IVF{lists},SQ8"}}'
    )
    _change(server, stored, "indexed", True)
