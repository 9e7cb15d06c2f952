"""Commands that are imported when they are run, so that one does not wait for what the others import."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

#: By name, where a command is (``module:function``, or ``module:group`` for a `typer.Typer` with commands of its own)
#: and its summary, the beginning of its help: all that the list of commands shows. One without is not listed.
Table = Mapping[str, tuple[str, str]]


def load_command(name: str, table: Table) -> Any:
    """Import the command `name` of the table and make it ready to run."""
    module, _, attribute = table[name][0].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name)(found)
        found = alone
    return typer.main.get_command(found)


def group_of(table: Table) -> type[TyperGroup]:
    """The class of a group that has the commands of `table`, in its order, and imports the one that is run."""

    class LazyGroup(TyperGroup):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            # Their names and summaries only, for the list and for suggestions.
            self.commands = {
                name: TyperCommand(name=name, help=summary, hidden=not summary) for name, (_, summary) in table.items()
            }

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
            name, known, rest = super().resolve_command(ctx, args)
            return name, known if name is None else load_command(name, table), rest

    return LazyGroup
