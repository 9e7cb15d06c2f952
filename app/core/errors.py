"""How a command, or what starts the service, fails: in one line for the user."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot do what was asked: one line that says why and what to do."""


class UsageError(CommandError):
    """A command line that cannot be understood."""
