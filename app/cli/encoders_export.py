"""The command that writes an encoder as ONNX."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import options
from app.cli.context import waiting
from app.cli.output import print_json, write
from app.core.errors import UsageError

if TYPE_CHECKING:
    from retrieval.encoders.onnx_export import ExportReport

MAX_PHOTOS = 16


def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="openclip:MODEL/PRETRAINED.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights of 8 bits: smaller and quicker, a space of its own.")
    ] = False,
    photos: Annotated[
        Path | None, typer.Option("--photos", metavar="DIR", help="Photographs to compare vectors on, up to 16.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write an open_clip model as ONNX, which --encoder onnx:FOLDER runs without torch.

    The vectors are compared with torch's: an export in fp32 is kept only if each has a cosine of at least 0.9999,
    and it can be used with the collections of the model. Needs the extra export.
    """
    from retrieval.encoders.onnx_export import export as write_export

    pictures = _pictures(photos) if photos else []
    with waiting(f"exporting {name}"):
        report = write_export(name, folder, int8=int8, pictures=pictures)
    if as_json:
        print_json({"folder": str(folder.expanduser().absolute()), **asdict(report)})
        return
    for line in told(report, folder):
        write(line)


def told(report: ExportReport, folder: Path) -> list[str]:
    """The report in lines for people."""
    images, texts = report.images, report.texts
    return [
        f"{report.name} written to {folder}: {report.precision}, {report.size_bytes / 1e6:.0f} MB",
        f"lowest cosine with torch: pictures {report.image_cosine:.5f}, texts {report.text_cosine:.5f}",
        f"the same picture is nearest as in torch for {report.same_nearest:.0%} of pictures and texts",
        f"pictures/s: torch {images.torch:.1f}, ONNX Runtime {images.onnx:.1f}",
        f"texts/s: torch {texts.torch:.1f}, ONNX Runtime {texts.onnx:.1f}",
        f"use it with --encoder onnx:{folder}",
    ]


def _pictures(folder: Path) -> list[Path]:
    from retrieval.images.formats import IMAGE_SUFFIXES

    if not folder.is_dir():
        raise UsageError(f"--photos {folder}: is no folder")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UsageError(f"--photos {folder}: has no pictures")
    return found[:MAX_PHOTOS]
