"""How well the chat answers, and how well it does not: ``python -m benchmarks.chat DATASET_DIR``.

DATASET_DIR holds captions.jsonl as for ``benchmarks.encoders``. It is indexed with its captions, as `sightline
index` does, and asked the questions of benchmarks/data/coco100_questions.jsonl: answered by one photograph, by
several, or by none. ``--model`` names models as the setting does; ``fake`` is the named fake of an
OpenAI-compatible server, over HTTP, which answers from the evidence in its prompt. What is measured:

- hit rate: answerable questions with a right photograph among the evidence; found: the share of all of them;
- refusals: precision (of those refused, how many had no answer) and recall (of those without, how many were
  refused); a question is refused before the model is called, or because no sentence of its answer stands;
- right: answerable questions whose answer has a key word; cites: whose answer cites a right photograph;
- valid citations: of all [n] in what is shown, those that name one of the answer's sources;
- grounded: of the sentences of answers shown that claim something, those that the check found supported by
  what they cite, the others being marked;
- overhead: rewriting by rules, encoding, search, gate and preparing the evidence, which is what is between a
  question and the call of the model; over 200 captions asked as questions, with a model that answers at once.

``--answers FILE`` asks no model: it puts a set of labelled answers through the check instead, see
`benchmarks.answer_set`.

Prints Markdown; ``--json FILE`` keeps every answer as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from backends import connect
from benchmarks.answer_set import Bench, measure, read_answers
from benchmarks.answer_set import table as answer_table
from benchmarks.encoders import Dataset, DatasetError, read_dataset
from benchmarks.fake_openai import FakeOpenAI
from benchmarks.questions import Question, QuestionError, read_questions
from benchmarks.suite.tables import markdown_table
from indexers import IndexingError, index
from retrieval import Retriever, load_encoder
from retrieval.chat import Answer, ChatOptions, GroundedChat, Turn
from retrieval.chat.asking import options_for
from retrieval.llms import ModelError, load_model

FAKE = "fake"
CITATION = re.compile(r"\[(\d+)\]")
OVERHEAD_QUESTIONS = 200


@dataclass(frozen=True)
class Outcome:
    """One question's answer, judged. `found` and `cited` count right photographs, of `wanted`."""

    id: str
    kind: str
    near_miss: bool
    query: str
    text: str
    refused: bool
    quoted: bool
    called: bool
    wanted: int
    found: int
    cited: int
    right: bool
    citations: int
    valid: int
    sentences: int
    grounded: int
    search_s: float
    total_s: float


def collection(dataset: Path, folder: Path) -> Retriever:
    """The photographs and captions of `dataset`, indexed in `folder` by the default encoder."""
    backend, encoder = connect(f"faiss://{folder}"), load_encoder("compact")
    report = index(dataset / "captions.jsonl", backend, encoder, "photos")
    if report.quarantined:
        raise DatasetError(f"{report.quarantined[0].path}: {report.quarantined[0].reason}")
    return Retriever(backend, encoder, "photos")


def file_of(uri: str | None) -> str:
    """The name of the file that an item is from."""
    return unquote(urlsplit(uri or "").path).rsplit("/", 1)[-1]


def judge(question: Question, answer: Answer) -> Outcome:
    """What an answer is worth, by the question's photographs and key words."""
    wanted = set(question.photos)
    shown = [int(number) for number in CITATION.findall(answer.text)]
    sources = {source.number: source for source in answer.sources}
    claims = [] if answer.refused or answer.quoted else [s for s in answer.sentences if s.verdict != "no_claim"]
    return Outcome(
        id=question.id,
        kind=question.kind,
        near_miss=question.near_miss,
        query=answer.query,
        text=answer.text,
        refused=answer.refused,
        quoted=answer.quoted,
        called=answer.usage.calls > 0,
        wanted=len(wanted),
        found=len(wanted & {file_of(piece.item.uri) for piece in answer.evidence}),
        cited=len(wanted & {file_of(source.item.uri) for source in answer.sources}),
        right=not answer.refused and bool(wanted) and question.has_key(answer.text),
        citations=len(shown),
        valid=sum(number in sources for number in shown),
        sentences=len(claims),
        grounded=sum(sentence.verdict in ("stated", "seen", "cited") for sentence in claims),
        search_s=answer.search_s,
        total_s=answer.total_s,
    )


