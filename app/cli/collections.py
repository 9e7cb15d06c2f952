"""The commands about collections: list them, and drop one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli import options
from app.cli.context import encoder_name, open_backend, samples_folder
from app.cli.output import note, print_json, print_table
from app.core.errors import CommandError
from app.core.settings import Settings


def collections(backend: options.Backend = None, as_json: options.Json = False) -> None:
    """List the collections of the store, with what fills them."""
    from backends.redaction import shown

    settings = Settings.load({"backend": backend})
    found = []
    with open_backend(settings) as store:
        for name in store.collections():
            spec = store.describe(name)
            found.append(
                {
                    "name": name,
                    "items": store.count(name),
                    "dim": spec.dim,
                    "metric": spec.metric,
                    "encoder": encoder_name(spec.encoder, settings.home),
                    "fingerprint": spec.encoder,
                }
            )
    if as_json:
        print_json({"backend": shown(settings.backend), "collections": found})
        return
    if not found:
        note(f"no collection yet in {shown(settings.backend)}: make one with sightline index PATH")
        return
    rows = [(c["name"], c["items"], c["dim"], c["metric"], c["encoder"] or c["fingerprint"]) for c in found]
    print_table(("name", "items", "dim", "metric", "encoder"), rows, right=("items", "dim"))


def drop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection to remove.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    backend: options.Backend = None,
    as_json: options.Json = False,
) -> None:
    """Remove a collection and all it holds; the pictures themselves stay where they are.

    Pictures that were uploaded to sightline serve are removed, unless another collection has them.
    """
    from backends.redaction import shown

    settings = Settings.load({"backend": backend})
    with open_backend(settings) as store:
        names = store.collections()
        if name not in names:
            there = f"there are: {', '.join(names)}" if names else "there is none"
            raise CommandError(f"no collection {name!r} in {shown(settings.backend)}; {there}")
        count, stored = store.count(name), store.resolved(name)
        if not yes:
            if not sys.stdin.isatty():
                raise CommandError(f"dropping {name!r} ({count:,} items) needs a yes: add --yes")
            typer.confirm(f"Drop collection {name!r} with {count:,} items?", abort=True, err=True)
        store.drop(name)
        if (settings.home / "uploads").is_dir():
            from app.core.uploaded import UploadedFiles

            UploadedFiles(settings.home / "uploads", store).forget(name)
    from retrieval.relevance.sample import forget_sample

    forget_sample(samples_folder(settings), stored)
    if as_json:
        print_json({"dropped": name, "items": count})
    else:
        note(f"dropped {name!r} with {count:,} items")
