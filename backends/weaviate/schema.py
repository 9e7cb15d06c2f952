"""Collections as Weaviate classes: their names, their settings, and the spec they carry.

A class of ours is named by `class_name` and has the spec's JSON as its description; whatever else is on
the server is not ours. Properties ``n_FIELD`` are added when a field first holds a number, for the first
`MAX_NUMBERS` fields: each is an index of its own, and adding one takes Weaviate some 20 ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from backends.base import CollectionSpec
from backends.errors import CollectionExists, CollectionNotFound, Corrupt, Unsupported
from backends.kit.again import until_it_passes
from backends.kit.widths import Width
from backends.text import BM25_B, BM25_K1, WORDS_VERSION
from backends.weaviate.connection import Busy, ServerRefused, WeaviateServer
from backends.weaviate.records import HAS, NUMBER_PREFIX, STAMP, STORED, WORDS, fold_case

CLASS_PREFIX = "Sightline_"
MAX_NUMBERS = 64
ATTEMPTS = 5
# In the description of what the server made up by itself.
MADE_UP = "auto-schema"
EF_MIN, EF_FACTOR, EF_MAX = 256, 8, 4096
# Below this many matching records Weaviate scans them all instead of walking the graph.
FLAT_CUTOFF = 40_000
M_RANGE, EF_CONSTRUCTION, EF_CONSTRUCTION_LEAST = (4, 2047), 256, 4
_DISTANCES = {"cosine": "cosine", "dot": "dot", "l2": "l2-squared"}


@dataclass(frozen=True, slots=True)
class Stored:
    """A collection as it is on the server: spec, class, vector, properties that hold numbers, and version of words.

    The vector's name says all of the spec that a search depends on, so that a collection made anew with
    another spec refuses a search made for the old one. `width` is how wide its graph has to be searched; None where
    that was not tried.
    """

    spec: CollectionSpec
    class_name: str
    vector_name: str
    numbers: frozenset[str]
    words: int
    width: Width | None = None


def class_name(name: str) -> str:
    """The class of a collection."""
    return CLASS_PREFIX + fold_case(name)


def vector_name(spec: CollectionSpec) -> str:
    """The name of a class's one vector."""
    return f"{spec.metric}_{spec.dim}_{spec.index.kind}_{spec.index.quantization}"


def words_mark(version: int) -> dict[str, Any]:
    """The property, which no object has, that says of which version the words of all objects are."""
    return _text(f"{WORDS}_{version}")


def _text(name: str, **indexes: bool) -> dict[str, Any]:
    tokenization = "whitespace" if name == WORDS else "field"
    plain = {"indexFilterable": False, "indexSearchable": False}
    return {"name": name, "dataType": ["text"], "tokenization": tokenization, **plain, **indexes}


def class_of(spec: CollectionSpec) -> dict[str, Any]:
    """The class for a spec, as the REST interface takes it. Raises `Unsupported` for what Weaviate cannot build."""
    properties = [_text(name) for name in STORED]
    properties.append(_text(WORDS, indexSearchable=True))
    properties.append({**_text(HAS, indexFilterable=True), "dataType": ["text[]"]})
    properties.append(words_mark(WORDS_VERSION))
    kind = "flat" if spec.index.kind == "flat" else "hnsw"
    return {
        "class": class_name(spec.name),
        "description": spec.to_json(),
        "properties": properties,
        "invertedIndexConfig": {"bm25": {"k1": BM25_K1, "b": BM25_B}, "stopwords": {"preset": "none"}},
        "vectorConfig": {
            vector_name(spec): _vector(kind, _index_config(spec)),
            STAMP: _vector("flat", {"distance": "l2-squared", "skipDefaultQuantization": True}),
        },
    }


def _vector(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"vectorizer": {"none": {}}, "vectorIndexType": kind, "vectorIndexConfig": config}


def _index_config(spec: CollectionSpec) -> dict[str, Any]:
    config: dict[str, Any] = {"distance": _DISTANCES[spec.metric]}
    if spec.index.quantization == "none":
        config["skipDefaultQuantization"] = True
    elif spec.index.quantization == "int8":
        # Rotational quantization needs no training, unlike sq, which stays off below 100,000 records.
        config["rq"] = {"enabled": True, "bits": 8}
    else:
        config["bq"] = {"enabled": True}
    if spec.index.kind == "flat":
        return config
    config |= {"ef": -1, "dynamicEfMin": EF_MIN, "dynamicEfFactor": EF_FACTOR, "dynamicEfMax": EF_MAX}
    config["efConstruction"] = EF_CONSTRUCTION
    config |= {"flatSearchCutoff": FLAT_CUTOFF, "filterStrategy": "acorn"}
    m, ef_construction = spec.index.params.get("m"), spec.index.params.get("ef_construction")
    if m is not None:
        if not M_RANGE[0] <= m <= M_RANGE[1]:
            raise Unsupported(f"Weaviate takes an m from {M_RANGE[0]} to {M_RANGE[1]}, not {m}")
        config["maxConnections"] = m
    if ef_construction is not None:
        if ef_construction < EF_CONSTRUCTION_LEAST:
            raise Unsupported(f"Weaviate takes an ef_construction from {EF_CONSTRUCTION_LEAST}, not {ef_construction}")
        config["efConstruction"] = ef_construction
    return config


