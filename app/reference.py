"""Writes docs/cli.md and the READMEs' tables of engines: ``python -m app.reference``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

import backends
from app.cli.lazy import load_command
from app.cli.main import COMMANDS, EXIT_CODES
from app.core.settings import CONFIG_NAME, Settings, variable
from app.main import app

PAGE = Path("docs/cli.md")
#: By language, with the heads of the table of engines, and how it says yes and any number.
READMES = {
    "en": Path("README.md"),
    "zh": Path("README.zh-CN.md"),
}
TABLE = {
    "en": (
        "URL | what it is | tests run on | keyword search | several writers | order of texts | indexes | quantization"
        " | k at most",
        "yes",
        "any",
    ),
    "zh": ("URL | 说明 | 测试所用 | 关键词搜索 | 多进程写入 | 文本比较 | 索引 | 量化 | k 上限", "支持", "不限"),
}
ENGINES = re.compile(r"(?<=<!-- engines -->\n).*?(?=<!-- /engines -->)", re.DOTALL)
#: An engine's address in a table, what it is said to be, and what it was tested on.
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)
WIDTH = 100
HEAD = """# The command line

This page is written by `python -m app.reference`; a test sees to it that it is up to date.

Results go to standard output, everything else to standard error. On a terminal results are tables; in a
pipe they are lines with tabs between rank, score, relevance, modality, id, path and text, then for `--facets`
between `facet`, field, value and count. `--json` prints one JSON object instead:

| command | object |
|---|---|
| `search`, `similar`, `lookup` | `{"hits": [{"id", "score", "relevance", "scored_by", "modality", "uri", "text", "metadata", "exact", "duplicates", "gone"}]}`, best first; `search --facets` adds `"facets": {FIELD: {"values": [{"value", "count"}], "more", "missing", "items"}}` |
| `ask` | `{"question", "query", "answer", "refused", "quoted", "sources": [{"number", "id", "relevance", "modality", "uri", "text", "gone"}], "sentences": [{"text", "verdict", "citations", "support"}], "counts", "usage", "seconds"}` |
| `index` | `{"found", "indexed", "unchanged", "renamed", "updated", "duplicates", "pruned", "missing", "quarantined": [{"path", "reason"}], "seconds", …}` |
| `eval` | `{"text_to_image": {"R@1", "R@5", "R@10", "median_rank"}, "image_to_text": {…}}`, in percent |
| `show` | `{"id", "modality", "uri", "text", "metadata"}` |
| `collections` | `{"backend", "collections": [{"name", "items", "dim", "metric", "encoder", "fingerprint"}]}` |
| `remove` | `{"dry_run", "items", "captions", "kept_elsewhere"}` |
| `drop` | `{"dropped", "items"}` |
| `copy`, `import` | `{"written", "unchanged", "extra", "vector_error", "parity": {"queries", "k", "mean_overlap", "least_overlap", "score_difference"}, "seconds"}` |
| `export` | `{"folder", "items"}` |
| `engines` | `{"engines": [{"scheme", "url", "summary", "tested", "installed", "install", "client", "version", "can", "servers": [{"url", "origin", "state", "version", "error"}]}]}` |
| `keys` | `{"keys": [{"id", "name", "scope", "created"}]}` |
| `encoders` | `{"models": [{"name", "summary", "dim", "parameters", "size_bytes", "languages", "licence", "flickr30k", "coco", "source", "best_for", "installed"}]}` |
| `encoders export` | `{"folder", "name", "fingerprint", "precision", "image_cosine", "text_cosine", "images": {"torch", "onnx"}, "texts", "size_bytes"}`, items a second |
| `demo` | `{"report", "page", "searches": [{"title", "terms", "hits"}]}` |

A search in which nothing is relevant prints `{"hits": []}`, with `--misses` also `"misses"`, the nearest ones.
Higher scores are better. `relevance` is in [0, 1], the share of unrelated queries that find nothing as good, or
null where it cannot be known. `exact` says that the list was found by a full scan, so that nothing was missed; `gone` that the item's file is no longer there.
"""  # noqa: E501
SETTINGS = f"""## Settings