def turns(question: Question) -> list[Turn]:
    """The question's history, as turns."""
    return [
        Turn(asked, answered) for asked, answered in zip(question.history[::2], question.history[1::2], strict=True)
    ]


def ask_all(chat: GroundedChat, questions: Sequence[Question]) -> list[Outcome]:
    """Ask every question, telling how far it is."""
    outcomes, started = [], time.monotonic()
    for number, question in enumerate(questions, start=1):
        outcomes.append(judge(question, chat.ask(question.question, history=turns(question))))
        left_s = (time.monotonic() - started) / number * (len(questions) - number)
        sys.stderr.write(f"\r{number}/{len(questions)} questions, {left_s:.0f} s left ")
        sys.stderr.flush()
    sys.stderr.write("\n")
    return outcomes


def share(part: int, whole: int) -> float | None:
    """In percent; None of nothing."""
    return None if whole == 0 else 100 * part / whole


def summarize(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of one model, in percent where not said otherwise."""
    answerable = [o for o in outcomes if o.kind != "none"]
    none = [o for o in outcomes if o.kind == "none"]
    refused = [o for o in outcomes if o.refused]
    answered = [o for o in answerable if not o.refused]
    return {
        "questions": len(outcomes),
        "hit_rate_one": share(sum(o.found > 0 for o in outcomes if o.kind == "one"), _count(outcomes, "one")),
        "hit_rate_several": share(
            sum(o.found > 0 for o in outcomes if o.kind == "several"), _count(outcomes, "several")
        ),
        "found": share(sum(o.found for o in answerable), sum(o.wanted for o in answerable)),
        "refusal_precision": share(sum(o.kind == "none" for o in refused), len(refused)),
        "refusal_recall": share(sum(o.refused for o in none), len(none)),
        "refusal_recall_far": share(
            sum(o.refused for o in none if not o.near_miss), sum(not o.near_miss for o in none)
        ),
        "refusal_recall_near": share(sum(o.refused for o in none if o.near_miss), sum(o.near_miss for o in none)),
        "refused_uncalled": sum(o.refused and not o.called for o in outcomes),
        "answered": share(len(answered), len(answerable)),
        "right": share(sum(o.right for o in answerable), len(answerable)),
        "cites": share(sum(o.cited > 0 for o in answered), len(answered)),
        "valid_citations": share(sum(o.valid for o in outcomes), sum(o.citations for o in outcomes)),
        "citations": sum(o.citations for o in outcomes),
        "grounded": share(sum(o.grounded for o in outcomes), sum(o.sentences for o in outcomes)),
        "quoted": sum(o.quoted for o in outcomes),
        "seconds_p50": float(np.median([o.total_s for o in outcomes])),
    }


def _count(outcomes: Sequence[Outcome], kind: str) -> int:
    return sum(outcome.kind == kind for outcome in outcomes)


def overhead(retriever: Retriever, dataset: Dataset) -> dict[str, float]:
    """Milliseconds between a question and the call of the model: p50 and p99 over 200 questions, after ten more."""
    chat = GroundedChat(retriever, FakeListChatModel(responses=["I do not know."]), ChatOptions(rewrite="rules"))
    step = max(1, len(dataset.captions) // OVERHEAD_QUESTIONS)
    captions = dataset.captions[::step][:OVERHEAD_QUESTIONS]
    for caption in captions[:10]:
        chat.ask(f"Where is this: {caption}")
    took = [chat.ask(f"Is there {caption[0].lower()}{caption[1:].rstrip(' .')}?").search_s for caption in captions]
    p50, p99 = np.percentile(took, [50, 99])
    return {"questions": len(captions), "p50_ms": 1e3 * float(p50), "p99_ms": 1e3 * float(p99)}


@contextlib.contextmanager
def opened(name: str) -> Iterator[BaseChatModel]:
    """The model `name`; ``fake`` starts the fake server for as long as it is used."""
    if name != FAKE:
        yield load_model(name)
        return
    with FakeOpenAI() as server:
        # It takes any key, but the client will not start without one.
        os.environ.setdefault("OPENAI_API_KEY", "none")
        yield load_model("openai:fake-text", base_url=server.base_url)


ROWS = (
    ("retrieval hit rate, one photograph", "hit_rate_one"),
    ("retrieval hit rate, several", "hit_rate_several"),
    ("right photographs found", "found"),
    ("refusal precision", "refusal_precision"),
    ("refusal recall", "refusal_recall"),
    ("… of far questions", "refusal_recall_far"),
    ("… of near misses", "refusal_recall_near"),
    ("answerable questions answered", "answered"),
    ("answerable questions answered right", "right"),
    ("answers that cite a right photograph", "cites"),
    ("valid citations", "valid_citations"),
    ("grounded sentences", "grounded"),
)


def table(summaries: dict[str, dict[str, Any]]) -> str:
    """The figures as a Markdown table, a column for each model."""
    each = summaries.values()
    rows = [[title, *("–" if s[key] is None else f"{s[key]:.1f}%" for s in each)] for title, key in ROWS]
    for title, key in (("citations shown", "citations"), ("answers that quote the evidence", "quoted")):
        rows.append([title, *(str(summary[key]) for summary in each)])
    rows.append(["whole turn, p50", *(f"{summary['seconds_p50']:.2f} s" for summary in each)])
    return "\n".join(markdown_table(["", *summaries], rows)) + "\n"


def check_answers(dataset: Path, file: Path, kept: Path | None) -> int:
    """Put a set of labelled answers through the check; returns the exit code."""
    try:
        answers = read_answers(file)
        with tempfile.TemporaryDirectory() as folder:
            retriever = collection(dataset, Path(folder))
            bench = Bench(retriever)
            measured, formed = measure(answers, bench), bench.kept_to_the_letter("mark")
            retriever.backend.close()
    except (DatasetError, IndexingError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{file.name}: {len(answers)} answers\n\n{answer_table(measured)}\n")
    lost = [form for form, kept in formed if not kept]
    told = f": not {', '.join(lost)}" if lost else ""
    sys.stdout.write(f"Structured answers kept to the letter: {len(formed) - len(lost)} of {len(formed)}{told}\n")
    if kept:
        every = {check: [asdict(outcome) for outcome in outcomes] for check, outcomes in measured.items()}
        kept.write_text(json.dumps(every, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path, metavar="DATASET_DIR", help="folder with captions.jsonl")
    parser.add_argument("--model", action="append", help=f"may be repeated; {FAKE} and offline:smollm2 unless given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every answer and the figures there")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="check these labelled answers, and ask no model")
    parser.add_argument("--limit", type=int, help="ask only the first so many questions")
    options = parser.parse_args(arguments)
    if options.answers:
        return check_answers(options.dataset, options.answers, options.json)
    try:
        dataset, questions = read_dataset(options.dataset), read_questions()[: options.limit]
        with tempfile.TemporaryDirectory() as folder:
            retriever = collection(options.dataset, Path(folder))
            spent = overhead(retriever, dataset)
            outcomes: dict[str, list[Outcome]] = {}
            for name in options.model or [FAKE, "offline:smollm2"]:
                with opened(name) as model:
                    outcomes[name] = ask_all(GroundedChat(retriever, model, options_for(model, name)), questions)
            retriever.backend.close()
    except (DatasetError, QuestionError, IndexingError, ModelError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    summaries = {name: summarize(each) for name, each in outcomes.items()}
    sys.stdout.write(
        f"{dataset.name}: {len(questions)} questions\n\n{table(summaries)}\n"
        f"Before the model: p50 {spent['p50_ms']:.0f} ms, p99 {spent['p99_ms']:.0f} ms over {spent['questions']} "
        "questions.\n"
    )
    if options.json:
        report = {
            "summaries": summaries,
            "overhead": spent,
            "answers": {name: [asdict(o) for o in each] for name, each in outcomes.items()},
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
