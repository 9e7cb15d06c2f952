"""From sources to items to vectors to a backend, resumably."""

from __future__ import annotations

from indexers.progress import Progress
from indexers.removing import RemovalReport, remove
from indexers.report import IndexingError, IndexReport, NotRead, Quarantined
from indexers.run import index
from indexers.sources import Options, Source, open_source

__all__ = [
    "IndexReport",
    "IndexingError",
    "NotRead",
    "Options",
    "Progress",
    "Quarantined",
    "RemovalReport",
    "Source",
    "index",
    "open_source",
    "remove",
]
