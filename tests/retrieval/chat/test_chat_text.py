"""Chat's handling of text: sentences, citations, stand-alone questions, budgets, and error messages."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from retrieval.chat.answers import DraftFilter
from retrieval.chat.budget import cut, image_tokens, prepare_picture, text_tokens
from retrieval.chat.check.claims import Claim, citations, sentences, stem, strip_citations
from retrieval.chat.errors import explain, is_transient, redacted_line, retry_after_s
from retrieval.chat.llm_client import is_repetition_loop
from retrieval.chat.options import ChatOptions
from retrieval.chat.rewrite import Rewritten, checked_rewrite, rewrite_by_rules, stands_alone
from retrieval.turn import Turn

PAST = [
    Turn(
        "What is the dog on the beach doing?", "A brown dog runs along a beach.", "What is the dog on the beach doing?"
    )
]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a [1] b [2][3]", [1, 2, 3]),
        ("[1, 3]", [1, 3]),
        ("[2-4]", [2, 4, 3]),
        ("【4】 [image 2] [Source 1; source 3]", [4, 2, 1, 3]),
        ("[^5]", [5]),
        ("[x] (1) [] [1990s]", []),
        ("[1-900]", [1, 900]),
    ],
)
def test_citations_are_read_in_all_the_forms_models_write(text: str, numbers: list[int]) -> None:
    assert sorted(citations(text)) == sorted(numbers)


def test_strip_citations_leaves_the_rest() -> None:
    assert strip_citations("A dog [1] runs [2, 3]. See [this].") == "A dog runs. See [this]."


def test_sentences_keep_their_citations_and_their_abbreviations() -> None:
    text = (
        "A dog runs. [1] It is Mr. Smith's dog [2]! 3.5 m long.\n- two cats 【4】\n[2]\n## End:\nこれは犬です。猫です。"
    )
    assert sentences(text) == [
        "A dog runs. [1]",
        "It is Mr. Smith's dog [2]!",
        "3.5 m long.",
        "two cats 【4】 [2]",
        "End:",
        "これは犬です。",
        "猫です。",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dogs", "dog"),
        ("running", "runs"),
        ("babies", "baby"),
        ("men", "man"),
        ("wearing", "wears"),
        ("boxes", "box"),
        ("parked", "park"),
        ("riding", "rides"),
        ("sitting", "sits"),
        ("glasses", "glass"),
        ("beaches", "beach"),
    ],
)
def test_stems_match_over_inflection(one: str, other: str) -> None:
    assert stem(one) == stem(other)


def test_claims_are_taken_apart() -> None:
    claim = Claim("Two dogs from Paris are not running near the 3 red cars [4].")
    assert claim.numbers == {2, 3}
    assert claim.names == {"pari"} or claim.names == {"paris"}
    assert claim.negated == {stem("running")}
    assert set(claim.content) == {"dog", stem("paris"), stem("running"), "red", "car"}
    assert Claim("白い犬がいる").content


@pytest.mark.parametrize(
    ("question", "alone"),
    [
        ("Which photos show a red bus in London?", True),
        ("Is there a dog on a sofa?", True),
        ("What is the cat doing?", True),
        ("A photo that shows a bridge", True),
        ("What is it doing?", False),
        ("And what about the cat?", False),
        ("Where are they?", False),
        ("what colour?", False),
        ("Why?", False),
        ("Are there others like those?", False),
    ],
)
def test_what_stands_alone(question: str, alone: bool) -> None:
    assert stands_alone(question, PAST) is alone
    assert stands_alone(question, [])


def test_this_is_the_attached_picture() -> None:
    assert stands_alone("Where was this taken?", PAST, has_image=True)
    assert not stands_alone("Where was this taken?", PAST)


def test_a_rewrite_is_taken_only_if_it_adds_nothing() -> None:
    assert checked_rewrite("What colour is the dog on the beach?", "What colour is it?", PAST).query
    named = checked_rewrite('Question: "What colour is the dog?"', "What colour is it?", PAST)
    assert named.query == "What colour is the dog?"
    for bad in (
        "",
        "  \n",
        "What colour is the cat?",
        "The dog is brown and 3 years old.",
        "x " * 300,
        "Where is the dog?",
    ):
        assert checked_rewrite(bad, "Is it wet and muddy?", PAST) == Rewritten(), bad


def test_the_rules_put_the_topic_behind_the_question() -> None:
    assert rewrite_by_rules("What colour is it?", PAST) == "What colour is it? (dog, beach)"
    assert rewrite_by_rules("What colour is the dog on the beach?", PAST) == "What colour is the dog on the beach?"


def test_tokens_are_estimated_by_bytes_and_pixels() -> None:
    assert text_tokens("") == 0
    assert text_tokens("dog") == 1
    assert text_tokens("犬が走る") == 4
    assert image_tokens(512, 512) == max(85 + 170, 19 * 19)
    assert image_tokens(768, 512) == 532
    assert image_tokens(4000, 100) >= image_tokens(2000, 50)
    assert text_tokens(cut("word " * 100, 20)) <= 20
    assert cut("short", 20) == "short"


@pytest.mark.parametrize("max_bytes", [4096, 20_000])
def test_pictures_are_downscaled_into_both_budgets(max_bytes: int) -> None:
    noise = Image.effect_noise((1600, 900), 120).convert("RGB")
    picture = prepare_picture(noise, 512, max_bytes)
    assert len(picture.jpeg) <= max_bytes
    image = Image.open(io.BytesIO(picture.jpeg))
    assert image.format == "JPEG"
    assert image.size == (picture.width, picture.height)
    assert max(image.size) <= 512
    assert abs(image.width / image.height - 16 / 9) < 0.1
    assert picture.block()["mime_type"] == "image/jpeg"


def test_pictures_lose_their_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "secret camera"
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "JPEG", exif=exif)
    assert b"secret" not in prepare_picture(stream.getvalue(), 64, 50_000).jpeg


def test_a_model_that_goes_round_in_circles_is_noticed() -> None:
    start = "The pizza is made with a mix of ingredients, including "
    assert not is_repetition_loop(start)
    assert is_repetition_loop(start + "a variety of toppings, including " * 8)
    assert not is_repetition_loop(
        "A dog [1]. A cat [2]. " * 2 + "One more thing about the dog and the cat, which is new here."
    )


def test_a_draft_has_no_reasoning_and_no_control_characters() -> None:
    draft = DraftFilter()
    pieces = ["<th", "ink>they want ", "a dog</thi", "nk>\n\nA d", "og\x1b[31m [1].\u202e"]
    assert "".join(draft.feed(piece) for piece in pieces) == "A dog[31m [1]."
    plain = DraftFilter()
    assert "".join(plain.feed(piece) for piece in ("<", "b> is a tag")) == "<b> is a tag"


class Failed(Exception):
    def __init__(self, message: str, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = type("Response", (), {"status_code": status, "headers": headers or {}})()


@pytest.mark.parametrize(
    ("error", "says", "transient"),
    [
        (Failed("no", 401), "refused the key", False),
        (Failed("no", 404), "no model 'm'", False),
        (Failed("no", 429), "429", True),
        (Failed("no", 503), "(503)", True),
        (Failed("This model's maximum context length is 20", 400), "too long", False),
        (ConnectionRefusedError(111, "refused"), "cannot be reached", True),
        (TimeoutError(), "in time", False),
        (ValueError("odd\nthing"), "(ValueError): odd thing", False),
    ],
)
def test_errors_are_explained_in_one_line(error: Exception, says: str, transient: bool) -> None:
    model = type("Model", (), {"model_name": "m", "openai_api_base": "http://user:pass@host:8/v1?key=x"})()
    message = str(explain(error, model))
    assert says in message
    assert "\n" not in message
    assert "http://host:8/v1" in message or "too long" in message
    assert not {"pass", "key=x"} & set(message.split())
    assert is_transient(error) is transient


def test_no_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2hunter2")
    text = redacted_line(
        "key hunter2hunter2, sk-abcdefghijklmnop, Bearer xyz, http://u:p@h/, api_key: 123 " + "x" * 400
    )
    for secret in ("hunter2", "sk-abc", "xyz", "u:p", "123"):
        assert secret not in text
    assert len(text) <= 200


def test_retry_after_is_read_as_seconds_or_date() -> None:
    assert retry_after_s(Failed("", 429, {"retry-after": "3"})) == 3
    assert retry_after_s(Failed("", 429, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"})) == 0
    assert retry_after_s(Failed("", 429, {"retry-after": "soon"})) is None
    assert retry_after_s(ValueError()) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context_tokens", 10),
        ("gate", 1.5),
        ("fallback", "x"),
        ("rewrite", "x"),
        ("total_s", 0),
        ("max_evidence", 0),
        ("retries", True),
        ("max_image_side", 1),
        ("first_token_s", float("inf")),
    ],
)
def test_options_are_checked(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        ChatOptions(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leaves nothing"):
        ChatOptions(context_tokens=512, max_answer_tokens=512)
