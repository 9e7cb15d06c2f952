"""`sightline ask` and `sightline chat`, over the fake OpenAI server, and pictures in terminals."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import retrieval.llms
from app.cli.thumbnails import protocol, sixel, thumbnail
from retrieval.chat import REFUSAL
from tests.support.chat_models import Scripted
from tests.support.cli import Run, paint
from tests.support.fake_openai import FakeOpenAI

pytestmark = pytest.mark.usefixtures("colours")
ASKED = "is there a red square?"


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch, server: FakeOpenAI) -> dict[str, Any]:
    """The commands' models, at the fake server whatever URL is set; what was asked of `load_model`."""
    asked: dict[str, Any] = {}
    real = retrieval.llms.load_model

    def load_model(name: str, **given: Any) -> Any:
        asked.update(given, name=name)
        if name.startswith("offline:"):
            raise retrieval.llms.ModelError("the offline model needs pip install 'sightline[offline]'")
        if name == "scripted:slow":
            return Scripted(replies=["word " * 300], pause_s=0.02)
        return real(name, **{**given, "base_url": server.base_url})

    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setattr(retrieval.llms, "load_model", load_model)
    return asked


def test_ask_prints_the_answer_and_its_sources(run: Run, colours: Path) -> None:
    done = run("ask", "is", "there", "a", "red", "square?", "--model", "openai:fake-text")
    assert done.code == 0
    answer, blank, source = done.out.splitlines()
    assert answer == "A red square [1]."
    assert blank == ""
    number, relevance, modality, item, path, text = source.split("\t")
    assert (number, modality, item, text) == ("[1]", "image", "img-red", "a red square")
    assert relevance == "–" or 0 <= float(relevance) <= 1
    assert Path(path) == colours / "red.png"
    assert done.err == ""


def test_ask_as_json(run: Run) -> None:
    done = run("ask", ASKED, "--model", "openai:fake-text", "--json")
    answer = done.json
    assert answer["answer"] == "A red square [1]."
    assert answer["sources"][0]["id"] == "img-red"
    assert answer["sentences"][0]["verdict"] == "stated"
    assert answer["usage"]["input_tokens"] > 0
    assert answer["usage"]["estimated"] is False
    assert answer["seconds"]["total"] >= answer["seconds"]["first_token"] >= answer["seconds"]["search"] >= 0


def test_the_draft_goes_to_standard_error(run: Run) -> None:
    done = run("ask", ASKED, "--model", "openai:fake-text", "--stream")
    assert done.out.startswith("A red square [1].\n")
    assert done.err == "A red square [1].\n"
    assert run("ask", ASKED, "--model", "openai:fake-text", "--no-stream").err == ""


def test_a_refusal_is_an_answer(run: Run) -> None:
    done = run("ask", "who won the opera prize?", "--model", "openai:fake-text")
    assert (done.code, done.out) == (0, REFUSAL + "\n")


def test_strict_and_marked(run: Run, server: FakeOpenAI) -> None:
    server.behaviour.answering = "hallucinate"
    assert "Ansel" in run("ask", ASKED, "--model", "openai:fake-text").out
    for flags in (["--strict"], ["--check", "strict"]):
        assert "Ansel" not in run("ask", ASKED, "--model", "openai:fake-text", *flags).out
    assert "check must be one of" in run("ask", ASKED, "--model", "openai:fake-text", "--check", "x").err
    server.behaviour.answering = "uncited"
    assert "(?) 1 sentence cites no source" in run("ask", ASKED, "--model", "openai:fake-text").err


def test_an_image_goes_along(run: Run, server: FakeOpenAI, colours: Path) -> None:
    done = run("ask", "what square is this?", "--image", colours / "green.png", "--model", "openai:fake-vision")
    assert done.code == 0
    assert "img-green" in done.out
    assert len(server.received[0].images) == 5
    assert run("ask", "what?", "--image", colours / "none.png", "--model", "openai:fake-vision").code == 1


def test_settings_choose_the_model(run: Run, models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_MODEL", "openai:fake-text")
    monkeypatch.setenv("SIGHTLINE_MODEL_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("SIGHTLINE_MODEL_VISION", "no")
    assert run("ask", ASKED).code == 0
    assert models["name"] == "openai:fake-text"
    assert models["base_url"] == "http://127.0.0.1:1/v1"
    assert models["vision"] is False


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        ((), 1, "no model is set"),
        (("--model-url", "http://x/v1"), 1, "no model: add --model"),
        (("--model", "openai:gone"), 1, "there is no model 'gone'"),
        (("--model", "openai:fake-text", "--model-vision", "maybe"), 2, "model_vision"),
        (("--model", "openai:fake-text", "--where", "{"), 2, "--where"),
        (("--model", "openai:fake-text", "--collection", "none"), 1, "no collection"),
    ],
)
def test_errors_are_one_line(run: Run, flags: tuple[str, ...], code: int, says: str) -> None:
    done = run("ask", ASKED, *flags)
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert done.err.count("\n") == 1


def talk(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    """Have `input` give these lines, then the end; an exception is raised in its turn."""
    given: Iterator[Any] = iter(lines)

    def read(_: str = "") -> str:
        line = next(given, EOFError)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read)


