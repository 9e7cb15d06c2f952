"""The commands that find, over a toy space of colours; and how the command line fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.lazy import load_command
from app.cli.main import EXIT_CODES
from app.cli.queries import split_terms
from app.main import COMMANDS
from backends.errors import CollectionNotFound
from tests.support.cli import Outcome, Run, paint, sightline
from tests.support.repository import ROOT
from tests.support.toy import ColourEncoder, KeptBackend

HIT_FIELDS = [
    "id",
    "score",
    "relevance",
    "scored_by",
    "modality",
    "uri",
    "text",
    "metadata",
    "exact",
    "duplicates",
    "gone",
]


def ids(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.err
    return [hit["id"] for hit in outcome.json["hits"]]


def is_one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n")


@pytest.mark.usefixtures("colours")
class TestSearch:
    def test_words_find_pictures_and_print_the_documented_object(self, run: Run) -> None:
        found = run("search", "something", "red", "--k", 2, "--min-relevance", 0, "--json")
        assert list(found.json) == ["hits"]
        assert list(found.json["hits"][0]) == HIT_FIELDS
        first = found.json["hits"][0]
        assert (first["id"], first["modality"], first["text"]) == ("img-red", "image", "a red square")
        assert first["metadata"] == {"number": 0, "tags": ["flat", "red"]}
        assert first["exact"] is True
        assert -1 <= first["score"] <= 1
        assert len(found.json["hits"]) == 2
        assert found.err == ""

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            (("search", "zebra", "--mode", "keyword"), "nothing found: no image has any of these words"),
            (("search", "?!", "--mode", "keyword"), "nothing found: there is no word in the query"),
            (("search", "red", "--where", '{"number": 99}'), "nothing found: no item matches the filter"),
            (
                ("search", "red", "--min-relevance", 0, "--offset", 500),
                "nothing found: there is nothing from rank 501 on",
            ),
            (("similar", "img-red", "--offset", 500), "nothing found: there is nothing from rank 501 on"),
            (("lookup", "PICTURE", "--where", '{"number": 99}'), "nothing found: no item matches the filter"),
            (("lookup", "PICTURE", "--where", '{"modality": "image"}'), "nothing found: no text matches the filter"),
        ],
    )
    def test_what_is_said_of_nothing_is_true(
        self, run: Run, tmp_path: Path, asked: tuple[object, ...], said: str
    ) -> None:
        picture = paint(tmp_path / "query.png", "red")
        found = run(*(picture if word == "PICTURE" else word for word in asked))
        assert (found.code, found.out, found.err.strip()) == (0, "", said)

    def test_a_picture_finds_pictures(self, run: Run, tmp_path: Path) -> None:
        picture = paint(tmp_path / "query.png", "blue")
        assert ids(run("search", "--image", picture, "--json"))[0] == "img-blue"

    def test_terms_are_weighted_and_negative_ones_steer_away(self, run: Run, colours: Path) -> None:
        plain = ids(run("search", "--terms", "red green^0.9 blue^0.8", "--k", 3, "--json"))
        assert plain == ["img-red", "img-green", "img-blue"]
        without = ids(run("search", "--terms", "red^0.5 green -red", "--k", 5, "--min-relevance", 0, "--json"))
        assert without[0] == "img-green"
        assert without[-1] == "img-red"
        both = ids(run("search", "--term", f"image:{colours / 'black.png'}", "--term", "-yellow", "--json"))
        assert (both[0], both[-1]) == ("img-black", "img-yellow")

    def test_words_pictures_and_terms_add_up(self, run: Run, colours: Path) -> None:
        mixed = ids(run("search", "red", "--image", colours / "green.png", "--term", "-blue", "--k", 5, "--json"))
        assert set(mixed[:2]) == {"img-red", "img-green"}
        assert mixed[-1] == "img-blue"

    def test_modality(self, run: Run) -> None:
        assert ids(run("search", "red", "--modality", "text", "--json"))[0] == "txt-red"
        assert set(ids(run("search", "red", "--modality", "any", "--k", 2, "--json"))) == {"img-red", "txt-red"}
        KeptBackend.connect("kept://").delete(
            "default", ids=[f"img-{c}" for c in ["red", "green", "blue", "yellow", "black"]]
        )
        assert ids(run("search", "red", "--json"))[0] == "txt-red", "texts, where there is no image at all"

    def test_where_narrows(self, run: Run) -> None:
        found = run("search", "red", "--where", '{"number": {"$gte": 3}}', "--min-relevance", 0, "--json")
        assert sorted(ids(found)) == ["img-black", "img-yellow"]

    def test_explain_says_how_the_engine_searched(self, run: Run) -> None:
        where = '{"number": {"$gte": 3}}'
        asked = ("search", "red", "--where", where, "--min-relevance", 0)
        # Those that judge relevance by captions have no filter of the caller's.
        (plan,) = [plan for plan in run(*asked, "--explain", "--json").json["plans"] if "$and" in plan["where"]]
        assert (plan["kind"], plan["candidates"], plan["share"], plan["k"]) == ("scan", 2, 0.2, 10)
        told = run(*asked, "--explain")
        assert "plan: scan, 2 candidates, 20% of the records match; 10 wanted for " in told.err
        assert told.out == run(*asked).out
        assert "plans" not in run(*asked, "--json").json
        assert "plan: words only" in run("search", "red", "--mode", "keyword", "--explain").err

    def test_pages_fit_together(self, run: Run) -> None:
        red = ("search", "red", "--min-relevance", 0, "--json")
        pages = [ids(run(*red, "--k", 2, "--offset", offset)) for offset in (0, 2, 4, 6)]
        assert [len(page) for page in pages] == [2, 2, 1, 0]
        assert [name for page in pages for name in page] == ids(run(*red, "--k", 5))

    def test_finding_nothing_is_an_answer(self, run: Run) -> None:
        nothing = run("search", "red", "--where", '{"number": 99}', "--json")
        assert (nothing.code, nothing.json) == (0, {"hits": []})
        plain = run("search", "red", "--where", '{"number": 99}')
        assert (plain.code, plain.out) == (0, "")
        assert is_one_line(plain.err)
        assert "nothing found" in plain.err

    def test_lines_for_pipes_have_tabs_and_no_control_characters(self, run: Run, encoder: ColourEncoder) -> None:
        from backends.base import Record

        evil = Record(
            "evil", encoder.encode_texts(["purple"])[0], "image", "a\x1b[31m\tb\nc\u202e", "/tmp/x\x07y\u202e.png"
        )
        KeptBackend.connect("kept://").upsert("default", [evil])
        line = run("search", "purple", "--k", 1).out
        assert is_one_line(line)
        rank, score, relevance, kind, name, place, text = line.rstrip("\n").split("\t")
        assert (rank, kind, name, place, text) == ("1", "image", "evil", "/tmp/x\\x07y\\u202e.png", "a [31m b c")
        assert float(score) == pytest.approx(1, abs=0.01)
        assert relevance == "100%"

    def test_similar_leaves_the_item_out_and_loads_no_model(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a model was loaded")

        monkeypatch.setattr("retrieval.encoders.load_encoder", refuse)
        found = ids(run("similar", "img-red", "--json"))
        assert "img-red" not in found
        assert {name[:4] for name in found} == {"img-"}
        assert {name[:4] for name in ids(run("similar", "img-red", "--modality", "text", "--json"))} == {"txt-"}
        missing = run("similar", "img-pink")
        assert missing.code == 1
        assert is_one_line(missing.err)

    def test_lookup_finds_the_texts_for_a_picture(self, run: Run, tmp_path: Path) -> None:
        found = run("lookup", paint(tmp_path / "query.png", "green"), "--k", 1, "--json")
        assert [hit["text"] for hit in found.json["hits"]] == ["a green square"]

    def test_show(self, run: Run) -> None:
        shown = run("show", "img-red", "--json").json
        assert (shown["id"], shown["text"], shown["metadata"]["number"]) == ("img-red", "a red square", 0)
        assert "a red square" in run("show", "img-red").out
        assert run("show", "img-pink").code == 1

    def test_collections_and_drop(self, run: Run) -> None:
        listed = run("collections", "--json").json["collections"]
        assert [(c["name"], c["items"], c["fingerprint"]) for c in listed] == [("default", 10, "toy:1")]
        refused = run("drop", "default")
        assert refused.code == 1
        assert "--yes" in refused.err
        assert run("drop", "default", "--yes", "--json").json == {"dropped": "default", "items": 10}
        with pytest.raises(CollectionNotFound):
            KeptBackend.connect("kept://").describe("default")
        assert run("drop", "default", "--yes").code == 1

    def test_another_encoder_is_refused_with_both_fingerprints(self, run: Run) -> None:
        refused = run("search", "red", "--encoder", "other")
        assert refused.code == 1
        assert "toy:1" in refused.err
        assert "other:9" in refused.err
        assert is_one_line(refused.err)

    def test_the_collections_own_encoder_is_used_when_none_is_named(self, run: Run, encoder: ColourEncoder) -> None:
        assert run("search", "red", "--encoder", "toy").code == 0
        assert run("search", "red").code == 0
        assert encoder.name == "toy", "known from the fingerprint, not the default"
        assert run("collections", "--json").json["collections"][0]["encoder"] == "toy"

    def test_the_page_is_written_where_asked(self, run: Run, tmp_path: Path) -> None:
        found = run("search", "red", "--html", tmp_path / "new" / "page.html", "--json")
        assert found.json["hits"]
        page = (tmp_path / "new" / "page.html").read_text()
        assert "a red square" in page
        assert "data:image/jpeg;base64," in page
        refused = run("search", "red", "--html", tmp_path)
        assert refused.code == 1
        assert is_one_line(refused.err)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["serch"], 2, "--help"),
        (["search"], 2, "say what to look for"),
        (["search", "red", "--k", "0"], 2, "k must be an integer from 1"),
        (["search", "red", "--k", "many"], 2, "--k"),
        (["search", "red", "--where", "{"], 2, "not JSON"),
        (["search", "red", "--where", '{"year": {"$near": 1}}'], 2, "$near"),
        (["search", "red", "--where", "[]"], 2, "JSON object"),
        (["search", "red", "--modality", "sound"], 2, "image, text, any"),
        (["search", "red", "--precision", "fp8"], 2, "precision"),
        (["search", "red", "--encoder", ""], 2, "encoder must be a non-empty string"),
        (["search", "--terms", 'a "b'], 2, "quotation mark"),
        (["search", "--image", "missing.png"], 1, "missing.png"),
        (["search", "--term", "image:missing.png"], 1, "missing.png"),
        (["search", "--term", "red^0"], 1, "weight"),
        (["search", "red", "--collection", "other"], 1, "there are: default"),
        (["search", "red", "--backend", "nosuch://x"], 2, "nosuch"),
        (["search", "red", "--backend", "plain"], 2, "scheme"),
        (["search", "red", "--effort", "3"], 1, "effort"),
        (["lookup", "missing.png"], 1, "missing.png"),
        (["drop", "other", "--yes"], 1, "there are: default"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(
    run: Run, colours: Path, arguments: list[str], code: int, says: str
) -> None:
    failed = run(*arguments)
    assert (failed.code, failed.out) == (code, "")
    assert code in EXIT_CODES
    assert failed.err.startswith("error: ")
    assert says in failed.err
    assert is_one_line(failed.err)


def test_broken_picture_is_one_line(run: Run, colours: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    failed = run("search", "--image", tmp_path / "broken.png")
    assert failed.code == 1
    assert is_one_line(failed.err)


def test_the_unexpected_is_one_line_and_a_trace_only_when_debugging(
    run: Run, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("retrieval.search.retriever.Retriever.search", explode)
    failed = run("search", "red")
    assert failed.code == 1
    assert failed.err == ("error: unexpected ZeroDivisionError: two lines; run sightline --debug … for the trace\n")
    from app.main import main

    assert main(["--debug", "search", "red"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("SIGHTLINE_DEBUG", "1")
    assert main(["search", "red"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_leaves_with_130(run: Run, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retrieval.search.retriever.Retriever.search", interrupt)
    stopped = run("search", "red")
    assert (stopped.code, stopped.out) == (130, "")


def test_the_first_command_on_an_empty_store_says_what_to_do(run: Run) -> None:
    for arguments in (["search", "red"], ["similar", "x"], ["show", "x"]):
        failed = run(*arguments)
        assert failed.code == 1
        assert "sightline index PATH" in failed.err
    listed = run("collections")
    assert (listed.code, listed.out) == (0, "")
    assert "sightline index PATH" in listed.err


def test_split_terms() -> None:
    assert split_terms('beach -people "evening sun"^0.5 -"a dog"') == ["beach", "-people", "evening sun^0.5", "-a dog"]
    assert split_terms("it's a dog's life # yes \\") == ["it's", "a", "dog's", "life", "#", "yes", "\\"]


def test_the_program_itself() -> None:
    helped = sightline("--help")
    assert helped.returncode == 0
    assert "search" in helped.stdout
    bare = sightline()
    assert bare.stdout == helped.stdout
    failed = sightline("serch")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert is_one_line(failed.stderr)
    assert sightline("--version").stdout.startswith("sightline ")


@pytest.mark.parametrize("name", [name for name, (_, summary) in COMMANDS.items() if summary])
def test_the_list_of_commands_says_what_each_ones_help_begins_with(name: str) -> None:
    told = load_command(name, COMMANDS).help.partition("\n\n")[0]
    assert COMMANDS[name][1] == " ".join(told.split())


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from app.main import main; main(['--help']); print(*(m for m in sys.modules if m[:4] == 'app.'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert imported == {"app.cli", "app.cli.lazy", "app.cli.main", "app.cli.output", "app.cli.streams", "app.main"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from app.main import main; main(['--help']); "
        "heavy = {'torch', 'numpy', 'PIL', 'faiss', 'transformers', 'open_clip', 'rich', 'jinja2'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "app", "encoders", "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    error = program.stderr.read().decode()
    program.stderr.close()
    program.wait()
    assert error == ""


def test_encoders_lists_the_encoders(run: Run) -> None:
    listed = run("encoders", "--json").json["models"]
    assert len(listed) > 10
    first = listed[0]
    assert first["name"] == "compact"
    assert {"size_bytes", "flickr30k", "coco", "installed"} <= first.keys()
    shown = run("encoders")
    lines = shown.out.splitlines()
    for card in listed:
        [line] = [line for line in lines if line.removesuffix("  (here)") == f"  {card['name']}"]
        facts = " ".join(lines[lines.index(line) + 1 :][:3])
        assert card["summary"][:30] in facts
        assert line.endswith("(here)") == card["installed"]
    assert all(len(line) < 80 for line in (*lines, *shown.err.splitlines()))


def test_encoders_recommends_one_for_each_need(run: Run) -> None:
    lines = run("encoders").out.splitlines()
    best = {card["best_for"]: card["name"] for card in run("encoders", "--json").json["models"] if card["best_for"]}
    assert set(best) == {"a laptop", "many languages", "the best quality"}
    for need, name in best.items():
        assert [line.split() for line in lines if line.startswith(f"  for {need}:")] == [
            ["for", *f"{need}:".split(), name]
        ]


def test_models_is_the_old_name_of_encoders_and_says_so(run: Run) -> None:
    new, old = run("encoders", "--json"), run("models", "--json")
    assert (old.code, old.json) == (0, new.json)
    assert new.err == ""
    assert old.err == "note: `sightline models` is now called `sightline encoders`; the old name still works\n"
    assert "  models " not in run("--help").out


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    from app.cli.output import print_json

    print_json({"a": float("nan"), "b": [1.0, float("-inf"), "x"]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.0, None, "x"]}
