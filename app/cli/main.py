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

from app.cli import ask, bench, chat, collections, demo, encoders, evaluate, index, search, streams, transfer
from app.cli.engines import engines
from app.cli.keys import keyring
from app.cli.output import note

EXIT_CODES = {
    0: "done; a search that finds nothing and an index run that skips single files are done too",
    1: "failed; the reason is on stderr, in one line that says what to do",
    2: "the command line or a setting was not understood",
    3: "`index --strict` finished, but skipped files",
    130: "interrupted with Ctrl-C; for `index`, all that was finished is kept and the next run goes on from there",
}
# Typer brings its own copy of click in some versions; both have this hierarchy under BadParameter.
_UsageError = typer.BadParameter.__bases__[0]
_ClickError = _UsageError.__bases__[0]

app = typer.Typer(
    name="sightline",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 110},
)
app.command("index")(index.index)
app.command("search")(search.search)
app.command("similar")(search.similar)
app.command("lookup")(search.lookup)
app.command("show")(search.show)
app.command("ask")(ask.ask)
app.command("chat")(chat.chat)
app.command("collections")(collections.collections)
app.command("drop")(collections.drop)
app.command("copy")(transfer.copy)
app.command("export")(transfer.export)
app.command("import")(transfer.import_)
app.add_typer(engines)
app.command("eval")(evaluate.evaluate_command)
app.command("bench")(bench.bench)
app.add_typer(encoders.encoders)
app.command("models", hidden=True)(encoders.models)
app.add_typer(keyring)
app.command("demo")(demo.demo)


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

        return 2 if isinstance(error, (SettingsError, UsageError)) else 1
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