def test_a_chat_has_history_and_commands(run: Run, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = ("/sources", "/new", "/sources", "/no", "/help", "/quit")
    talk(monkeypatch, "/sources", ASKED, KeyboardInterrupt, "what about blue?", *commands, "never asked")
    monkeypatch.setenv("SIGHTLINE_MIN_RELEVANCE", "0")
    done = run("chat", "--model", "openai:fake-text")
    assert done.code == 0
    assert done.out.startswith("A red square [1].\n[1]\t")
    assert "[4]\t" in done.out
    assert "/image FILE" in done.out
    assert done.err.count("no sources") == 2
    assert "no command /no" in done.err
    prompts = [received.prompt for received in server.received]
    assert any("Last question: what about blue?" in prompt for prompt in prompts)
    assert not any("never asked" in prompt for prompt in prompts)


def test_a_chat_takes_pictures(run: Run, server: FakeOpenAI, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = colours / "blue.png"
    questions = (f"/image '{picture}'", "what square is this?", "and a red square?")
    talk(monkeypatch, "/image nowhere.png", *questions, f"/image {picture}", "/image", "/quit")
    done = run("chat", "--model", "openai:fake-vision", "--k", "1")
    assert "no file" in done.err
    assert "blue.png goes with" in done.err
    assert "no picture is attached" in done.err
    answers = [len(received.images) for received in server.received if "Question:" in received.prompt.splitlines()[-1]]
    assert answers == [2, 1], "the picture goes with one question"


def test_an_error_or_ctrl_c_ends_the_answer_not_the_chat(
    run: Run, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behaviour.api_key = "y"
    talk(monkeypatch, ASKED, "/quit")
    done = run("chat", "--model", "openai:fake-text")
    assert (done.code, done.out) == (0, "")
    assert "refused the key" in done.err

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.chat.follow", interrupted)
    talk(monkeypatch, ASKED, "/quit")
    done = run("chat", "--model", "scripted:slow")
    assert (done.code, done.out) == (0, "")
    assert "stopped" in done.err


@pytest.mark.parametrize(
    ("env", "how"),
    [
        ({"KITTY_WINDOW_ID": "1", "TERM": "xterm-kitty"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, None),
        ({}, None),
    ],
)
def test_terminals_are_recognised(env: dict[str, str], how: str | None) -> None:
    assert protocol(env) == how


def test_pictures_for_terminals_hold_the_image(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    Image.effect_noise((400, 200), 90).convert("RGB").save(path)
    sent = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", thumbnail(path, "kitty"))
    assert all(len(data) <= 4096 for _, data in sent)
    assert [control[-3:] for control, _ in sent] == ["m=1"] * (len(sent) - 1) + ["m=0"]
    assert len(sent) > 1
    kitty = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in sent))))
    match = re.fullmatch(
        r"\x1b\]1337;File=inline=1;size=(\d+);preserveAspectRatio=1:(.*)\x07", thumbnail(path, "iterm2")
    )
    assert match is not None
    data = base64.b64decode(match[2])
    assert len(data) == int(match[1])
    assert kitty.size == Image.open(io.BytesIO(data)).size == (160, 80)


def test_sixel_draws_every_pixel() -> None:
    image = Image.new("RGB", (7, 13), (255, 0, 0))
    image.paste((0, 0, 255), (3, 5, 7, 13))
    drawn = decode_sixel(sixel(image), image.size)
    assert drawn == [[image.getpixel((x, y)) for x in range(7)] for y in range(13)]


def decode_sixel(text: str, size: tuple[int, int]) -> list[list[Any]]:
    """A decoder of the little that `sixel` uses, written from the VT340's manual."""
    assert text.startswith(f'\x1bPq"1;1;{size[0]};{size[1]}')
    assert text.endswith("\x1b\\")
    body = text[text.index('"') + 1 : -2].lstrip("0123456789;")
    palette: dict[int, tuple[int, ...]] = {}
    pixels: list[list[Any]] = [[None] * size[0] for _ in range(size[1])]
    x = y = colour = 0
    for code in re.findall(r"#\d+(?:;\d+)*|.", body):
        if code[0] == "#":
            colour, *rest = (int(part) for part in code[1:].split(";"))
            if rest:
                palette[colour] = tuple(round(value * 2.55) for value in rest[1:])
        elif code == "$":
            x = 0
        elif code == "-":
            x, y = 0, y + 6
        else:
            for bit in range(6):
                if (ord(code) - 63) >> bit & 1:
                    pixels[y + bit][x] = palette[colour]
            x += 1
    return pixels


def test_pictures_are_shown_where_the_terminal_can(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("app.cli.chat.is_terminal", lambda: True)
    monkeypatch.setattr("app.cli.chat.protocol", lambda: "kitty")
    talk(monkeypatch, ASKED)
    assert "\x1b_G" in run("chat", "--model", "openai:fake-text").out
    talk(monkeypatch, ASKED)
    assert "\x1b_G" not in run("chat", "--model", "openai:fake-text", "--no-thumbnails").out
    paint(tmp_path / "pictures" / "red.png", "red").write_bytes(b"damaged")
    talk(monkeypatch, ASKED)
    assert "\x1b_G" not in run("chat", "--model", "openai:fake-text").out
