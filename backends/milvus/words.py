"""The words of a collection's rows, taken anew where an earlier version wrote them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from backends.kit.words import is_outdated, log_renewal
from backends.milvus.collections import CollectionHandle, Collections
from backends.milvus.records import batches, with_words_anew

Rows = list[dict[str, Any]]


def renew_words(
    collections: Collections, opened: CollectionHandle, pages: Iterable[Rows], store: Callable[[Rows], None]
) -> None:
    """Replace all rows by the same with their words anew, then store their version.

    What another client of a server changes in a row at the same moment may be lost: Milvus replaces whole rows.
    """
    with opened.lock:
        opened.words = collections.words_now(opened)
        if is_outdated(opened.words):
            log_renewal(f"collection {opened.spec.name!r} in Milvus")
            for page in pages:
                for batch in batches([with_words_anew(row) for row in page], opened.spec.dim):
                    store(batch)
            collections.note_words(opened)
