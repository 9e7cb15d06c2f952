"""Pictures made to cost more than they show, sent to the service and put into a folder that is indexed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from app.http.app import Limits, create_app
from backends import connect
from backends.base import Backend, CollectionSpec, Record
from retrieval.encoders.base import ImageInput
from retrieval.images.decode import load_image
from tests.support.cli import Run
from tests.support.hostile_pictures import REFUSED, flat_webp, png, slow
from tests.support.service import is_problem
from tests.support.serving import serving
from tests.support.toy import ColourEncoder

#: Good pictures of many pixels, and more than a picture may take: bytes, and what the service says, if anything.
LARGE = {
    "png 16-bit": (png(7000, 7000, depth=16), None),
    "png 16-bit grey": (png(7000, 7000, depth=16, colour=0), None),
    "png alpha": (png(7000, 7000, colour=6), None),
    "png of very long rows": (png(160_000, 300), None),
    "webp": (flat_webp(7000, 7100), "MiB of memory to be decoded, more than the 320 MiB allowed"),
    "more pixels": (png(9999, 9999, depth=16, colour=0), "more than the 50000000 allowed"),
}


class Sized(ColourEncoder):
    """Says like real encoders how small a picture may be."""

    decode_size = 300

    def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        # So that what is measured is not this encoder's arithmetic.
        return super().encode_images([load_image(image).resize((8, 8)) for image in images])


@contextmanager
def served(tmp_path: Path, **limits: Any) -> Iterator[tuple[httpx.Client, Backend]]:
    store, encoder = connect("exact://"), Sized()
    store.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    store.upsert("c", [Record("note", encoder.encode_texts(["black"])[0], "text", "black")])
    app = create_app(
        store,
        encoder,
        "c",
        home=tmp_path / "home",
        roots=[tmp_path],
        limits=Limits(rate=None, **limits),
    )
    with serving(app) as client:
        yield client, store


def shown(client: httpx.Client, store: Backend, path: Path) -> httpx.Response:
    """An item's thumbnail, whatever its file has become since it was indexed."""
    store.upsert("c", [Record("pic", Sized().encode_texts(["black"])[0], "image", None, path.as_uri())])
    return client.get("/v1/items/pic/image?size=320")


def test_hostile_pictures_are_refused_wherever_the_service_takes_any(tmp_path: Path) -> None:
    with served(tmp_path) as (client, store):
        for name, (data, reason) in REFUSED.items():
            is_problem(client.post("/v1/lookup", files={"image": data}), 422, reason)
            (added,) = client.post("/v1/items", files={"files": data}).json()["items"]
            assert reason in added["error"], name
            path = tmp_path / f"{name}.bin"
            path.write_bytes(data)
            is_problem(shown(client, store, path), 422, reason)
        assert not list((tmp_path / "home" / "uploads").rglob("*.*"))
        # And everything works.
        assert client.post("/v1/lookup", files={"image": png(60, 40)}).json()["hits"][0]["text"] == "black"


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_pictures_of_many_pixels_are_taken_or_refused_by_what_they_need(name: str, tmp_path: Path) -> None:
    data, reason = LARGE[name]
    path = tmp_path / "large.png"
    path.write_bytes(data)
    with served(tmp_path) as (client, store):
        looked_up = client.post("/v1/lookup", files={"image": data})
        (added,) = client.post("/v1/items", files={"files": data}).json()["items"]
        picture = shown(client, store, path)
        if reason is None:
            assert looked_up.json()["hits"][0]["text"] == "black"
            assert added["error"] is None
            assert picture.headers["content-type"] == "image/jpeg"
        else:
            is_problem(looked_up, 422, reason)
            assert reason in added["error"]
            if name == "more pixels":
                # Indexing takes it from a folder, so it is shown; it needs less memory than is allowed.
                assert picture.headers["content-type"] == "image/jpeg"
            else:
                is_problem(picture, 422, reason)


@pytest.mark.slow
def test_a_picture_that_takes_too_long_is_ended_and_holds_up_nobody(tmp_path: Path) -> None:
    hostile, fine = slow(20), png(60, 40)
    path = tmp_path / "slow.pgm"
    path.write_bytes(hostile)
    with served(tmp_path, picture_s=1.0, max_decoding=2) as (client, store):
        answers: list[httpx.Response] = []
        ask = [
            threading.Thread(target=lambda: answers.append(client.post("/v1/lookup", files={"image": hostile})))
            for _ in range(2)
        ]
        for thread in ask:
            thread.start()
        # Others are served meanwhile, pictures included.
        assert client.get("/healthz").status_code == 200
        assert client.post("/v1/lookup", files={"image": fine}).status_code == 200
        for thread in ask:
            thread.join(120)
        for answer in answers:
            is_problem(answer, 422, "takes over 1 s to decode")
        (added,) = client.post("/v1/items", files={"files": hostile}).json()["items"]
        assert "takes over 1 s to decode" in added["error"]
        is_problem(shown(client, store, path), 422, "takes over 1 s to decode")
        assert client.post("/v1/lookup", files={"image": fine}).status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="asks Linux for the memory")
def test_sixteen_hostile_look_ups_take_at_most_half_a_gigabyte(tmp_path: Path) -> None:
    def memory() -> int:
        """Of this process and those that it started; what they share with others is not counted."""
        children = Path("/proc/self/task").glob("*/children")
        pids = {"self", *(pid for file in children for pid in file.read_text().split())}
        taken = 0
        for pid in pids:
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            taken += 1024 * int(next((line for line in lines if line.startswith("Anonymous:")), "x 0").split()[1])
        return taken

    stop, most = threading.Event(), [0]

    def watch() -> None:
        while not stop.wait(0.02):
            most[0] = max(most[0], memory())

    with served(tmp_path) as (client, _):
        client.post("/v1/lookup", files={"image": png(60, 40)})
        for name in ("png 16-bit", "webp", "png 16-bit grey"):
            data = LARGE[name][0]
            idle, most[0] = memory(), 0
            stop.clear()
            watcher = threading.Thread(target=watch)
            watcher.start()
            with ThreadPoolExecutor(16) as askers:
                asked = [
                    askers.submit(client.post, "/v1/lookup", files={"image": data}, timeout=120) for _ in range(16)
                ]
            codes = [each.result().status_code for each in asked]
            stop.set()
            watcher.join(10)
            assert set(codes) <= {200, 422, 503}
            assert most[0] - idle < 500_000_000, name


def test_a_folder_of_hostile_pictures_is_indexed_but_for_those(
    run: Run, encoder: ColourEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "decode_size", 300, raising=False)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, (data, _) in enumerate(REFUSED.values()):
        (photos / f"{number}.jpg").write_bytes(data)
    (photos / "deep.png").write_bytes(png(9999, 9999, depth=16, colour=0))
    (photos / "alpha.png").write_bytes(png(7000, 7000, colour=6))
    (photos / "flat.webp").write_bytes(flat_webp(3000, 2000))
    (photos / "fine.png").write_bytes(png(60, 40))
    report = run("index", photos, "--json").json
    assert report["indexed"] == 4
    reasons = {each["path"]: each["reason"] for each in report["quarantined"]}
    for number, (_, reason) in enumerate(REFUSED.values()):
        assert reason in reasons[f"{number}.jpg"]
