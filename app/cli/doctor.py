"""The command that looks over an installation."""

from __future__ import annotations

import textwrap
from dataclasses import asdict

import typer

from app.cli import examining, options
from app.cli.output import one_line, print_json, write
from app.core.settings import Settings

# What fits into a terminal of 80 columns.
WIDTH = 79
SIGNS = {examining.FINE: "ok", examining.NOTE: "--", examining.WRONG: "!!"}


def doctor(backend: options.Backend = None, as_json: options.Json = False) -> None:
    """Say what is installed, what answers, and what to do about the rest.

    Looked at are the settings, the home and its disk, the encoder, the vector database and the collections in
    it, the model that answers questions, and the extras. Nothing is changed or downloaded. Exits with 1 where
    something that the settings name does not work.
    """
    settings = Settings.load({"backend": backend})
    found = []
    for finding in examining.examine(settings):
        found.append(finding)
        if not as_json:
            _show(finding)
    wrong = sum(finding.state == examining.WRONG for finding in found)
    if as_json:
        print_json({"findings": [asdict(finding) for finding in found], "wrong": wrong})
    else:
        write("nothing is wrong" if not wrong else f"{wrong} to mend: see !! above")
    if wrong:
        raise typer.Exit(1)


def _show(finding: examining.Finding) -> None:
    begin = f"{SIGNS[finding.state]}  {finding.about}: "
    for line in textwrap.wrap(begin + one_line(finding.seen), WIDTH, subsequent_indent="    ", break_on_hyphens=False):
        write(line)
    if finding.todo:
        for line in textwrap.wrap(
            f"to do: {one_line(finding.todo)}",
            WIDTH,
            initial_indent="    ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        ):
            write(line)
