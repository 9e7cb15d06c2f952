"""The commands that find: search, similar, lookup, and show."""

from __future__ import annotations

import json
import shlex
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

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
    place,
    print_facets,
    print_hits,
    print_json,
    record_object,
    show_relevance,
    write,
)
from app.core.errors import CommandError, UsageError
from app.core.settings import Settings

if TYPE_CHECKING:
    from app.cli.results_page import Section
    from backends.base import Backend, Hit, Modality
    from retrieval.search.facets import Facet
    from retrieval.search.query import Term
    from retrieval.search.results import Result
    from retrieval.search.retriever import Mode, Retriever

MODALITIES = ("image", "text", "any")
#: The best of what is not relevant is shown unasked, and marked, from this share of the gate on.
NEAR_MISS = 0.75
NEAR_MISSES = 3
NO_TEXTS = "; index captions or texts too, or see which pictures are like it: sightline search --image FILE"


def search(
    words: Annotated[list[str] | None, typer.Argument(metavar="WORDS", help="What to look for.")] = None,
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
    backend: options.Backend = None,
    collection: options.Collection = None,
    encoder: options.Encoder = None,
    device: options.Device = None,
    precision: options.Precision = None,
    html: options.Html = None,
    open_page: options.Open = False,
    as_json: options.Json = False,
) -> None:
    """Find images by words, by pictures, or by both.

    Words, --image, --term and --terms add up to one query. A term's leading - steers away from it, ^NUMBER
    at its end weighs it, and image:FILE takes a picture: --terms 'beach -people "evening sun"^0.5'.

    Of a search by words alone, what is less relevant than the setting min_relevance is left out; relevance
    is the share of unrelated queries that find nothing as good. --min-relevance 0 shows everything. Where
    nothing is relevant enough but something nearly is, up to three near misses are shown, each marked with ~.
    """
    from retrieval.search.query import query_words

    query = read_query(words, image, term, terms)
    kind = read_modality(modality)
    clause = read_where(where)
    reranker = None
    if rerank:
        from retrieval.search.rerank import CrossEncoder

        # Before anything is opened: its packages are an extra.
        reranker = CrossEncoder()
    settings = Settings.load(
        {"backend": backend, "collection": collection, "device": device, "precision": precision, "k": k}
    )
    with open_backend(settings) as store:
        retriever = open_retriever(settings, store, encoder)
        with waiting("searching"):
            kind = kind if modality is not None else default_modality(store, settings.collection, clause)
            gate = default_gate(query, settings, mode) if min_relevance is None else min_relevance or None

            def find(least: float | None) -> list[Result]:
                return retriever.search(
                    query,
                    settings.k,
                    modality=kind,
                    where=clause,
                    offset=offset,
                    effort=effort,
                    min_relevance=least,
                    mode=read_mode(mode),
                    diversity=diversity,
                    group_duplicates=group_duplicates,
                    reranker=reranker,
                )

            hits = find(gate)
            nearest = find(None) if gate is not None and not hits else None
            nothing = NOTHING_FOUND
            if not hits and not nearest:
                nothing = nothing_found(
                    retriever,
                    where=clause,
                    modality=kind,
                    offset=offset,
                    min_relevance=gate,
                    asked_words=query_words(query) if mode == "keyword" else None,
                )
            counted = retriever.facets(facets, where=clause, modality=kind) if facets else None
    from app.cli.results_page import Section, parts_of

    title = "Search" if len(query) == 1 else "Composed search"
    facts = query_facts(where, offset, k=settings.k, gate=gate)
    section = Section(title, parts_of(query), hits, facts, offset + 1, nothing)
    missed: Sequence[Result] = ()
    if nearest and gate is not None:
        missed = nearest if misses else near_misses(nearest, gate) if not as_json else ()
        section = nothing_relevant(section, nearest, gate, missed)
    asked_words = query_words(query) if mode != "vector" else ""
    deliver(
        section,
        settings,
        html,
        open_page=open_page,
        as_json=as_json,
        are_misses=bool(missed),
        facets=counted,
        asked_words=asked_words,
    )


