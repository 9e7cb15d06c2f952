"""OpenSearch's and Elasticsearch's servers for development and tests: jars that ``make engines`` fetches."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from backends.kit.local_server import Launch, LocalServer, answers

HEAP = "512m"
#: Where `make engines` puts jars and classes: a folder for each server.
SHARE = Path(sys.prefix) / "share" / "sightline"
PORTS = {"opensearch": (9200, 9300), "elasticsearch": (9201, 9301)}
_SETTINGS = """\
cluster.name: sightline
node.name: node
network.host: 127.0.0.1
http.port: {http}
transport.port: {transport}
discovery.type: single-node
path.data: {data}
path.logs: {logs}
# A disk that is nearly full would make a node of one refuse shards: tests run on such disks too.
cluster.routing.allocation.disk.threshold_enabled: false
"""


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    places = os.pathsep.join([*([str(Path(home) / "bin")] if home else []), os.environ.get("PATH", "")])
    return shutil.which("java", path=places)


def _missing(name: str) -> str | None:
    if _java() and (SHARE / name / "classes").is_dir():
        return None
    return f"the jars of {name} are not here: install a JDK of Java 17 or later and Maven, then run make engines"


def _launch(name: str, folder: Path) -> Launch:
    home, share = folder / "home", SHARE / name
    for part in ("config", "plugins", "data", "logs", "tmp"):
        (home / part).mkdir(parents=True, exist_ok=True)
    http, transport = PORTS[name]
    text = _SETTINGS.format(http=http, transport=transport, data=home / "data", logs=home / "logs")
    (home / "config" / f"{name}.yml").write_text(text, "utf-8")
    java = _java()
    assert java is not None
    options = [f"-Xms{HEAP}", f"-Xmx{HEAP}", "-XX:+UseSerialGC", "-Dlog4j2.disable.jmx=true"]
    options += ["-Dlog4j2.formatMsgNoLookups=true", f"-Djava.io.tmpdir={home / 'tmp'}"]
    if name == "opensearch":
        path = [share / "classes", f"{share}/lib/*", f"{share}/knn/*"]
        main = [f"-Dopensearch.path.home={home}", "-cp", os.pathsep.join(map(str, path)), "OpenSearchServer", str(home)]
    else:
        path = [share / "classes", f"{share}/lib/*"]
        modules = share / "modules"
        main = [
            f"-Des.path.home={home}",
            "-cp",
            os.pathsep.join(map(str, path)),
            "ElasticsearchServer",
            str(home),
            str(modules),
        ]
    return Launch([java, *options, *main], {})


def _server(name: str) -> LocalServer:
    http, transport = PORTS[name]
    return LocalServer(
        name=name,
        url=f"{name}://127.0.0.1:{http}",
        ports=(http, transport),
        missing=lambda: _missing(name),
        launch=lambda folder: _launch(name, folder),
        ready=lambda: answers(f"http://127.0.0.1:{http}/_cluster/health?wait_for_status=yellow&timeout=1s"),
    )


OPENSEARCH = _server("opensearch")
ELASTICSEARCH = _server("elasticsearch")
