"""How well the chat answers, and how well it does not: ``python -m benchmarks.chat DATASET_DIR``.

DATASET_DIR holds captions.jsonl, as `sightline index` takes it. It is indexed with its captions and asked questions
with known answers: those of ``--questions FILE``, whose form `benchmarks.chat.questions` describes, else those of this
package for the 100 COCO photographs and for the photographs of ``sightline demo --no-stamps`` (``demo/pictures`` in its
home). Right, incomplete, declined or wrong is told by answer keys and by the names of the files that are cited; no
model judges.

Each question is asked in six settings: with the chat's own search, and of small collections that hold the right
photographs, these and others, only others, nothing, or the right ones and a text that gives orders.

``--model`` names models as the setting does; ``fake`` is an extractive fake behind OpenAI's contract, and
``scripted:clean`` a model that knows the keys, with faults as ``scripted:wrong_source``, to try a set of questions by.
``--answers FILE`` asks no model: it puts a set of labelled answers through the check instead, see
`benchmarks.answer_set`.

Prints Markdown; ``--json FILE`` keeps every answer as well, ``--figure FILE`` a picture.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel

from backends import connect
from benchmarks.answer_set import Bench as AnswerBench
from benchmarks.answer_set import measure, read_answers
from benchmarks.answer_set import table as answer_table
from benchmarks.chat.asking import Bench, ask_all, sampled
from benchmarks.chat.figures import alarms, summarize
from benchmarks.chat.judging import SETTINGS, Outcome, Setting, file_of
from benchmarks.chat.questions import Question, QuestionError, read_questions, shipped_questions
from benchmarks.chat.report import draw, markdown
from benchmarks.chat.scripted import FAULTS, ScriptedModel
from benchmarks.encoders import DatasetError
from benchmarks.fake_openai import FakeOpenAI
from indexers import IndexingError, index
from retrieval import Retriever, load_encoder
from retrieval.chat import ChatError, ChatOptions
from retrieval.chat.asking import options_for
from retrieval.llms import ModelError, load_model

FAKE = "fake"
SCRIPTED = "scripted:"


def collection(dataset: Path, folder: Path) -> Retriever:
    """The photographs and captions of `dataset`, indexed in `folder` by the default encoder."""
    backend, encoder = connect(f"faiss://{folder}"), load_encoder("compact")
    report = index(dataset / "captions.jsonl", backend, encoder, "photos")
    if report.quarantined:
        raise DatasetError(f"{report.quarantined[0].path}: {report.quarantined[0].reason}")
    return Retriever(backend, encoder, "photos")


def described(retriever: Retriever) -> dict[str, str]:
    """The photographs of a collection by the names of their files, with what they are described by."""
    pages = retriever.backend.scan(retriever.collection, with_vectors=False)
    images = (record for page in pages for record in page.records if record.modality == "image")
    return {file_of(record.uri): record.text or "" for record in images}


def questions_for(photos: dict[str, str], file: Path | None) -> tuple[Question, ...]:
    """The questions of a file, or the package's own about these photographs. Raises `QuestionError`."""
    if file is None:
        return shipped_questions(photos)
    questions = read_questions(file)
    for question in questions:
        if missing := sorted({*question.photos, *question.also} - photos.keys()):
            raise QuestionError(f"{file}: {question.id}: photos: {missing[0]} is not in the collection")
    return questions


@contextlib.contextmanager
def opened(
    name: str, url: str | None, questions: Sequence[Question], photos: dict[str, str]
) -> Iterator[tuple[BaseChatModel, ChatOptions]]:
    """The model `name`, and what a chat with it may spend; ``fake`` starts its server for as long as it is used."""
    if name.startswith(SCRIPTED):
        fault = name.removeprefix(SCRIPTED)
        if fault not in FAULTS:
            raise ModelError(f"{name}: the scripted models are {', '.join(f'{SCRIPTED}{each}' for each in FAULTS)}")
        # It is told apart by what it says, so nothing that it says is changed.
        options = ChatOptions(context_tokens=32_768, rewrite="rules", check="mark")
        yield ScriptedModel(fault=fault, questions=questions, texts=photos), options
        return
    if name != FAKE:
        model = load_model(name, base_url=url)
        yield model, options_for(model, name, model_url=url)
        return
    with FakeOpenAI() as server:
        # It takes any key, but the client will not start without one.
        os.environ.setdefault("OPENAI_API_KEY", "none")
        model = load_model("openai:fake-text", base_url=server.base_url)
        yield model, options_for(model, "openai:fake-text", model_url=server.base_url)


def check_answers(dataset: Path, file: Path, kept: Path | None) -> int:
    """Put a set of labelled answers through the check; returns the exit code."""
    answers = read_answers(file)
    with tempfile.TemporaryDirectory() as folder:
        retriever = collection(dataset, Path(folder))
        bench = AnswerBench(retriever)
        measured, formed = measure(answers, bench), bench.kept_to_the_letter("mark")
        retriever.backend.close()
    sys.stdout.write(f"{file.name}: {len(answers)} answers\n\n{answer_table(measured)}\n")
    lost = [form for form, kept in formed if not kept]
    told = f": not {', '.join(lost)}" if lost else ""
    sys.stdout.write(f"Structured answers kept to the letter: {len(formed) - len(lost)} of {len(formed)}{told}\n")
    if kept:
        every = {check: [asdict(outcome) for outcome in outcomes] for check, outcomes in measured.items()}
        kept.write_text(json.dumps(every, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


def evaluate(options: argparse.Namespace) -> dict[str, list[Outcome]]:
    """Every model's answers."""
    outcomes: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory() as folder:
        retriever = collection(options.dataset, Path(folder))
        photos = described(retriever)
        questions = questions_for(photos, options.questions)
        for name in options.model or [FAKE, "offline:smollm2"]:
            with opened(name, options.model_url, questions, photos) as (model, spent):
                bench = Bench(retriever, model, spent)
                outcomes[name] = list(ask_all(bench, sampled(questions, options.limit), options.settings))
        retriever.backend.close()
    return outcomes


def tell(outcomes: dict[str, list[Outcome]], kept: Path | None, figure: Path | None) -> None:
    """Print the figures, and write what was asked for."""
    summaries: dict[str, dict[str, Any]] = {name: summarize(each) for name, each in outcomes.items()}
    for figures in summaries.values():
        figures["alarms"] = alarms(figures)
    sys.stdout.write(markdown(summaries))
    if kept:
        answers = {name: [asdict(outcome) for outcome in each] for name, each in outcomes.items()}
        report = {"summaries": summaries, "answers": answers}
        kept.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if figure:
        draw(summaries, figure)


def _settings(text: str) -> tuple[Setting, ...]:
    named = [each.strip() for each in text.split(",")]
    if unknown := [each for each in named if each not in SETTINGS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(SETTINGS)}")
    return tuple(each for each in SETTINGS if each in named)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path, metavar="DATASET_DIR", help="folder with captions.jsonl")
    parser.add_argument("--model", action="append", help=f"may be repeated; {FAKE} and offline:smollm2 unless given")
    parser.add_argument("--model-url", metavar="URL", help="address of an OpenAI-compatible or Ollama server")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="ask these, not those of this package")
    parser.add_argument("--settings", type=_settings, default=SETTINGS, help=f"of {', '.join(SETTINGS)}; all")
    parser.add_argument("--limit", type=int, metavar="N", help="ask only so many questions, evenly over the set")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every answer and the figures there")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the figures there (PNG, SVG, PDF)")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="check these labelled answers, and ask no model")
    options = parser.parse_args(arguments)
    for path in (options.json, options.figure):
        # Said before hours of asking, not after.
        if path is not None and not path.parent.is_dir():
            parser.error(f"{path} cannot be written: there is no folder {path.parent}")
    try:
        if options.answers:
            return check_answers(options.dataset, options.answers, options.json)
        outcomes = evaluate(options)
    except (DatasetError, QuestionError, IndexingError, ModelError, ChatError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    tell(outcomes, options.json, options.figure)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
