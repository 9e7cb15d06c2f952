"""A collection as an index: its name, mapping and settings, and where its spec is kept.

The index of a collection has an alias with a name of its own for every time that it is made, and records are read
and written by this alias alone. So a handle that knows an index which others have dropped and made anew meets none,
and a write never makes an index by itself, as these servers otherwise do.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from backends.base import CollectionExists, CollectionNotFound, CollectionSpec, Corrupt, Unsupported
from backends.kit.widths import Width
from backends.opensearch.connection import LuceneServer, ServerRefused
from backends.opensearch.dialect import Dialect
from backends.opensearch.records import HAS, ID, VECTOR, WORDS
from backends.text import WORDS_VERSION

INDEX_PREFIX, ALIAS_PREFIX, OURS = "sightline-", "sightline.", "sightline"
MAX_SHARDS, MAX_REPLICAS = 1024, 100


@dataclass(frozen=True, slots=True)
class Stored:
    """A collection as the server has it: its spec, the alias that records go by, its shards, and whose words it has.

    `width` is how wide its graphs have to be searched; None where that was not tried.
    """

    spec: CollectionSpec
    alias: str
    shards: int
    words: int
    width: Width | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """What the index's mapping says of it."""
        ours = {"spec": self.spec.to_json(), "alias": self.alias, "shards": self.shards, "words": self.words}
        return {OURS: ours if self.width is None else {**ours, "width": self.width.to_json()}}


def index_name(name: str) -> str:
    """The index of a collection: names of indexes are in small letters, so a capital is one behind a dot."""
    return INDEX_PREFIX + re.sub("[A-Z]", lambda found: "." + found[0].lower(), name)


def _stored(index: str, mapping: Any) -> Stored | None:
    """What an index's mapping says, None where it is none of ours."""
    ours = ((mapping.get("mappings") or {}).get("_meta") or {}).get(OURS)
    if not isinstance(ours, dict):
        return None
    try:
        spec = CollectionSpec.from_json(ours["spec"])
        width = Width.from_json(ours.get("width"))
        found = Stored(spec, str(ours["alias"]), shards=int(ours["shards"]), words=int(ours["words"]), width=width)
    except (Corrupt, KeyError, TypeError, ValueError):
        return None
    return found if index_name(found.spec.name) == index else None


def list_all(server: LuceneServer) -> list[str]:
    """The names of all collections, sorted."""
    answer = server.call("GET", f"/{INDEX_PREFIX}*/_mapping", filter_path="*.mappings._meta")
    found = (_stored(index, mapping) for index, mapping in answer.items())
    return sorted(stored.spec.name for stored in found if stored is not None)


def read(server: LuceneServer, name: str) -> Stored:
    """The collection as it is now. Raises `CollectionNotFound`."""
    index = index_name(name)
    answer = server.call("GET", f"/{index}/_mapping", missing_ok=True, filter_path="*.mappings._meta") or {}
    found = _stored(index, answer.get(index) or {})
    if found is None:
        raise CollectionNotFound(f"no collection {name!r} in {server.address}")
    return found


def create(server: LuceneServer, dialect: Dialect, spec: CollectionSpec) -> None:
    """Make an empty collection. Raises `CollectionExists`."""
    if spec.dim > dialect.max_dim:
        raise Unsupported(f"{server.product.name} takes up to {dialect.max_dim:,} dimensions, not {spec.dim}")
    shards, replicas = server.url.number("shards", 1, highest=MAX_SHARDS), _replicas(server)
    alias = f"{ALIAS_PREFIX}{index_name(spec.name).removeprefix(INDEX_PREFIX)}.{secrets.token_hex(8)}"
    stored = Stored(spec, alias, shards, WORDS_VERSION)
    index = {
        "number_of_shards": shards,
        "number_of_replicas": replicas,
        # Each write asks for it; by itself, what a killed writer left would appear at any moment.
        "refresh_interval": "-1",
        **dialect.settings(spec),
    }
    body = {
        "settings": {"index": index},
        "mappings": {
            "_meta": stored.meta,
            "_source": {"excludes": [VECTOR]},
            "dynamic": False,
            "properties": dict(_properties(dialect, spec)),
        },
        "aliases": {alias: {}},
    }
    try:
        server.call("PUT", f"/{index_name(spec.name)}", body)
    except ServerRefused as error:
        if error.kind == "resource_already_exists_exception":
            # A call whose answer was lost is made again, and meets what it made itself.
            if _is_there(server, stored):
                return
            raise CollectionExists(f"collection {spec.name!r} is already in {server.address}") from None
        raise


def _is_there(server: LuceneServer, stored: Stored) -> bool:
    try:
        return read(server, stored.spec.name).alias == stored.alias
    except CollectionNotFound:
        return False


def _replicas(server: LuceneServer) -> int:
    given = server.url.options.get("replicas", "0")
    return 0 if given == "0" else server.url.number("replicas", 0, highest=MAX_REPLICAS)


def _properties(dialect: Dialect, spec: CollectionSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    yield ID, {"type": "keyword"}
    yield HAS, {"type": "keyword", "doc_values": False}
    yield WORDS, {"type": "text", "analyzer": "whitespace", "index_options": "freqs"}
    yield VECTOR, dialect.vector_field(spec)


def set_encoder(server: LuceneServer, name: str, fingerprint: str) -> None:
    """Store another encoder's fingerprint in the spec. Raises `CollectionNotFound`."""
    found = read(server, name)
    write(server, replace(found, spec=replace(found.spec, encoder=fingerprint)))


def write(server: LuceneServer, stored: Stored) -> None:
    """Have the mapping say this of the collection. Raises `CollectionNotFound` once it was dropped."""
    if server.call("PUT", f"/{stored.alias}/_mapping", {"_meta": stored.meta}, missing_ok=True) is None:
        raise CollectionNotFound(f"collection {stored.spec.name!r} in {server.address} was dropped meanwhile")


def drop(server: LuceneServer, name: str) -> None:
    """Remove a collection; silent when it is not there. Leaves an index that is not ours."""
    try:
        read(server, name)
    except CollectionNotFound:
        return
    server.call("DELETE", f"/{index_name(name)}", missing_ok=True)
