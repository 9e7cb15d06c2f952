"""The report of a run: Markdown, CSV and one HTML page, all computed from the raw results."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.figures import FRONTIER, figures
from benchmarks.suite.page import page
from benchmarks.suite.ranking import Need, rank, recommendation
from benchmarks.suite.runs import Run, write_atomically
from benchmarks.suite.summaries import Results, results
from benchmarks.suite.tables import Table, markdown_table, tables


def write_report(run: Run, need: Need) -> list[Path]:
    """Write ``report.html``, ``report.md`` and ``results.csv`` into a finished run's folder; the paths.

    Where matplotlib is installed, each data set's frontier also comes as a picture, ``frontier-NAME.svg``. Raises
    RunError.
    """
    manifest = run.manifest
    found = results(run)
    words = recommendations(found, manifest, need)
    pictures: dict[str, list[tuple[str, str]]] = {dataset: [] for dataset in manifest["datasets"]}
    missing = ""
    try:
        pictures = {dataset: figures(found, dataset, list(manifest["engines"])) for dataset in pictures}
    except ModuleNotFoundError:
        missing = "Figures need matplotlib: pip install 'sightline[bench]', then python -m benchmarks report."
    made = {
        "report.html": page(words, tables(found, manifest, need), pictures, about(found, manifest), missing),
        "report.md": markdown(found, manifest, need, words),
        "results.csv": comma_separated(found),
    }
    for dataset, drawn in pictures.items():
        made |= {f"frontier-{dataset}.svg": svg for title, svg in drawn if title == FRONTIER}
    for name, text in made.items():
        write_atomically(run.folder / name, text)
    return [run.folder / name for name in made]


def recommendations(found: Results, manifest: Mapping[str, Any], need: Need) -> list[str]:
    """A plain sentence or two for each data set."""
    return [recommendation(rank(found.rows, need, dataset), need, dataset) for dataset in manifest["datasets"]]


def markdown(found: Results, manifest: Mapping[str, Any], need: Need, words: Sequence[str]) -> str:
    """The whole report as Markdown."""
    lines = ["# Benchmark", "", *[line for text in words for line in (text, "")]]
    for table in tables(found, manifest, need):
        lines += _section(table)
    for title, facts in about(found, manifest):
        lines += [f"## {title}", "", *[f"- {fact}" for fact in facts], ""]
    return "\n".join(lines)


def _section(table: Table) -> list[str]:
    lines = [f"## {table.title}", "", *markdown_table(table.header, table.rows), ""]
    return [*lines, table.note, ""] if table.note else lines


def about(found: Results, manifest: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What stands behind the figures: machine, versions, data, settings with their reasons, and what was left out."""
    machine, settings = manifest["machine"], manifest["plan"]["settings"]
    resumed = " since it was gone on with" if manifest.get("resumed") else ""
    ran = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['system']}, Python {machine['python']}",
        f"commit {manifest['commit'] or 'unknown'}; seed {manifest['seed']}; {manifest['started']} to "
        f"{manifest['finished']}, {manifest['minutes']:g} minutes{resumed}, {manifest['points']} blocks",
        f"k {settings['k']}; up to {settings['queries']} queries a block, {settings['block_s']:g} s at most, up to "
        f"{settings['repetitions']} repetitions; up to {settings['warmup']} queries before each block, for a quarter "
        "of its time at most, to warm up: not counted",
        f"calibration: {found.usual_ns / 1e6:.1f} ms usually; a block that was preceded by 1.25 times that, or lost "
        "more than 2% of the processors to other machines, is called noisy",
        ", ".join(
            [f"{name} {version}" for name, version in manifest["versions"].items()]
            + list(manifest.get("servers", {}).values())
        ),
    ]
    data = [
        f"{name}: {about['rows']:,} x {about['dim']}, {about['metric']}, {about['queries']} queries, "
        f"digest {about['digest']}"
        for name, about in manifest["datasets"].items()
    ]
    engines = []
    for name, engine in manifest["engines"].items():
        engines.append(f"{name}: {engine['url']}" + "".join(f" {note}" for note in engine["notes"]))
        for build in engine["builds"]:
            params = ", ".join(f"{key} {value}" for key, value in build["params"].items()) or "as the engine chooses"
            why = "".join(f"; {key}: {reason}" for key, reason in build["reasons"].items())
            engines.append(f"{name}, build {build['name']}: {build['kind']}, {params}{why}")
    left = _left_out(manifest["left_out"])
    errors = [
        f"{row.engine} on {row.dataset}, {row.case} "
        f"{' '.join(f'{name} {value}' for name, value in row.params.items() if value is not None)}: "
        f"{row.summary.errors} of {row.summary.queries} queries failed, with {message}"
        for row in found.rows
        for message in row.summary.messages
    ]
    parts = [("How it was measured", ran), ("Data sets", data), ("Engines", engines)]
    parts += [("Errors", errors)] if errors else []
    return [*parts, ("Left out", left or ["nothing"])]


