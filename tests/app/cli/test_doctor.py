"""``sightline doctor``: what it sees of a whole installation, and what it says of each thing that is not right."""

from __future__ import annotations

import json
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.cli import examining
from app.main import main
from benchmarks.fake_openai import FakeOpenAI
from tests.support.small_server import free_port


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, which is not made yet."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SIGHTLINE_HOME", str(folder))
    return folder


def looked(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    assert main(["doctor", "--json", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert found["wrong"] == sum(each["state"] == "wrong" for each in found["findings"])
    return {each["about"]: each for each in found["findings"]}


def test_a_new_installation_has_nothing_wrong_and_is_not_touched(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    found = looked(capsys)
    assert list(found) == ["sightline", "settings", "home", "encoder", "store", "model", "extras"]
    assert found["settings"]["seen"] == "from SIGHTLINE_HOME"
    assert "not made yet" in found["home"]["seen"]
    assert found["encoder"]["seen"].startswith("compact; ONNX Runtime")
    assert (found["store"]["state"], found["store"]["todo"]) == ("note", "fill it: sightline index FOLDER")
    assert not home.exists()


def test_what_is_indexed_is_told_and_what_is_shown_fits_a_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("The harbour at dawn.")
    assert main(["index", str(tmp_path / "words.txt")]) == 0
    capsys.readouterr()
    assert looked(capsys)["collection default"]["seen"] == "1 items by compact"
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok  collection default: 1 items by compact" in lines
    assert lines[-1] == "nothing is wrong"
    assert all(len(line) < 80 for line in lines if str(tmp_path) not in line)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nope:///x", "no engine is called 'nope'"),
        ("qdrant://127.0.0.1:{port}", "nothing answers at qdrant://127.0.0.1:{port}"),
        ("faiss:///{folder}?nonsense=1", "takes no options"),
    ],
)
def test_a_store_that_cannot_be_used_is_wrong_and_nothing_else_is(
    url: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = {"port": str(free_port()), "folder": str(tmp_path)}
    found = looked(capsys, "--backend", url.format(**given), code=1)
    assert said.format(**given) in found["store"]["seen"]
    assert [about for about, each in found.items() if each["state"] == "wrong"] == ["store"]


def test_an_embedded_store_that_is_not_there_is_not_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = looked(capsys, "--backend", f"qdrant-edge://{tmp_path}/typo")
    assert found["store"]["state"] == "note"
    assert not (tmp_path / "typo").exists()


def test_a_collection_of_an_unknown_encoder_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from backends import connect
    from backends.base import CollectionSpec

    with connect(f"faiss://{tmp_path}/store") as store:
        store.create(CollectionSpec("mine", 4, encoder="someone:else"))
    found = looked(capsys, "--backend", f"faiss://{tmp_path}/store")["collection mine"]
    assert (found["state"], found["todo"]) == ("note", "name it at the first search: --encoder NAME")


class TestModel:
    def test_a_server_that_has_the_model_is_fine(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FakeOpenAI() as server:
            monkeypatch.setenv("SIGHTLINE_MODEL", "openai:fake-vision")
            monkeypatch.setenv("SIGHTLINE_MODEL_URL", server.base_url)
            assert looked(capsys)["model"]["seen"].endswith("has it")
            monkeypatch.setenv("SIGHTLINE_MODEL", "openai:other")
            found = looked(capsys, code=1)["model"]
        assert (found["state"], found["todo"]) == ("wrong", "set model to one of its own: fake-text, fake-vision")

    @pytest.mark.parametrize("model", ["openai:any", "ollama:any"])
    def test_a_server_that_is_away_is_wrong(
        self, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SIGHTLINE_MODEL", model)
        monkeypatch.setenv("SIGHTLINE_MODEL_URL", f"http://127.0.0.1:{free_port()}/v1")
        found = looked(capsys, code=1)["model"]
        assert "does not answer" in found["seen"]
        assert found["todo"] == "start it, or set model_url to where it runs"

    def test_the_offline_model_is_not_needed_but_one_that_is_named_is(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from retrieval.llms import ModelError, smollm

        def missing() -> Path:
            raise ModelError("the offline model is not installed")

        monkeypatch.setattr(smollm, "find_weights", missing)
        assert looked(capsys)["model"]["state"] == "note"
        monkeypatch.setenv("SIGHTLINE_MODEL", "offline:smollm2")
        assert looked(capsys, code=1)["model"]["state"] == "wrong"

    def test_a_key_goes_to_its_own_vendors_server_alone(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[tuple[str, str | None]] = []

        class Listing(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                told.append((self.path, self.headers["Authorization"]))
                body = json.dumps({"models": [{"name": "any"}]}).encode()
                self.send_response(302 if self.path == "/v1/models" else 200)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
        with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            monkeypatch.setenv("SIGHTLINE_MODEL", "ollama:any")
            monkeypatch.setenv("SIGHTLINE_MODEL_URL", f"http://127.0.0.1:{server.server_port}")
            assert looked(capsys)["model"]["state"] == "ok"
            monkeypatch.setenv("SIGHTLINE_MODEL", "openai:any")
            monkeypatch.setenv("SIGHTLINE_MODEL_URL", f"http://127.0.0.1:{server.server_port}/v1")
            looked(capsys, code=1)
            server.shutdown()
        assert told == [("/api/tags", None), ("/v1/models", "Bearer sk-very-secret"), ("/elsewhere", None)]

    def test_ollamas_host_without_a_port_has_its_usual_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def away(request: urllib.request.Request, **_: object) -> None:
            asked.append(request.full_url)
            raise OSError("away")

        monkeypatch.setattr(urllib.request, "urlopen", away)
        for host in ("gpu.example.org", "gpu.example.org:80", "http://gpu.example.org"):
            monkeypatch.setenv("OLLAMA_HOST", host)
            examining._served("ollama:any", "")
        assert [urlsplit(url).netloc for url in asked] == [
            "gpu.example.org:11434",
            "gpu.example.org:80",
            "gpu.example.org",
        ]

    def test_a_key_is_never_shown(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        monkeypatch.setenv("SIGHTLINE_MODEL", "openai:any")
        monkeypatch.setenv("SIGHTLINE_MODEL_URL", f"http://127.0.0.1:{free_port()}/v1")
        assert main(["doctor"]) == 1
        assert "very-secret" not in "".join(capsys.readouterr())


def test_one_parts_trouble_hides_no_other(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: object) -> Any:
        raise RuntimeError("a bad\nday")

    monkeypatch.setattr(examining, "_PARTS", (("encoder", broken), *examining._PARTS[2:]))
    found = looked(capsys, code=1)
    assert found["encoder"]["seen"] == "a bad day"
    assert "store" in found


def test_a_full_disk_and_missing_extras_are_notes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "LITTLE_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(examining, "EXTRAS", {"flight": ("no_such_module", "flying")})
    found = looked(capsys)
    assert found["home"]["state"] == "note"
    assert found["extras"]["todo"] == "pip install 'sightline[flight]', or what you need"
