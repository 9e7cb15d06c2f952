"""The commands about API keys: show, add and remove those that may call the service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import options, streams
from app.cli.context import require_folder
from app.cli.output import note, print_json, print_table, write
from app.core.errors import CommandError
from app.core.settings import Settings

if TYPE_CHECKING:
    from app.core.keys import KeyStore

keyring = typer.Typer(
    name="keys",
    help="Show the API keys of the service, and add and remove them.",
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"max_content_width": 110},
)


def open_keys(settings: Settings) -> KeyStore:
    """The keys in the home of `settings`."""
    from app.core.keys import KeyStore

    require_folder(settings.home)
    return KeyStore(settings.home / "keys.json")


@keyring.callback()
def table(context: typer.Context, as_json: options.Json = False) -> None:
    """Show every key's id, name, scope and age; the keys themselves are not stored, only a hash of each.

    The scopes: read searches and asks; write also adds and removes items; admin also drops collections.
    """
    if context.invoked_subcommand is not None:
        return
    from app.core.keys import KeyStoreError

    try:
        keys = open_keys(Settings.load({})).listed()
    except KeyStoreError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print_json(
            {"keys": [{"id": k.id, "name": k.name, "scope": k.scope, "created": _date(k.created_s)} for k in keys]}
        )
        return
    print_table(("id", "name", "scope", "created"), [(k.id, k.name, k.scope, _date(k.created_s)) for k in keys])
    if not keys:
        note("no keys: sightline keys add NAME makes one")


def _date(created_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created_s))


@keyring.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom or what the key is for.")],
    scope: Annotated[str, typer.Option("--scope", metavar="SCOPE", help="read, write or admin.")] = "read",
) -> None:
    """Make a key and print it; it is shown this once."""
    from app.core.keys import KeyStoreError

    # A key that nobody sees would stay, and be of no use.
    streams.require_output()
    try:
        key, text = open_keys(Settings.load({})).add(name, scope)
    except KeyStoreError as error:
        raise CommandError(str(error)) from None
    write(text)
    note(f"key {key.id} for {key.name!r} may {key.scope}; keep it: it is not stored and cannot be shown again")


@keyring.command("remove")
def remove(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id.")],
    force: Annotated[bool, typer.Option("--force", help="Remove it even if it is the last key.")] = False,
) -> None:
    """Remove a key; a running service refuses it from then on.

    The last key goes with --force only: a running service then refuses everybody until a key is added, and
    one that is started without keys, on this machine only, asks for none.
    """
    from app.core.keys import KeyStoreError, LastKey

    store = open_keys(Settings.load({}))
    try:
        key = store.remove(key_id, last=force)
    except LastKey:
        raise CommandError(
            "this is the last key: without it a running service refuses everybody until a key is added, and the next "
            "one on this machine asks for none; add another key first, or say --force"
        ) from None
    except KeyStoreError as error:
        raise CommandError(str(error)) from None
    note(f"key {key.id} for {key.name!r} was removed")
    if not store.listed():
        note("no key is left: a running service refuses everybody until sightline keys add NAME makes one")
