"""The commands that find: search, similar, lookup, and show."""

from __future__ import annotations

import itertools
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options
from app.cli.context import (
    open_backend,
    open_retriever,
    require_collection,
    stored_retriever,
    waiting,
    write_atomically,
)
from app.cli.output import (
    NOTHING_FOUND,
    facet_object,
    hit_object,
    note,
    one_line,
    place,
    print_facets,
    print_hits,
    print_json,
    record_object,
    show_relevance,
    write,
)
from app.cli.queries import MODALITIES, read_fusion, read_modality, read_mode, read_query, read_where, require_file
from app.core.errors import CommandError
from app.core.settings import Settings

if TYPE_CHECKING:
    from app.cli.results_page import Section
    from backends.base import Backend, Hit, Modality, Plan
    from retrieval.search.facets import Facet
    from retrieval.search.query import Term
    from retrieval.search.results import Found, Result
    from retrieval.search.retriever import Retriever

#: The best of what is not relevant is shown unasked, and marked, from this share of the gate on.
NEAR_MISS = 0.75
NEAR_MISSES = 3
NO_TEXTS = "; index captions or texts too, or see which pictures are like it: sightline search --image FILE"


@options.grouped
def search(
    words: Annotated[list[str] | None, typer.Argument(metavar="WORDS", help="What to look for.")] = None,
    *,
    image: Annotated[list[Path] | None, typer.Option("--image", metavar="FILE", help="Look for this picture.")] = None,
    term: Annotated[
        list[str] | None,
        typer.Option("--term", metavar="TERM", help="One part: words, -words, words^0.5 or image:FILE."),
    ] = None,
    terms: Annotated[
        list[str] | None,
        typer.Option("--terms", metavar="TERMS", help="Several parts, with spaces between and phrases in quotes."),
    ] = None,
    modality: options.ModalityName = None,
    where: options.WhereJson = None,
    k: options.K = None,
    offset: options.Offset = 0,
    effort: options.Effort = None,
    mode: options.Mode = "vector",
    fusion: options.Fusion = "worth",
    diversity: options.Diversity = 0.0,
    group_duplicates: options.GroupDuplicates = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Let a cross-encoder order the texts among the first 50 anew (English).")
    ] = False,
    facets: Annotated[
        list[str] | None,
        typer.Option("--facets", metavar="FIELD", help="Count this field's values over all that match the filter."),
    ] = None,
    min_relevance: options.MinRelevance = None,
    misses: Annotated[
        bool, typer.Option("--misses", help="Where nothing is relevant, show the nearest misses.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say how the engine found them: index or scan, how wide, of how many.")
    ] = False,
    chosen: options.SearchFlags,
    output: options.OutputFlags,
) -> None:
    """Find images by words, by pictures, or by both.

    Words, --image, --term and --terms add up to one query. A term's leading - steers away from it, ^NUMBER
    at its end weighs it, and image:FILE takes a picture: --terms 'beach -people "evening sun"^0.5'.

    Of a search by words alone, what is less relevant than the setting min_relevance is left out; relevance
    is the share of unrelated queries that find nothing as good. --min-relevance 0 shows everything. Where
    nothing is relevant enough but something nearly is, up to three near misses are shown, each marked with ~.
    """
    from backends.plans import explain as explain_search
    from retrieval.search.query import query_words

    query = read_query(words, image, term, terms)
    kind = read_modality(modality)
    clause = read_where(where)
    reranker = None
    if rerank:
        from retrieval.search.rerank import CrossEncoder

        # Before anything is opened: its packages are an extra.
        reranker = CrossEncoder()
    settings = options.load_settings(chosen, k=k)
    with open_backend(settings) as store:
        retriever = open_retriever(settings, store, chosen.encoder)
        with waiting("searching"):
            kind = kind if modality is not None else default_modality(store, settings.collection, clause)
            gate = default_gate(query, settings, mode) if min_relevance is None else min_relevance or None

            def searched(least: float | None) -> Found:
                return retriever.search(
                    query,
                    settings.k,
                    modality=kind,
                    where=clause,
                    offset=offset,
                    effort=effort,
                    min_relevance=least,
                    mode=read_mode(mode),
                    fusion=read_fusion(fusion),
                    diversity=diversity,
                    group_duplicates=group_duplicates,
                    reranker=reranker,
                )

            with explain_search() if explain else nullcontext() as plans:
                hits = searched(gate)
            nearest = searched(None) if gate is not None and not hits else None
            tell((*retriever.notices, *hits.notices))
            nothing = NOTHING_FOUND
            if not hits and not nearest:
                nothing = nothing_found(
                    retriever,
                    where=clause,
                    modality=kind,
                    offset=offset,
                    min_relevance=gate,
                    asked_words=query_words(query) if mode == "keyword" or hits.words_only else None,
                )
            counted = retriever.facets(facets, where=clause, modality=kind) if facets else None
    from app.cli.results_page import Section, parts_of

    title = "Search" if len(query) == 1 else "Composed search"
    facts = query_facts(where, offset, k=settings.k, gate=gate)
    section = Section(title, parts_of(query), hits, facts=facts, first_rank=offset + 1, nothing=nothing)
    missed: Sequence[Result] = ()
    if nearest and gate is not None:
        missed = nearest if misses else near_misses(nearest, gate) if not output.as_json else ()
        section = nothing_relevant(section, nearest, gate, missed)
    asked_words = query_words(query) if mode != "vector" else ""
    deliver(section, settings, output, are_misses=bool(missed), facets=counted, plans=plans, asked_words=asked_words)


