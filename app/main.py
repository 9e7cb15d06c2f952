"""The whole ``sightline`` command: the command line, and the two commands that run the service.

They join the command line and the service, which know nothing of each other; hence they stand here, above both.
"""

from __future__ import annotations

from app.cli.main import COMMANDS, app, main

__all__ = ["app", "main"]

COMMANDS["serve"] = ("app.serve:serve", "Serve search and chat over HTTP, with a page for the browser.")
COMMANDS["mcp"] = ("app.mcp:mcp", "Give a collection to an assistant, as tools of the Model Context Protocol.")
