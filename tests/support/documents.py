"""The examples in documents, and where the documents are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.repository import ROOT

README = ROOT / "README.md"
READMES = {"en": README, "zh": ROOT / "README.zh-CN.md"}
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block that is run: its language, code and first line in the file."""

    language: str
    code: str
    line: int


def runnable(text: str) -> list[Block]:
    """The ```python and ```bash blocks of a document; other words after the language, and console, are not run."""
    blocks = []
    for match in FENCE.finditer(text):
        if match["info"].strip() in ("python", "bash"):
            blocks.append(Block(match["info"].strip(), match["code"], text[: match.start()].count("\n") + 2))
    return blocks