@options.grouped
def similar(
    item_id: Annotated[str, typer.Argument(metavar="ID", help="An item's id, as search --json prints it.")],
    *,
    modality: Annotated[
        str | None, typer.Option("--modality", metavar="KIND", help="image or text. Default: the item's own.")
    ] = None,
    where: options.WhereJson = None,
    k: options.K = None,
    offset: options.Offset = 0,
    effort: options.Effort = None,
    diversity: options.Diversity = 0.0,
    group_duplicates: options.GroupDuplicates = None,
    min_relevance: options.MinRelevance = None,
    chosen: options.StoreFlags,
    output: options.OutputFlags,
) -> None:
    """Find the items nearest to a stored one; no model is loaded for it."""
    kind = read_modality(modality, MODALITIES[:2])
    clause = read_where(where)
    settings = options.load_settings(chosen, k=k)
    with open_backend(settings) as store:
        retriever = stored_retriever(settings, store)
        item = retriever.get(item_id)
        hits = retriever.similar(
            item_id,
            settings.k,
            where=clause,
            modality=kind,
            offset=offset,
            effort=effort,
            diversity=diversity,
            group_duplicates=group_duplicates,
            min_relevance=min_relevance,
        )
        sought = kind or item.modality
        nothing = (
            NOTHING_FOUND
            if hits
            else nothing_found(
                retriever,
                where=clause,
                modality=sought,
                offset=offset,
                min_relevance=min_relevance,
                left_out=int(sought == item.modality),
            )
        )
    from app.cli.results_page import Part, Section
    from retrieval.images.parts import located

    part = Part(text=item.text or place(item.uri), image=located(item.uri) if item.modality == "image" else None)
    facts = query_facts(where, offset, k=settings.k, gate=min_relevance)
    section = Section("Similar items", [part], hits, facts=facts, first_rank=offset + 1, nothing=nothing)
    deliver(section, settings, output)


@options.grouped
def lookup(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture file.")],
    *,
    where: options.WhereJson = None,
    k: options.K = None,
    offset: options.Offset = 0,
    effort: options.Effort = None,
    min_relevance: options.MinRelevance = None,
    chosen: options.SearchFlags,
    output: options.OutputFlags,
) -> None:
    """Find the texts of the collection that describe a picture best."""
    from backends.base import Compare

    clause = read_where(where)
    require_file(image)
    settings = options.load_settings(chosen, k=k)
    with open_backend(settings) as store:
        retriever = open_retriever(settings, store, chosen.encoder)
        with waiting("searching"):
            hits = retriever.lookup(
                image, settings.k, where=clause, offset=offset, effort=effort, min_relevance=min_relevance
            )
            tell(retriever.notices)
            nothing = (
                NOTHING_FOUND
                if hits
                else nothing_found(retriever, where=clause, modality="text", offset=offset, min_relevance=min_relevance)
            )
            if not hits and not store.count(settings.collection, Compare("modality", "eq", "text")):
                nothing += NO_TEXTS if store.count(settings.collection) else ""
    from app.cli.results_page import Part, Section

    part = Part(text=str(image), image=image)
    facts = query_facts(where, offset, k=settings.k, gate=min_relevance)
    section = Section("Texts for a picture", [part], hits, facts=facts, first_rank=offset + 1, nothing=nothing)
    deliver(section, settings, output)


@options.grouped
def show(
    item_id: Annotated[str, typer.Argument(metavar="ID", help="An item's id.")],
    *,
    chosen: options.StoreFlags,
    as_json: options.Json = False,
) -> None:
    """Show one stored item: where it is, its text and its metadata."""
    settings = options.load_settings(chosen)
    with open_backend(settings) as store:
        require_collection(settings, store)
        found = store.get(settings.collection, [item_id])
    if not found:
        raise CommandError(f"no item {item_id!r} in collection {settings.collection!r}; ids are in search --json")
    item = record_object(found[0])
    if as_json:
        print_json(item)
        return
    from app.cli.cells import padded
    from backends.harmless import harmless

    metadata = item.pop("metadata")
    for name, value in (item | metadata).items():
        if value is not None:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            lines = [harmless(line) for line in text.splitlines()] or [""]
            write(padded(one_line(name), 12) + "  " + ("\n" + 14 * " ").join(lines))


