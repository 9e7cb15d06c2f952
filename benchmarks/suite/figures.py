"""The report's figures, as SVG text: drawn by matplotlib, without a display."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.suite.summaries import Results, Row

SIZE = (7.2, 4.4)
# Okabe and Ito's colours, which people with any colour vision can tell apart, and a marker beside each.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STAGES = ("encode", "search", "fetch", "decode")


def figures(results: Results, dataset: str, engines: Sequence[str]) -> list[tuple[str, str]]:
    """The figures of a data set: title and SVG; those without anything to show are left out.

    Raises ModuleNotFoundError where matplotlib is not installed.
    """
    drawn = []
    for title, draw in FIGURES.items():
        picture = _svg(lambda axes, draw=draw: draw(axes, results, dataset, _looks(engines)))  # type: ignore[misc]
        if picture:
            drawn.append((title, picture))
    return drawn


Looks = dict[str, dict[str, str]]
Draw = Callable[[Any, Results, str, Looks], bool]


def _looks(engines: Sequence[str]) -> Looks:
    return {engine: _look(number) for number, engine in enumerate(engines)}


def _look(number: int) -> dict[str, str]:
    """Where there are more engines than colours, the second of a colour has another marker, which is hollow."""
    turn, place = divmod(number, len(COLOURS))
    colour, marker = COLOURS[place], MARKERS[(place + 3 * turn) % len(MARKERS)]
    return {"color": colour, "marker": marker, "markerfacecolor": "white" if turn % 2 else colour}


def _svg(draw: Callable[[Any], bool]) -> str:
    """The picture that `draw` makes, empty if it says that there is none."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Text as text, so that it can be found and read aloud; the same figures give the same file.
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "sightline",
            "font.size": 9,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        figure = Figure(figsize=SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        if not draw(figure.add_subplot()):
            return ""
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    # Only the element itself can stand inside a page.
    return re.sub(r' (?:width|height)="[\d.]+pt"', "", text[text.index("<svg") :], count=2)


def _frontier(axes: Any, results: Results, dataset: str, looks: Looks) -> bool:
    """Recall against throughput: each build's points joined, the best corner is above right."""
    rows = results.of("frontier", dataset)
    for engine, look in looks.items():
        builds = list(dict.fromkeys(row.params["build"] for row in rows if row.engine == engine))
        for number, build in enumerate(builds):
            own = sorted(
                (row for row in rows if row.engine == engine and row.params["build"] == build),
                key=lambda row: row.summary.recall.value,
            )
            rates = [row.summary.per_second for row in own]
            axes.errorbar(
                [row.summary.recall.value for row in own],
                [rate.value for rate in rates],
                yerr=[[r.value - r.low for r in rates], [r.high - r.value for r in rates]],
                label=f"{engine} {build}",
                linestyle=("-", "--", ":")[number % 3],
                capsize=2,
                markersize=4,
                **look,
            )
    axes.set(xlabel="recall@10", ylabel="queries/s, one at a time", yscale="log")
    return _finished(axes, rows)


def _percentiles(axes: Any, results: Results, dataset: str, looks: Looks) -> bool:
    rows = [row for row in results.of("frontier", dataset) if row.params.get("effort") is None]
    rows = list({row.engine: row for row in reversed(rows)}.values())
    names = ("p50", "p90", "p95", "p99", "p99.9")
    for row in rows:
        axes.plot(names, [row.summary.percentiles_ms[name] for name in names], label=row.engine, **looks[row.engine])
    axes.set(xlabel="percentile of the raw latencies", ylabel="ms", yscale="log")
    return _finished(axes, rows)


def _filtered(value: Callable[[Row], float], label: str, scale: str) -> Draw:
    def draw(axes: Any, results: Results, dataset: str, looks: Looks) -> bool:
        rows = results.of("filtered", dataset)
        for engine, look in looks.items():
            for column, style in (("random", "-"), ("near", "--")):
                own = [row for row in rows if row.engine == engine and row.params["column"] == column]
                own.sort(key=lambda row: float(row.params["selectivity"] or 0))
                if own:
                    axes.plot(
                        [100 * float(row.params["selectivity"] or 0) for row in own],
                        [value(row) for row in own],
                        label=f"{engine}, {column}",
                        linestyle=style,
                        markersize=4,
                        **look,
                    )
        axes.set(xlabel="rows that the filter keeps, %", ylabel=label, xscale="log", yscale=scale)
        if rows and scale == "linear":
            # Recall: a flat line at 1 is to look like one.
            axes.set_ylim(min(0.9, *(value(row) for row in rows)) - 0.01, 1.01)
        return _finished(axes, rows)

    return draw


def _concurrency(axes: Any, results: Results, dataset: str, looks: Looks) -> bool:
    rows = sorted(results.of("concurrency", dataset), key=lambda row: int(row.params["workers"] or 0))
    for engine, look in looks.items():
        own = [row for row in rows if row.engine == engine]
        axes.plot(
            [row.summary.per_second.value for row in own],
            [row.summary.percentiles_ms["p99"] for row in own],
            label=engine,
            **look,
        )
        for row in own:
            place = (row.summary.per_second.value, row.summary.percentiles_ms["p99"])
            axes.annotate(str(row.params["workers"]), place, textcoords="offset points", xytext=(4, 3), fontsize=7)
    axes.set(xlabel="queries/s; the number is of workers", ylabel="p99, ms", xscale="log", yscale="log")
    return _finished(axes, rows)


def _open_loop(axes: Any, results: Results, dataset: str, looks: Looks) -> bool:
    rows = sorted(results.of("open_loop", dataset), key=lambda row: float(row.params["rate_per_s"] or 0))
    for engine, look in looks.items():
        own = [row for row in rows if row.engine == engine]
        axes.plot(
            [float(row.params["rate_per_s"] or 0) for row in own],
            [row.summary.percentiles_ms["p99"] for row in own],
            label=engine,
            **look,
        )
    axes.set(xlabel="arrivals/s (Poisson)", ylabel="p99 from the intended arrival, ms", xscale="log", yscale="log")
    rates = sorted({float(row.params["rate_per_s"] or 0) for row in rows})
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_xticks([], minor=True)
    return _finished(axes, rows)


def _loads(axes: Any, results: Results, dataset: str, looks: Looks) -> bool:
    facts = results.facts_of("load", dataset)
    names = [f"{one.engine} {one.params['build']}" for one in facts]
    start = [0.0] * len(facts)
    for figure, colour in (("upsert_s", COLOURS[5]), ("flush_s", COLOURS[0])):
        widths = [found.value if (found := one.figures[figure]) else 0.0 for one in facts]
        axes.barh(names, widths, left=start, label=figure.removesuffix("_s"), color=colour)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    axes.set(xlabel="s")
    return _finished(axes, facts)


def _footprint(axes: Any, results: Results, dataset: str, looks: Looks) -> bool:
    opened = [one for one in results.facts_of("opened", dataset) if one.params["start"] == "warm"]
    builds = {one.engine: one.params["build"] for one in opened}
    disk = {
        one.engine: found.value / 1e6
        for one in results.facts_of("load", dataset)
        if one.params["build"] == builds.get(one.engine) and (found := one.figures["disk_bytes"])
    }
    parts = {
        "client memory": {o.engine: f.value / 1e6 for o in opened if (f := o.figures["client_bytes"])},
        "server memory": {o.engine: f.value / 1e6 for o in opened if (f := o.figures["server_bytes"])},
        "disk": disk,
    }
    for number, (label, sizes) in enumerate(parts.items()):
        axes.barh(
            [place + 0.27 * number for place in range(len(opened))],
            [sizes.get(o.engine, 0) for o in opened],
            0.25,
            label=label,
            color=COLOURS[number],
        )
    axes.set_yticks([place + 0.27 for place in range(len(opened))], [one.engine for one in opened])
    axes.set(xlabel="MB")
    return _finished(axes, opened)


def _stages(axes: Any, results: Results, dataset: str, looks: Looks) -> bool:
    rows = results.of("end_to_end", dataset)
    start = [0.0] * len(rows)
    for stage, colour in zip(STAGES, COLOURS, strict=False):
        widths = [float(row.extra[f"{stage}_ms"]) for row in rows]
        axes.barh([row.engine for row in rows], widths, left=start, label=stage, color=colour)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    axes.set(xlabel="mean ms, from the words to the decoded pictures")
    return _finished(axes, rows)


def _stream(axes: Any, results: Results, dataset: str, looks: Looks) -> bool:
    """The search latency over the seconds of the stream: the median of each second."""
    rows = results.of("stream", dataset)
    for row in rows:
        curve = row.extra["curve"]
        axes.plot(
            [second for second, _ in curve],
            [ms for _, ms in curve],
            label=row.engine,
            markersize=3,
            **looks[row.engine],
        )
    axes.set(xlabel="s since the first row streamed in", ylabel="median search latency, ms", yscale="log")
    return _finished(axes, rows)


def _finished(axes: Any, shown: Sequence[object]) -> bool:
    if shown:
        # Outside, where it hides nothing.
        axes.figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return bool(shown)


FRONTIER = "Recall against throughput"
FIGURES: dict[str, Draw] = {
    FRONTIER: _frontier,
    "Latency at the default effort": _percentiles,
    "Filtered recall": _filtered(lambda row: row.summary.recall.value, "recall@10", "linear"),
    "Filtered latency": _filtered(lambda row: row.summary.percentiles_ms["p99"], "p99, ms", "log"),
    "Closed loop: where more workers only wait longer": _concurrency,
    "Open loop": _open_loop,
    "Load and build": _loads,
    "Memory and disk": _footprint,
    "Searching while 500 rows a second stream in": _stream,
    "From the words to the pictures": _stages,
}
