"""The commands that move collections: from engine to engine, into a folder of Parquet, and back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options
from app.cli.context import open_backend
from app.cli.index import PLAIN_LINE_EVERY_S, duration, stop_on_interrupt
from app.cli.output import note, print_json, write
from app.core.errors import CommandError, UsageError
from app.core.settings import Settings

if TYPE_CHECKING:
    from backends.base import Backend
    from indexers.transfer import TransferReport


@dataclass(frozen=True, slots=True)
class Location:
    """A collection in a store: ``URL/COLLECTION``, the options of the URL behind it."""

    url: str = field(repr=False)
    collection: str


def location(text: str) -> Location:
    """Read ``faiss:///dir/photos`` or ``weaviate://host:8080/photos?grpc=50051``. Raises UsageError."""
    from backends.redaction import shown

    address, mark, query = text.partition("?")
    url, _, collection = address.rpartition("/")
    scheme, separator, rest = url.partition("://")
    if separator and not rest:
        # exact:///photos: nothing stands between the scheme and the collection.
        url = f"{scheme}://"
    if not separator or not collection or not scheme:
        raise UsageError(f"{shown(text)} does not name a collection: write URL/COLLECTION, e.g. faiss:///dir/photos")
    return Location(url + mark + query, collection)


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="What to copy, as URL/COLLECTION.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Where to, as URL/COLLECTION.")],
    as_json: options.Json = False,
) -> None:
    """Copy a collection from any engine to any other, and check the copy record by record.

    Interrupted, it goes on where it was when it is run again; what is there already is not written
    twice. At the end every record is read back and compared, and both sides answer the same searches.
    """
    start, end = location(source), location(target)
    if start == end:
        raise UsageError("source and target are the same collection")
    from indexers import transfer

    with ExitStack() as stack:
        there = stack.enter_context(_store(start.url))
        # One folder has one writer, so both collections are reached through one connection.
        here = there if start.url == end.url else stack.enter_context(_store(end.url))
        try:
            with _watched("copied") as watch:
                report = transfer.copy(there, start.collection, _claiming(here), end.collection, **watch)
        except transfer.TransferError as error:
            raise CommandError(str(error)) from None
    _finish(report, end.collection, as_json=as_json)


@options.grouped
def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    *,
    chosen: options.StoreFlags,
    as_json: options.Json = False,
) -> None:
    """Write a collection into a folder of Parquet files, for backup and for other tools.

    The manifest is written last: a folder that has one is whole.
    """
    settings = options.load_settings(chosen)
    from indexers import archive, transfer

    with open_backend(settings) as store:
        try:
            with _watched("written") as watch:
                count = archive.export_collection(store, settings.collection, folder, **watch)
        except transfer.TransferError as error:
            raise CommandError(str(error)) from None
    if as_json:
        print_json({"folder": str(folder), "items": count})
    else:
        write(f"wrote {count:,} items to {folder}")


def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `sightline export` wrote.")],
    backend: options.Backend = None,
    collection: options.Collection = None,
    as_json: options.Json = False,
) -> None:
    """Read what export wrote into a collection; its own name is kept unless --collection says otherwise."""
    settings = Settings.load({"backend": backend})
    from indexers import archive, transfer

    name = collection or archive.read_manifest(folder)[0].name
    with open_backend(settings) as store:
        try:
            with _watched("read") as watch:
                report = archive.import_collection(folder, _claiming(store), name, **watch)
        except transfer.TransferError as error:
            raise CommandError(str(error)) from None
    _finish(report, name, as_json=as_json)


@contextmanager
def _store(url: str) -> Iterator[Backend]:
    with open_backend(Settings.load({"backend": url})) as store:
        yield store


def _claiming(store: Backend) -> Backend:
    """The store, which keeps the uploaded pictures that records written to it name."""
    from app.core.uploaded import UploadedFiles

    return UploadedFiles(Settings.load({}).home / "uploads", store).claiming()


class _Lines:
    """A line on stderr now and then, and always at the end."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._last < PLAIN_LINE_EVERY_S:
            return
        self._last = now
        rate = done / max(now - self._start, 1e-9)
        left = f", {duration((total - done) / rate)} left" if done < total else ""
        note(f"{self._verb} {done:,} of {total:,}, {rate:,.0f}/s{left}")


@contextmanager
def _watched(verb: str) -> Iterator[dict[str, Any]]:
    """What tells how far it is, and when to stop: at the first Ctrl-C, after the records in hand."""
    from indexers.report import Stopped

    try:
        with stop_on_interrupt("stopping after these records") as stop:
            yield {"progress": _Lines(verb), "stop": stop}
    except (KeyboardInterrupt, Stopped) as error:
        note("interrupted: run the same command again to go on")
        if isinstance(error, KeyboardInterrupt):
            raise
        raise typer.Exit(130) from None


def _finish(report: TransferReport, name: str, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
        return
    write(
        f"{name}: {report.written:,} written, {report.unchanged:,} were there, {report.extra:,} more in the target; "
        f"all read back equal (largest difference of a vector's component {report.vector_error:.3g}) "
        f"in {duration(report.seconds)}"
    )
    if report.parity:
        parity = report.parity
        write(
            f"{parity.queries} searches on both sides: top {parity.k} overlap {parity.mean_overlap:.1%} on average, "
            f"{parity.least_overlap:.0%} at least; largest score difference {parity.score_difference:.2g}"
        )
