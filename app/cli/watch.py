"""The command that keeps a collection in step with a folder."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import options
from app.cli.context import encoder_for, open_backend
from app.cli.index import MAX_LISTED, ledger_of, prepare_relevance, stop_on_interrupt, summary
from app.cli.output import note, write

if TYPE_CHECKING:
    from indexers import IndexReport


@options.grouped
def watch(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder.")],
    *,
    chosen: options.SearchFlags,
    batch_size: Annotated[int | None, typer.Option("--batch-size", metavar="N", help="Items at a time.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report of each run as JSON, one a line.")] = False,
) -> None:
    """Keep a collection in step with a folder: what is added, changed or removed.

    It is brought up to date at the start, and then within seconds of each change; what is being
    written waits until it has been left alone. Ctrl-C ends it after the picture in hand. The store of an
    embedded engine has one process at a time: to search meanwhile let the service watch, with
    the setting `watch`.
    """
    settings = options.load_settings(chosen, batch_size=batch_size)
    from app.core.roots import RecordedRoots
    from app.core.uploaded import UploadedFiles
    from indexers import IndexingError, open_source
    from indexers.watching import watch as watching

    source = open_source(path)
    if source.kind != "folder":
        raise IndexingError(f"{source.name} is no folder: only folders can be watched")
    with open_backend(settings) as store:
        model = encoder_for(settings, store, chosen.encoder)
        RecordedRoots(settings.home).add(source.root, folder=True)

        def told(report: IndexReport) -> None:
            tell(report, as_json=as_json)
            if has_changed(report) and not report.interrupted:
                prepare_relevance(store, model, settings)

        with stop_on_interrupt("stopping after this picture", signal.SIGTERM) as stop:
            note(f"watching {source.name}; Ctrl-C ends it")
            watching(
                source.root,
                UploadedFiles(settings.home / "uploads", store).claiming(),
                model,
                settings.collection,
                stop=stop,
                told=told,
                trouble=lambda line: note(f"note: {line}; waiting"),
                ledger=ledger_of(settings.home),
                batch_size=settings.batch_size,
            )
    note("stopped; the next run goes on from here")


def has_changed(report: IndexReport) -> bool:
    """Whether a run did anything to the collection."""
    return bool(report.indexed or report.updated or report.renamed or report.pruned or report.reencoded)


def tell(report: IndexReport, *, as_json: bool) -> None:
    """Give out the report of a run, as JSON or, where it changed something, as a line."""
    for item in report.quarantined[:MAX_LISTED] if has_changed(report) else ():
        note(f"skipped {item.path} ({item.reason})")
    if as_json:
        from backends.harmless import harmless_json

        write(harmless_json(json.dumps(report.to_dict(), ensure_ascii=False)))
    elif has_changed(report):
        write(summary(report))
