"""The clients of a load test: what each does over and over, and how it judges what it is answered."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx
import numpy as np

from benchmarks.batching import queries
from benchmarks.load_pictures import new_picture
from benchmarks.load_record import Attempt, Record

#: A request that has no next byte in this time counts as hung.
HUNG_S = 60.0
#: A client that is throttled tries again for this long.
PATIENCE_S = 60.0
#: After an error within a stream, which cannot say when to try again.
RETRY_S = 2.0
#: One client in sixteen of each kind where it stands once.
ROLES = (
    "search",
    "chat",
    "index",
    "search",
    "upload",
    "search",
    "search",
    "completions",
    "search",
    "search",
    "chat",
    "search",
    "search",
    "search",
    "search",
    "search",
)
SEARCHES = ("text", "thumbnail", "text", "thumbnail", "similar", "text", "image", "thumbnail", "lookup", "item")
SIZES = (160, 320, 640)
NEW_FILES = 4
KEPT_FILES = 32
KEPT_UPLOADS = 16
FAILED = "the service failed on this request"

#: What is read of a response: what it gives, and why it is an error after all.
Read: TypeAlias = Callable[[httpx.Response], Awaitable[tuple[Any, "Fault | None"]]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an answer that began well; the status that an error event names, and whether it is a 503."""

    message: str
    status: int = 200

    @property
    def throttled(self) -> bool:
        """Whether it says to try again later."""
        return self.status == 503


