"""The commands about engines: which there are and answer, and starting and stopping local servers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli import options
from app.cli.output import note, print_json, print_table, write
from app.core.engine_status import look
from app.core.errors import CommandError
from app.core.settings import Settings

engines = typer.Typer(
    name="engines",
    help="Show the vector databases, and start and stop local servers.",
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
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
        ("url", "client", "engine", "tests run on", "can"),
        [(e["url"], _client(e), _engine(e), e["tested"], ", ".join(e["can"])) for e in found],
    )


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
