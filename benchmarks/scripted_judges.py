"""Judges of sentences that are no models: right, wrong, hostile and broken ones, for tests and benchmarks.

Each is a function from the prompt of `retrieval.chat.check.verify` to a reply, as `Behaviour.script` of the fake server
of OpenAI's contract takes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

Judge: TypeAlias = Callable[[str], str]

_SENTENCE = re.compile(r"^Sentence (\d+) \(sources ([\d, ]+)\): (.*)$", re.MULTILINE)
_SOURCE = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)


def knowing(verdicts: Mapping[str, str]) -> Judge:
    """A judge that knows the verdicts of sentences, by their words; of all others it reads the sources' texts."""
    known = {_plain(sentence): verdict for sentence, verdict in verdicts.items()}

    def judge(text: str, sources: str) -> str:
        plain = _plain(text)
        # A sentence may be known with the mark of its list, or as one of several.
        matching = (verdict for sentence, verdict in known.items() if plain in sentence or sentence in plain)
        return next(matching, None) or _read(text, sources)

    return lambda prompt: _reply(prompt, judge)


def reading(prompt: str) -> str:
    """A judge that is right as far as texts go: supported is what stands in a source word for word."""
    return _reply(prompt, _read)


def saying(verdict: str) -> Judge:
    """A judge that gives every sentence one verdict, as one does that a source has talked into it."""
    return lambda prompt: _reply(prompt, lambda *_: verdict)


def contrary(prompt: str) -> str:
    """A judge that is always wrong."""
    return _reply(prompt, lambda *given: "contradicted" if _read(*given) == "supported" else "supported")


def _read(text: str, sources: str) -> str:
    return "supported" if _plain(text) in _plain(sources) else "not_visible"


def _reply(prompt: str, judge: Callable[[str, str], str]) -> str:
    told = dict(_SOURCE.findall(prompt))
    entries = []
    for number, cited, text in _SENTENCE.findall(prompt):
        sources = " / ".join(told.get(each.strip(), "") for each in cited.split(","))
        source = int(cited.split(",")[0])
        entries.append({"sentence": int(number), "verdict": judge(text, sources), "source": source, "words": ""})
    return json.dumps({"verdicts": entries})


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
