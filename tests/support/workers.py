"""Running the tests in several processes side by side, each server in one of them at a time.

Tests of one module or class stay together, since they share fixtures. Those that need a server of which a machine can
run only one (its ports are fixed) say its name: ``pytest.mark.server("milvus")``. All tests of one name run in one
process, and those of several names in one process before all others.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

#: What a process of tests may take, PyTorch and a browser included.
MEMORY = 5 * 2**30
#: Group of the tests that need several servers.
SEVERAL = "several servers"
#: So many large groups without a server come next: they occupy the other processes until the servers are free.
MEANWHILE = 4


def processes() -> int:
    """One more than there are processors, since tests of servers mostly wait; fewer where memory is short."""
    return max(1, min((psutil.cpu_count() or 1) + 1, psutil.virtual_memory().total // MEMORY))


def servers_of(item: pytest.Item) -> frozenset[str]:
    """The names of the servers that a test needs."""
    return frozenset(name for mark in item.iter_markers("server") for name in mark.args)


def group_of(item: pytest.Item) -> str:
    """What a test must stay together with: its servers, else its class or module."""
    names = servers_of(item)
    if names:
        return f"server {min(names)}" if len(names) == 1 else SEVERAL
    return item.nodeid.partition("[")[0].rpartition("::")[0]


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for another one, which prints the summary."""
    return hasattr(config, "workerinput")


def groups_file(run: str) -> Path:
    """Where the processes of a run tell the first one, which collects nothing, what belongs together."""
    return Path(tempfile.gettempdir()) / f"sightline-test-groups-{run}.json"


def arrange(config: Any, items: list[pytest.Item]) -> None:
    """Put first what takes long, and tell the first process the groups."""
    groups = {item.nodeid: group_of(item) for item in items}
    sizes = Counter(groups.values())
    servers = {groups[item.nodeid] for item in items if servers_of(item)} - {SEVERAL}
    by_size = sorted(sizes, key=lambda group: (-sizes[group], group))
    others = [group for group in by_size if group not in servers and group != SEVERAL]
    order = [SEVERAL, *others[:MEANWHILE], *(group for group in by_size if group in servers), *others[MEANWHILE:]]
    turns = {group: turn for turn, group in enumerate(order)}
    items.sort(key=lambda item: turns[groups[item.nodeid]])
    file = groups_file(config.workerinput["testrunuid"])
    own = file.with_suffix(f".{os.getpid()}")
    own.write_text(json.dumps(groups), "utf-8")
    own.replace(file)


def sendable(data: Any) -> Any:
    """What a process reports of a test, with backslashes for what is no Unicode, which cannot be sent to another."""
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(data, dict):
        return {sendable(name): sendable(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return type(data)(map(sendable, data))
    return data


class Scheduling(LoadScopeScheduling):
    """Groups are handed out in the order of `arrange`."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False
        self._groups: dict[str, str] = {}

    def schedule(self) -> None:
        """Hand out what is next, once all processes have collected."""
        if self.collection_is_completed and not self._groups:
            file = groups_file(next(iter(self.assigned_work)).workerinput["testrunuid"])
            self._groups = json.loads(file.read_text("utf-8"))
            file.unlink()
        super().schedule()

    def _split_scope(self, nodeid: str) -> str:
        return self._groups[nodeid]
