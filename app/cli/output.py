"""What reaches a person: results on stdout, notes on stderr, tables for terminals and tab-separated lines for pipes."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from backends.base import Hit, Record
    from retrieval.search.facets import Facet

#: How a relevance that cannot be known is shown.
NOT_KNOWN = "-"
NOTHING_FOUND = "nothing found"
#: Said of an item whose file is not there any more.
GONE = "file is gone"


def one_line(text: object) -> str:
    """`text` on one line without what could drive a terminal or reorder the line."""
    # Imported when something is shown, so that --help does not wait for it.
    from backends.harmless import one_line

    return one_line(str(text))


def note(text: object) -> None:
    """Say something that is not a result: one line on stderr. It is lost where there is no room for it.

    Raises BrokenPipeError where whoever read it has gone.
    """
    try:
        sys.stderr.write(one_line(text) + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        # A full disk, mostly: no reason to stop what was asked for.
        return


def print_json(value: object) -> None:
    """Write one JSON object to stdout, readable by people and programs; not-a-number becomes null."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_nan(value), ensure_ascii=False, indent=2, allow_nan=False)
    from backends.harmless import harmless_json

    write(harmless_json(text))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))) else value


def write(text: str) -> None:
    """Write a line to stdout, whatever its encoding can hold."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def hit_object(hit: Hit) -> dict[str, Any]:
    """A hit as the JSON object that `search`, `similar` and `lookup` print."""
    return {
        "id": hit.id,
        "score": hit.score,
        "relevance": getattr(hit, "relevance", None),
        "scored_by": getattr(hit, "scored_by", "vector"),
        "modality": hit.modality,
        "uri": hit.uri,
        "text": hit.text,
        "metadata": dict(hit.metadata),
        "exact": hit.exact,
        "duplicates": list(getattr(hit, "duplicates", ())),
        "gone": is_gone(hit),
    }


def facet_object(facet: Facet) -> dict[str, Any]:
    """A facet as the JSON object that `search --facets` prints."""
    return {
        "values": [{"value": value, "count": count} for value, count in facet.counts],
        "more": facet.more,
        "missing": facet.missing,
        "items": facet.items,
    }


def print_facets(facets: Mapping[str, Facet]) -> None:
    """Print a line for each value: on a terminal the counts below each field, else field, value and count by tabs."""
    for field, facet in facets.items():
        if is_terminal():
            write(f"\n{field}, of {facet.items:,} items")
            for value, count in facet.counts:
                write(f"{count:8,}  {one_line(value)}")
            for count, what in ((facet.more, "more values"), (facet.missing, "items without")):
                if count:
                    write(f"{count:8,}  {what}")
            continue
        for value, count in facet.counts:
            write(f"facet\t{one_line(field)}\t{one_line(value)}\t{count}")


def record_object(record: Record) -> dict[str, Any]:
    """A stored item as the JSON object that `show` prints."""
    return {
        "id": record.id,
        "modality": record.modality,
        "uri": record.uri,
        "text": record.text,
        "metadata": dict(record.metadata),
    }


def local_path(uri: str | None) -> Path | None:
    """The file that `uri` names on this machine; None for a remote address or no uri."""
    # Imported when there is an item to show, so that --help does not wait for it.
    from backends.urls import local_path

    return local_path(uri)


def is_gone(item: Hit | Record) -> bool:
    """Whether an item's file was on this machine and is not there any more."""
    from retrieval.places import is_gone

    return is_gone(item)


def note_gone(hits: Sequence[Hit]) -> None:
    """Say how many of these have no file any more, and what to do about it."""
    if gone := sum(map(is_gone, hits)):
        are, them = ("are", "them") if gone > 1 else ("is", "it")
        note(f"note: {gone} of these files {are} no longer there: sightline index FOLDER --prune removes {them}")


def place(uri: str | None) -> str:
    """Where an item's bytes are, as a person reads it: a path, or the address."""
    path = local_path(uri)
    return f"{shown_path(str(path))}{part_of(uri)}" if path is not None else uri or ""