def _left_out(entries: Sequence[Mapping[str, str]]) -> list[str]:
    """What was left out, told once for all engines, cases and repetitions that it is the same of."""
    cases: dict[tuple[str, str, str, str, str], set[str]] = {}
    for entry in entries:
        case, *rest = entry["what"].split(" ")
        build = next((word.removeprefix("build=") for word in rest if word.startswith("build=")), "")
        repetition = rest[-1].removeprefix("r") if rest else ""
        cases.setdefault((entry["dataset"], entry["why"], entry["engine"], build, repetition), set()).add(case)
    whole: dict[tuple[str, str, str], list[str]] = {}
    for (dataset, why, engine, build, repetition), own in cases.items():
        # A build of which not even the load was measured.
        unloaded = bool(build) and "load" in cases.get((dataset, why, engine, build, "0"), ())
        told = f"all of build {build}" if unloaded else ", ".join(sorted(own))
        if repetition and not unloaded:
            told += f", repetition {int(repetition) + 1}"
        engines = whole.setdefault((dataset, why, told), [])
        if engine not in engines:
            engines.append(engine)
    return [f"{dataset}: {told}, of {', '.join(engines)}: {why}" for (dataset, why, told), engines in whole.items()]


def comma_separated(found: Results) -> str:
    """Every row of searches with all its figures, as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    params = sorted({name for row in found.rows for name in row.params})
    percentiles = ("p50", "p90", "p95", "p99", "p99.9")
    writer.writerow(
        [
            "case",
            "dataset",
            "engine",
            *params,
            "queries",
            "repetitions",
            "errors",
            "recall",
            "recall_low",
            "recall_high",
            "per_second",
            "per_second_low",
            "per_second_high",
            *(f"{p}_ms" for p in percentiles),
            "p50_low_ms",
            "p50_high_ms",
            "p99_low_ms",
            "p99_high_ms",
            "duplicates",
            "unknown",
            "violations",
            "short",
            "wrong_scores",
            "exact_share",
            "noisy",
        ]
    )
    for row in found.rows:
        s = row.summary
        writer.writerow(
            [
                row.case,
                row.dataset,
                row.engine,
                *(row.params.get(name, "") for name in params),
                s.queries,
                s.repetitions,
                s.errors,
                *_three(s.recall),
                *_three(s.per_second),
                *(f"{s.percentiles_ms[p]:.6g}" for p in percentiles),
                *(f"{n:.6g}" for name in ("p50", "p99") for n in (s.latency_ms[name].low, s.latency_ms[name].high)),
                s.duplicates,
                s.unknown,
                s.violations,
                s.short,
                s.wrong_scores,
                f"{s.exact_share:.4g}",
                s.flagged,
            ]
        )
    return stream.getvalue()


def _three(interval: Any) -> tuple[str, str, str]:
    return f"{interval.value:.6g}", f"{interval.low:.6g}", f"{interval.high:.6g}"