@dataclass
class World:
    """What the clients share. begin_s: `time.perf_counter` at the run's beginning."""

    http: httpx.AsyncClient
    record: Record
    pictures: Sequence[bytes]
    items: Sequence[str]
    made: Path
    begin_s: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Client:
    """One client: it goes through its role's requests in turn, the next as soon as the one before has ended."""

    def __init__(self, world: World, number: int) -> None:
        self._world, self.number = world, number
        self.role = ROLES[number % len(ROLES)]
        self._turn = number
        self._random = np.random.default_rng(number)
        self._texts = queries(84)
        self._files: deque[Path] = deque()
        self._uploads: deque[str] = deque()

    async def run(self) -> None:
        """Work until the run ends."""
        act: Callable[[], Awaitable[None]] = getattr(self, f"_{self.role}")
        while not self._world.ended.is_set():
            await act()
            self._turn += 1

    # What each role does

    async def _search(self) -> None:
        item = quote(self._world.items[self._turn * 7 % len(self._world.items)], safe="")
        match SEARCHES[self._turn % len(SEARCHES)]:
            case "text":
                body = {"text": self._text(), "k": 24, "modality": "image", "facets": ["modality"]}
                await self.call("search text", "POST", "/v1/search", has_hits, json=body)
            case "image":
                picture = base64.b64encode(self._picture()).decode("ascii")
                await self.call("search image", "POST", "/v1/search", has_hits, json={"image": picture, "k": 24})
            case "lookup":
                files = {"image": ("picture.jpg", self._picture(), "image/jpeg")}
                await self.call("lookup", "POST", "/v1/lookup", has_json, files=files, data={"k": "5"})
            case "thumbnail":
                size = SIZES[self._turn // 3 % len(SIZES)]
                await self.call("thumbnail", "GET", f"/v1/items/{item}/image?size={size}", is_jpeg)
            case "similar":
                await self.call("similar", "GET", f"/v1/items/{item}/similar?k=24", has_hits)
            case "item":
                await self.call("item", "GET", f"/v1/items/{item}", has_json)

    async def _chat(self) -> None:
        body: dict[str, Any] = {"question": f"Is there {self._text()}?"}
        if self._turn % 4 == 3:
            body["image"] = base64.b64encode(self._picture()).decode("ascii")
        if self._turn % 3 == 2:
            body["history"] = [{"question": "Is there a dog?", "answer": "There is a dog [1]."}]
        await self.call("chat", "POST", "/v1/chat", ends_with_final, json=body)

    async def _completions(self) -> None:
        stream = self._turn % 2 == 0
        messages = [{"role": "user", "content": f"Is there {self._text()}?"}]
        body = {"model": "sightline", "messages": messages, "stream": stream}
        read = ends_with_done if stream else has_json
        await self.call("completions", "POST", "/v1/chat/completions", read, json=body)

    async def _upload(self) -> None:
        caption = f"upload {self.number}-{self._turn}: {self._text()}"
        data = await asyncio.to_thread(new_picture, self._picture(), self._random)
        items = json.dumps([{"file": "new.jpg", "text": caption, "metadata": {"client": self.number}}])
        files = {"files": ("new.jpg", data, "image/jpeg")}
        added = await self.call("upload", "POST", "/v1/items", was_added, files=files, data={"items": items})
        if added is not None:
            self._uploads.append(added)
        if len(self._uploads) > KEPT_UPLOADS:
            oldest = quote(self._uploads.popleft(), safe="")
            await self.call("delete", "DELETE", f"/v1/items/{oldest}", has_json)

    async def _index(self) -> None:
        folder = self._world.made / f"client-{self.number}"
        await asyncio.to_thread(self._make_files, folder)
        job = await self.call(
            "index", "POST", "/v1/index", has_json, expected=202, json={"folder": str(folder), "prune": True}
        )
        if job is not None:
            await self.call("job events", "GET", f"/v1/jobs/{job['id']}/events", ends_with_done_job)

    def _make_files(self, folder: Path) -> None:
        """A few new pictures with captions; the oldest go, so that the collection stays of one size."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(NEW_FILES):
            file = folder / f"{self._turn:06}-{number}.jpg"
            file.write_bytes(new_picture(self._picture(number), self._random))
            file.with_suffix(".txt").write_text(f"new {file.stem}: {self._text()}", "utf-8")
            self._files.append(file)
        while len(self._files) > KEPT_FILES:
            oldest = self._files.popleft()
            oldest.unlink()
            oldest.with_suffix(".txt").unlink()

    def _text(self) -> str:
        return self._texts[self._turn * 5 % len(self._texts)]

    def _picture(self, more: int = 0) -> bytes:
        return self._world.pictures[(self._turn * 3 + more) % len(self._world.pictures)]

    # One request

    async def call(
        self, endpoint: str, method: str, path: str, read: Read, *, expected: int = 200, **options: Any
    ) -> Any:
        """What `read` makes of the answer, after coming again as often as the service says; None where it failed."""
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            value, wait_s = await self._attempt(endpoint, method, path, read, expected, options)
            if wait_s is None or self._world.ended.is_set():
                return value
            if time.monotonic() + wait_s > give_up_s:
                self._world.record.given_up[endpoint] += 1
                return None
            try:
                await asyncio.wait_for(self._world.ended.wait(), wait_s)
            except TimeoutError:
                continue

    async def _attempt(
        self, endpoint: str, method: str, path: str, read: Read, expected: int, options: dict[str, Any]
    ) -> tuple[Any, float | None]:
        """One request, recorded: what it gave, and after how many seconds to try again, if that was said."""
        start_s = time.perf_counter()
        status, size, value, wait_s = 0, 0, None, None
        fault: Fault | None = None
        try:
            async with self._world.http.stream(method, path, **options) as response:
                status = response.status_code
                if status == expected:
                    value, fault = await read(response)
                else:
                    await response.aread()
                    wait_s, fault = refusal(response)
                size = response.num_bytes_downloaded
        except httpx.TimeoutException:
            fault = Fault(f"hung: nothing for {HUNG_S:g} s", status)
        except (httpx.TransportError, ValueError, KeyError) as error:
            fault = Fault(f"{type(error).__name__}: {error}", status)
        if fault is not None and status == expected and fault.throttled:
            wait_s = RETRY_S
        if fault is not None:
            status, value = (fault.status if status == expected else status), None
        self._world.record.attempts.append(
            Attempt(
                endpoint,
                self.number,
                int(1e9 * (start_s - self._world.begin_s)),
                int(1e9 * (time.perf_counter() - start_s)),
                status,
                size,
                "ok" if fault is None else "throttled" if wait_s is not None else "error",
                "" if fault is None else fault.message[:500],
            )
        )
        return value, wait_s


def refusal(response: httpx.Response) -> tuple[float | None, Fault]:
    """After how many seconds to try again, where that is what the response says, and what it says."""
    status = response.status_code
    try:
        body = response.json()
        told = body["error"]["message"] if "error" in body else body["detail"]
    except (ValueError, KeyError, TypeError):
        return None, Fault(f"no problem document: {response.text[:200]!r}", status)
    retry_after = response.headers.get("retry-after", "")
    if status in (429, 503) and retry_after.isdigit():
        return float(retry_after), Fault(told, status)
    return None, Fault(f"{told} (Retry-After: {retry_after or 'none'})", status)


async def has_json(response: httpx.Response) -> tuple[Any, Fault | None]:
    """Any JSON."""
    return json.loads(await response.aread()), None


async def has_hits(response: httpx.Response) -> tuple[Any, Fault | None]:
    """Hits, at least one."""
    body = json.loads(await response.aread())
    return body, None if body["hits"] else Fault("no hits")


async def is_jpeg(response: httpx.Response) -> tuple[Any, Fault | None]:
    """The bytes of a JPEG."""
    data = await response.aread()
    return data, None if data[:3] == b"\xff\xd8\xff" else Fault(f"no JPEG: {data[:20]!r}")


async def was_added(response: httpx.Response) -> tuple[Any, Fault | None]:
    """The id of the one item that was added."""
    [item] = json.loads(await response.aread())["items"]
    return item["id"], None if item["error"] is None else Fault(item["error"])


async def ends_with_final(response: httpx.Response) -> tuple[Any, Fault | None]:
    """The answer of a chat, from its last event."""
    name, data = "", None
    async for name, data in events(response):
        if name == "error":
            assert data is not None
            return None, Fault(data["detail"], data["status"])
    return data, None if name == "final" and data and data["answer"] else Fault(f"the last event is {name!r}")


async def ends_with_done(response: httpx.Response) -> tuple[Any, Fault | None]:
    """Whether a stream in OpenAI's schema came to its end."""
    text, ended = [], False
    async for _, data in events(response):
        if data is None:
            ended = True
        elif "error" in data:
            # The schema has no status within a stream.
            message = data["error"]["message"]
            return None, Fault(message, 500 if message.startswith(FAILED) else 503)
        else:
            text += [choice["delta"].get("content") or "" for choice in data["choices"]]
    return "".join(text), None if ended and any(text) else Fault("the stream ended without [DONE], or said nothing")


async def ends_with_done_job(response: httpx.Response) -> tuple[Any, Fault | None]:
    """A job that was watched until it was done."""
    job = None
    async for _, data in events(response):
        job = data
    if job is None or job["state"] != "done":
        state = "no event" if job is None else f"job {job['state']}: {job['error']}"
        return None, Fault(state)
    skipped = job["report"]["quarantined_count"]
    return job, Fault(f"{skipped} files were skipped") if skipped else None


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """The server-sent events of a response: name and JSON; None for OpenAI's ``[DONE]``."""
    name = ""
    async for line in response.aiter_lines():
        field_name, _, value = line.partition(": ")
        if field_name == "event":
            name = value
        elif field_name == "data":
            yield name, None if value == "[DONE]" else json.loads(value)
            name = ""