def similar(
    item_id: Annotated[str, typer.Argument(metavar="ID", help="An item's id, as search --json prints it.")],
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
    backend: options.Backend = None,
    collection: options.Collection = None,
    html: options.Html = None,
    open_page: options.Open = False,
    as_json: options.Json = False,
) -> None:
    """Find the items nearest to a stored one; no model is loaded for it."""
    kind = read_modality(modality, MODALITIES[:2])
    clause = read_where(where)
    settings = Settings.load({"backend": backend, "collection": collection, "k": k})
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
    from app.cli.output import local_path
    from app.cli.results_page import Part, Section

    part = Part(text=item.text or place(item.uri), image=local_path(item.uri) if item.modality == "image" else None)
    facts = query_facts(where, offset, k=settings.k, gate=min_relevance)
    section = Section("Similar items", [part], hits, facts, offset + 1, nothing)
    deliver(section, settings, html, open_page=open_page, as_json=as_json)


def lookup(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture file.")],
    where: options.WhereJson = None,
    k: options.K = None,
    offset: options.Offset = 0,
    effort: options.Effort = None,
    min_relevance: options.MinRelevance = None,
    backend: options.Backend = None,
    collection: options.Collection = None,
    encoder: options.Encoder = None,
    device: options.Device = None,
    precision: options.Precision = None,
    html: options.Html = None,
    open_page: options.Open = False,
    as_json: options.Json = False,
) -> None:
    """Find the texts of the collection that describe a picture best."""
    from backends.base import Compare

    clause = read_where(where)
    require_file(image)
    settings = Settings.load(
        {"backend": backend, "collection": collection, "device": device, "precision": precision, "k": k}
    )
    with open_backend(settings) as store:
        retriever = open_retriever(settings, store, encoder)
        with waiting("searching"):
            hits = retriever.lookup(
                image, settings.k, where=clause, offset=offset, effort=effort, min_relevance=min_relevance
            )
            nothing = (
                NOTHING_FOUND
                if hits
                else nothing_found(retriever, where=clause, modality="text", offset=offset, min_relevance=min_relevance)
            )
            if not hits and not store.count(settings.collection, Compare("modality", "eq", "text")):
                nothing += NO_TEXTS
    from app.cli.results_page import Part, Section

    part = Part(text=str(image), image=image)
    facts = query_facts(where, offset, k=settings.k, gate=min_relevance)
    section = Section("Texts for a picture", [part], hits, facts, offset + 1, nothing)
    deliver(section, settings, html, open_page=open_page, as_json=as_json)


def show(
    item_id: Annotated[str, typer.Argument(metavar="ID", help="An item's id.")],
    backend: options.Backend = None,
    collection: options.Collection = None,
    as_json: options.Json = False,
) -> None:
    """Show one stored item: where it is, its text and its metadata."""
    settings = Settings.load({"backend": backend, "collection": collection})
    with open_backend(settings) as store:
        require_collection(settings, store)
        found = store.get(settings.collection, [item_id])
    if not found:
        raise CommandError(f"no item {item_id!r} in collection {settings.collection!r}; ids are in search --json")
    item = record_object(found[0])
    if as_json:
        print_json(item)
        return
    metadata = item.pop("metadata")
    for name, value in (item | metadata).items():
        if value is not None:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            write(f"{name:12}  " + "\n              ".join(text.splitlines() or [""]))


def read_query(
    words: Sequence[str] | None,
    images: Sequence[Path] | None,
    term: Sequence[str] | None,
    terms: Sequence[str] | None,
) -> list[Term]:
    """The terms of a query as the command line gives it. Raises UsageError when there is none."""
    from retrieval.search.query import Term, parse_terms

    query: list[Term] = []
    if words:
        query.append(Term(" ".join(words)))
    for path in images or ():
        require_file(path)
        query.append(Term(path))
    parts = [*(term or ()), *(part for line in terms or () for part in split_terms(line))]
    for parsed in parse_terms(parts) if parts else ():
        if isinstance(parsed.value, Path):
            require_file(parsed.value)
        query.append(parsed)
    if not query:
        raise UsageError("say what to look for: words, --image FILE, or --term; see sightline search --help")
    return query


