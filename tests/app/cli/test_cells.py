"""Wide and combined characters on a terminal: aligned, and never cut in two."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from app.cli.cells import cut, cut_start, folded, padded
from app.cli.index import progress_line
from app.cli.output import print_hits, print_table
from backends.base import Hit
from indexers import Progress
from tests.support.cli import Run

#: Captions, as what is seen as one character each, with the cells that it takes.
FAMILY, FLAG, THUMB = "👩\u200d👩\u200d👧\u200d👦", "🇨🇳", "👍🏽"
CAPTIONS = {
    "Chinese": [(char, 2) for char in "一只黑白相间的猫坐在窗台上，看着外面的雨，旁边放着一杯热咖啡和一本打开的书"],
    "Japanese": [(char, 2) for char in "窓辺に座っているガラス越しの黒い猫と、机の上に置かれた熱いコーヒーのカップ"],
    "Korean": [("\u1112\u1161\u11ab", 2), ("\u1100\u1173\u11af", 2), (" ", 1)] * 12,
    "Thai": [("แ", 1), ("ม", 1), ("ว", 1), ("ด\u0e33", 2), ("กี\u0e48", 1)] * 12,
    "Hindi": [("हि", 1), ("न्दी", 2), (" ", 1), ("त्रि", 2), ("य", 1)] * 10,
    "emoji": [(FAMILY, 2), (FLAG, 2), (THUMB, 2), ("1\ufe0f\u20e3", 2), ("a", 1), ("e\u0301", 1)] * 8,
    "English": [(char, 1) for char in "a cat that sits at a window and looks at the rain, with a cup of hot coffee"],
}


@pytest.mark.parametrize("language", CAPTIONS)
def test_a_text_is_cut_to_its_cells_between_characters(language: str) -> None:
    clusters = CAPTIONS[language]
    text = "".join(char for char, _ in clusters)
    widths = [cells for _, cells in clusters]
    assert cut(text, sum(widths)) == cut_start(text, sum(widths)) == text
    for cells in range(1, sum(widths)):
        for function, parts in ((cut, clusters), (cut_start, clusters[::-1])):
            totals = itertools.accumulate(width for _, width in parts)
            kept = [char for (char, _), total in zip(parts, totals, strict=True) if total < cells]
            expected = [*kept, "…"] if function is cut else ["…", *reversed(kept)]
            assert function(text, cells) == "".join(expected)


@pytest.mark.parametrize("language", CAPTIONS)
@pytest.mark.parametrize("cells", [7, 40])
def test_a_folded_text_loses_nothing_but_spaces_at_the_ends_of_lines(language: str, cells: int) -> None:
    text = "".join(char for char, _ in CAPTIONS[language]).strip()
    lines = folded(text, cells)
    assert all(cell_len(line) <= cells for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    seen = {char for char, _ in CAPTIONS[language]}
    starts = {char for line in lines for char in seen if line.startswith(char)}
    assert starts
    assert all(any(line.startswith(char) for char in seen) for line in lines)
    assert [line.strip() for line in lines] == lines


def test_folding_breaks_at_spaces_and_beside_wide_characters() -> None:
    assert folded("a small cat", 7) == ["a small", "cat"]
    assert folded("hello 一只黑白相间的猫", 10) == ["hello 一只", "黑白相间的", "猫"]
    assert folded("一只cat", 6) == ["一只", "cat"]
    assert folded("", 10) == [""]
    # Wider than a line can be: it stands there alone.
    assert folded("猫", 1) == ["猫"]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[int], None]:
    """Sets how many columns the terminal has that results go to."""

    def wide(columns: int) -> None:
        monkeypatch.setattr("app.cli.output.is_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))

    return wide


def _hits() -> list[Hit]:
    hits = []
    for rank, (language, clusters) in enumerate(CAPTIONS.items()):
        text = "".join(char for char, _ in clusters)
        hits.append(Hit(f"img-{rank}", 0.5, "image", text, f"/照片/{language}/{text[:60]}.jpg", {}, exact=True))
    return hits


@pytest.mark.parametrize("columns", [80, 40])
def test_results_are_aligned_and_cut_between_characters(
    columns: int, terminal: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(columns)
    print_hits(_hits())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(CAPTIONS)
    assert all(cell_len(line) <= columns for line in lines)
    captions = lines[::2]
    start = captions[0].index("一")
    for line, clusters in zip(captions, CAPTIONS.values(), strict=True):
        # What stands before is ASCII, so a column is a place in the line.
        shown = line[start:].rstrip()
        wholes = ["".join(char for char, _ in clusters[:count]).rstrip() for count in range(len(clusters) + 1)]
        assert shown in {*(whole + "…" for whole in wholes), wholes[-1], *(f"{w} …" for w in wholes)}
        # As much as fits: what is next is at most two cells wide.
        assert cell_len(line.rstrip()) >= columns - 3 or shown == wholes[-1]


@pytest.mark.parametrize("columns", [80, 40])
def test_tables_are_aligned_and_lose_nothing(
    columns: int, terminal: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(columns)
    names = ["猫", "कुत्ता", FLAG, "dog", FAMILY]
    caption = "一只黑白相间的猫坐在窗台上看着外面的雨"
    rows = [(name, 10**rank, caption) for rank, name in enumerate(names)]
    print_table(("name", "项目", "caption"), rows, right=("项目",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(names) * (1 if columns == 80 else 2)
    of_captions = [char for line in lines for char in line if char in caption]
    assert len(of_captions) == len(caption) * len(names) + 1
    edges = set()
    for rank, name in enumerate(names):
        (line,) = [line for line in lines if line.startswith(name) and str(10**rank) in line]
        edges.add(cell_len(line[: line.index(str(10**rank)) + len(str(10**rank))]))
    assert len(edges) == 1
    assert all(cell_len(line) <= columns for line in lines)


def test_control_characters_of_names_and_texts_reach_no_terminal(
    terminal: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(40)
    bad = "猫\x1b[2J\u202e的\x07照片"
    print_hits([Hit(bad, 0.5, "text", bad, f"/{bad}.jpg", {}, exact=True)])
    print_table(("name",), [(bad,)])
    out = capsys.readouterr().out
    assert "猫" in out
    assert not {"\x07", "\u202e"} & set(out)
    assert "\x1b[2J" not in out


def test_show_aligns_names_and_drives_no_terminal(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from backends.base import CollectionSpec, Record
    from tests.support.toy import ColourEncoder, KeptBackend

    encoder = ColourEncoder()
    store = KeptBackend.connect("kept://")
    store.create(CollectionSpec("default", encoder.dim, encoder=encoder.fingerprint))
    vector = encoder.encode_texts(["red"])[0]
    store.upsert("default", [Record("a", vector, text="一只猫\n\x1b[2J狗\u202e")])
    out = run("show", "a").out
    assert "text          一只猫\n              [2J狗\n" in out


@pytest.mark.parametrize("columns", [80, 40])
def test_the_progress_line_shows_the_end_of_a_path(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress_line() as show:
        show(
            Progress(
                stage="indexing",
                done=3,
                total=10,
                rate_per_s=0,
                remaining_s=None,
                quarantined=0,
                path="照片/" + 30 * FLAG + "/二零二四年/一只\u202e猫.jpg",
            )
        )
    err = capsys.readouterr().err
    shown = [line for line in err.splitlines() if "猫.jpg" in line]
    assert shown
    assert "/二零二四年/一只\\u202e猫.jpg" in shown[0] or columns == 40
    assert all(line.count(FLAG[0]) == line.count(FLAG[1]) for line in err.splitlines())
    assert "…" in shown[0]
    assert "\u202e" not in err


def test_padding_counts_cells() -> None:
    assert padded("猫", 4) == "猫  "
    assert padded("e\u0301", 2) == "e\u0301 "
    assert padded("long", 2) == "long"