def _stored(found: dict[str, Any]) -> Stored | None:
    """The collection that a class is, `None` when it is not ours."""
    if not found["class"].startswith(CLASS_PREFIX):
        return None
    described, _, width = (found.get("description") or "").partition("\n")
    try:
        spec = CollectionSpec.from_json(described)
    except Corrupt:
        return None
    if class_name(spec.name) != found["class"]:
        return None
    names = {prop["name"] for prop in found.get("properties") or ()}
    if not {*STORED, WORDS, HAS} <= names:
        return None
    numbers = frozenset(n for n in names if n.startswith(NUMBER_PREFIX))
    marks = [int(n.removeprefix(f"{WORDS}_")) for n in names if re.fullmatch(rf"{WORDS}_\d+", n)]
    words = max(marks, default=1)
    return Stored(spec, found["class"], vector_name(spec), numbers, words=words, width=Width.from_json(width))


def list_all(server: WeaviateServer) -> list[str]:
    """The names of all collections, sorted."""
    classes = (server.rest("GET", "/schema") or {}).get("classes") or ()
    return sorted(found.spec.name for found in map(_stored, classes) if found is not None)


def read(server: WeaviateServer, name: str) -> Stored:
    """The collection as it is now. Raises `CollectionNotFound`."""
    raw = server.rest("GET", f"/schema/{class_name(name)}")
    found = _stored(raw) if raw is not None else None
    if found is None:
        raise CollectionNotFound(f"no collection {name!r} in {server.address}")
    return found


def create(server: WeaviateServer, spec: CollectionSpec) -> None:
    """Make an empty collection. Raises `CollectionExists`."""
    wanted = class_of(spec)
    clear(server, spec.name)
    if server.rest("GET", f"/schema/{wanted['class']}") is not None:
        raise CollectionExists(f"collection {spec.name!r} is already in {server.address}")
    try:
        server.rest("POST", "/schema", wanted)
    except ServerRefused as error:
        if "already exists" in error.text:
            raise CollectionExists(f"collection {spec.name!r} is already in {server.address}") from None
        raise


def set_encoder(server: WeaviateServer, name: str, fingerprint: str) -> None:
    """Store another encoder's fingerprint in the spec. Raises `CollectionNotFound`."""
    _describe_anew(server, name, lambda found: replace(found, spec=replace(found.spec, encoder=fingerprint)))


def set_width(server: WeaviateServer, name: str, width: Width) -> None:
    """Store how wide the graph has to be searched. Raises `CollectionNotFound`."""
    _describe_anew(server, name, lambda found: replace(found, width=width))


def _describe_anew(server: WeaviateServer, name: str, change: Callable[[Stored], Stored]) -> None:
    path = f"/schema/{class_name(name)}"
    for attempt in range(1, ATTEMPTS + 1):
        raw = server.rest("GET", path)
        found = _stored(raw) if raw is not None else None
        if found is None:
            raise CollectionNotFound(f"no collection {name!r} in {server.address}")
        changed = change(found)
        # Behind the spec, which is one line.
        width = "" if changed.width is None else f"\n{changed.width.to_json()}"
        try:
            server.rest("PUT", path, {**raw, "description": changed.spec.to_json() + width})
        except ServerRefused:
            # Somebody may have added a property since, and the server takes a class only with those that it has.
            if attempt == ATTEMPTS:
                raise
        else:
            return


def drop(server: WeaviateServer, name: str) -> None:
    """Remove a collection; silent when it is not there. Refuses a class that is not ours."""
    clear(server, name)
    try:
        found = read(server, name)
    except CollectionNotFound:
        return
    server.rest("DELETE", f"/schema/{found.class_name}")


def clear(server: WeaviateServer, name: str) -> bool:
    """Remove a class of ours that the server made up, and say whether there was one.

    It does so, where it is not told otherwise (AUTOSCHEMA_ENABLED), for records that come just after their class
    was dropped. Such a class holds none, has none of our settings, and would keep the name from being used again.
    """
    path = f"/schema/{class_name(name)}"
    found = server.rest("GET", path)
    if found is None or MADE_UP not in (found.get("description") or ""):
        return False
    server.rest("DELETE", path)
    return True


def add_property(server: WeaviateServer, class_name: str, wanted: dict[str, Any]) -> None:
    """Add a property to a class, unless it is there."""

    def add() -> None:
        try:
            server.rest("POST", f"/schema/{class_name}/properties", wanted)
        except ServerRefused as error:
            if "already exists" not in error.text and "already in use" not in error.text:
                raise

    # While a class is given another description the server lets nothing be written to it.
    until_it_passes(add, lambda error: isinstance(error, Busy))


def add_numbers(server: WeaviateServer, stored: Stored, names: Collection[str]) -> Stored:
    """The collection with these number properties too, as far as there is room for more."""
    room = MAX_NUMBERS - len(stored.numbers)
    missing = sorted(set(names) - stored.numbers)[: max(0, room)]
    if not missing:
        return stored
    for name in missing:
        wanted = {
            "name": name,
            "dataType": ["number"],
            "indexFilterable": False,
            "indexSearchable": False,
            "indexRangeFilters": True,
        }
        add_property(server, stored.class_name, wanted)
    found = read(server, stored.spec.name)
    if not set(missing) <= found.numbers:
        text = f"it did not keep the new properties of collection {stored.spec.name!r}"
        raise ServerRefused(f"Weaviate at {server.address}: {text}", text)
    return found
