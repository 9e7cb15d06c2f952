"""How well relevance says no: ``python -m benchmarks.relevance DATASET_DIR``.

DATASET_DIR holds captions.jsonl as for ``benchmarks.encoders``. Every caption is a query that has an answer, and
every query of ``--absent`` (a file of JSON lines with "query" and "kind"; by default the one this package has for a
folder of that name) has none. A false empty is a caption that finds nothing at the gate. Where the package has
short queries that have an answer, as people type them, they are measured as well. Three kinds of collection:

- the photographs alone, searched for images;
- captioned: as `sightline index` makes it, with a text item for each caption; a caption that is asked is not in it
  (`benchmarks.captioned`: five folds). Searched for images and texts, for images and for texts;
- half captioned: every other photograph without captions, whose captions are asked and counted apart. Lost is a
  photograph that is not among the images its own caption finds.

Prints Markdown; ``--out`` keeps the curve as a picture and the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.captioned import CachingEncoder, Collections
from benchmarks.encoders import DatasetError, read_dataset
from retrieval import Retriever
from retrieval.encoders import DEFAULT_ENCODER, EncoderError, load_encoder
from retrieval.encoders.base import Encoder
from retrieval.images.decode import ImageError
from retrieval.relevance.scorer import RELEVANT

Values = NDArray[np.float64]
GATES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Labelled:
    """A query of a fixture, and what kind of query it is."""

    query: str
    kind: str


@dataclass(frozen=True)
class Found:
    """Per query the relevance and score of its best hit, and the time that searching and judging took, in seconds."""

    relevance: Values
    score: Values
    took_s: Values


def read_queries(dataset: str, which: str, path: Path | None = None) -> list[Labelled]:
    """The queries of `path`, or those of this package for a dataset of that name. Raises `DatasetError`.

    which: absent or present.
    """
    source = path or files("benchmarks") / "data" / f"{dataset}_{which}.jsonl"
    try:
        rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [Labelled(row["query"], row["kind"]) for row in rows]
    except FileNotFoundError:
        if path is None and which == "present":
            return []
        raise DatasetError(f"{source}: there is no list of absent queries: give one with --absent FILE") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{source}: not JSON lines with query and kind: {error}") from None


def ask(retriever: Retriever, queries: Sequence[str]) -> Found:
    """Search each query for images, ten as a person would, for the time it takes, and all for the best."""
    rows = []
    everything = retriever.backend.count(retriever.collection)
    for query in queries:
        started = time.perf_counter()
        retriever.search(query, 10, modality="image", min_relevance=RELEVANT, mode="vector")
        took_s = time.perf_counter() - started
        hits = retriever.search(query, everything, modality="image", mode="vector")
        rows.append((max(hit.relevance or 0.0 for hit in hits), hits[0].score, took_s))
    table = np.array(rows, dtype=np.float64)
    return Found(table[:, 0], table[:, 1], table[:, 2])


def auc(present: Values, absent: Values) -> float:
    """The probability that a present query's value is above an absent one's, ties counting half."""
    both = np.concatenate([present, absent])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse][: len(present)]  # from 1, ties share theirs
    return float((ranks.sum() - len(present) * (len(present) + 1) / 2) / (len(present) * len(absent)))


def empties(present: Values, absent: Values, thresholds: Values) -> tuple[Values, Values]:
    """The shares of absent and of present queries that are below each threshold."""
    return tuple(np.searchsorted(np.sort(v), thresholds, side="left") / len(v) for v in (absent, present))  # type: ignore[return-value]


def at_false_empties(present: Values, absent: Values, share: float) -> float:
    """The largest share of absent queries left empty by any threshold that leaves `share` of present ones empty."""
    found, lost = empties(present, absent, np.unique(np.concatenate([present, absent, [np.inf]])))
    return float(found[lost <= share].max())


def best_by_modality(retriever: Retriever, queries: Sequence[str], own: Sequence[str] = ()) -> dict[str, Values]:
    """Per query the relevance of what is best in the whole collection: over ``all``, of ``image`` and of ``text``.

    own: ids of images, one a query, whose own relevance is then given as ``own``.
    """
    rows = []
    everything = retriever.backend.count(retriever.collection)
    for number, query in enumerate(queries):
        best = {"image": 0.0, "text": 0.0, "own": 0.0}
        for hit in retriever.search(query, everything, mode="vector"):
            best[hit.modality] = max(best[hit.modality], hit.relevance or 0.0)
            if own and hit.id == own[number]:
                best["own"] = hit.relevance or 0.0
        rows.append((max(best["image"], best["text"]), best["image"], best["text"], best["own"]))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return dict(zip(("all", "image", "text", "own"), table.T, strict=True))


def captioned(collections: Collections, absent: Sequence[str], short: Sequence[str]) -> dict[str, Any]:
    """The curves of the captioned collection by what is searched, over all folds; see the module."""
    asked, missing, brief = [], [], []
    for fold in collections.folds():
        asked.append(best_by_modality(fold.retriever, fold.queries))
        missing.append(best_by_modality(fold.retriever, absent))
        brief.append(best_by_modality(fold.retriever, short))
    return {
        searched: curve(joined(asked, searched), joined(missing, searched), joined(brief, searched))
        for searched in ("all", "image", "text")
    }


def half_captioned(collections: Collections, absent: Sequence[str]) -> dict[str, Any]:
    """The curves of the half captioned collection by whether the photograph asked for has captions."""
    asked: dict[str, list[dict[str, Values]]] = {"captioned": [], "uncaptioned": []}
    missing = []
    for fold in collections.folds(half=True):
        found = best_by_modality(fold.retriever, fold.queries, fold.images)
        for name, chosen in (("captioned", fold.captioned), ("uncaptioned", ~fold.captioned)):
            asked[name].append({key: values[chosen] for key, values in found.items()})
        missing.append(best_by_modality(fold.retriever, absent))
    none = np.empty(0)
    return {
        name: {
            "all": curve(joined(each, "all"), joined(missing, "all"), none),
            "image": curve(joined(each, "image"), joined(missing, "image"), none),
            "lost": curve(joined(each, "own"), joined(missing, "all"), none),
        }
        for name, each in asked.items()
    }


def joined(found: Sequence[dict[str, Values]], searched: str) -> Values:
    """The values of all folds."""
    return np.concatenate([each[searched] for each in found])


def curve(present: Values, absent: Values, short: Values) -> dict[str, Any]:
    """The shares of absent and present queries that are empty at each gate, and how well the two are told apart."""
    empty, lost = empties(present, absent, np.array(GATES))
    return {
        "gates": [
            {
                "gate": g,
                "absent_empty": float(e),
                "false_empty": float(f),
                "false_empty_short": float(np.mean(short < g)) if len(short) else None,
            }
            for g, e, f in zip(GATES, empty, lost, strict=True)
        ],
        "auc": auc(present, absent),
        "absent_empty_at_5": at_false_empties(present, absent, 0.05),
        "absent_empty_at_5_short": at_false_empties(short, absent, 0.05) if len(short) else None,
        "relevance": {"present": present.tolist(), "absent": absent.tolist()},
    }


def measure_relevance(folder: Path, absent: Sequence[Labelled], encoder: Encoder) -> dict[str, Any]:
    """All figures of one dataset and encoder; shares are from 0 to 1. Raises `DatasetError`."""
    dataset = read_dataset(folder)
    collections = Collections.of(folder, dataset, encoder)
    retriever = collections.photographs()
    started = time.perf_counter()
    retriever.prepare()
    prepare_s = time.perf_counter() - started
    present, missing = ask(retriever, dataset.captions), ask(retriever, [each.query for each in absent])
    short = [each.query for each in read_queries(dataset.name, "present")]
    brief = ask(retriever, short).relevance if short else np.empty(0)
    # Asked of many collections, so each is encoded once; what was timed above was not.
    remembering = replace(collections, encoder=CachingEncoder(encoder))
    questions = [each.query for each in absent]
    alone = curve(present.relevance, missing.relevance, brief)
    kinds = np.array([each.kind for each in absent])
    return {
        "dataset": dataset.name,
        "encoder": encoder.name,
        "photographs": len(dataset.files),
        "present": len(dataset.captions),
        "absent": len(absent),
        "gate": RELEVANT,
        "gates": alone["gates"],
        "short": len(short),
        "auc": alone["auc"],
        "auc_short": auc(brief, missing.relevance) if short else None,
        "auc_score": auc(present.score, missing.score),
        "absent_empty_at_5": alone["absent_empty_at_5"],
        "absent_empty_at_5_score": at_false_empties(present.score, missing.score, 0.05),
        "kinds": {
            str(kind): {
                "queries": int((kinds == kind).sum()),
                "empty": float(np.mean(missing.relevance[kinds == kind] < RELEVANT)),
                "auc": auc(present.relevance, missing.relevance[kinds == kind]),
            }
            for kind in dict.fromkeys(kinds.tolist())
        },
        "captioned": captioned(remembering, questions, short),
        "half_captioned": half_captioned(remembering, questions),
        "prepare_s": round(prepare_s, 3),
        "search_p50_s": float(np.quantile(np.concatenate([present.took_s, missing.took_s]), 0.5)),
        "relevance": alone["relevance"],
        "score": {"present": present.score.tolist(), "absent": missing.score.tolist()},
    }


def markdown(result: dict[str, Any]) -> str:
    """The figures of one dataset as Markdown."""
    percent = "{:.1f}".format
    lines = [
        f"{result['dataset']}: {result['photographs']} photographs, `{result['encoder']}`, "
        f"{result['present']} captions, {result['short']} short queries, {result['absent']} absent queries\n",
        "| gate | absent queries empty | false empties, captions | short queries |\n|---|---|---|---|",
    ]
    for row in result["gates"]:
        mark = " (default)" if row["gate"] == result["gate"] else ""
        brief = f"{percent(100 * row['false_empty_short'])}%" if result["short"] else "-"
        cells = f"{percent(100 * row['absent_empty'])}% | {percent(100 * row['false_empty'])}% | {brief} |"
        lines.append(f"| {row['gate']:g}{mark} | {cells}")
    lines.append("\n| | AUC | absent empty at 5% false empties |\n|---|---|---|")
    for name, suffix in (("relevance", ""), ("threshold on the score", "_score")):
        cells = f"{percent(100 * result['auc' + suffix])}% | {percent(100 * result['absent_empty_at_5' + suffix])}% |"
        lines.append(f"| {name} | {cells}")
    if result["short"]:
        lines.append(f"| relevance, short queries for captions | {percent(100 * result['auc_short'])}% | |")
    lines.append("\n| kind of absent query | queries | empty at the default gate | AUC |\n|---|---|---|---|")
    for kind, row in sorted(result["kinds"].items(), key=lambda item: -item[1]["empty"]):
        cells = f"{row['queries']} | {percent(100 * row['empty'])}% | {percent(100 * row['auc'])}% |"
        lines.append(f"| {kind} | {cells}")
    for searched, title in (("all", "images and texts"), ("image", "images"), ("text", "texts")):
        lines += table(f"captioned, searched for {title}", result["captioned"][searched], "false empties, captions")
    for name, found in result["half_captioned"].items():
        for searched, title, counted in (
            ("all", "searched for images and texts", "false empties"),
            ("image", "searched for images", "false empties"),
            ("lost", "among the images found", "lost photographs"),
        ):
            lines += table(f"half captioned, {name} photographs, {title}", found[searched], counted)
    lines.append(
        f"\nprepared in {result['prepare_s']:.2f} s, a search {1000 * result['search_p50_s']:.1f} ms (median)\n"
    )
    return "\n".join(lines)


def table(title: str, found: dict[str, Any], counted: str) -> list[str]:
    """The lines of one curve as Markdown."""
    percent = "{:.1f}".format
    short = found["absent_empty_at_5_short"] is not None
    head = f"| gate | absent queries empty | {counted} |" + (" short queries |" if short else "")
    lines = [
        f"\n{title}: AUC {percent(100 * found['auc'])}%, {percent(100 * found['absent_empty_at_5'])}% of absent "
        f"queries empty at 5% {counted.partition(',')[0]}"
        + (f", {percent(100 * found['absent_empty_at_5_short'])}% at 5% of short queries" if short else ""),
        "",
        head,
        "|" + "---|" * (4 if short else 3),
    ]
    for row in found["gates"]:
        cells = f"| {row['gate']:g} | {percent(100 * row['absent_empty'])}% | {percent(100 * row['false_empty'])}% |"
        lines.append(cells + (f" {percent(100 * row['false_empty_short'])}% |" if short else ""))
    return lines


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the curves of absent queries left empty over false empties. Raises `DatasetError` without matplotlib."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise DatasetError("the picture needs matplotlib: pip install 'sightline[bench]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for number, result in enumerate(results):
        with_captions = result["captioned"]["image"]["relevance"]
        for name, style, values in (
            ("relevance", "-", result["relevance"]),
            ("plain score", ":", result["score"]),
            ("relevance, captioned", "--", with_captions),
        ):
            present, absent = (np.array(values[which]) for which in ("present", "absent"))
            empty, lost = empties(present, absent, np.unique(np.concatenate([present, absent, [np.inf]])))
            axes.plot(100 * lost, 100 * empty, style, color=f"C{number}", label=f"{result['dataset']}, {name}")
        for found in (result, result["captioned"]["image"]):
            (gate,) = (row for row in found["gates"] if row["gate"] == result["gate"])
            axes.plot(100 * gate["false_empty"], 100 * gate["absent_empty"], "o", color=f"C{number}")
    axes.plot(5, 90, "k+", label="goal")
    axes.set(xlabel="false empties, % of captions", ylabel="absent queries left empty, %", xlim=(0, 60), ylim=(0, 101))
    axes.set_title(f"gate from 0 to 1; the dot is the default, {RELEVANT:g}", fontsize=10)
    axes.legend(loc="lower right", fontsize=9)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relevance", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("datasets", type=Path, nargs="+", metavar="DATASET_DIR", help="folders with captions.jsonl")
    parser.add_argument("--absent", type=Path, metavar="FILE", help="JSON lines with query and kind; for one folder")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help=f"{DEFAULT_ENCODER} unless given")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write relevance.svg and relevance.json there")
    options = parser.parse_args(arguments)
    if options.absent is not None and len(options.datasets) > 1:
        parser.error("--absent goes with one folder")
    try:
        encoder = load_encoder(options.encoder, device=options.device)
        results = []
        for folder in options.datasets:
            absent = read_queries(folder.resolve().name, "absent", options.absent)
            results.append(measure_relevance(folder, absent, encoder))
            sys.stdout.write(markdown(results[-1]) + "\n")
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "relevance.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            draw(results, options.out / "relevance.svg")
    except (DatasetError, EncoderError, ImageError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