def shown_path(path: str) -> str:
    """A path as a person reads it: line breaks, marks that reorder letters, and bytes that are no text are escaped."""
    from backends.harmless import escaped

    return escaped(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def part_of(uri: str | None) -> str:
    """The part of its file that `uri` names, with its sign: ``#page=2``; "" for a whole file."""
    from retrieval.images.parts import part_of

    return f"#{part}" if (part := part_of(uri)) else ""


def program() -> str:
    """What to type to run this program again from here, ready for a shell."""
    import shlex
    import shutil
    from pathlib import Path

    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m app"
    found = shutil.which(started.name)
    if found is not None and Path(found).resolve() == started.resolve():
        return shlex.quote(started.name)
    with contextlib.suppress(ValueError):
        return shlex.quote(str(started.absolute().relative_to(Path.cwd())))
    return shlex.quote(str(started.absolute()))


def is_terminal() -> bool:
    """Whether results go to a person's terminal rather than to a pipe or a file."""
    return sys.stdout.isatty()


def print_hits(
    hits: Sequence[Hit],
    *,
    first_rank: int = 1,
    nothing: str = NOTHING_FOUND,
    mark: str = "",
    asked_words: str = "",
) -> None:
    """Print results: a table on a terminal, else lines of fields between tabs.

    The fields are rank, score, relevance, modality, id, place and text.

    Args:
        nothing: what is said where there are none.
        mark: stands before each rank, and dims the rows of a table.
        asked_words: those of a search by words too. A table then says which of them an item has, and, of an item
            that only they found, the BM25 score where others have a cosine.
    """
    if not hits:
        note(nothing)
        return
    if not is_terminal():
        for rank, hit in enumerate(hits, start=first_rank):
            fields = (
                f"{mark}{rank}",
                f"{hit.score:.4f}",
                show_relevance(hit),
                hit.modality,
                hit.id,
                place(hit.uri),
                hit.text or "",
            )
            write("\t".join(one_line(value) for value in fields))
        note_gone(hits)
        return
    from rich.console import Console
    from rich.style import Style
    from rich.table import Table
    from rich.text import Text

    from app.cli.cells import Line

    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(ratio=1)
    for rank, hit in enumerate(hits, start=first_rank):
        path = local_path(hit.uri)
        link = Style(link=path.absolute().as_uri() if path is not None else None)
        text = one_line((hit.text or "").split("\n", 1)[0])
        table.add_row(
            f"{mark}{rank}",
            show_score(hit),
            show_relevance(hit),
            hit.modality,
            Line(Text(text)),
            style="dim" if mark else None,
        )
        # The id first: a terminal that is too narrow cuts the path, which the link still holds.
        folded = len(getattr(hit, "duplicates", ()))
        alike = f"  and {folded:,} alike" if folded else ""
        gone = f"{GONE}  " if is_gone(hit) else ""
        below = Text.assemble(
            (gone, "bold"), one_line(hit.id), "  ", (one_line(shorten_home(place(hit.uri))), link), alike, style="dim"
        )
        table.add_row("", "", "", "", Line(below))
        if words := shared_words(asked_words, hit):
            table.add_row("", "", "", "", Line(Text("words: " + one_line(", ".join(words)), style="dim")))
    Console().print(table)
    note_gone(hits)


def show_score(hit: Hit) -> str:
    """A hit's score; that of words is called what it is, since among cosines it would look like one."""
    by_words = getattr(hit, "scored_by", "vector") == "keyword"
    return f"BM25 {hit.score:.2f}" if by_words else f"{hit.score:.3f}"


def shared_words(asked: str, hit: Hit) -> list[str]:
    """The words of a query that an item's text or file name has, each once, in the query's order."""
    from backends import text

    return text.shared_words(asked, text.searched_text(hit.text, hit.uri)) if asked else []


def show_relevance(hit: Hit) -> str:
    """A hit's relevance in percent, rounded down so that 100% is said of nothing less; - where it is not known."""
    relevance: float | None = getattr(hit, "relevance", None)
    return NOT_KNOWN if relevance is None else f"{math.floor(100 * relevance)}%"


def shorten_home(path: str) -> str:
    """`path` relative to the current folder or to ``~`` where it lies below."""
    from pathlib import Path

    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        pass
    try:
        return "~/" + str(Path(path).relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return path


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print rows under `columns` on a terminal, else as lines with tabs; `right` names right-aligned columns."""
    if not is_terminal():
        write("\t".join(columns))
        for row in rows:
            write("\t".join(one_line(value) for value in row))
        return
    from rich.console import Console
    from rich.table import Table

    from app.cli.cells import Folded

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        # The first column is what people copy.
        table.add_row(*(Folded(one_line(value), whole=not number) for number, value in enumerate(row)))
    Console().print(table)