Of the same setting the later place wins: its default, `{CONFIG_NAME}` in the user's configuration folder
(`~/.config/sightline` on Linux), `{CONFIG_NAME}` in the current folder, the environment variable, the flag.
An unknown key in a file is an error. A search uses the encoder that its collection was indexed with, unless
`--encoder` says otherwise.
"""


def reference() -> str:
    """The whole page, in Markdown."""
    return "\n".join([HEAD, _exit_codes(), SETTINGS, _settings(), *_commands()])


def _exit_codes() -> str:
    rows = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    return f"""## Exit codes

| code | meaning |
|---|---|
{rows}

An error is one line on standard error. `sightline --debug …` or `SIGHTLINE_DEBUG=1` adds the full trace.

What needs no writing works where nothing can be written: a `faiss://` store in a folder that may only be read is
searched, and without a home that can be written only what it would spare is done again. The other engines in a folder
lock it or start a server over it, and say so. A closed standard output is an error (1) for a command that shows
something; with standard error closed the exit code tells alone; a closed standard input is an empty one.

Of the address of a database only what is known to be harmless is ever shown: the scheme, hosts and ports, the
database's name or the folder, and options such as `grpc_port`. User, password, keys, every other option and
whatever cannot be told apart from them are left out of messages, logs, JSON and reports.
"""


def _settings() -> str:
    rows = []
    for setting in fields(Settings):
        default = setting.metadata.get("shown") or f"`{setting.default}`"
        flag = f"`{flags[setting.name]}`" if setting.name in (flags := settings_flags()) else "–"
        rows.append(
            f"| `{setting.name}` | `{variable(setting.name)}` | {flag} | {setting.metadata['help']} | {default} |"
        )
    return (
        "| in the file | variable | flag | what it sets | default |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def commands() -> dict[str, Any]:
    """Every command by name but hidden ones, those of a group behind it: ``engines``, ``engines up``."""
    found: dict[str, Any] = {}
    for name, (_, summary) in COMMANDS.items():
        if not summary:
            continue
        found[name] = command = load_command(name, COMMANDS)
        found |= {f"{name} {sub}": each for sub, each in getattr(command, "commands", {}).items()}
    return found


def settings_flags() -> dict[str, str]:
    """The flag of each setting that has one."""
    names = {setting.name for setting in fields(Settings)}
    return {
        parameter.name: parameter.opts[0]
        for command in commands().values()
        for parameter in command.params
        if parameter.name in names and parameter.opts[0].startswith("--")
    }


def help_text(command: Any, path: str) -> str:
    """What ``--help`` prints for a command, at a fixed width."""
    context = command.make_context(path, [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
    return "\n".join(line.rstrip() for line in str(command.get_help(context)).splitlines())


def _commands() -> Iterator[str]:
    yield f"## sightline\n\n```text\n{help_text(typer.main.get_command(app), 'sightline')}\n```\n"
    for name, command in commands().items():
        yield f"## sightline {name}\n\n```text\n{help_text(command, f'sightline {name}')}\n```\n"


def engine_table(language: str = "en", readme: str = "") -> str:
    """A README's table of engines: what each declares, which the conformance suite holds it to.

    In other languages than English an engine stays what it is called in `readme`, as descriptors know English only.
    """
    called = {} if language == "en" else {url: words for url, *words in ROW.findall(readme)}
    heads, yes, unlimited = TABLE[language]
    lines = [f"| {heads} |", "|---|---|---|---|---|---|---|---|---|"]
    for scheme, engine in backends.engines().items():
        can = backends.load(scheme).capabilities
        cells = (
            f"`{engine.example}`",
            *called.get(engine.example, (engine.summary, engine.tested)),
            *(yes if each else "–" for each in (can.keyword, can.concurrent_writers, can.string_order)),
            ", ".join(sorted(can.index_kinds - {"auto"})),
            ", ".join(sorted(can.quantizations - {"none"})) or "–",
            f"{can.max_k:,}" if can.max_k else unlimited,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write all of them below the current folder."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(reference(), encoding="utf-8")
    for language, readme in READMES.items():
        before, after = ENGINES.split(text := readme.read_text(encoding="utf-8"))
        readme.write_text(f"{before}{engine_table(language, text)}{after}", encoding="utf-8")
    sys.stderr.write(f"wrote {PAGE} and the engines in {' and '.join(map(str, READMES.values()))}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
