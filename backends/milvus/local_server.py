"""Milvus's server for development and tests: the programs that the package ``milvus`` carries."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from backends.kit.local_server import Launch, LocalServer, answers


def _missing() -> str | None:
    if importlib.util.find_spec("milvus") is not None:
        return None
    return "the package milvus is not here: pip install 'sightline[milvus-server]' (Linux on x86-64)"


def _launch(folder: Path) -> Launch:
    # The wheel's own `default_server` starts a child that ends with its parent; what it prepares is used as it is.
    # Importing it is cheap, but it is no dependency: whoever has no local Milvus needs none of it.
    import milvus

    base = folder / "data"
    config = milvus.MilvusServerConfig(data_dir=str(base))
    for key, value in _SETTINGS.items():
        config.set(key, value)
    # Not its `resolve`, which tries every port, leaves the sockets open, and takes another port than the one of
    # our table where the last server's connections still linger.
    config.resolve_storage()
    config.write_config()
    settings = base / "configs" / "milvus.yaml"
    settings.write_text(settings.read_text("utf-8").replace("queryCoord:\n", _QUERY_COORD, 1), "utf-8")
    milvus._initialize_data_files(config.base_data_dir)
    libraries = os.pathsep.join(filter(None, [str(base / "bin"), os.environ.get("LD_LIBRARY_PATH")]))
    env = {
        "DEPLOY_MODE": "STANDALONE",
        "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH": libraries,
        "METRICS_PORT": "9091",
        "MILVUS_RUN_DIR": str(base / "run"),
    }
    return Launch([str(base / "bin" / "milvus"), "run", "standalone"], env, base)


def _ready() -> bool:
    # healthz is true before the proxy takes calls.
    if not answers("http://127.0.0.1:9091/healthz"):
        return False
    from pymilvus import MilvusClient, MilvusException

    try:
        client = MilvusClient("http://127.0.0.1:19530", timeout=2, dedicated=True)
    except MilvusException:
        return False
    try:
        client.list_collections(timeout=5)
    except MilvusException:
        return False
    finally:
        client.close()
    return True


# All but etcd's two listen on every interface, whatever their addresses: keep such a machine behind a firewall.
_PARTS = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
_SETTINGS = {
    # Without an address of their own, its parts register under the machine's first public one.
    **{f"{part}.ip": "127.0.0.1" for part in _PARTS},
    # In milliseconds. A single node's parts may look for news more often than a cluster's.
    "proxy.timeTickInterval": 50,
    "queryCoord.distPullInterval": 100,
    # In seconds. A server that was killed has its successor wait until its parts' leases end.
    "common.session.ttl": 5,
}
# What the wheel's template lacks; without it a built index is taken into use after up to ten seconds.
_QUERY_COORD = """queryCoord:
  checkChannelInterval: 200
  checkSegmentInterval: 200
  checkIndexInterval: 1000
  leaderViewUpdateInterval: 1
  UpdateNextTargetInterval: 1
"""
_PORTS = (19530, 19529, 9091, 2379, 2380, 53100, 19531, 21123, 22930, 21121, 13333, 21124)

SERVER = LocalServer(
    name="milvus",
    url="milvus://127.0.0.1:19530",
    ports=_PORTS,
    missing=_missing,
    launch=_launch,
    ready=_ready,
)
