"""The report as one HTML page that needs nothing else: figures inside, no script, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.suite.tables import Table

STYLE = """
:root { color-scheme: light; } body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem;
padding: 0 1rem; color: #1b1b1b; } h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem;
border-bottom: 1px solid #ccc; } h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; } .say { background: #eef5fb;
border-left: 4px solid #0072b2; padding: .6rem 1rem; } .figures { display: grid; gap: 1rem;
grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); } figure { margin: 0; } figure svg { width: 100%;
height: auto; } figcaption { font-weight: 600; } .scroll { overflow-x: auto; } table { border-collapse: collapse;
font-size: .82rem; } th, td { padding: .2rem .55rem; text-align: right; white-space: nowrap; border-bottom: 1px solid
#e3e3e3; font-variant-numeric: tabular-nums; } th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) {
text-align: left; } tr:first-child td { font-weight: 400; } .note { color: #555; font-size: .85rem; }
"""


def page(
    words: Sequence[str],
    tables: Sequence[Table],
    pictures: Mapping[str, Sequence[tuple[str, str]]],
    about: Sequence[tuple[str, Sequence[str]]],
    missing: str = "",
) -> str:
    """The page: recommendations, then each data set's figures and tables, then what stands behind them.

    pictures: title and SVG by data set. missing: why there are none.
    """
    parts = ["<h1>Which vector database?</h1>", *(f'<p class="say">{escape(text)}</p>' for text in words)]
    parts += [f'<p class="note">{escape(missing)}</p>'] if missing else []
    for dataset, drawn in pictures.items():
        parts.append(f"<h2>{escape(dataset)}</h2>")
        shown = "".join(f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in drawn)
        parts.append(f'<div class="figures">{shown}</div>')
        parts += [_table(table) for table in tables if table.title.startswith(f"{dataset}: ")]
    for title, facts in about:
        listed = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
        parts.append(f"<h2>{escape(title)}</h2><ul>{listed}</ul>")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>Sightline benchmark</title><style>{STYLE}</style></head>\n<body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _table(table: Table) -> str:
    def row(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    title = table.title.partition(": ")[2]
    body = "".join(row(cells, "td") for cells in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h3>{escape(title)}</h3><div class="scroll"><table><thead>{row(table.header, "th")}</thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )
