"""The command that answers a question, and what it shares with a chat: the model, its options, and the output."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from app.cli import options
from app.cli.context import open_backend, open_retriever, waiting
from app.cli.output import GONE, is_terminal, note, one_line, place, print_json, shorten_home, write
from app.cli.queries import read_where, require_file
from app.core.errors import CommandError
from app.core.llm import LoadedModel
from app.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from langchain_core.language_models import BaseChatModel

    from app.core.llm import LoadModel
    from retrieval.chat import Answer, ChatEvent, ChatOptions, Check, Evidence, ToolUsed


@options.grouped
def ask(
    question: Annotated[list[str], typer.Argument(metavar="QUESTION", help="What you want to know.")],
    *,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="A picture that belongs to the question.")
    ] = None,
    answering: options.ModelFlags,
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Show the draft as it is written. Default: on a terminal."),
    ] = None,
    where: options.WhereJson = None,
    k: options.K = None,
    chosen: options.SearchFlags,
    as_json: options.Json = False,
) -> None:
    """Answer a question from what the collection holds, with numbered sources.

    Every sentence is checked against the items that it cites, and what is wrong with one is said below the answer;
    --check says how, see docs/chat.md. A draft goes to standard error.
    """
    clause = read_where(where)
    if image is not None:
        require_file(image)
    settings = options.load_settings(chosen, answering, k=k)
    with open_backend(settings) as store:
        retriever = open_retriever(settings, store, chosen.encoder)
        loaded = open_model(settings)
        from retrieval.chat import GroundedChat

        chat = GroundedChat(retriever, loaded, chat_options(settings, loaded, asked_k=k), judge=open_judge(settings))
        answer = follow(
            chat.stream(" ".join(question), image=image, where=clause),
            show_draft=sys.stderr.isatty() and is_terminal() if stream is None else stream,
        )
    if as_json:
        print_json(answer_object(answer))
    else:
        print_answer(answer)


def open_model(settings: Settings) -> BaseChatModel:
    """The model of `settings`, or the offline one. Raises `ModelError`, or CommandError that says what to set."""
    from retrieval.llms import OFFLINE, ModelError, load_model

    vision = {"yes": True, "no": False}.get(settings.model_vision)
    with waiting("loading the model"):
        if settings.model:
            where: dict[str, Any] = {"base_url": settings.model_url} if settings.model_url else {}
            return load_model(
                settings.model, vision=vision, device=settings.device, precision=settings.precision, **where
            )
        if settings.model_url:
            raise CommandError("model_url is set, but no model: add --model openai:NAME, as the server calls it")
        try:
            return load_model(OFFLINE)
        except ModelError as error:
            raise CommandError(
                f"no model is set: use --model (openai:gpt-4o, ollama:qwen2.5vl, …), or the offline one: {error}"
            ) from None


def model_loader(settings: Settings) -> LoadModel:
    """What loads the model of `settings` and says what a chat with it may spend, when it is first needed."""

    def load() -> LoadedModel:
        model = open_model(settings)
        return LoadedModel(model, chat_options(settings, model, asked_k=None), open_judge(settings))

    return load


def open_judge(settings: Settings) -> BaseChatModel | None:
    """The model that verifies, where another one than the one that answers is set. Raises `ModelError`.

    It is asked at `model_url` where it has the same provider as the model that answers.
    """
    if not settings.verify_model:
        return None
    from retrieval.llms import load_model

    provider = settings.verify_model.partition(":")[0]
    where: dict[str, Any] = {}
    if settings.model_url and provider == settings.model.partition(":")[0]:
        where = {"base_url": settings.model_url}
    with waiting("loading the model that verifies"):
        return load_model(settings.verify_model, device=settings.device, precision=settings.precision, **where)


def chat_options(settings: Settings, model: BaseChatModel, *, asked_k: int | None) -> ChatOptions:
    """What a chat with `model` may spend under these settings."""
    from retrieval.chat.asking import options_for
    from retrieval.llms import OFFLINE

    return options_for(
        model,
        settings.model or OFFLINE,
        model_url=settings.model_url,
        min_relevance=settings.min_relevance,
        check=None if settings.check == "auto" else cast("Check", settings.check),
        max_evidence=asked_k,
        tools=settings.model_tools == "auto",
    )


def follow(events: Generator[ChatEvent], *, show_draft: bool) -> Answer:
    """Read a turn to its end, showing the draft meanwhile; closing early ends the request to the model."""
    from retrieval.chat import EvidenceFound, Final, Retrying, Token, ToolUsed

    with contextlib.closing(events), draft_display(show_draft) as display:
        for event in events:
            match event:
                case EvidenceFound(evidence=evidence):
                    display.status(f"{len(evidence)} sources found; the model is reading" if evidence else "")
                case Retrying(wait_s=wait_s, reason=reason):
                    note(f"note: {reason}; trying again in {wait_s:.1f} s")
                case ToolUsed():
                    display.status(used_line(event))
                case Token(text=text):
                    display.add(text)
                case Final(answer=answer):
                    return answer
    raise AssertionError("a turn ends with its Final event or raises")


def used_line(used: ToolUsed) -> str:
    """What the model looked for itself, as a line: "searched for “a dog”: 3 found"."""
    what = {"search": "searched for", "count": "counted", "facet": "looked at the values of", "open": "opened"}
    asked = " ".join(filter(None, (f"“{one_line(used.query)}”" if used.query else "", one_line(used.filter))))
    found = used.error or f"{'at least ' if used.at_least else ''}{used.found} found"
    return f"{what.get(used.name, 'tried')} {asked or 'everything'}: {one_line(found)}"


class Draft:
    """Where a draft is shown: nowhere."""

    def status(self, text: str) -> None:
        """Say what goes on before the first token."""

    def add(self, text: str) -> None:
        """Show more of the draft."""


class PlainDraft(Draft):
    """A draft written to standard error as it comes."""

    def add(self, text: str) -> None:
        """Show more of the draft."""
        encoding = sys.stderr.encoding or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stderr.flush()


class LiveDraft(Draft):
    """A draft on a terminal, dim, which disappears when the checked answer takes its place."""

    def __init__(self, live: Any) -> None:
        self._live = live
        self._text = ""

    def status(self, text: str) -> None:
        """Say what goes on before the first token."""
        from rich.text import Text

        self._live.update(Text(f"{text} …" if text else "", style="dim italic"))

    def add(self, text: str) -> None:
        """Show more of the draft, its end where it is longer than the screen."""
        from rich.text import Text

        self._text += text
        kept = "\n".join(self._text.splitlines()[-12:])
        self._live.update(Text(kept, style="dim"))


@contextlib.contextmanager
def draft_display(wanted: bool) -> Iterator[Draft]:
    """Where a draft goes: a part of the terminal that is cleared at the end, else standard error, or nowhere."""
    if not wanted:
        yield Draft()
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, refresh_per_second=12) as live:
            yield LiveDraft(live)
    else:
        yield PlainDraft()
        sys.stderr.write("\n")


#: Behind a sentence on a terminal; one without has nothing that needs to be said of it.
_MARKS = {"stated": "✓", "uncited": "(?)", "dangling": "(?)", "unsupported": "(?)", "contradicted": "(!)"}
_MAX_QUOTED = 80


def with_marks(answer: Answer) -> str:
    """The answer's text; on a terminal with a mark behind each sentence that has one."""
    text = answer.text
    if answer.check == "strict" or not is_terminal():
        return text
    for sentence in sorted(answer.sentences, key=lambda each: -(each.end or 0)):
        if sentence.end is not None and sentence.verdict in _MARKS:
            text = f"{text[: sentence.end]} {_MARKS[sentence.verdict]}{text[sentence.end :]}"
    return text


