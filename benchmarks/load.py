"""The service under load: ``python -m benchmarks.load FOLDER... [--clients 32] [--seconds 120]``.

It starts `sightline serve` as users do, in a process and a temporary home of its own, indexes FOLDERs through it, and
has N clients use it at once over loopback, each in a closed loop: the next request follows the last answer. Of
sixteen clients eleven search (words with facets, a picture, a look-up, similar items, items, thumbnails), two chat
over server-sent events, one asks in OpenAI's schema, one uploads and deletes, one makes new files and has them
indexed. The model is the named fake of benchmarks/fake_openai.py, over HTTP, which takes 0.2 s for its first
word and 0.01 s for each; the clients and it share the machine with the service.

An **error** is whatever is not the documented success: another status, an answer without hits, a stream that does
not come to its end, a job that fails, no byte for 60 s. A 429 or 503 with Retry-After is counted apart, as
**throttled**: the client waits for so long and repeats the request, for up to 60 s, after which it has **given up**.
Latencies are those of successes, to the last byte; those after 20 s are also given apart, as the first questions load
the model's packages and the encoder's networks.

**Memory** is the resident set of the service's process, each second; its slope after 20 s is given with a bootstrap
interval, and is called flat where the interval's end is under 1% of it, a minute (`load_record.memory_of`).

``--restart-backend`` kills the database (kill -9) after a third of the time, starts it again 20 s later (at most a
quarter of the time), and tells what the clients saw: anything but a success or a 503 with Retry-After is an
error, and jobs that were running have to go on. It takes ``--backend postgresql://``, a server of the run's own.

``--out`` gets the raw samples as JSON, and latencies and memory as figures. The exit code is 1 where there
was an error, or where a client gave up.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from backends.redaction import shown
from benchmarks.fake_openai import Behaviour, FakeOpenAI
from benchmarks.load_clients import HUNG_S, Client, World
from benchmarks.load_pictures import pictures_in
from benchmarks.load_record import Attempt, Record, memory_of, outage_of, summarize
from benchmarks.load_report import markdown, write
from benchmarks.load_server import LoadError, Served, database, service

COLLECTION = "loadtest"
OUTAGE_S = 20.0
TELL_EVERY_S = 10.0
READY_WITHIN_S = 60.0
#: What one request may still take when the run has ended.
DRAIN_S = HUNG_S + 5


@dataclass(frozen=True)
class Options:
    """What is asked for on the command line."""

    folders: list[Path]
    clients: int
    seconds: float
    backend: str
    restart_backend: bool
    out: Path | None


def run(options: Options) -> dict[str, Any]:
    """Measure once; the figures. Raises LoadError."""
    pictures = pictures_in(options.folders)
    behaviour = Behaviour(first_token_s=0.2, token_s=0.01)
    with tempfile.TemporaryDirectory(prefix="sightline-load-") as folder, FakeOpenAI(behaviour) as model:
        home, made = Path(folder) / "home", Path(folder) / "made"
        made.mkdir()
        with database(options.backend, home) as (backend, server):
            if options.restart_backend and server is None:
                raise LoadError("--restart-backend kills the database, so it takes --backend postgresql:// only")
            roots = [*(each.resolve() for each in options.folders), made]
            with service(home, backend, COLLECTION, roots, model.base_url) as served:
                return asyncio.run(_measured(options, served, model, server, pictures, made))


async def _measured(
    options: Options, served: Served, model: FakeOpenAI, server: Any, pictures: list[bytes], made: Path
) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=None)
    timeout = httpx.Timeout(HUNG_S, pool=None)
    async with httpx.AsyncClient(base_url=served.url, timeout=timeout, limits=limits, trust_env=False) as http:
        await _ready(http)
        for folder in options.folders:
            await _indexed(http, folder)
        items = await _images(http)
        record = Record()
        world = World(http, record, pictures, items, made, time.perf_counter())
        clients = [Client(world, number) for number in range(options.clients)]
        tell(f"{len(items)} images are indexed; {options.clients} clients for {options.seconds:g} s")
        working = [asyncio.create_task(client.run()) for client in clients]
        watching = asyncio.create_task(_watched(world, served, model))
        try:
            outage = await _time_passes(world, options, server)
            world.ended.set()
            _, late = await asyncio.wait(working, timeout=DRAIN_S)
            for task in [task for task in working if task.done()]:
                task.result()
            for task in late:
                task.cancel()
            left = await _left(http)
            await http.delete(f"/v1/collections/{COLLECTION}")
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    code, ended_s = await asyncio.to_thread(served.end)
    return {
        "clients": options.clients,
        "seconds": options.seconds,
        "backend": shown(options.backend),
        "endpoints": summarize(record, options.seconds),
        "memory": memory_of(record.memory),
        "outage": outage_of(record, *outage) if outage else None,
        "hung_clients": len(late),
        "left_over": left,
        "exit": {"code": code, "seconds": ended_s},
        "log": served.log_lines(),
        "record": record,
    }


async def _time_passes(world: World, options: Options, server: Any) -> tuple[float, float] | None:
    """Let the clients work for the time of the run; when the database was killed and when it was back, if it was."""
    if not options.restart_backend:
        await asyncio.sleep(options.seconds)
        return None
    await asyncio.sleep(options.seconds / 3)
    await asyncio.to_thread(server.kill)
    killed_s = time.perf_counter() - world.begin_s
    tell(f"{killed_s:.0f} s: the database is killed")
    await asyncio.sleep(min(OUTAGE_S, options.seconds / 4))
    await asyncio.to_thread(server.start)
    back_s = time.perf_counter() - world.begin_s
    tell(f"{back_s:.0f} s: the database is started again")
    await asyncio.sleep(max(0.0, options.seconds - back_s))
    return killed_s, back_s


async def _watched(world: World, served: Served, model: FakeOpenAI) -> None:
    """Each second the service's memory, and how soon its event loop answers; now and then a line of progress."""
    told_s = 0.0
    while True:
        at_s = time.perf_counter() - world.begin_s
        if not world.ended.is_set():
            world.record.memory.append((at_s, served.rss_bytes))
            await _health(world)
        # It keeps what it was asked, pictures and all.
        model.received.clear()
        if at_s - told_s >= TELL_EVERY_S:
            told_s = at_s
            done, errors = len(world.record.attempts), len(world.record.errors())
            tell(f"{at_s:.0f} s: {done:,} requests, {errors} errors, {served.rss_bytes / 1e6:,.0f} MB")
        await asyncio.sleep(max(0.0, 1 - (time.perf_counter() - world.begin_s - at_s)))


