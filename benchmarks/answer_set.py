"""A set of answers as a strong model writes them, each sentence labelled, put through the check.

A file is JSON Lines, an answer a line: `id`, `lang`, `question`, `answer_template` (with ``{012448}`` where the photo
whose name ends so is cited), `sentences` (`text` as in the template, `label` right, wrong or framing), and perhaps a
`wrong_variant` with a `text`, which is an answer of its own with one wrong sentence.

Each answer is checked against the photos that it cites, with their captions, as a model saw them: by `strict` (the rule
for weak models), by `mark`, and by `verify` with a scripted judge, which knows the labels. So that column says whether
a judge's verdicts arrive, not how good a real one is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.encoders import DatasetError
from benchmarks.scripted_judges import knowing
from benchmarks.suite.tables import markdown_table
from retrieval import Retriever
from retrieval.chat import ChatOptions, Check, Evidence
from retrieval.chat.answers import Checked, Checker
from retrieval.chat.check.claims import strip_citations
from retrieval.chat.check.grounding import TextSupport
from retrieval.chat.check.image_support import ImageSupport
from retrieval.chat.check.verify import judgement
from retrieval.chat.evidence import Tagger, prepare
from retrieval.search.results import Result

STRUCTURED = files("benchmarks") / "data" / "structured_answers.jsonl"
CHECKS: tuple[Check, ...] = ("strict", "mark", "verify")
WARNINGS = frozenset(["uncited", "contradicted", "dangling", "unsupported"])
_PHOTO = re.compile(r"\{(\d+)\}")


@dataclass(frozen=True)
class Labelled:
    """An answer with its evidence numbers filled in, and its sentences with their labels."""

    id: str
    lang: str
    question: str
    text: str
    sentences: tuple[tuple[str, str], ...]
    photos: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one labelled sentence. fate: kept, warned (with which verdict), or lost."""

    id: str
    lang: str
    text: str
    label: str
    verdict: str
    fate: str
    refused: bool


def read_answers(file: Path) -> list[Labelled]:
    """The answers of a file, wrong variants as answers of their own. Raises `DatasetError`."""
    found = []
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            found += [_labelled(row, row["answer_template"], row["sentences"], row["id"])]
            if row.get("wrong_variant"):
                variant = row["wrong_variant"]
                found.append(_labelled(row, variant["text"], [variant | {"label": "wrong"}], f"{row['id']}-wrong"))
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{file}:{number}: no answer of a set: {type(error).__name__}: {error}") from None
    return found


def _labelled(row: dict[str, Any], template: str, sentences: Sequence[dict[str, Any]], name: str) -> Labelled:
    photos = tuple(dict.fromkeys(_PHOTO.findall(template)))

    def filled(text: str) -> str:
        return _PHOTO.sub(lambda match: f"[{photos.index(match[1]) + 1}]", text)

    told = tuple((filled(each["text"]), str(each["label"])) for each in sentences)
    return Labelled(name, str(row["lang"]), str(row["question"]), filled(template), told, photos)


