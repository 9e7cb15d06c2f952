"""The command line of ``sightline``: its parts, its exit codes, and how it fails.

Nothing heavy is imported here, so that ``sightline --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from app.cli import streams
from app.cli.lazy import group_of
from app.cli.output import note

EXIT_CODES = {
    0: "done; a search that finds nothing and an index run that skips single files are done too",
    1: "failed; the reason is on stderr, in one line that says what to do",
    2: "the command line, a setting, or by the encoder the query was not understood",
    3: "`index --strict` finished, but skipped files",
    130: "interrupted with Ctrl-C; for `index`, all that was finished is kept and the next run goes on from there",
}
# Typer brings its own copy of click in some versions; both have this hierarchy under BadParameter.
_UsageError = typer.BadParameter.__bases__[0]
_ClickError = _UsageError.__bases__[0]

#: Where each command is, and its summary, empty for an old name, which is not listed; `app.main` adds the two that run
#: the service.
COMMANDS: dict[str, tuple[str, str]] = {
    "index": (
        "app.cli.index:index",
        "Index pictures and texts; run it again to take in only what is new or has changed.",
    ),
    "watch": ("app.cli.watch:watch", "Keep a collection in step with a folder: what is added, changed or removed."),
    "search": ("app.cli.search:search", "Find images by words, by pictures, or by both."),
    "similar": ("app.cli.search:similar", "Find the items nearest to a stored one; no model is loaded for it."),
    "lookup": ("app.cli.search:lookup", "Find the texts of the collection that describe a picture best."),
    "show": ("app.cli.search:show", "Show one stored item: where it is, its text and its metadata."),
    "ask": ("app.cli.ask:ask", "Answer a question from what the collection holds, with numbered sources."),
    "chat": ("app.cli.chat:chat", "Ask questions one after another; each is understood in the light of those before."),
    "remove": (
        "app.cli.remove:remove",
        "Take items out of a collection, by path, id or filter; the files stay where they are.",
    ),
    "collections": ("app.cli.collections:collections", "List the collections of the store, with what fills them."),
    "drop": (
        "app.cli.collections:drop",
        "Remove a collection and all it holds; the pictures themselves stay where they are.",
    ),
    "reindex": ("app.cli.reindex:reindex", "Give a collection another encoder, --encoder NAME, while it is searched."),
    "copy": (
        "app.cli.transfer:copy",
        "Copy a collection from any engine to any other, and check the copy record by record.",
    ),
    "export": (
        "app.cli.transfer:export",
        "Write a collection into a folder of Parquet files, for backup and for other tools.",
    ),
    "import": (
        "app.cli.transfer:import_",
        "Read what export wrote into a collection; its own name is kept unless --collection says otherwise.",
    ),
    "eval": (
        "app.cli.evaluate:evaluate_command",
        "Measure R@1, R@5, R@10 and the median rank, text to image and image to text.",
    ),
    "bench": (
        "app.cli.bench:bench",
        "Compare vector databases on made vectors or your own photos, and write a report.",
    ),
    "demo": (
        "app.cli.demo:demo",
        "Index two dozen photographs that packages carry, search them five ways, and write the results page.",
    ),
    "engines": ("app.cli.engines:engines", "Show the vector databases, and start and stop local servers."),
    "doctor": ("app.cli.doctor:doctor", "Say what is installed, what answers, and what to do about the rest."),
    "encoders": ("app.cli.encoders:encoders", "List the encoders to choose from, and export them as ONNX."),
    "models": ("app.cli.encoders:models", ""),
    "keys": ("app.cli.keys:keyring", "Show the API keys of the service, and add and remove them."),
}

app = typer.Typer(
    name="sightline",
    cls=group_of(COMMANDS),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"sightline {version('sightline')}")
        except PackageNotFoundError:
            typer.echo("sightline (run from its sources)")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the full trace of an error; SIGHTLINE_DEBUG=1 does too.")
    ] = False,
) -> None:
    """Find images by words, words by images and images by images, over any of many vector databases."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; no error reaches the caller, and none a trace to the user."""
    streams.complete()
    try:
        return _main(arguments)
    finally:
        streams.settle_errors()


