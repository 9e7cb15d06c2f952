"""The command that lists encoders, and its old name."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import typer

from app.cli import encoders_export, options
from app.cli.output import note, print_json, write

if TYPE_CHECKING:
    from retrieval.encoders.catalogue import ModelCard, Recall

# What fits into a terminal of 80 columns.
WIDTH = 79
KINDS = {
    "onnx": "Without torch",
    "openclip": "With torch, until sightline encoders export NAME FOLDER writes them as ONNX",
}
EXPLAINED = (
    "Figures are published zero-shot R@1 in %, text to image / image to text; docs/encoders.md names their sources. "
    "Choose with --encoder NAME: what is not here is downloaded at the first use. Others work too: onnx:FOLDER of an "
    "export, onnx:OWNER/NAME in Immich's layout on the hub, openclip:MODEL/TAG or openclip:MODEL//path/to/weights."
)

encoders = typer.Typer(
    name="encoders",
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"max_content_width": 110},
)
encoders.command("export")(encoders_export.export)


@encoders.callback()
def table(context: typer.Context, as_json: options.Json = False) -> None:
    """List the encoders to choose from, and export them as ONNX.

    Of each the size, languages, licence, published Recall@1, and whether it is here. `export NAME FOLDER`
    writes one that needs torch as ONNX, which does not.
    """
    if context.invoked_subcommand is None:
        list_encoders(as_json=as_json)


def models(as_json: options.Json = False) -> None:
    """List the encoders, as `encoders` does, which this command was renamed to."""
    note("note: `sightline models` is now called `sightline encoders`; the old name still works")
    list_encoders(as_json=as_json)


def list_encoders(*, as_json: bool) -> None:
    """Print the catalogue, in lines that 80 columns hold."""
    from retrieval.encoders.catalogue import CATALOGUE, installed

    cards = [(card, installed(card)) for card in CATALOGUE]
    if as_json:
        print_json({"models": [card_object(card, here) for card, here in cards]})
        return
    write("Recommended")
    for card in (card for card in CATALOGUE if card.best_for):
        write(f"  for {card.best_for + ':':<18} {card.name}")
    for kind, title in KINDS.items():
        write(f"\n{title}")
        for card, here in cards:
            if card.name.startswith("openclip:") == (kind == "openclip"):
                write_card(card, here)
    for line in textwrap.wrap(EXPLAINED, WIDTH):
        note(line)


def write_card(card: ModelCard, here: bool) -> None:
    """A name on a line of its own, then what is known of it."""
    write(f"  {card.name}{'  (here)' if here else ''}")
    known = [card.summary, size(card.size_bytes), f"languages: {card.languages}", card.licence]
    known += [f"{name} {recall(pair)}" for name, pair in (("Flickr30k", card.flickr30k), ("COCO", card.coco)) if pair]
    for line in textwrap.wrap("; ".join(known), WIDTH, initial_indent="      ", subsequent_indent="      "):
        write(line)


def card_object(card: ModelCard, here: bool) -> dict[str, Any]:
    """A model card as JSON; Recall@1 in percent."""
    return {
        "name": card.name,
        "summary": card.summary,
        "dim": card.dim,
        "parameters": card.parameters,
        "size_bytes": card.size_bytes,
        "languages": card.languages,
        "licence": card.licence,
        "flickr30k": _recall_object(card.flickr30k),
        "coco": _recall_object(card.coco),
        "source": card.source or None,
        "best_for": card.best_for or None,
        "installed": here,
    }


def _recall_object(pair: Recall | None) -> dict[str, float] | None:
    return None if pair is None else {"text_to_image_R@1": pair[0], "image_to_text_R@1": pair[1]}


def recall(pair: Recall | None) -> str:
    """Published Recall@1 both ways, a dash where there is none."""
    return "–" if pair is None else f"{pair[0]:.1f} / {pair[1]:.1f}"


def size(size_bytes: int) -> str:
    """Bytes as people read them."""
    if size_bytes < 1_000_000_000:
        return f"{size_bytes / 1e6:.0f} MB"
    return f"{size_bytes / 1e9:.1f} GB"
