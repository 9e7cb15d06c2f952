"""Compare encoders on captioned photographs: ``python -m benchmarks.encoders DATASET_DIR``.

DATASET_DIR holds captions.jsonl, one object a line: ``{"file": "images/a.jpg", "captions": ["...", ...]}`` or
``{"file": ..., "caption": "..."}``, files relative to it. Prints a Markdown table; ``--json FILE`` keeps the
figures. Each encoder runs in a process of its own, so that its peak memory is its own. ``--languages FILE``, JSON lines
with "file", "lang" and "text", adds recall by language; see `benchmarks.languages`.

``python -m benchmarks.encoders --profile`` shows where the time of an index run with `compact` goes instead, on
pictures made on the spot; see `benchmarks.encoder_profile`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import encoder_profile
from benchmarks.suite.tables import markdown_table
from retrieval.encoders import DEFAULT_ENCODER, EncoderError, load_encoder
from retrieval.evaluation import EvaluationError, recall_report
from retrieval.images.decode import ImageError


class DatasetError(Exception):
    """A dataset folder that cannot be read: one line that says where and why."""


@dataclass(frozen=True)
class Dataset:
    """Photographs and their captions; `image_of[i]` is the index of the photograph of caption i."""

    name: str
    files: list[Path]
    captions: list[str]
    image_of: list[int]


def read_dataset(folder: Path) -> Dataset:
    """Read captions.jsonl in `folder`; raises `DatasetError`."""
    manifest = folder / "captions.jsonl"
    dataset = Dataset(folder.resolve().name, [], [], [])
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{manifest}: cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            file, captions = _read_row(line, f"{manifest}:{number}")
            dataset.captions.extend(captions)
            dataset.image_of.extend([len(dataset.files)] * len(captions))
            dataset.files.append(folder / file)
    if not dataset.files:
        raise DatasetError(f"{manifest}: holds no photographs")
    return dataset


def _read_row(line: str, where: str) -> tuple[str, list[str]]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict) or not isinstance(row.get("file"), str):
        raise DatasetError(f'{where}: needs "file", a path')
    captions = row["captions"] if "captions" in row else [row.get("caption")]
    if not isinstance(captions, list) or not captions or not all(isinstance(caption, str) for caption in captions):
        raise DatasetError(f'{where}: needs "captions", a list of texts, or "caption", a text')
    return row["file"], captions


def measure_encoder(name: str, dataset: Dataset, repeats: int, device: str, precision: str) -> dict[str, Any]:
    """Load the encoder called `name` and measure recall, rates (median of `repeats`) and peak memory.

    Rates include decoding, as in indexing. The first pass, which loads the weights, is not timed.
    """
    started = time.perf_counter()
    encoder = load_encoder(name, device=device, precision=precision)
    encoder.encode_texts(["a photo"])
    first_text_s = time.perf_counter() - started
    texts, images = encoder.encode_texts(dataset.captions), encoder.encode_images(dataset.files)
    texts_s = _median_s(lambda: encoder.encode_texts(dataset.captions), repeats)
    images_s = _median_s(lambda: encoder.encode_images(dataset.files), repeats)
    return {
        "encoder": name,
        "fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        **recall_report(texts @ images.T, dataset.image_of),
        "images_per_s": round(len(dataset.files) / images_s, 2),
        "texts_per_s": round(len(dataset.captions) / texts_s, 1),
        "first_text_s": round(first_text_s, 2),
        "peak_rss_bytes": _peak_rss_bytes(),
    }


def _median_s(call: Callable[[], object], repeats: int) -> float:
    durations_s = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        durations_s.append(time.perf_counter() - started)
    return statistics.median(durations_s)


def _peak_rss_bytes() -> int:
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_all(
    names: Sequence[str], dataset: Dataset, repeats: int, device: str = "auto", precision: str = "auto"
) -> list[dict[str, Any]]:
    """Measure each encoder in a fresh process, one after the other."""
    results = []
    for name in names:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            results.append(process.submit(measure_encoder, name, dataset, repeats, device, precision).result())
    return results


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table, one row an encoder."""
    quality = ("text to image R@1/5/10", "median rank", "image to text R@1/5/10", "median rank")
    header = ("encoder", *quality, "images/s", "texts/s", "peak memory")
    rows = []
    for result in results:
        cells = [f"`{result['encoder']}`"]
        for direction in ("text_to_image", "image_to_text"):
            report = result[direction]
            cells.append(" / ".join(f"{report[f'R@{k}']:.1f}" for k in (1, 5, 10)))
            cells.append(f"{report['median_rank']:g}")
        cells += [f"{result['images_per_s']:.1f}", f"{result['texts_per_s']:.0f}"]
        cells.append(f"{result['peak_rss_bytes'] / 2**20:.0f} MiB")
        rows.append(cells)
    return "\n".join(markdown_table(header, rows)) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    from benchmarks import languages  # which needs this module's dataset

    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoders", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path, nargs="?", metavar="DATASET_DIR", help="folder with captions.jsonl")
    parser.add_argument("--profile", action="store_true", help="show where an index run's time goes; needs no folder")
    parser.add_argument("--encoder", action="append", help=f"may be repeated; {DEFAULT_ENCODER} unless given")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--precision", default="auto", help="auto, fp32, fp16 or bf16")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes or rounds, of which the median counts")
    parser.add_argument(
        "--languages", type=Path, metavar="FILE", help="captions in other languages, to add recall by language"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    if options.profile:
        return _profile(options.repeats, options.json)
    if options.dataset is None:
        parser.error("name a folder with captions.jsonl, or --profile")
    try:
        dataset = read_dataset(options.dataset)
        names = options.encoder or [DEFAULT_ENCODER]
        results = measure_all(names, dataset, options.repeats, options.device, options.precision)
        if options.languages:
            captions = languages.read_captions(options.languages, dataset)
            for result in results:
                encoder = load_encoder(result["encoder"], device=options.device, precision=options.precision)
                result["languages"] = languages.recall_by_language(encoder, dataset, captions)
    except (DatasetError, EncoderError, EvaluationError, ImageError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    machine = {"cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}
    if options.json:
        report = {"dataset": dataset.name, "machine": machine | {"cpu": platform.machine()}, "results": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    counts = f"{len(dataset.files)} photographs, {len(dataset.captions)} captions, {machine['cores']} cores"
    sys.stdout.write(f"{dataset.name}: {counts}\n\n{markdown(results)}")
    for result in results:
        if "languages" in result:
            sys.stdout.write(f"\n`{result['encoder']}` by language:\n\n{languages.recall_table(result['languages'])}")
    return 0


def _profile(rounds: int, file: Path | None) -> int:
    report = encoder_profile.measure(rounds)
    if file:
        file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(encoder_profile.tables(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
