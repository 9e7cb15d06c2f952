"""The whole ``sightline`` command: the command line, and the two commands that run the service.

They join the command line and the service, which know nothing of each other; hence they stand here, above both.
"""

from __future__ import annotations

from app.cli.main import app, main
from app.mcp import mcp
from app.serve import serve

__all__ = ["app", "main"]

app.command("serve")(serve)
app.command("mcp")(mcp)
