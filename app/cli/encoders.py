"""The command that lists encoders, and its old name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.cli import options
from app.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from retrieval.encoders.catalogue import ModelCard, Recall


def encoders(as_json: options.Json = False) -> None:
    """List the encoders to choose from: size, published Recall@1, and whether the weights are here."""
    from retrieval.encoders.catalogue import CATALOGUE, installed

    cards = [(card, installed(card)) for card in CATALOGUE]
    if as_json:
        print_json({"models": [card_object(card, here) for card, here in cards]})
        return
    header = ("encoder", "size", "Flickr30k", "COCO", "languages", "here", "what it is")
    rows = [
        (
            card.name,
            size(card.size_bytes),
            recall(card.flickr30k),
            recall(card.coco),
            card.languages,
            "yes" if here else "no",
            card.summary,
        )
        for card, here in cards
    ]
    print_table(header, rows, right=("size", "Flickr30k", "COCO"))
    note("Flickr30k and COCO are published zero-shot R@1 in %, text to image / image to text.")
    note("Choose with --encoder NAME. Weights that are not here are downloaded at the first use; any other")
    note("openclip:MODEL/PRETRAINED works too, with PRETRAINED a tag that open_clip knows or a checkpoint file.")


def models(as_json: options.Json = False) -> None:
    """List the encoders, as `encoders` does, which this command was renamed to."""
    note("note: `sightline models` is now called `sightline encoders`; the old name still works")
    encoders(as_json=as_json)


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
