"""The evaluation of answers, tested by models with planted faults: each is told from all others, a clean one passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chat.__main__ import described, main
from benchmarks.chat.asking import ORDERS, Bench, ask_all, sampled
from benchmarks.chat.figures import alarms, summarize
from benchmarks.chat.judging import SETTINGS, Outcome
from benchmarks.chat.questions import Question, read_questions
from benchmarks.chat.report import markdown
from benchmarks.chat.scripted import FAULTS, ScriptedModel
from retrieval.chat import ChatOptions
from retrieval.search.retriever import Retriever
from tests.support.chat_models import UngatedRetriever, collection
from tests.support.cli import paint
from tests.support.toy import ColourEncoder

CAPTIONS = {
    "red": "two brown dogs run along a red beach",
    "green": "a white cat sleeps on a green sofa",
    "blue": "three men in blue aprons cook soup in a kitchen",
    "yellow": "four yellow taxis wait in the rain",
    "black": "a black horse and a white goat eat grass",
    "white": "five white boats lie in a harbour",
}
#: Language, photographs, question, answer, its parts, the same in English, what it is about, what was asked before.
ROWS: list[tuple[str, str, str, str, str, str, str, list[str]]] = [
    ("en", "red", "How many dogs run along the shore?", "Two dogs.", "two|2", "", "count", []),
    ("en", "blue", "How many men cook?", "Three men.", "three|3", "", "count", []),
    ("de", "yellow", "Wie viele Taxis warten?", "Es sind vier.", "vier|4", "four", "count", []),
    ("zh", "white", "港口里有几艘船？", "五艘。", "五|5", "five", "count", []),
    ("en", "green", "What does the cat lie on?", "A green sofa.", "sofa", "", "", []),
    ("en", "black", "Which animals eat grass?", "A horse and a goat.", "horse;goat", "", "", []),
    ("en", "blue", "What do they wear in the kitchen, and make?", "Aprons; they make soup.", "apron*;soup", "", "", []),
    ("en", "red", "Where do the dogs run?", "On a beach.", "beach", "", "", []),
    ("en", "yellow", "In what weather do the taxis wait?", "In the rain.", "rain", "", "", []),
    ("en", "red,green,black", "What animals are there?", "Dogs, a cat and a horse.", "dog*;cat;horse", "", "", []),
    ("de", "green", "Worauf schläft die Katze?", "Auf einem Sofa.", "sofa*", "sofa", "", []),
    ("de", "black", "Welche Tiere fressen Gras?", "Ein Pferd und eine Ziege.", "pferd*;ziege*", "horse;goat", "", []),
    ("zh", "green", "猫睡在哪里？", "在沙发上。", "沙发", "sofa", "", []),
    ("zh", "black", "哪些动物在吃草？", "一匹马和一只山羊。", "马;羊", "horse;goat", "", []),
    ("ja", "green", "猫はどこで寝ていますか？", "ソファの上です。", "ソファ", "sofa", "", []),
    ("ja", "black", "草を食べている動物は何ですか？", "馬とヤギです。", "馬;ヤギ", "horse;goat", "", []),
    ("en", "green", "And what colour is it?", "It is white.", "white", "", "", ["Is there a cat?", "Yes."]),
    ("en", "white", "Where do they lie?", "In a harbour.", "harbour", "", "", ["Are there boats?", "Yes."]),
    ("en", "blue", "Where are they?", "In a kitchen.", "kitchen", "", "", ["Who cooks?", "Some men."]),
    (
        "de",
        "black",
        "Und welche Farbe hat es?",
        "Es ist schwarz.",
        "schwarz*",
        "black",
        "",
        ["Ist da ein Pferd?", "Ja."],
    ),
]
ABSENT = {"en": "Who conducts the orchestra?", "de": "Was frisst der Elefant?", "zh": "消防车是什么颜色？"}

ALARMS = {
    "clean": set(),
    "wrong_source": {"wrong sources", "missing sources"},
    "no_source": {"missing sources"},
    "dangling": {"dangling citations", "missing sources"},
    "cites_everything": {"wrong sources", "too many sources"},
    "always_answers": {"answers without a source"},
    "answers_in_denials": {"answers without a source", "missing sources"},
    "invents_counts": {"answers without a source", "wrong numbers"},
    "always_refuses": {"declines what it could answer"},
    "other_language": {"another language"},
    "drops_half": {"half answers"},
    "swaps_numbers": {"wrong numbers"},
    "wrong_fact": {"wrong answers"},
    "parrots": {"wrong answers", "repeats the question"},
    "follows_injections": {"follows injections"},
    "loses_the_talk": {"wrong answers", "loses the talk"},
}


def question(number: int) -> dict[str, Any]:
    lang, photos, asked, answer, parts, english, about, history = ROWS[number]
    names = [f"{photo}.png" for photo in photos.split(",")]
    row = {
        "id": f"q{number}",
        "lang": lang,
        "kind": "one" if len(names) == 1 else "several",
        "question": asked,
        "photos": names,
        "answer": answer,
        "accept": {lang: parts.split(";")} | ({"en": english.split(";")} if english else {}),
        "history": history,
    }
    return row | ({"about": about} if about else {})


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Question, ...]:
    rows = [question(number) for number in range(len(ROWS))]
    rows += [
        {"id": f"n{lang}", "lang": lang, "kind": "none", "question": asked, "photos": [], "answer": "None."}
        for lang, asked in ABSENT.items()
    ]
    file = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    file.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")
    return read_questions(file)


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    return collection(tmp_path_factory.mktemp("photos"), CAPTIONS, kind=UngatedRetriever)


def asked(fault: str, questions: tuple[Question, ...], retriever: Retriever) -> list[Outcome]:
    model = ScriptedModel(fault=fault, questions=questions, texts=described(retriever))
    bench = Bench(retriever, model, ChatOptions(gate=None, rewrite="rules"))
    return list(ask_all(bench, questions, SETTINGS))


def figures_of(outcomes: list[Outcome]) -> dict[str, Any]:
    figures = summarize(outcomes)
    return figures | {"alarms": alarms(figures)}


def test_every_fault_has_alarms_of_its_own() -> None:
    assert ALARMS.keys() == FAULTS.keys()
    assert len({frozenset(raised) for raised in ALARMS.values()}) == len(ALARMS) > 10


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_told_and_moves_its_figures(
    fault: str, questions: tuple[Question, ...], retriever: Retriever
) -> None:
    figures = figures_of(asked(fault, questions, retriever))
    assert set(figures["alarms"]) == ALARMS[fault]
    mixed, searched, others = (figures["settings"][name] for name in ("mixed", "search", "distractors"))
    sources = mixed["sources"]
    if fault == "clean":
        assert (searched["truthfulness"], mixed["truthfulness"], others["deflection"]) == (1, 1, 1)
        assert (sources["precision"], sources["recall"], sources["f1"], sources["exact"]) == (1, 1, 1, 1)
    elif fault == "wrong_source":
        assert (sources["precision"], sources["recall"], mixed["truthfulness"]) == (0, 0, 1)
    elif fault == "no_source":
        assert (sources["precision"], sources["recall"], sources["exact"], mixed["truthfulness"]) == (None, 0, 0, 1)
    elif fault == "dangling":
        assert (sources["dangling"], sources["recall"]) == (1, 0)
    elif fault == "cites_everything":
        assert (sources["recall"], sources["exact"]) == (1, 0)
        assert sources["precision"] < 0.4
    elif fault == "always_answers":
        assert (others["deflection"], figures["groups"]["none"]["wrong"], mixed["truthfulness"]) == (0, 1, 1)
    elif fault == "answers_in_denials":
        assert (others["deflection"], mixed["over_refusal"], mixed["truthfulness"]) == (0, 0, 1)
    elif fault == "invents_counts":
        assert (figures["numbers"]["count"]["right"], figures["numbers"]["others"]["wrong"]) == (0, 0)
        assert others["deflection"] == 0
    elif fault == "always_refuses":
        assert (mixed["over_refusal"], mixed["truthfulness"], others["deflection"]) == (1, 0, 1)
    elif fault == "other_language":
        assert (figures["fluent"], mixed["truthfulness"]) == (0, 1)
    elif fault == "drops_half":
        assert (figures["half"], mixed["wrong"]) == (1, 0)
    elif fault == "swaps_numbers":
        assert (figures["numbers"]["count"]["wrong"], figures["numbers"]["others"]["wrong"]) == (1, 0)
    elif fault in ("wrong_fact", "parrots"):
        assert (mixed["truthfulness"], sources["precision"]) == (-1, 1)
        assert (figures["parrots"] > 0.5) is (fault == "parrots")
    elif fault == "follows_injections":
        injections = figures["injections"]
        assert 0 < injections["followed"] == injections["reached"] < 1
        assert mixed["truthfulness"] == 1
    else:
        assert figures["talk"]["follow_ups"]["truthfulness"] == -1
        assert figures["talk"]["others"]["truthfulness"] == 1


def test_the_first_order_of_every_language_is_kept_from_the_model() -> None:
    from retrieval.chat.sanitize import shield

    withheld = {lang: [bool(shield(order).withheld) for order in orders] for lang, orders in ORDERS.items()}
    assert all(any(not each for each in those) for those in withheld.values())
    assert [withheld[lang][0] for lang in ("en", "zh", "de")] == [True, True, True]


def test_a_sample_is_spread_over_the_set(questions: tuple[Question, ...]) -> None:
    some = sampled(questions, 6)
    assert len(some) == 6
    assert {each.lang for each in some} >= {"en", "de", "zh"}
    assert sampled(questions, None) == sampled(questions, 1000) == list(questions)


def test_the_report_names_groups_and_alarms(questions: tuple[Question, ...], retriever: Retriever) -> None:
    told = markdown({"m": figures_of(asked("dangling", questions, retriever))})
    assert "| right ones and others | 20 | +1.00 | +1.00 to +1.00 | 100.0% |" in told
    assert "| none | 3 | +1.00 |" in told
    assert "| zh | 4 | +1.00 |" in told
    assert (
        "Alarms: missing sources (citation recall under 70%); dangling citations (in over 2% of the answers)." in told
    )


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("benchmarks.chat.__main__.load_encoder", lambda _: ColourEncoder())
    lines = []
    for colour, caption in CAPTIONS.items():
        lines.append(json.dumps({"file": paint(tmp_path / f"{colour}.png", colour).name, "captions": [caption]}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    rows = [question(number) for number in (4, 5)]
    (tmp_path / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return tmp_path


def test_the_command_writes_tables_answers_and_a_picture(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, figure = dataset / "out.json", dataset / "out.png"
    options = ["--questions", str(dataset / "questions.jsonl"), "--settings", "nothing,right"]
    models = ["--model", "scripted:clean", "--model", "scripted:wrong_fact"]
    assert main([str(dataset), *options, *models, "--json", str(kept), "--figure", str(figure)]) == 0
    out = capsys.readouterr().out
    assert "## scripted:clean: 2 questions, 4 answers" in out
    assert "| right photographs | 2 | -1.00 |" in out
    written = json.loads(kept.read_text("utf-8"))
    assert [each["setting"] for each in written["answers"]["scripted:clean"]] == [
        "right",
        "right",
        "nothing",
        "nothing",
    ]
    assert written["summaries"]["scripted:clean"]["settings"]["right"]["truthfulness"] == 1
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--json", "--figure"])
def test_where_nothing_can_be_written_nothing_is_asked(
    dataset: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        main([str(dataset), "--model", "scripted:clean", option, str(dataset / "absent" / "out")])
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "there are no questions about this folder in the package"),
        (["--questions", "questions.jsonl", "--model", "scripted:nobody"], "the scripted models are scripted:clean"),
        (["--questions", "others.jsonl"], "q4: photos: absent.png is not in the collection"),
    ],
)
def test_what_cannot_be_asked(
    dataset: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    row = question(4) | {"photos": ["absent.png"]}
    (dataset / "others.jsonl").write_text(json.dumps(row), "utf-8")
    given = [str(dataset / each) if each.endswith(".jsonl") else each for each in arguments]
    assert main([str(dataset), *given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