def tell(notices: Sequence[str]) -> None:
    """Say what a person should know of what was found."""
    for notice in notices:
        note(f"note: {notice}")


def default_modality(store: Backend, collection: str, where: dict[str, Any] | None) -> Modality:
    """What a search finds where nothing was said: images, or texts where no image matches the filter."""
    from retrieval.search.filters import and_modality, as_where

    return "image" if store.count(collection, and_modality(as_where(where), "image")) else "text"


def default_gate(query: Sequence[Term], settings: Settings, mode: str) -> float | None:
    """The relevance that a search shows at least where nothing was said; None for everything.

    A picture is judged by how the collection's own pictures find each other, so only queries of words, which
    are judged by unrelated words, are gated unasked. A keyword search finds only what has the words anyway.
    """
    only_words = all(isinstance(term.value, str) for term in query)
    return settings.min_relevance or None if only_words and mode != "keyword" else None


def nothing_found(retriever: Retriever, **asked: Any) -> str:
    """What is said of a search without results; see `retrieval.search.reasons.why_nothing`."""
    from retrieval.search.reasons import why_nothing

    return f"{NOTHING_FOUND}: {why_nothing(retriever, **asked)}"


def near_misses(nearest: Sequence[Result], gate: float) -> Sequence[Result]:
    """The first of the nearest, as long as they are nearly relevant, `NEAR_MISSES` at most."""
    near = itertools.takewhile(lambda hit: (hit.relevance or 0.0) >= NEAR_MISS * gate, nearest)
    return list(itertools.islice(near, NEAR_MISSES))


def nothing_relevant(section: Section, nearest: Sequence[Result], gate: float, missed: Sequence[Result]) -> Section:
    """The section that says that nothing is relevant, with the misses that are shown all the same."""
    best = max(nearest, key=lambda hit: hit.relevance or 0.0)
    said = f"nothing relevant: the nearest miss is at {show_relevance(best)}, below {100 * gate:g}%"
    if section.first_rank > 1:
        said = f"nothing relevant from rank {section.first_rank} on"
    more = "" if len(missed) == len(nearest) else "; --misses shows the nearest misses"
    if missed:
        return replace(section, title="Nothing relevant; the nearest misses", hits=missed, nothing=said + more)
    return replace(section, nothing=said + more)


def query_facts(where: str | None, offset: int, *, k: int, gate: float | None = None) -> list[str]:
    """What the results page says about how a query was narrowed."""
    facts = [f"where {where}"] if where else []
    if gate is not None:
        facts.append(f"relevance from {100 * gate:g}%")
    return [*facts, f"ranks {offset + 1} to {offset + k}"] if offset else facts


def deliver(
    section: Section,
    settings: Settings,
    output: options.OutputFlags,
    *,
    are_misses: bool = False,
    facets: Mapping[str, Facet] | None = None,
    plans: Sequence[Plan] | None = None,
    asked_words: str = "",
) -> None:
    """Give out results: to stdout as table or JSON, and to the page that was asked for.

    are_misses: nothing of what the section shows is relevant. asked_words: what was looked for by keywords.
    """
    hits: Sequence[Hit] = section.hits
    if output.html is not None or output.open_page:
        from app.cli.results_page import render
        from backends.redaction import shown

        path = output.html or settings.home / "results.html"
        title = section.parts[0].text or section.title
        write_atomically(path, render(title, [section], [f"collection {settings.collection}", shown(settings.backend)]))
        note(f"results page: {path.absolute()}")
        if output.open_page and not webbrowser.open(path.absolute().as_uri()):
            note(f"note: no browser could be opened; open {path.absolute()} yourself")
    if output.as_json:
        found = [hit_object(hit) for hit in hits]
        answer: dict[str, Any] = {"hits": [], "misses": found} if are_misses else {"hits": found}
        if facets is not None:
            answer["facets"] = {field: facet_object(facet) for field, facet in facets.items()}
        if plans is not None:
            answer["plans"] = [plan.to_dict() for plan in plans]
        print_json(answer)
        return
    if plans is not None:
        for line in [plan.line for plan in plans] or ["words only, every match ranked"]:
            note(f"plan: {line}")
    if are_misses:
        note(section.nothing)
    print_hits(
        hits,
        first_rank=section.first_rank,
        nothing=section.nothing,
        mark="~" if are_misses else "",
        asked_words=asked_words,
    )
    print_facets(facets or {})
