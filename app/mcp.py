"""The command that gives a collection to an assistant: the Model Context Protocol over standard input and output."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from app.cli import options
from app.cli.ask import model_loader
from app.cli.context import encoder_for, open_backend, require_collection, samples_folder
from app.cli.output import note
from app.core.errors import CommandError
from app.serve import folder


@options.grouped
def mcp(
    *,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="Show pictures of this folder only; may be repeated. Default: what was indexed before.",
        ),
    ] = None,
    chosen: options.SearchFlags,
    answering: options.ModelFlags,
) -> None:
    """Give a collection to an assistant, as tools of the Model Context Protocol.

    The assistant starts this command and speaks with it over standard input and output; nothing listens
    on the network. The tools search, look_up, get_item and ask only read. A running sightline serve has
    them at /mcp.
    """
    try:
        from app.http.tools import build
    except ImportError:
        raise CommandError("this needs the extra mcp: pip install 'sightline[mcp]'") from None
    import anyio

    from app.core.roots import RecordedRoots, Roots
    from app.http.access import Access
    from app.http.context import Service
    from app.http.limits import Limits

    settings = options.load_settings(chosen, answering)
    roots = [folder(path) for path in root] if root else None
    with open_backend(settings) as store, tempfile.TemporaryDirectory(prefix="sightline-") as none:
        require_collection(settings, store)
        service = Service(
            store,
            encoder_for(settings, store, chosen.encoder),
            settings.collection,
            home=settings.home,
            access=Access(None, required=False, rate=None),
            roots=Roots(roots, RecordedRoots(settings.home), settings.home / "uploads"),
            limits=Limits(rate=None),
            batch_size=settings.batch_size,
            max_pixels=settings.max_pixels or None,
            samples=samples_folder(settings),
            load_model=model_loader(settings),
            # The home's jobs are those of a service that may be running.
            jobs=Path(none),
        )
        try:
            note(f"the tools of {settings.collection!r} are ready; the end of standard input ends them")
            anyio.run(build(service).run_stdio_async)
        finally:
            service.close()