def print_remarks(answer: Answer) -> None:
    """What is wrong with an answer's sentences, on standard error, a line each."""
    if answer.check == "strict":
        return
    for sentence in answer.sentences:
        said = one_line(sentence.text)
        quoted = said if len(said) <= _MAX_QUOTED else said[: _MAX_QUOTED - 1] + "…"
        if sentence.verdict == "contradicted":
            source = "" if sentence.conflict_source is None else f" [{sentence.conflict_source}]"
            words = f": “{one_line(sentence.conflict)}”" if sentence.conflict else ""
            note(f"(!) “{quoted}” conflicts with its source{source}{words}")
        elif sentence.verdict == "unsupported":
            note(f"(?) “{quoted}” is in none of the sources that it cites")
        elif sentence.removed:
            numbers = ", ".join(map(str, sentence.removed))
            note(f"(?) “{quoted}” cited {numbers}, which is no source; that citation was removed")
    if answer.counts.uncited:
        one = answer.counts.uncited == 1
        note(f"(?) {answer.counts.uncited} sentence{' cites' if one else 's cite'} no source")


def print_answer(answer: Answer) -> None:
    """The answer, then its sources, a line each: number, relevance, modality, id, place and text."""
    for notice in answer.notices:
        note(f"note: {notice}")
    write(with_marks(answer))
    print_remarks(answer)
    if answer.sources:
        write("")
        for source in answer.sources:
            write(source_line(source))
    if answer.truncated:
        note("note: the model stopped at its length limit; the answer may lack its end")


def source_line(source: Evidence) -> str:
    """One source as a line: for people on a terminal, else with tabs between its parts."""
    item = source.item
    relevance = "–" if source.relevance is None else f"{source.relevance:.2f}"
    text = one_line((item.text or "").split("\n", 1)[0])
    if not is_terminal():
        return "\t".join(
            (f"[{source.number}]", relevance, item.modality, one_line(item.id), one_line(place(item.uri)), text)
        )
    where = one_line(shorten_home(place(item.uri))) + (f" ({GONE})" if item.gone else "")
    return "  ".join(filter(None, (f"[{source.number}]", text, where, one_line(item.id), f"relevance {relevance}")))


def answer_object(answer: Answer) -> dict[str, Any]:
    """An answer as the JSON object that `ask` prints."""
    return {
        "question": answer.question,
        "query": answer.query,
        "translation": answer.translation,
        "answer": answer.text,
        "tools": [
            {name: getattr(used, name) for name in ("name", "query", "filter", "found", "at_least", "error")}
            for used in answer.tools
        ],
        "notices": list(answer.notices),
        "refused": answer.refused,
        "quoted": answer.quoted,
        "sources": [
            {
                "number": source.number,
                "id": source.item.id,
                "relevance": source.relevance,
                "modality": source.item.modality,
                "uri": source.item.uri,
                "text": source.item.text,
                "gone": source.item.gone,
            }
            for source in answer.sources
        ],
        "check": answer.check,
        "sentences": [asdict(each) for each in answer.sentences],
        "counts": asdict(answer.counts),
        "usage": asdict(answer.usage) | {"truncated": answer.truncated},
        "seconds": {"search": answer.search_s, "first_token": answer.first_token_s, "total": answer.total_s},
    }