def split_terms(line: str) -> list[str]:
    """Split a line of terms at spaces that are not between double quotes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="")
    lexer.whitespace_split, lexer.quotes, lexer.commenters, lexer.escape = True, '"', "", ""
    try:
        return list(lexer)
    except ValueError:
        raise UsageError(f"--terms {line!r}: a quotation mark is not closed") from None


def read_where(text: str | None) -> dict[str, Any] | None:
    """The filter that ``--where`` gives as JSON. Raises UsageError where it is none."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f'--where is not JSON ({error}): write it as \'{{"year": {{"$gte": 1990}}}}\'') from None
    if not isinstance(value, dict):
        raise UsageError(f"--where must be a JSON object, not {text[:80]!r}")
    from backends.filters import parse_where

    try:
        parse_where(value)
    except ValueError as error:
        raise UsageError(f"--where: {error}") from None
    return value


def read_modality(name: str | None, known: Sequence[str] = MODALITIES) -> Modality | None:
    """The modality that ``--modality`` names; None for any, and where nothing was said."""
    if name is not None and name not in known:
        raise UsageError(f"--modality must be one of {', '.join(known)}, not {name!r}")
    if name == "image":
        return "image"
    return "text" if name == "text" else None


def read_mode(name: str) -> Mode:
    """The mode that ``--mode`` names."""
    from retrieval.search.retriever import Mode

    for mode in get_args(Mode):
        if mode == name:
            return mode  # type: ignore[no-any-return]
    raise UsageError(f"--mode must be one of {', '.join(get_args(Mode))}, not {name!r}")


def default_modality(store: Backend, collection: str, where: dict[str, Any] | None) -> Modality:
    """What a search finds where nothing was said: images, or texts where no image matches the filter."""
    from backends.base import And, Compare, parse_where

    only = Compare("modality", "eq", "image")
    return "image" if store.count(collection, only if where is None else And((parse_where(where), only))) else "text"


def require_file(path: Path) -> None:
    """Raise CommandError unless `path` is a file."""
    try:
        found = path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise CommandError(f"no file {path}: check the path of the picture")


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
    """Those of the nearest that are nearly relevant, `NEAR_MISSES` at most."""
    return [hit for hit in nearest if hit.relevance is not None and hit.relevance >= NEAR_MISS * gate][:NEAR_MISSES]


def nothing_relevant(section: Section, nearest: Sequence[Result], gate: float, missed: Sequence[Result]) -> Section:
    """The section that says that nothing is relevant, with the misses that are shown all the same."""
    said = f"nothing relevant: the nearest miss is at {show_relevance(nearest[0])}, below {100 * gate:g}%"
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
    html: Path | None,
    *,
    open_page: bool,
    as_json: bool,
    are_misses: bool = False,
    facets: Mapping[str, Facet] | None = None,
    asked_words: str = "",
) -> None:
    """Give out results: to stdout as table or JSON, and to the page that was asked for.

    are_misses: nothing of what the section shows is relevant. asked_words: what was looked for by keywords.
    """
    hits: Sequence[Hit] = section.hits
    if html is not None or open_page:
        from app.cli.results_page import render
        from backends.redaction import shown

        path = html or settings.home / "results.html"
        title = section.parts[0].text or section.title
        write_atomically(path, render(title, [section], [f"collection {settings.collection}", shown(settings.backend)]))
        note(f"results page: {path.absolute()}")
        if open_page and not webbrowser.open(path.absolute().as_uri()):
            note(f"note: no browser could be opened; open {path.absolute()} yourself")
    if as_json:
        found = [hit_object(hit) for hit in hits]
        answer: dict[str, Any] = {"hits": [], "misses": found} if are_misses else {"hits": found}
        if facets is not None:
            answer["facets"] = {field: facet_object(facet) for field, facet in facets.items()}
        print_json(answer)
        return
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
