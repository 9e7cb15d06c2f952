"""The command that takes items out of a collection."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options
from app.cli.context import open_backend
from app.cli.output import note, print_json
from app.cli.queries import read_where
from app.core.errors import CommandError, UsageError

if TYPE_CHECKING:
    from backends.base import Backend
    from indexers.removing import RemovalReport

#: More than these are removed only with a yes.
MANY = 20


@options.grouped
def remove(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH|ID]", help="A file or folder, gone or not, or the id of an item.", show_default=False
        ),
    ] = None,
    *,
    chosen: options.StoreFlags,
    where: options.WhereJson = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help=f"Do not ask where more than {MANY} are removed.")] = False,
    as_json: options.Json = False,
) -> None:
    """Take items out of a collection, by path, id or filter; the files stay where they are.

    Of a folder all goes that lies in it, whatever run brought it. A picture that lies elsewhere too
    only loses that place. The next index run over a file that is still there brings it back.
    """
    settings = options.load_settings(chosen)
    clause = read_where(where)
    if target == "" or (target is None) == (clause is None):
        raise UsageError("say what to remove: a path, an id, or --where JSON; one of them")
    with open_backend(settings) as store:
        name = settings.collection
        if name not in store.collections():
            raise CommandError(f"there is no collection {name!r}: see sightline collections")
        choice: dict[str, Any] = {"where": clause} if target is None else choice_of(store, name, target)
        from indexers.removing import remove as remove_items

        report = remove_items(store, name, **choice, dry_run=True)
        found = report.items + report.captions + report.kept_elsewhere
        if not found and target is not None:
            raise CommandError(f"nothing of {name!r} has the id {target!r} or came from that path")
        if found and not dry_run:
            if report.items + report.captions > MANY and not yes:
                _confirm(report, name)
            report = remove_items(store, name, **choice)
            release(store, settings.home, report)
    if as_json:
        print_json({"dry_run": dry_run, **report.to_dict()})
    else:
        note(f"{'would remove' if dry_run else 'removed'} {told(report)} of {name!r}")


def choice_of(store: Backend, collection: str, target: str) -> dict[str, Any]:
    """What `remove` takes for an id, if an item has it, else for a path."""
    from backends.base import MAX_ID_BYTES

    usable = target and len(target.encode("utf-8", "replace")) <= MAX_ID_BYTES
    is_id = usable and target.isprintable() and bool(store.get(collection, [target]))
    return {"ids": [target]} if is_id else {"path": target}


def _confirm(report: RemovalReport, name: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError(f"removing {told(report)} of {name!r} needs a yes: add --yes, or --dry-run to look first")
    typer.confirm(f"Remove {told(report)} of {name!r}?", abort=True, err=True)


def told(report: RemovalReport) -> str:
    """A report in words."""
    parts = [_many(report.items, "item")]
    if report.captions:
        parts.append(_many(report.captions, "caption"))
    words = " and ".join(parts)
    if report.kept_elsewhere:
        stay = "stays, as it lies" if report.kept_elsewhere == 1 else "stay, as they lie"
        words += f" ({_many(report.kept_elsewhere, 'item')} {stay} elsewhere too)"
    return words


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def release(store: Backend, home: Any, report: RemovalReport) -> None:
    """Remove the uploaded files that only these items named."""
    if (home / "uploads").is_dir():
        from app.core.uploaded import UploadedFiles

        uploads = UploadedFiles(home / "uploads", store)
        uploads.release({file for uri in report.uris if (file := uploads.named(uri)) is not None})
