"""The README in Chinese says what the one in English says: its sections, commands, links, tables and figures."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.support.documents import FENCE, READMES

HAN = re.compile(r"[\u3400-\u9fff][\u3000-\u303f\u3400-\u9fff\uff00-\uffef]*")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
NUMBER = re.compile(r"\d[\d,.]*\d|\d")
TEXTS = {language: path.read_text(encoding="utf-8") for language, path in READMES.items()}
#: 135 million is 1.35 of the unit that Chinese counts in.
SPELT_OUT = {"135"}


@dataclass(frozen=True)
class Section:
    """What stands under a heading: its blocks of code, and the rest."""

    level: int
    title: str
    blocks: list[tuple[str, str]]
    prose: str

    @property
    def tables(self) -> list[list[str]]:
        return [_cells(line) for line in self.prose.splitlines() if line.startswith("|")]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def sections(text: str) -> list[Section]:
    blocks = [(match["info"], match["code"]) for match in FENCE.finditer(text)]
    # Comments in code look like headings.
    plain = FENCE.sub("\0", text)
    parts = HEADING.split(plain)
    assert parts[0] == ""
    found = []
    for marks, title, prose in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        own = [blocks.pop(0) for _ in range(prose.count("\0"))]
        found.append(Section(level=len(marks), title=title, blocks=own, prose=prose))
    return found


EN, ZH = sections(TEXTS["en"]), sections(TEXTS["zh"])
PAIRS = list(zip(EN, ZH, strict=False))


def code_lines(block: str) -> list[str]:
    """The lines of code without their comments."""
    return [re.sub(r"(^|\s+)#.*$", "", line).rstrip() for line in block.splitlines()]


def same_but_for_words(english: str, chinese: str) -> bool:
    """Whether a piece of code differs in its Chinese words only, which stand for words of English."""
    pieces = HAN.split(chinese)
    return bool(re.fullmatch(r"[\w ?,']+".join(map(re.escape, pieces)), english))


def test_both_have_the_same_headings() -> None:
    assert [section.level for section in EN] == [section.level for section in ZH]
    assert len(EN) > 10
    assert all(HAN.search(section.title) for section in ZH[1:])


def test_each_leads_to_the_other() -> None:
    assert "(README.zh-CN.md)" in TEXTS["en"].split("\n## ")[0]
    assert "(README.md)" in TEXTS["zh"].split("\n## ")[0]


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda section: section.title)
def test_a_section_has_the_same_commands(english: Section, chinese: Section) -> None:
    assert [info for info, _ in english.blocks] == [info for info, _ in chinese.blocks]
    for (info, ours), (_, theirs) in zip(english.blocks, chinese.blocks, strict=True):
        if info == "text":
            names = [[line.split()[:1] for line in block.splitlines()] for block in (ours, theirs)]
            assert names[0] == names[1]
            continue
        lines, translated = code_lines(ours), code_lines(theirs)
        assert len(lines) == len(translated)
        for line, other in zip(lines, translated, strict=True):
            assert same_but_for_words(line, other), (line, other)
        # What is explained in one is in the other.
        assert [line.count("#") for line in ours.splitlines()] == [line.count("#") for line in theirs.splitlines()]


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda section: section.title)
def test_a_section_has_the_same_links_and_names(english: Section, chinese: Section) -> None:
    ours, theirs = (sorted(_resolved(section, all_of)) for section, all_of in ((english, EN), (chinese, ZH)))
    assert [link for link in ours if "README" not in link] == [link for link in theirs if "README" not in link]
    names, translated = set(CODE.findall(english.prose)), set(CODE.findall(chinese.prose))
    for name in translated - names:
        assert any(same_but_for_words(each, name) for each in names), name
    for name in names - translated:
        assert any(HAN.search(each) and same_but_for_words(name, each) for each in translated), name


def _resolved(section: Section, all_of: list[Section]) -> list[str]:
    """The targets of links; of one within the page, which heading it is."""
    titles = [re.sub(r"[^\w -]", "", each.title.lower()).replace(" ", "-") for each in all_of]
    anchors = {f"#{title}": at for at, title in enumerate(titles)}
    return [f"heading {anchors[link]}" if link.startswith("#") else link for link in LINK.findall(section.prose)]


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda section: section.title)
def test_a_section_has_the_same_tables_and_figures(english: Section, chinese: Section) -> None:
    assert [len(row) for row in english.tables] == [len(row) for row in chinese.tables]
    for row, other in zip(english.tables, chinese.tables, strict=True):
        for cell, translated in zip(row, other, strict=True):
            assert NUMBER.findall(cell) == NUMBER.findall(translated), (cell, translated)
    ours, theirs = (NUMBER.findall(section.prose) for section in (english, chinese))
    assert {number for number in ours if number not in theirs} <= SPELT_OUT


def test_the_comparison_finds_what_differs() -> None:
    assert same_but_for_words("sightline search a cup --json", "sightline search 一个杯子 --json")
    assert same_but_for_words('ask "what is it?" --model x', 'ask "是什么？" --model x')
    assert not same_but_for_words("sightline search a cup --json", "sightline search 一个杯子 --html")
    assert not same_but_for_words("sightline search a cup --k 3", "sightline search 一个杯子")
    assert not same_but_for_words("sightline serve", "sightline server")
    assert code_lines("a  # b\n# c\n'#d'") == ["a", "", "'#d'"]
    text = "# A\n\n`x` 5\n\n```bash\n# no heading\n```\n\n## B\n\n| a | b |\n"
    first, second = sections(text)
    assert (first.level, first.title, first.blocks) == (1, "A", [("bash", "# no heading\n")])
    assert second.tables == [["a", "b"]]