class Bench:
    """Checks labelled answers against the photographs of a collection."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._texts = TextSupport()
        self._images = ImageSupport(retriever.encoder)
        self._tagger = Tagger(retriever.encoder)
        pages = retriever.backend.scan(retriever.collection, with_vectors=True)
        self._photos = {
            Path((record.uri or "").rpartition("/")[2]).stem: record
            for page in pages
            for record in page.records
            if record.modality == "image"
        }

    def outcomes(self, answer: Labelled, check: Check) -> list[Outcome]:
        """What the check makes of each sentence of an answer."""
        options = ChatOptions(vision=True, max_images=8, max_image_side=64, gate=None, check=check)
        evidence = self._evidence(answer, options)
        checker = Checker(self._texts, self._images, options)
        checked = checker.check(answer.question, answer.text, evidence, vectors=self._vectors)
        if check == "verify":
            checked = _verified(checked, evidence, answer)
        if check == "strict":
            return [_strict(answer, text, label, checked) for text, label in answer.sentences]
        return [_marked(answer, text, label, checked) for text, label in answer.sentences]

    def kept_to_the_letter(self, check: Check) -> list[tuple[str, bool]]:
        """The form of each structured answer, and whether the check gave back every character of it."""
        options = ChatOptions(vision=True, max_image_side=64, check=check)
        photos = tuple(list(self._photos)[:3])
        found = []
        for line in STRUCTURED.read_text("utf-8").splitlines():
            row = json.loads(line)
            labelled = Labelled("", row["lang"], "What is there?", row["answer"], (), photos)
            evidence = self._evidence(labelled, options)
            checker = Checker(self._texts, self._images, options)
            checked = checker.check(labelled.question, labelled.text, evidence, vectors=self._vectors)
            found.append((f"{row['lang']}: {row['form']}", checked.text == labelled.text.rstrip()))
        return found

    def _evidence(self, answer: Labelled, options: ChatOptions) -> tuple[Evidence, ...]:
        found = []
        for photo in answer.photos:
            record = next((each for name, each in self._photos.items() if name.endswith(photo)), None)
            if record is None:
                raise DatasetError(f"{answer.id}: no photograph of the collection is called {photo}")
            known = {name: getattr(record, name) for name in ("id", "modality", "text", "uri", "metadata")}
            found.append(Result(**known, score=1.0, exact=True, relevance=1.0))
        return prepare(found, tagger=self._tagger, options=options, budget=10**9)

    def _vectors(self, pieces: Sequence[Evidence]) -> dict[int, Any]:
        by_id = {record.id: record.vector for record in self._photos.values()}
        return {piece.number: by_id[piece.item.id] for piece in pieces}


def _verified(checked: Checked, evidence: Sequence[Evidence], answer: Labelled) -> Checked:
    asked = judgement(checked.sentences, evidence)
    if asked is None:
        return checked
    verdicts = {"wrong": "contradicted"}
    judge = knowing({strip_citations(text): verdicts.get(label, "supported") for text, label in answer.sentences})
    prompt = "\n".join(
        block if isinstance(block, str) else str(block.get("text", ""))
        for message in asked.messages
        for block in ([message.content] if isinstance(message.content, str) else message.content)
    )
    read = asked.read(judge(prompt))
    return checked if read is None else replace(checked, sentences=read)


def _marked(answer: Labelled, text: str, label: str, checked: Checked) -> Outcome:
    start = checked.text.find(text)
    over = [
        each for each in checked.sentences if (each.start or 0) < start + len(text) and start < (each.end or 0)
    ]  # a label may span several sentences
    worst = next((each.verdict for each in over if each.verdict in WARNINGS), over[0].verdict if over else "no_claim")
    fate = "lost" if start < 0 else "warned" if worst in WARNINGS else "kept"
    return Outcome(answer.id, answer.lang, text, label, worst, fate, checked.refused and bool(answer.photos))


def _strict(answer: Labelled, text: str, label: str, checked: Checked) -> Outcome:
    words = _plain(text)
    over = [each for each in checked.sentences if _plain(each.text) and _plain(each.text) in words]
    standing = [each for each in over if each.verdict in ("stated", "seen", "no_claim")]
    kept = bool(over) and len(standing) == len(over) and not checked.refused
    verdict = "unsupported" if not kept and over else over[0].verdict if over else "no_claim"
    return Outcome(
        answer.id,
        answer.lang,
        text,
        label,
        verdict,
        "kept" if kept else "lost",
        checked.refused and bool(answer.photos),
    )


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", strip_citations(text)))


def measure(answers: Sequence[Labelled], bench: Bench) -> dict[Check, list[Outcome]]:
    """The outcomes of every check."""
    return {check: [each for answer in answers for each in bench.outcomes(answer, check)] for check in CHECKS}


def table(measured: dict[Check, list[Outcome]]) -> str:
    """Right sentences kept, warned and lost, answers refused and wrong sentences caught, by language, as Markdown."""
    everything = next(iter(measured.values()))
    languages = ["all", *sorted({each.lang for each in everything})]
    rows = []
    for check, outcomes in measured.items():
        for lang in languages:
            those = [each for each in outcomes if lang in ("all", each.lang)]
            right = [each for each in those if each.label != "wrong"]
            wrong = [each for each in those if each.label == "wrong"]
            caught = sum(each.fate != "kept" for each in wrong)
            fates = [sum(each.fate == fate for each in right) for fate in ("kept", "warned", "lost")]
            refused = {each.id for each in those if each.refused}
            rows.append(
                [check, lang, str(len(right)), *map(str, fates), str(len(refused)), f"{caught} of {len(wrong)}"]
            )
    heads = ["check", "language", "right", "kept", "warned", "lost", "answers refused", "wrong caught"]
    return "\n".join(markdown_table(heads, rows)) + "\n"
