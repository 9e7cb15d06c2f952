"""What chat front ends write into a user's message: their lists of files, and their tasks for the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from app.http.app import Limits, create_app
from app.http.front_ends import asked_words, task
from backends.base import Backend
from tests.support.chat_models import Scripted, prompt_of
from tests.support.chatting import DOG, loader
from tests.support.serving import running
from tests.support.toy import ColourEncoder

QUESTION = "what does the dog on the red beach do?"
FILES = (
    '<attached_files>\n<file type="file" id="a46c" url="a46c" content_type="image/jpeg" name="7.jpg"/>\n'
    "</attached_files>"
)
TITLE = "### Task:\nWrite a title as JSON.\n### Chat History:\n<chat_history>\nUSER: a dog?\n</chat_history>"


def complete(gallery: Backend, home: Path, model: Scripted, messages: list[dict[str, Any]]) -> dict[str, Any]:
    app = create_app(
        gallery,
        collection="c",
        encoder=ColourEncoder(),
        limits=Limits(rate=None),
        roots=[home / "photos"],
        home=home / "home",
        load_model=loader(model),
    )
    with running(app) as port:
        body = {"model": "sightline", "messages": messages}
        told = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=20)
    assert told.status_code == 200, told.text
    message: dict[str, Any] = told.json()["choices"][0]["message"]
    return message


@pytest.mark.parametrize("earlier", [False, True])
def test_a_list_of_attached_files_is_not_asked(gallery: Backend, tmp_path: Path, earlier: bool) -> None:
    parts = [{"type": "text", "text": f"{FILES}\n\n"}, {"type": "text", "text": QUESTION}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    if earlier:
        messages += [{"role": "assistant", "content": DOG}, {"role": "user", "content": f"{FILES}{QUESTION}"}]
    model = Scripted(replies=[DOG])
    assert complete(gallery, tmp_path, model, messages)["content"] == DOG
    assert all("attached_files" not in prompt_of(asked) for asked in model.asked)
    assert f"Question: {QUESTION}" in prompt_of(model.asked[-1])


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (f"{FILES}\n{QUESTION}", QUESTION),
        (f"what {FILES} is \n{FILES} it?", "what is it?"),
        (f"<attached_files>{'<file/>' * 5_000}</attached_files> what?", "what?"),
        ("what is <attached_files>?", "what is <attached_files>?"),
        ("what is </attached_files>?", "what is </attached_files>?"),
        (FILES, ""),
        # Minutes, where time grows with the square of the length.
        (" " * 1_000_000 + "x <attached_files>", "x <attached_files>"),
        ("<attached_files>" * 60_000, "<attached_files>" * 60_000),
        (f"{FILES}" * 20_000 + QUESTION, QUESTION),
    ],
    ids=["before", "between", "many files", "open", "closed", "alone", "spaces", "only open", "many lists"],
)
def test_only_lists_of_attached_files_are_cut_out_at_any_length(text: str, asked: str) -> None:
    assert asked_words(text) == asked


def test_a_task_goes_to_the_model_without_a_search(gallery: Backend, tmp_path: Path) -> None:
    model = Scripted(replies=['{ "title": "Dogs" }'])
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TITLE}]
    message = complete(gallery, tmp_path, model, messages)
    assert (message["content"], message["annotations"]) == ('{ "title": "Dogs" }', [])
    assert prompt_of(model.asked[0]) == TITLE


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "### Task: what does the dog on the red beach do?"}],
        [{"role": "user", "content": f"What is this? {TITLE}"}],
        [
            {"role": "user", "content": TITLE},
            {"role": "assistant", "content": "A title."},
            {"role": "user", "content": QUESTION},
        ],
    ],
)
def test_what_is_no_task_is_searched_for(gallery: Backend, tmp_path: Path, messages: list[dict[str, Any]]) -> None:
    model = Scripted(replies=[DOG])
    complete(gallery, tmp_path, model, messages)
    assert "<evidence " in prompt_of(model.asked[-1])


def test_a_long_task_loses_the_middle_of_the_talk() -> None:
    long = TITLE.replace("a dog?", "a dog? " * 2000)
    told = task([long], 4000)
    assert told is not None
    assert len(told) == 4000
    assert told.startswith("### Task:\nWrite a title as JSON.")
    assert told.endswith("</chat_history>")
    assert task([TITLE], 4000) == TITLE


def test_only_lists_of_files_are_taken_out() -> None:
    assert asked_words(f"{FILES}\n\n{QUESTION}") == QUESTION
    assert asked_words("<attached_files> that never ends") == "<attached_files> that never ends"
    assert asked_words("  spaces stay ") == "  spaces stay "
