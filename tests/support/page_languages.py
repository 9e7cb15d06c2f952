"""What tests of the page in two languages share: its texts, and a chat that answers from a script."""

from __future__ import annotations

import json
from typing import Any

from tests.support.page_texts import HOLE, catalogue, forms
from tests.support.repository import ROOT

TEXTS = {
    language: catalogue((ROOT / "app" / "web" / f"strings.{language}.js").read_text("utf-8"))
    for language in ("en", "zh")
}
SOURCES = [
    {"number": 1, "id": "red/0", "modality": "image", "caption": "西湖边的断桥", "relevance": 0.97, "image": "x"},
    {"number": 2, "id": "note/red", "modality": "text", "caption": "a note on red", "relevance": 0.9, "image": None},
]
ANSWER = "断桥在西湖边 [1]。"
FINAL = {
    "query": "断桥在哪里？",
    "answer": ANSWER,
    "citations": [{"start": ANSWER.index("["), "end": ANSWER.index("]") + 1, "numbers": [1]}],
    "sentences": [],
    "check": "mark",
    "sources": SOURCES[:1],
    "refused": False,
    "quoted": False,
    "truncated": True,
    "counts": {"unsupported": 1},
}


def say(language: str, key: str, **values: object) -> str:
    text = forms(TEXTS[language][key])["other"]
    return HOLE.sub(lambda found: str(values[found[1]]), text)


def zh(key: str, **values: object) -> str:
    return say("zh", key, **values)


def chats(page: Any, script: list[tuple[str, Any]]) -> list[Any]:
    """Let the service offer chat, with a scripted fake that answers; what it is asked is in the list."""
    asked: list[Any] = []

    def described(route: Any) -> None:
        document = route.fetch().json()
        document["paths"]["/v1/chat"] = {"post": {}}
        route.fulfill(json=document)

    def answer(route: Any) -> None:
        asked.append(route.request.post_data_json)
        body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in script)
        route.fulfill(content_type="text/event-stream", body=body)

    page.route("**/openapi.json", described)
    page.route("**/v1/chat", answer)
    return asked
