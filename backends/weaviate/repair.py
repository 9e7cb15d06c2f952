"""What keeps Weaviate's index in step with its objects when the server or a client is killed.

Weaviate stores a batch's objects first, then adds their vectors to the index, and answers before the log
of the index is written: `persist_index_log` sees to that. A server killed in between, or a client whose call is
cancelled by its own end, leaves objects that count and scan see and no search finds. Nobody was told that
they are stored, and an upsert of them puts them right; `flush` looks for those that are left.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from weaviate.proto.v1 import batch_delete_pb2

from backends.errors import CollectionNotFound
from backends.weaviate.connection import WeaviateServer
from backends.weaviate.filters import bare, both, by_id
from backends.weaviate.records import BEFORE_FIRST, STAMP, new_stamp
from backends.weaviate.requests import near, search_request
from backends.weaviate.schema import Stored

PAGE = 1000
# Looking through so many takes about a second.
MAX_RECORDS = 25_000
POLL_S = 0.05


def _ids_of(server: WeaviateServer, stored: Stored, **options: Any) -> set[str]:
    request = search_request(stored, records=False, **options)
    return {result.metadata.id for result in server.call("Search", request).results}


def ids(server: WeaviateServer, stored: Stored, condition: Any, limit: int) -> set[str]:
    """The objects that match, about up to `limit`. With no condition also those that no filter sees."""
    if condition is not True:
        return _ids_of(server, stored, limit=limit, condition=condition)
    found: set[str] = set()
    for page in _pages(server, stored):
        found |= page
        if len(found) >= limit:
            break
    return found


def persist_index_log(server: WeaviateServer, stored: Stored, objects: Collection[str]) -> None:
    """Have the shards of these objects write the logs of their indexes, which a batch leaves in memory.

    A dry run of a deletion does that and nothing else.
    """
    request = batch_delete_pb2.BatchDeleteRequest(collection=stored.class_name, filters=by_id(objects), dry_run=True)
    server.call("BatchDelete", request)


def flush(server: WeaviateServer, stored: Stored) -> None:
    """Return when the server's queue of vectors to index is empty and nothing is missing from the index."""
    n = _wait(server, stored)
    if n > MAX_RECORDS:
        return
    for page in _pages(server, stored):
        if missing := _missing(server, stored, page):
            # What others are storing at this moment is not missing the second time.
            time.sleep(POLL_S)
            reindex(server, stored, _missing(server, stored, missing))


def _wait(server: WeaviateServer, stored: Stored) -> int:
    """Wait for the queue, which is empty unless the server has ASYNC_INDEXING; about how many objects there are."""
    while True:
        answer = server.rest("GET", f"/nodes/{stored.class_name}?output=verbose")
        if answer is None:
            raise CollectionNotFound(f"no collection {stored.spec.name!r} in {server.address}")
        shards = [shard for node in answer.get("nodes") or () for shard in node.get("shards") or ()]
        if not any(shard.get("vectorQueueLength") for shard in shards):
            return sum(int(shard.get("objectCount") or 0) for shard in shards)
        time.sleep(POLL_S)


def _pages(server: WeaviateServer, stored: Stored) -> Iterator[set[str]]:
    after = BEFORE_FIRST
    while page := _ids_of(server, stored, limit=PAGE, after=after):
        yield page
        after = max(page)


def _missing(server: WeaviateServer, stored: Stored, objects: set[str]) -> set[str]:
    anywhere = near(stored, np.ones(stored.spec.dim, np.float32))
    missing = objects - _ids_of(server, stored, limit=len(objects), condition=by_id(objects), **anywhere)
    if missing:
        missing -= _ids_of(server, stored, limit=len(missing), condition=both(by_id(missing), bare()))
    return missing


def reindex(server: WeaviateServer, stored: Stored, objects: Collection[str]) -> None:
    """Give these objects a new stamp, on which Weaviate indexes them; those that are gone are skipped."""
    for object_id in sorted(objects):
        path = f"/objects/{stored.class_name}/{object_id}"
        found = server.rest("GET", path + "?include=vector")
        if found is None or stored.vector_name not in found.get("vectors", {}):
            continue
        vectors = {stored.vector_name: found["vectors"][stored.vector_name], STAMP: new_stamp().tolist()}
        body = {"class": stored.class_name, "id": object_id, "properties": {}, "vectors": vectors}
        server.rest("PATCH", path, body)