async def _health(world: World) -> None:
    start_s = time.perf_counter()
    error, status = "", 0
    try:
        status = (await world.http.get("/healthz")).status_code
    except httpx.HTTPError as failure:
        error = f"{type(failure).__name__}: {failure}"
    world.record.attempts.append(
        Attempt(
            "healthz",
            -1,
            int(1e9 * (start_s - world.begin_s)),
            int(1e9 * (time.perf_counter() - start_s)),
            status,
            0,
            "ok" if status == 200 else "error",
            error,
        )
    )


async def _ready(http: httpx.AsyncClient) -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    while (response := await http.get("/readyz")).status_code != 200:
        if time.monotonic() > deadline_s:
            raise LoadError(f"the service does not get ready: {response.text}")
        await asyncio.sleep(0.2)


async def _indexed(http: httpx.AsyncClient, folder: Path) -> None:
    """Have the service index a folder, and wait for it. Raises LoadError."""
    job = (await http.post("/v1/index", json={"folder": str(folder.resolve())})).raise_for_status().json()
    while job["ended_s"] is None:
        await asyncio.sleep(0.2)
        job = (await http.get(f"/v1/jobs/{job['id']}")).raise_for_status().json()
    if job["state"] != "done":
        raise LoadError(f"{folder} cannot be indexed: {job['error']}")


async def _images(http: httpx.AsyncClient) -> list[str]:
    """The ids of some images of the collection. Raises LoadError where there is none."""
    body = {"text": "a photo", "k": 100, "modality": "image"}
    found = (await http.post("/v1/search", json=body)).raise_for_status().json()["hits"]
    if not found:
        raise LoadError("the folders hold nothing that could be indexed")
    return [hit["id"] for hit in found]


async def _left(http: httpx.AsyncClient) -> dict[str, float]:
    """What the service still works on though nobody waits for it, by its own figures; and whether it is ready."""
    names = ("sightline_requests_in_flight", "sightline_chats_running", "sightline_encoder_waiting_texts")
    left: dict[str, float] = {}
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        lines = (await http.get("/metrics")).text.splitlines()
        left = {name: float(line.split()[1]) for line in lines for name in names if line.startswith(f"{name} ")}
        if not any(left.values()):
            break
        await asyncio.sleep(0.2)
    left["ready"] = float((await http.get("/readyz")).status_code == 200)
    return left


def tell(line: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def failed(figures: dict[str, Any]) -> list[str]:
    """What of a run is not as it has to be, one line each."""
    everything = figures["endpoints"][-1]
    left = [name for name, value in figures["left_over"].items() if value != (1.0 if name == "ready" else 0.0)]
    wrong = [
        (everything["errors"] > 0, f"{everything['errors']} errors"),
        (everything["given_up"] > 0, f"{everything['given_up']} requests were given up"),
        (figures["hung_clients"] > 0, f"{figures['hung_clients']} clients hang"),
        (bool(left), f"left over: {', '.join(left)}"),
        (figures["exit"]["code"] != 0, f"the service ended with {figures['exit']['code']}"),
    ]
    return [told for is_so, told in wrong if is_so]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.load", description=(__doc__ or "").split("\n")[0])
    found.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="pictures, with captions if there are")
    found.add_argument("--clients", type=int, default=32, metavar="N", help="at once (%(default)s)")
    found.add_argument("--seconds", type=float, default=120.0, metavar="S", help="how long (%(default)g)")
    found.add_argument(
        "--backend",
        default="faiss://",
        metavar="URL",
        help="postgresql:// alone starts a server of its own, faiss:// alone an index (%(default)s)",
    )
    found.add_argument("--restart-backend", action="store_true", help="kill the database and start it again")
    found.add_argument("--out", type=Path, metavar="DIR", help="folder for the raw samples and the figures")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    options = Options(**vars(parser().parse_args(arguments)))
    try:
        for folder in options.folders:
            if not folder.is_dir():
                raise LoadError(f"{folder} is no folder")
        if options.clients < 1 or not 0 < options.seconds <= 86_400:
            raise LoadError("--clients takes at least 1, --seconds more than 0 and a day at most")
        if options.out is not None:
            # Before, not after minutes of work.
            options.out.mkdir(parents=True, exist_ok=True)
        figures = run(options)
    except (LoadError, httpx.HTTPError, OSError) as error:
        tell(f"error: {error}")
        return 1
    sys.stdout.write(markdown(figures))
    if options.out is not None:
        for path in write(figures, options.out):
            sys.stdout.write(f"{path}\n")
    wrong = failed(figures)
    for line in wrong:
        tell(f"failed: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
