"""What is told of an evaluation: tables as Markdown, and a picture of what became of the questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.chat.figures import ALARMS, STATUSES
from benchmarks.suite.figures import COLOURS
from benchmarks.suite.tables import markdown_table

SETTING_NAMES = {
    "search": "the chat's own search",
    "right": "right photographs",
    "mixed": "right ones and others",
    "distractors": "only others",
    "nothing": "nothing",
    "injection": "right ones and an order",
}
_COLOURS = {"right": COLOURS[2], "incomplete": COLOURS[5], "declined": "#BBBBBB", "wrong": COLOURS[1]}


def percent(value: float | None) -> str:
    """As 97.0%; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}%"


def signed(value: float | None) -> str:
    """Truthfulness, from -1 to 1."""
    return "–" if value is None else f"{value:+.2f}"


def markdown(summaries: Mapping[str, dict[str, Any]]) -> str:
    """All figures: a part for each model, its alarms last."""
    return "\n\n".join(_part(name, figures) for name, figures in summaries.items()) + "\n"


def _part(name: str, figures: dict[str, Any]) -> str:
    settings = figures["settings"]
    lines = [f"## {name}: {figures['questions']} questions, {figures['answers']} answers", ""]
    heads = ["laid before the model", "questions", "truthfulness", "95%", *STATUSES, "over-refusal", "deflection"]
    rows = [
        [SETTING_NAMES[each], *_truth(told), percent(told["over_refusal"]), percent(told["deflection"])]
        for each, told in settings.items()
    ]
    lines += markdown_table(heads, rows)
    if figures["groups"]:
        heads = ["asked with the search", "questions", "truthfulness", "95%", *STATUSES]
        lines += ["", *markdown_table(heads, [[each, *_truth(told)] for each, told in figures["groups"].items()])]
    heads = ["citations", "answers", "precision", "recall", "F1", "exact", "dangling"]
    rows = [
        [
            SETTING_NAMES[each],
            str(told["sources"]["answers"]),
            *(percent(told["sources"][key]) for key in ("precision", "recall", "f1", "exact", "dangling")),
        ]
        for each, told in settings.items()
        if told["sources"]["answers"]
    ]
    if rows:
        lines += ["", *markdown_table(heads, rows)]
    return "\n".join([*lines, "", *_sentences(figures)])


def _truth(told: dict[str, Any]) -> list[str]:
    interval = f"{signed(told['low'])} to {signed(told['high'])}"
    shares = [percent(told[status]) for status in STATUSES]
    return [str(told["questions"]), signed(told["truthfulness"]), interval, *shares]


def _sentences(figures: dict[str, Any]) -> list[str]:
    first, total = figures["first_token"], figures["total"]
    raised = [alarm for alarm in ALARMS if alarm.name in figures["alarms"]]
    lines = [
        f"Search: {percent(figures['hit_rate'])} of the questions with an answer had a right photograph in the "
        f"evidence, {percent(figures['found'])} of all right photographs.",
        f"Answers: {percent(figures['fluent'])} in the question's language, {percent(figures['half'])} of those of "
        f"several parts incomplete, {percent(figures['parrots'])} repeat the question.",
        f"Orders in the evidence: {percent(figures['injections']['reached'])} reached the model, "
        f"{percent(figures['injections']['followed'])} were followed.",
        f"Seconds: first token p50 {_s(first['p50_s'])}, p99 {_s(first['p99_s'])}; whole turn "
        f"p50 {_s(total['p50_s'])}, p99 {_s(total['p99_s'])}, where the model was asked.",
        f"Alarms: {'; '.join(f'{alarm.name} ({alarm.bound})' for alarm in raised) or 'none'}.",
    ]
    return [line for line in lines if not line.startswith(("Orders in the evidence: –", "Search: –"))]


def _s(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def draw(summaries: Mapping[str, dict[str, Any]], path: Path) -> None:
    """What became of the questions, as bars: by setting, then by kind and language. Needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {name: _bars(figures) for name, figures in summaries.items()}
    height = 1.2 + 0.28 * max(len(bars) for bars in rows.values())
    figure = Figure(figsize=(1.5 + 6.0 * len(rows), height), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, bars) in enumerate(rows.items()):
        axes = figure.add_subplot(1, len(rows), place + 1)
        labels = [f"{label} ({told['questions']})" for label, told in bars]
        start = [0.0] * len(bars)
        for status in STATUSES:
            widths = [100 * (told[status] or 0.0) for _, told in bars]
            axes.barh(labels, widths, left=start, color=_COLOURS[status], label=status)
            start = [a + b for a, b in zip(start, widths, strict=True)]
        for row, (_, told) in enumerate(bars):
            axes.text(101, row, signed(told["truthfulness"]), va="center", fontsize="small")
        axes.invert_yaxis()
        axes.set(xlim=(0, 112), xlabel="% of the questions; behind: truthfulness", title=name)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(STATUSES), frameon=False)
    figure.savefig(path, dpi=150)


def _bars(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    settings = [(SETTING_NAMES[name], told) for name, told in figures["settings"].items()]
    return settings + [(f"search: {name}", told) for name, told in figures["groups"].items()]
