"""The command that indexes: live progress, what was skipped, and a Ctrl-C that loses nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options
from app.cli.context import encoder_for, open_backend, samples_folder, why_not_kept
from app.cli.output import note, print_json, shown_path, write
from app.core.errors import CommandError, UsageError
from app.core.settings import Settings

if TYPE_CHECKING:
    from types import FrameType

    from backends.base import Backend, IndexSpec
    from indexers import IndexReport, Options, Progress, Quarantined, Source
    from retrieval.encoders import Encoder

PLAIN_LINE_EVERY_S = 10.0
MAX_LISTED = 20
PATH_CELLS = 40


@options.grouped
def index(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder, a file, a manifest, or - for JSON lines.")],
    *,
    chosen: options.SearchFlags,
    batch_size: Annotated[int | None, typer.Option("--batch-size", metavar="N", help="Items at a time.")] = None,
    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", metavar="N", help="Skip pictures of more pixels.")
    ] = None,
    index_kind: Annotated[
        str, typer.Option("--index-kind", metavar="KIND", help="Of a new collection: auto, flat, hnsw or ivf.")
    ] = "auto",
    quantization: Annotated[
        str, typer.Option("--quantization", metavar="KIND", help="Of a new collection: none, half, int8 or binary.")
    ] = "none",
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Leave out what matches, as in .gitignore.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="GLOB", help="Read what is left out otherwise.")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option("--image-root", metavar="DIR", help="Where the pictures of a manifest are.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="NAME", help="Of manifests and captions that are not UTF-8.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove items whose file has gone, all those below PATH.")
    ] = False,
    prune_empty: Annotated[
        bool, typer.Option("--prune-empty", help="Prune even where PATH has nothing left in it, or is gone itself.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if a file had to be skipped.")] = False,
    as_json: options.Json = False,
) -> None:
    """Index pictures and texts; run it again to take in only what is new or has changed.

    A folder is read with all below it, captions from name.txt beside name.jpg, from XMP and Google
    Takeout's files, or from captions.jsonl, .csv or .tsv. What NAS, systems and programs leave behind is
    left out, and what a .sightlineignore or --exclude names. Files that cannot be read are skipped and
    listed with the reason; so are pictures of too many pixels (--max-pixels), and what takes over 60 s
    of a processor or 2 GiB of memory to decode. Ctrl-C finishes the picture in hand; the next run goes
    on from there.
    """
    settings = options.load_settings(chosen, batch_size=batch_size, max_pixels=max_pixels)
    from backends.base import IndexSpec

    try:
        spec = IndexSpec(kind=index_kind, quantization=quantization)  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(str(error)) from None
    from indexers import Options

    read = Options(tuple(exclude or ()), tuple(include or ()), image_root, encoding)
    source = source_of(path, read, prune=prune or prune_empty)
    with open_backend(settings) as store:
        is_new = settings.collection not in store.collections()
        model = encoder_for(settings, store, chosen.encoder)
        if is_new and model.name == "compact" and chosen.encoder is None:
            note(better_encoder())
        report = run(source, store, model, settings, prune=prune or prune_empty, prune_empty=prune_empty, spec=spec)
    finish(report, path, encoder=model.name, as_json=as_json, strict=strict)


def source_of(path: str, read: Options, *, prune: bool) -> Source:
    """What PATH names; with prune it may be gone. Raises `IndexingError`, which then says how to remove what it had."""
    from indexers import IndexingError, open_source
    from indexers.removal import vanished

    gone = vanished(path)
    if gone is not None and prune:
        return gone
    try:
        return open_source(path, options=read)
    except IndexingError as error:
        if gone is None:
            raise
        hint = "if it has gone for good, sightline remove takes what came from it out of the collection"
        raise IndexingError(f"{error}; {hint}") from None


def run(
    source: Source,
    store: Backend,
    model: Encoder,
    settings: Settings,
    *,
    prune: bool,
    prune_empty: bool = False,
    spec: IndexSpec,
) -> IndexReport:
    """Index `source` with a live progress line; the first Ctrl-C ends it after the picture in hand."""
    import indexers
    from app.core.roots import RecordedRoots
    from app.core.uploaded import UploadedFiles
    from retrieval.places import is_there

    if source.kind != "stdin" and is_there(source.root):
        place = source.root / source.file if source.kind == "file" and source.file else source.root
        RecordedRoots(settings.home).add(place, folder=source.kind == "folder")
    with stop_on_interrupt("stopping after this picture") as stop, progress_line() as progress:
        report = indexers.index(
            source,
            UploadedFiles(settings.home / "uploads", store).claiming(),
            model,
            settings.collection,
            ledger=ledger_of(settings.home),
            prune=prune,
            prune_empty=prune_empty,
            batch_size=settings.batch_size,
            max_pixels=settings.max_pixels or None,
            index=spec,
            progress=progress,
            stop=stop,
        )
    if not report.interrupted:
        prepare_relevance(store, model, settings)
    return report


def ledger_of(home: Path) -> Path | None:
    """Where facts about files are kept, which spares reading them again; None, said once, where nothing can be."""
    why = why_not_kept(home)
    if why is not None:
        note(f"note: nothing can be kept in {home} ({why}), so that every run reads all files again")
        return None
    return home / "ledger.sqlite"


def prepare_relevance(store: Backend, model: Encoder, settings: Settings) -> None:
    """Take the sample that relevance is judged by, so that no search waits for it; nothing is encoded here.

    The background queries are left to the first search: with a large encoder they take a minute.
    """
    from backends.errors import BackendError
    from retrieval.relevance.scorer import Calibrator

    # The first search takes it otherwise; and there is none of a collection that nothing made.
    with contextlib.suppress(BackendError):
        Calibrator(store, model, store.resolved(settings.collection), samples_folder(settings)).sample()


@contextlib.contextmanager
def stop_on_interrupt(told: str, *signals: int) -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, or one of `signals`, saying what is `told`; the second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        # A signal may arrive in the middle of a print, so this goes around Python's buffers.
        with contextlib.suppress(OSError):
            os.write(2, f"\n{told}; Ctrl-C again to stop at once\n".encode("ascii"))

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, *signals)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class PlainLines:
    """Progress for logs: a line every ten seconds in which something was finished."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._done = 0

    def __call__(self, progress: Progress) -> None:
        """Say how far it is, if that is news and the last line is long enough ago."""
        now = time.monotonic()
        if now - self._last >= PLAIN_LINE_EVERY_S and progress.done != self._done:
            self._last, self._done = now, progress.done
            note(describe(progress))


