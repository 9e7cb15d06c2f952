"""The command that holds a conversation about a collection."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import options
from app.cli.ask import chat_options, follow, open_judge, open_model, print_remarks, source_line, with_marks
from app.cli.context import open_backend, open_retriever
from app.cli.output import is_terminal, note, write
from app.cli.queries import read_where, require_file
from app.cli.thumbnails import protocol, thumbnail
from app.core.errors import CommandError

if TYPE_CHECKING:
    from typing import Any

    from app.cli.thumbnails import Protocol
    from retrieval.chat import Answer, Conversation

HELP = """/sources      what the model was given for the last answer, cited or not
/image FILE   attach a picture to the next question; /image alone takes it off again
/new          forget the conversation
/help         this list
/quit         leave; so does Ctrl-D. Ctrl-C stops an answer"""


@options.grouped
def chat(
    *,
    answering: options.ModelFlags,
    thumbnails: Annotated[
        bool | None,
        typer.Option("--thumbnails/--no-thumbnails", help="Pictures of the sources. Default: where known to work."),
    ] = None,
    where: options.WhereJson = None,
    k: options.K = None,
    chosen: options.SearchFlags,
) -> None:
    """Ask questions one after another; each is understood in the light of those before.

    Commands inside: /sources, /image FILE, /new, /help, /quit. Ctrl-C stops an answer. What is said is not
    kept on disk. In a pipe, each line of standard input is a question.
    """
    clause = read_where(where)
    settings = options.load_settings(chosen, answering, k=k)
    with open_backend(settings) as store:
        retriever = open_retriever(settings, store, chosen.encoder)
        loaded = open_model(settings)
        from retrieval.chat import Conversation, GroundedChat

        grounded = GroundedChat(
            retriever, loaded, chat_options(settings, loaded, asked_k=k), judge=open_judge(settings)
        )
        how = protocol() if thumbnails is not False and is_terminal() else None
        if thumbnails and how is None:
            note("note: this terminal is not known to show pictures; sources are listed without them")
        Session(Conversation(grounded), clause, how).run()


class Session:
    """One conversation at a terminal, or with the lines of a pipe."""

    def __init__(self, conversation: Conversation, where: dict[str, Any] | None, how: Protocol | None) -> None:
        self.conversation = conversation
        self.where = where
        self.how = how
        self.image: Path | None = None
        self.last: Answer | None = None
        self.told: set[str] = set()

    def run(self) -> None:
        """Read questions and commands until the end of input or /quit."""
        interactive = sys.stdin.isatty()
        if interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (gives `input` its line editing and history)
            note("Ask about the collection; /help lists the commands.")
        while True:
            try:
                line = input("> " if interactive else "").strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                # Leaves the line that was being written, as a shell does.
                write("")
                continue
            if line.startswith("/"):
                if not self.command(line):
                    return
            elif line:
                self.answer(line)

    def command(self, line: str) -> bool:
        """Do what a line with a slash says; False to leave."""
        name, _, argument = line.partition(" ")
        match name:
            case "/quit" | "/exit":
                return False
            case "/new":
                self.conversation.clear()
                self.image, self.last = None, None
                note("a new conversation")
            case "/sources":
                self.show_sources()
            case "/image":
                self.attach(argument.strip())
            case "/help":
                write(HELP)
            case _:
                note(f"no command {name}; /help lists them")
        return True

    def attach(self, name: str) -> None:
        """Take a picture for the next question, or put it away."""
        if not name:
            self.image = None
            note("no picture is attached")
            return
        path = Path(name.strip("'\"")).expanduser()
        try:
            require_file(path)
        except CommandError as error:
            note(f"error: {error}")
            return
        self.image = path
        note(f"{path.name} goes with the next question")

    def answer(self, question: str) -> None:
        """Answer one question. What goes wrong with the model ends the turn, not the session."""
        from retrieval.chat import ChatError
        from retrieval.images.decode import ImageError
        from retrieval.search.query import SearchError

        try:
            events = self.conversation.stream(question, image=self.image, where=self.where)
            answer = follow(events, show_draft=sys.stderr.isatty())
        except KeyboardInterrupt:
            note("stopped; ask on")
            return
        except (ChatError, ImageError, SearchError) as error:
            note(f"error: {error}")
            return
        self.image, self.last = None, answer
        for notice in answer.notices:
            # That of the collection would come with every answer.
            if notice not in self.told:
                note(f"note: {notice}")
            self.told.add(notice)
        write(with_marks(answer))
        print_remarks(answer)
        for source in answer.sources:
            write(source_line(source))
            self.show_thumbnail(source.item.uri if source.item.modality == "image" else None)
        write("")

    def show_sources(self) -> None:
        """List all that the model was given for the last answer."""
        if self.last is None or not self.last.evidence:
            note("no sources: nothing was asked yet, or nothing was found")
            return
        for source in self.last.evidence:
            write(source_line(source))
            self.show_thumbnail(source.item.uri if source.item.modality == "image" else None)

    def show_thumbnail(self, uri: str | None) -> None:
        """The picture itself, where the terminal can show it and it can be read."""
        from retrieval.images.decode import ImageError
        from retrieval.images.parts import located

        path = located(uri)
        if self.how is None or path is None:
            return
        with contextlib.suppress(ImageError):
            sys.stdout.write(thumbnail(path, self.how) + "\n")
            sys.stdout.flush()
