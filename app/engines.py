"""The commands about engines: which there are and answer, and starting and stopping local servers."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import options
from app.opening import CommandError
from app.output import note, print_json, print_table, write
from app.settings import Settings

if TYPE_CHECKING:
    from backends.base import Capabilities

engines = typer.Typer(
    name="engines",
    help="Show the vector databases, and start and stop local servers.",
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"max_content_width": 110},
)


@engines.callback()
def table(context: typer.Context, as_json: options.Json = False) -> None:
    """Show every engine: its URL, whether its client is installed, and what it can do.

    `up NAME` and `down NAME` start and stop a server for development, from the packages on this machine.
    """
    if context.invoked_subcommand is not None:
        return
    settings = Settings.load({})
    found = [_look(scheme, settings) for scheme in _schemes()]
    if as_json:
        print_json({"engines": found})
        return
    rows = [
        (e["url"], "yes" if e["installed"] else f"no: {e['install']}", e["server"], ", ".join(e["can"])) for e in found
    ]
    print_table(("url", "client", "local server", "can"), rows)


def _schemes() -> list[str]:
    import backends

    return list(backends.SCHEMES)


def _look(scheme: str, settings: Settings) -> dict[str, Any]:
    import backends
    from app import servers
    from backends.errors import Unavailable

    engine = backends.SCHEMES[scheme]
    server = "–"
    if scheme in servers.SERVERS:
        server = "up" if servers.running(scheme, settings.home) else "down"
    row: dict[str, Any] = {"scheme": scheme, "url": engine.example, "summary": engine.summary, "server": server}
    try:
        capabilities = backends.load(scheme).capabilities
    except Unavailable:
        return {**row, "installed": False, "install": f"pip install 'sightline[{engine.extra}]'", "can": []}
    return {**row, "installed": True, "install": None, "can": can(capabilities)}


def can(capabilities: Capabilities) -> list[str]:
    """Capabilities in words, in the order of their declaration."""
    found = []
    for item in fields(capabilities):
        value = getattr(capabilities, item.name)
        if value is True:
            found.append(item.name.replace("_", " "))
        elif item.name in ("index_kinds", "quantizations"):
            found += sorted(value - {"auto", "none"})
    return found


@engines.command("up")
def up(name: Annotated[str, typer.Argument(metavar="NAME", help="Which server.")]) -> None:
    """Start a local server and wait until it answers; its data and log stay in the home."""
    from app import servers

    try:
        running = servers.up(name, Settings.load({}).home)
    except servers.ServerError as error:
        raise CommandError(str(error)) from None
    write(running.url)
    note(f"{name} runs as process {running.pid}; its log is {running.log}; sightline engines down {name} ends it")


@engines.command("down")
def down(name: Annotated[str, typer.Argument(metavar="NAME", help="Which server.")]) -> None:
    """Stop a local server that `up` started; its data stays."""
    from app import servers

    try:
        stopped = servers.down(name, Settings.load({}).home)
    except servers.ServerError as error:
        raise CommandError(str(error)) from None
    note(f"{name} was stopped" if stopped else f"{name} was not running")
