"""What a load test tells: a Markdown table, the raw samples as JSON, and two figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load_record import Attempt, Record
from benchmarks.suite.figures import COLOURS, MARKERS

SIZE = (8.0, 4.5)
TIMES = ("p50_ms", "p99_ms", "warm_p99_ms", "max_ms")


def markdown(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{figures['clients']} clients, {figures['seconds']:g} s, {figures['backend']}\n",
        "| endpoint | requests | per s | p50 ms | p99 ms | p99 after 20 s | max ms | throttled | given up | errors "
        "| statuses |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["endpoints"]:
        statuses = ", ".join(f"{status}: {count:,}" for status, count in row["statuses"].items())
        times = " | ".join("–" if row[key] is None else f"{row[key]:,.0f}" for key in TIMES)
        lines.append(
            f"| {row['endpoint']} | {row['count']:,} | {row['per_s']:.1f} | {times} | {row['throttled']:,} | "
            f"{row['given_up']:,} | {row['errors']:,} | {statuses} |"
        )
    lines += ["", *_memory(figures["memory"]), *_outage(figures["outage"])]
    exit_code, seconds = figures["exit"]["code"], figures["exit"]["seconds"]
    lines.append(f"Ended by SIGTERM: exit code {exit_code} after {seconds:.1f} s; left over {figures['left_over']}.")
    messages = Counter(f"{row['level']} {row['logger']}: {row['message']}"[:200] for row in figures["log"])
    lines += [f"Logged {count} times: {message}" for message, count in messages.most_common(10)]
    errors = Counter(f"{a.endpoint}: {a.status} {a.error}"[:200] for a in figures["record"].errors())
    lines += [f"Error, {count} times: {message}" for message, count in errors.most_common(10)]
    return "\n".join(lines) + "\n"


def _memory(memory: dict[str, Any] | None) -> list[str]:
    if memory is None:
        return ["Memory: too short a run for a slope."]
    return [
        f"Memory: {memory['start_mb']:,.0f} MB at the start, {memory['warm_mb']:,.0f} after the warm-up, "
        f"{memory['end_mb']:,.0f} at the end ({memory['max_mb']:,.0f} at most); slope {memory['slope_mb_min']:+.1f} MB "
        f"a minute [{memory['low_mb_min']:+.1f}, {memory['high_mb_min']:+.1f}]: {'' if memory['flat'] else 'not '}flat."
    ]


def _outage(outage: dict[str, Any] | None) -> list[str]:
    if outage is None:
        return []

    def seconds(value: float | None) -> str:
        return "never" if value is None else f"{value:.2f} s"

    statuses = ", ".join(f"{status}: {count:,}" for status, count in outage["statuses"].items())
    never = f", but for {', '.join(outage['never_recovered'])}" if outage["never_recovered"] else ""
    return [
        f"The database was away for {outage['outage_s']:.1f} s, killed at {outage['killed_s']:.1f} s. What was asked "
        f"meanwhile was answered {statuses}; the slowest refusal took {seconds(outage['slowest_answer_s'])}.",
        f"Afterwards the first success came after {seconds(outage['first_success_s'])}, every endpoint's after "
        f"{seconds(outage['all_recovered_s'])}{never}. Neither success nor 503: {outage['unclean'] or 'none'}.",
    ]


def write(figures: dict[str, Any], folder: Path) -> list[Path]:
    """The raw samples, and the figures where matplotlib is installed; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    record: Record = figures["record"]
    raw = {name: value for name, value in figures.items() if name != "record"} | {
        "columns": list(Attempt.__slots__),
        "attempts": [[getattr(attempt, name) for name in Attempt.__slots__] for attempt in record.attempts],
        "memory_samples": record.memory,
    }
    files = [folder / "load.json"]
    files[0].write_text(json.dumps(raw) + "\n", "utf-8")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError:
        return files
    outage = figures["outage"]
    files.append(_latencies(record.attempts, outage, folder / "latency.png"))
    files.append(_rss(record.memory, figures["memory"], outage, folder / "memory.png"))
    return files


def _axes(outage: dict[str, Any] | None) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("seconds since the start")
    if outage is not None:
        axes.axvspan(outage["killed_s"], outage["back_s"], color="#888888", alpha=0.3, label="database away")
    return figure, axes


def _latencies(attempts: Sequence[Attempt], outage: dict[str, Any] | None, path: Path) -> Path:
    """Every success as a point, by endpoint; what failed as a cross."""
    figure, axes = _axes(outage)
    for number, name in enumerate(sorted({attempt.endpoint for attempt in attempts})):
        fine = [a for a in attempts if a.endpoint == name and a.outcome == "ok"]
        axes.scatter(
            [a.start_ns / 1e9 for a in fine],
            [a.latency_ns / 1e6 for a in fine],
            s=5,
            alpha=0.6,
            linewidths=0,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number // len(COLOURS) % len(MARKERS)],
            label=name,
        )
    for outcome, colour in (("throttled", "#999999"), ("error", "#FF0000")):
        others = [a for a in attempts if a.outcome == outcome]
        if others:
            axes.scatter(
                [a.start_ns / 1e9 for a in others],
                [a.latency_ns / 1e6 for a in others],
                s=16,
                marker="x",
                color=colour,
                label=outcome,
            )
    axes.set_yscale("log")
    axes.set_ylabel("latency, ms")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2.5, frameon=False)
    figure.savefig(path, dpi=150)
    return path


def _rss(
    samples: Sequence[tuple[float, int]], memory: dict[str, Any] | None, outage: dict[str, Any] | None, path: Path
) -> Path:
    """Memory over time."""
    figure, axes = _axes(outage)
    axes.plot([at_s for at_s, _ in samples], [rss / 1e6 for _, rss in samples], color=COLOURS[0])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("resident memory, MB")
    if memory is not None:
        axes.set_title(
            f"{memory['slope_mb_min']:+.1f} MB a minute after the warm-up "
            f"[{memory['low_mb_min']:+.1f}, {memory['high_mb_min']:+.1f}]",
            fontsize="medium",
        )
    figure.savefig(path, dpi=150)
    return path
