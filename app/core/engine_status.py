"""What is known of each engine: its client, its version, which servers answer, and what it can do."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.core.settings import Settings
    from backends.base import Capabilities


def look(settings: Settings) -> list[dict[str, Any]]:
    """What is known of each scheme, servers asked, as the objects that ``--json`` prints."""
    from app.core import server_probe
    from backends.redaction import shown

    rows = {row["scheme"]: row for row in installed()}
    servers = {
        scheme: server_probe.places(scheme, settings.home, settings.backend) if row["installed"] else []
        for scheme, row in rows.items()
    }
    used = shown(settings.backend)
    server_probe.ask([answer for answers in servers.values() for answer in answers])
    for scheme, answers in servers.items():
        rows[scheme]["servers"] = [
            {
                "url": a.shown,
                "origin": a.origin,
                "state": a.state,
                "version": a.version,
                "error": a.error,
                "used": a.shown == used,
            }
            for a in answers
        ]
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
    row: dict[str, Any] = {
        "scheme": scheme,
        "url": engine.example,
        "summary": engine.summary,
        "tested": engine.tested,
    }
    try:
        capabilities = backends.load(scheme).capabilities
    except Unavailable:
        install = f"pip install 'sightline[{engine.extra}]'"
        return {**row, "installed": False, "install": install, "client": None, "version": None, "can": []}
    version = engine.client and versions.of_package(engine.client)
    client = f"{engine.client} {version}" if version else engine.client
    library = versions.of_library(scheme) or None
    return {**row, "installed": True, "install": None, "client": client, "version": library, "can": can(capabilities)}


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
