"""Checks of keyword search: which documents, in which order, whatever the query says."""

from __future__ import annotations

import pytest

from backends.base import CollectionNotFound, Compare, Record, Unsupported
from backends.conformance.oracle import in_order, payload
from backends.conformance.samples import HOSTILE, some, vectors
from backends.conformance.store import Store

DOCUMENTS = {
    "boat": "a small wooden boat on a quiet lake",
    "boats": "harbour harbour harbour: fishing vessels and one lighthouse",
    "dog": "a brown dog runs along the beach",
    "cats": "two kittens asleep on a sofa",
    "umlaut": "Straßenbahn überquert die Brücke",
    "accents": "café crème brûlée",
    "cyrillic": "Красная площадь зимой",
    "digits": "flight 8472 boarding at gate 12",
    "quoted": "\"it's\" -- a 'quoted' (strange) *text* OR NOT",
    "lake": "lake",
    "empty": "",
    "none": None,
    "beach 2": "beach beach beach umbrella",
}
QUERIES = (
    *HOSTILE,
    "",
    " ",
    "\n\t",
    "AND",
    "OR",
    "NOT",
    "NEAR",
    "NEAR(a b, 3)",
    "a AND",
    "AND b",
    "(",
    ")",
    "((",
    '"',
    '""',
    '"unclosed',
    "*",
    "a*",
    "-",
    "-a",
    "--",
    "+a",
    "^a",
    "text:dog",
    "dog:*",
    "{a b}",
    "a & b | !c",
    "<->",
    "a <-> b",
    "!",
    ":",
    "'",
    "''",
    "dog'",
    "\\",
    "a\\",
    "%",
    "%%",
    "_",
    "?",
    "~",
    "dog~2",
    "dog^3",
    "[a TO b]",
    "/re/",
    "\u200d",
    "😀",
    "a " * 3_000,
    "x" * 20_000,
    "😀 " * 500,
    "١٢٣",
    "שלום עולם",
)


def documents() -> list[Record]:
    """The records of `DOCUMENTS`."""
    rows = vectors(len(DOCUMENTS), 8)
    return [
        Record(i, rows[n], "text" if n % 2 else "image", text, metadata={"n": n})
        for n, (i, text) in enumerate(DOCUMENTS.items())
    ]


def filled(store: Store) -> str:
    """A collection of `DOCUMENTS`; skips where the engine has no keyword search."""
    if not store.capabilities.keyword:
        pytest.skip("the engine declares no keyword search; that it is refused is another check")
    name = store.collection()
    store.backend.upsert(name, documents())
    return name


