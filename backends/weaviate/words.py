"""The words of a class's objects, taken anew where an earlier version wrote them.

Which version they are of, the class says by a property of its own, ``words_2``, which no object has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from backends.base import Page, Record
from backends.kit.words import renew_words
from backends.text import WORDS_VERSION, searched_text, tokenize
from backends.weaviate import schema
from backends.weaviate.connection import WeaviateServer
from backends.weaviate.records import WORDS, object_id
from backends.weaviate.schema import Stored

# Changes that are under way at once.
_PATCHES = 8


def take_words_anew(
    server: WeaviateServer, stored: Stored, pages: Iterable[Page], read: Callable[[Sequence[str]], Sequence[Record]]
) -> None:
    """Give each object the words of its text and file name, and then the class its mark."""

    def patch(record: Record) -> None:
        words = " ".join(tokenize(searched_text(record.text, record.uri)))
        path = f"/objects/{stored.class_name}/{object_id(record.id)}"
        # An object that is gone is a 404, which is no error here.
        server.rest("PATCH", path, {"class": stored.class_name, "properties": {WORDS: words}})

    with ThreadPoolExecutor(_PATCHES) as pool:

        def write(records: Sequence[Record]) -> None:
            for _ in pool.map(patch, records):
                pass

        renew_words(pages, write, read)
    schema.add_property(server, stored.class_name, schema.words_mark(WORDS_VERSION))