def describe(progress: Progress) -> str:
    """A moment of a run in words."""
    total = f" of {progress.total:,}" if progress.total is not None else ""
    parts = [f"{progress.stage}: {progress.done:,}{total}"]
    if progress.rate_per_s > 0:
        parts.append(f"{progress.rate_per_s:.1f}/s")
    if progress.remaining_s is not None and progress.remaining_s >= 1:
        parts.append(f"{duration(progress.remaining_s)} left")
    if progress.quarantined:
        parts.append(f"{progress.quarantined:,} skipped")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextlib.contextmanager
def progress_line() -> Iterator[Any]:
    """A callback that shows progress on stderr: a live line on a terminal, plain lines now and then elsewhere."""
    if not sys.stderr.isatty():
        yield PlainLines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    from app.cli.cells import Line, cut_start

    class Path(ProgressColumn):
        """The end of the path in hand."""

        def render(self, task: Task) -> Line:
            """What fits of it."""
            return Line(Text(task.fields["path"], "dim"), keep_end=True)

    columns = (BarColumn(bar_width=28), TextColumn("{task.fields[moment]}"), Path())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, moment="listing", path="")

        def show(progress: Progress) -> None:
            path = cut_start(shown_path(progress.path), PATH_CELLS)
            bar.update(task, completed=progress.done, total=progress.total, moment=describe(progress), path=path)

        yield show


def better_encoder() -> str:
    """What a first index run with the default says of it."""
    from retrieval.encoders.catalogue import recommended

    return (
        "note: using compact, the small default that works offline; "
        f"--encoder {recommended('a laptop')} finds more, `sightline encoders` lists all"
    )


def finish(report: IndexReport, path: str, *, encoder: str, as_json: bool, strict: bool) -> None:
    """Give out the report and leave with the exit code that tells how it went."""
    for row in report.not_read:
        note(f"{'left out' if row.is_litter else 'not read'}: {row.told()}")
    for each in told_together(report.notes):
        note(f"note: {each}")
    for item in report.quarantined[:MAX_LISTED]:
        note(f"skipped {shown_path(item.path)} ({item.reason})")
    if len(report.quarantined) > MAX_LISTED:
        note(f"skipped {len(report.quarantined) - MAX_LISTED:,} more; --json lists them all")
    if report.unreadable:
        many = f"{report.unreadable:,} texts" if report.unreadable > 1 else "1 text"
        note(f"{many} cannot be read by {encoder}: stored for keyword search alone")
    if report.missing:
        files, them = ("files are", "them") if report.missing > 1 else ("file is", "it")
        note(f"{report.missing:,} indexed {files} no longer there; --prune removes {them}")
    if as_json:
        print_json(report.to_dict())
    else:
        write(summary(report))
    if report.interrupted:
        note("interrupted: what was finished is stored; run the same command again to go on from there")
        raise typer.Exit(130)
    kept = report.indexed + report.unchanged + report.renamed + report.duplicates + report.updated
    if not kept and not report.pruned:
        if report.quarantined:
            raise CommandError(f"nothing of {path} could be indexed; the reasons are above")
        raise CommandError(f"there is nothing to index in {path}: no picture, text or manifest that can be read")
    if strict and report.quarantined:
        raise typer.Exit(3)


def told_together(notes: Sequence[Quarantined]) -> list[str]:
    """What is told of items that were taken, each thing once with the first of its files."""
    files: dict[str, list[str]] = {}
    for item in notes:
        files.setdefault(item.reason, []).append(item.path)
    told = []
    for reason, paths in files.items():
        more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
        told.append(f"{shown_path(paths[0])}{more}: {reason}")
    return told[:MAX_LISTED]


def summary(report: IndexReport) -> str:
    """A report in one line."""
    counts = [
        f"{number:,} {name}"
        for name, number in (
            ("unchanged", report.unchanged),
            ("renamed", report.renamed),
            ("updated", report.updated),
            ("texts encoded anew", report.reencoded),
            ("duplicates", report.duplicates),
            ("pruned", report.pruned),
            ("skipped", len(report.quarantined)),
        )
        if number
    ]
    wall_s = report.seconds.get("wall", 0.0)
    rest = f" ({', '.join(counts)})" if counts else ""
    return f"indexed {report.indexed:,} of {report.found:,} items in {duration(wall_s)}{rest}"