class KeywordChecks:
    """Searching by words, or saying that the engine cannot."""

    def test_keyword_search_is_there_or_refused(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, documents())
        if store.capabilities.keyword:
            assert [hit.id for hit in store.backend.search_text(name, "kittens", 3)] == ["cats"]
        else:
            with pytest.raises(Unsupported):
                store.backend.search_text(name, "kittens", 3)

    def test_documents_with_some_word_and_no_others(self, store: Store) -> None:
        name = filled(store)
        for query, expected in {
            "kittens": {"cats"},
            "KITTENS": {"cats"},
            "kittens sofa": {"cats"},
            "lake": {"boat", "lake"},
            "beach lighthouse": {"boats", "dog", "beach 2"},
            "brown umbrella 8472": {"dog", "beach 2", "digits"},
            "überquert": {"umlaut"},
            "площадь": {"cyrillic"},
            "zebra": set(),
            "zebra kittens": {"cats"},
        }.items():
            hits = store.backend.search_text(name, query, 50)
            assert {hit.id for hit in hits} == expected, f"for {query!r}"
            assert in_order(hits)
            assert all(hit.score > 0 for hit in hits)

    def test_keyword_hits_carry_the_record(self, store: Store) -> None:
        name = filled(store)
        (hit,) = store.backend.search_text(name, "lighthouse", 5)
        (record,) = store.backend.get(name, ["boats"])
        assert payload(hit) == payload(record)

    def test_file_names_are_words_too(self, store: Store) -> None:
        name = filled(store)
        row = vectors(1, 8)[0]
        named = {
            "photo": (None, "file:///my%20photos/beach_sunset-2.jpg"),
            "page": ("a leaflet", "https://host.example/docs/Liesmich%C3%BC.TXT?lake=1#dog"),
            "path": (None, "C:\\pictures\\lighthouse 7.png"),
            "folder": ("", "/dog/umbrella/"),
        }
        store.backend.upsert(name, [Record(i, row, "image", text, uri) for i, (text, uri) in named.items()])
        for query, expected in {
            "sunset": {"photo"},
            "beach_sunset": {"photo"},
            "jpg": {"photo"},
            "photos host pictures": set(),
            "liesmichü": {"page"},
            "leaflet txt": {"page"},
            "lighthouse": {"boats", "path"},
            "umbrella": {"beach 2", "folder"},
            "dog": {"dog"},
        }.items():
            assert {hit.id for hit in store.backend.search_text(name, query, 50)} == expected, f"for {query!r}"
        (hit,) = store.backend.search_text(name, "sunset", 5)
        assert (hit.text, hit.uri) == named["photo"]
        store.backend.delete(name, ids=["photo"])
        assert store.backend.search_text(name, "sunset", 5) == []

    def test_rarer_and_repeated_words_weigh_more(self, store: Store) -> None:
        if not store.capabilities.keyword:
            pytest.skip("the engine declares no keyword search")
        name = store.collection()
        texts = ["common plain words here"] * 30 + ["common special words here", "special special special here"]
        rows = vectors(len(texts), 8)
        store.backend.upsert(name, [Record(f"d{i:02}", rows[i], "text", text) for i, text in enumerate(texts)])
        hits = store.backend.search_text(name, "common special", 5)
        assert {hit.id for hit in hits[:2]} == {"d30", "d31"}
        assert hits[1].score > hits[2].score
        assert store.backend.search_text(name, "special", 5)[0].id == "d31"

    def test_keyword_search_honours_k_and_filters(self, store: Store) -> None:
        name = filled(store)
        assert len(store.backend.search_text(name, "lake beach", 2)) == 2
        where = Compare("n", "gte", 5)
        assert {hit.id for hit in store.backend.search_text(name, "lake beach", 9, where=where)} == {"lake", "beach 2"}
        assert {hit.id for hit in store.backend.search_text(name, "lake beach", 1, where=where)} <= {"lake", "beach 2"}
        assert store.backend.search_text(name, "kittens", 9, where=where) == []
        with pytest.raises(ValueError, match="k must be"):
            store.backend.search_text(name, "lake", 0)
        with pytest.raises(CollectionNotFound):
            store.backend.search_text(store.name("missing"), "lake", 1)

    def test_keyword_search_follows_writes(self, store: Store) -> None:
        name = filled(store)
        row = vectors(1, 8)[0]
        store.backend.upsert(name, [Record("cats", row, "text", "puppies instead"), Record("lake", row, "text", None)])
        store.backend.delete(name, ids=["dog"])
        store.backend.delete(name, where=Compare("n", "eq", 1))
        assert store.backend.search_text(name, "kittens sofa", 9) == []
        assert [hit.id for hit in store.backend.search_text(name, "puppies", 9)] == ["cats"]
        assert [hit.id for hit in store.backend.search_text(name, "lake", 9)] == ["boat"]
        assert store.backend.search_text(name, "brown lighthouse harbour", 9) == []
        store.backend.flush(name)
        assert [hit.id for hit in store.backend.search_text(name, "beach", 9)] == ["beach 2"]

    def test_no_query_breaks_keyword_search(self, store: Store) -> None:
        name = filled(store)
        known = set(DOCUMENTS)
        for query in QUERIES:
            hits = store.backend.search_text(name, query, 20)
            assert {hit.id for hit in hits} <= known
            assert in_order(hits)
        for query in ("", " ", "\n\t", "(", '"', "*", "-", "'", "%"):
            assert store.backend.search_text(name, query, 5) == [], f"{query!r} has no word"
        assert store.backend.count(name) == len(DOCUMENTS)

    def test_operators_of_query_languages_are_only_words(self, store: Store) -> None:
        name = filled(store)
        for query in ("kittens AND zebra", "kittens NOT sofa", "-sofa kittens", '"kittens sofa"', "kittens & zebra"):
            found = {hit.id for hit in store.backend.search_text(name, query, 20)}
            assert "cats" in found, f"{query!r} must be read as plain words"
        assert "cats" not in {hit.id for hit in store.backend.search_text(name, "kitt*", 20)}

    def test_keyword_search_of_nothing(self, store: Store) -> None:
        if not store.capabilities.keyword:
            pytest.skip("the engine declares no keyword search")
        name = store.collection()
        assert store.backend.search_text(name, "anything", 5) == []
        store.backend.upsert(name, [Record("a", vectors(1, 8)[0])])
        assert store.backend.search_text(name, "anything", 5) == []
        assert len(store.backend.search_text(name, "picture", 5)) == 0
        store.backend.upsert(name, some(20))
        assert len(store.backend.search_text(name, "picture", 50)) == 16
