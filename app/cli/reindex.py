"""The command that gives a collection another encoder while it is searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import options
from app.cli.context import load_named, open_backend, require_collection
from app.cli.index import MAX_LISTED, duration, progress_line, stop_on_interrupt
from app.cli.output import note, print_json, write
from app.core.errors import CommandError

if TYPE_CHECKING:
    from indexers.comparison import Comparison
    from indexers.reindex import ReindexReport


@options.grouped
def reindex(
    *,
    chosen: options.SearchFlags,
    switch: Annotated[
        bool, typer.Option("--switch/--no-switch", help="Whether to use the new vectors once they are there.")
    ] = True,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Switch even if items could not be encoded; they are lost then.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Give a collection another encoder, --encoder NAME, while it is searched.

    Every item is encoded anew into a collection of its own, which then takes the name at once: a search
    finds the earlier vectors until then, and the new ones afterwards. Interrupted, it goes on where it
    was when it is run again. Both are compared by what their own captions find. The earlier vectors stay
    as NAME-before, until sightline drop NAME-before.
    """
    settings = options.load_settings(chosen)
    from indexers.reindex import reindex as run
    from indexers.report import Stopped

    if chosen.encoder is None:
        raise CommandError("name the new encoder: --encoder NAME; sightline encoders lists them")
    with open_backend(settings) as store:
        require_collection(settings, store)
        model = load_named(chosen.encoder, settings)
        with stop_on_interrupt("stopping after these items") as stop, progress_line() as progress:
            try:
                report = run(
                    store,
                    settings.collection,
                    model,
                    switch=switch,
                    allow_failed=allow_failed,
                    progress=progress,
                    stop=stop,
                )
            except Stopped:
                note("interrupted: what was finished is stored; run the same command again to go on from there")
                raise typer.Exit(130) from None
    finish(report, wanted=switch, as_json=as_json)


def finish(report: ReindexReport, *, wanted: bool, as_json: bool) -> None:
    """Give out the report; leave with 1 where a switch was wanted and items stood in the way."""
    for item in report.failed[:MAX_LISTED]:
        note(f"could not be encoded: {item.path} ({item.reason})")
    if len(report.failed) > MAX_LISTED:
        note(f"{len(report.failed) - MAX_LISTED:,} more could not be encoded; --json lists them all")
    if as_json:
        print_json(report.to_dict())
    else:
        write(
            f"encoded {report.encoded:,} items with {report.encoder} in {duration(report.seconds)}"
            + (f" ({report.there:,} were there)" if report.there else "")
        )
        if report.comparison is not None:
            for line in told(report.comparison):
                write(line)
        if report.switched:
            write(f"{report.collection} has the new vectors; the earlier ones are {report.before}: sightline drop")
    if wanted and not report.switched:
        raise CommandError(
            f"{report.collection!r} keeps its vectors, as {len(report.failed):,} items could not be encoded: bring "
            "their files back and run this again, or add --allow-failed"
        )
    if not wanted:
        note("not switched: run it again without --no-switch for that")


def told(comparison: Comparison) -> list[str]:
    """A comparison in words."""
    lines = []
    if comparison.first is not None and comparison.in_ten is not None:
        (first, first_now), (in_ten, in_ten_now) = comparison.first, comparison.in_ten
        lines.append(
            f"of {comparison.captions:,} captions, their own picture comes first for {first:g}% before and "
            f"{first_now:g}% now, and is among ten for {in_ten:g}% and {in_ten_now:g}%"
        )
    if comparison.same_neighbours is not None:
        lines.append(f"of the ten pictures nearest to a picture, {comparison.same_neighbours:g}% are the same")
    return lines
