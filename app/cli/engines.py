"""The commands about engines: which there are and answer, and starting and stopping local servers."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options
from app.cli.context import CommandError
from app.cli.output import note, print_json, print_table, write
from app.core.settings import Settings

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
    """Show every engine: its client, its version, which servers answer, and what it can do.

    Servers are looked for where `up` started them, at their default address, and at the setting `backend`;
    each has seconds to answer. `up NAME` and `down NAME` start and stop one for development, from the
    packages on this machine.
    """
    if context.invoked_subcommand is not None:
        return
    found = look(Settings.load({}))
    if as_json:
        print_json({"engines": found})
        return
    print_table(
        ("url", "client", "engine", "can"),
        [(e["url"], _client(e), _engine(e), ", ".join(e["can"])) for e in found],
    )


def look(settings: Settings) -> list[dict[str, Any]]:
    """What is known of each scheme, servers asked, as the objects that ``--json`` prints."""
    from app.core import server_probe as probing
    from backends.urls import shown

    rows = {row["scheme"]: row for row in installed()}
    servers = {
        scheme: probing.places(scheme, settings.home, settings.backend) if row["installed"] else []
        for scheme, row in rows.items()
    }
    used = shown(settings.backend)
    probing.ask([answer for answers in servers.values() for answer in answers])
    for scheme, answers in servers.items():
        rows[scheme]["servers"] = [
            {
                "url": a.shown, "origin": a.origin, "state": a.state, "version": a.version, "error": a.error,
                "used": a.shown == used,
            }
            for a in answers
        ]  # fmt: skip
    return list(rows.values())


def installed() -> list[dict[str, Any]]:
    """The same without asking any server."""
    import backends

    return [{**_installed(scheme), "servers": []} for scheme in backends.engines()]


def _installed(scheme: str) -> dict[str, Any]:
    import backends
    from backends import versions
    from backends.errors import Unavailable

    engine = backends.engines()[scheme]
    row: dict[str, Any] = {"scheme": scheme, "url": engine.example, "summary": engine.summary}
    try:
        capabilities = backends.load(scheme).capabilities
    except Unavailable:
        install = f"pip install 'sightline[{engine.extra}]'"
        return {**row, "installed": False, "install": install, "client": None, "version": None, "can": []}
    version = engine.client and versions.of_package(engine.client)
    client = f"{engine.client} {version}" if version else engine.client
    library = versions.of_library(scheme) or None
    return {**row, "installed": True, "install": None, "client": client, "version": library, "can": can(capabilities)}


def _client(row: dict[str, Any]) -> str:
    return row["client"] or "yes" if row["installed"] else f"no: {row['install']}"


def _engine(row: dict[str, Any]) -> str:
    """The version of an engine in process, or what each server said."""
    if row["version"]:
        return str(row["version"])
    said = []
    for server in row["servers"]:
        state = f"{server['state']}, {server['version']}" if server["version"] else server["state"]
        said.append(f"{server['url'].partition('://')[2]} ({server['origin']}) {state}")
    return "; ".join(said) or "–"


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
    from app.core import local_servers as servers

    try:
        running = servers.up(name, Settings.load({}).home)
    except servers.ServerError as error:
        raise CommandError(str(error)) from None
    write(running.url)
    note(f"{name} runs as process {running.pid}; its log is {running.log}; sightline engines down {name} ends it")


@engines.command("down")
def down(name: Annotated[str, typer.Argument(metavar="NAME", help="Which server.")]) -> None:
    """Stop a local server that `up` started; its data stays."""
    from app.core import local_servers as servers

    try:
        stopped = servers.down(name, Settings.load({}).home)
    except servers.ServerError as error:
        raise CommandError(str(error)) from None
    note(f"{name} was stopped" if stopped else f"{name} was not running")