def _main(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    debug = given[:1] == ["--debug"] or os.environ.get("SIGHTLINE_DEBUG", "") not in ("", "0")
    with warnings.catch_warnings():
        _warn_in_one_line(debug)
        try:
            result = typer.main.get_command(app).main(given, prog_name="sightline", standalone_mode=False)
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            # Whoever read our output has gone, as `| head` does; the interpreter must not flush into the void.
            streams.abandon_output()
            return 1
        except typer.Exit as stop:
            return stop.exit_code
        except SystemExit as stop:
            # Typer's own answer to a reader that has gone.
            return stop.code if isinstance(stop.code, int) else 1
        except typer.Abort as abort:
            if isinstance(abort.__cause__, KeyboardInterrupt):
                return 130
            note("stopped: nothing was changed")
            return 1
        except Exception as error:
            return _fail(error, debug=debug)


def _fail(error: Exception, *, debug: bool) -> int:
    if isinstance(error, _ClickError):
        return _fail_usage(error)
    from backends.redaction import redact

    if debug:
        import traceback

        sys.stderr.write(redact(traceback.format_exc(), foreign=True))
    if _is_expected(error):
        note(f"error: {redact(str(error))}")
        from app.core.errors import UsageError
        from app.core.settings import SettingsError

        query = sys.modules.get("retrieval.search.query")
        unread = (query.UnreadableQuery,) if query is not None else ()
        return 2 if isinstance(error, (SettingsError, UsageError, *unread)) else 1
    if isinstance(error, OSError) and streams.output_fails():
        streams.abandon_output()
        note(f"error: {streams.NO_OUTPUT} ({error.strerror or error})")
        return 1
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_folder():
        note("error: the current folder is not there any more: change to another one")
        return 1
    if isinstance(error, OSError) and error.strerror:
        note(f"error: {error.strerror}: {error.filename}" if error.filename else f"error: {error.strerror}")
        return 1
    hint = "" if debug else "; run sightline --debug … for the trace"
    note(f"error: unexpected {type(error).__name__}: {redact(str(error), foreign=True)}{hint}")
    return 1


def _has_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _fail_usage(error: Exception) -> int:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    if not message and context is not None:
        sys.stderr.write(context.get_help() + "\n")
        return 2
    path = context.command_path if context is not None else "sightline"
    note(f"error: {message.rstrip('.')}; see {path} --help")
    return 2


def _is_expected(error: Exception) -> bool:
    """Whether an error was written for the user; the modules that define them are imported only now."""
    from app.core.errors import CommandError
    from app.core.settings import SettingsError

    known: list[tuple[str, str]] = [
        ("backends.errors", "BackendError"),
        ("retrieval.encoders.base", "EncoderError"),
        ("retrieval.images.decode", "ImageError"),
        ("retrieval.search.query", "SearchError"),
        ("retrieval.evaluation", "EvaluationError"),
        ("retrieval.chat.errors", "ChatError"),
        ("retrieval.llms.base", "ModelError"),
        ("indexers", "IndexingError"),
    ]
    # One that was never imported cannot have raised anything.
    classes = [getattr(sys.modules[module], name) for module, name in known if module in sys.modules]
    if isinstance(error, (CommandError, SettingsError, *classes)):
        return True
    return isinstance(error, ValueError) and _raised_by_us(error)


def _raised_by_us(error: Exception) -> bool:
    """Whether our own code raised it: the ValueErrors it raises are about arguments and tell what is wrong."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.partition(".")[0] in ("app", "indexers", "retrieval", "backends")


def _warn_in_one_line(debug: bool) -> None:
    """Show our own packages' warnings as one-line notes, and other libraries' only when debugging."""
    if not debug:
        warnings.simplefilter("ignore")
    warnings.filterwarnings("default", category=UserWarning, module=r"(app|indexers|retrieval|backends)(\.|$)")
    warnings.showwarning = lambda message, *_, **__: note(f"note: {message}")
