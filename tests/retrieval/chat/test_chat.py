"""GroundedChat over scripted models, and over HTTP against the fake OpenAI server with LangChain's own client."""

from __future__ import annotations

import asyncio
import contextvars
import io
import threading
import time
from pathlib import Path

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from PIL import Image

from benchmarks.fake_openai import respond
from retrieval.chat import (
    REFUSAL,
    CancelToken,
    ChatCancelled,
    ChatError,
    ChatOptions,
    ChatTimeout,
    Conversation,
    EvidenceFound,
    Final,
    GroundedChat,
    Retrying,
    Token,
    Turn,
)
from retrieval.chat.evidence import Tagger, find
from retrieval.search.retriever import Retriever
from tests.support.chat_models import CAPTIONS, JudgedRetriever, Scripted, collection, prompt_of
from tests.support.cli import paint
from tests.support.fake_openai import Behaviour, Failure, FakeOpenAI, over_http

QUESTION = "What is the dog on the red beach doing?"
TRUTH = "A dog runs along a beach [1]."
STRICT = ChatOptions(check="strict")


@pytest.fixture
def retriever(tmp_path: Path) -> Retriever:
    return collection(tmp_path)


def test_an_answer_with_its_sources(retriever: Retriever) -> None:
    model = Scripted(replies=[TRUTH])
    answer = GroundedChat(retriever, model).ask(QUESTION)
    assert answer.text == TRUTH
    assert [source.item.id for source in answer.sources] == ["img-red"]
    assert (answer.refused, answer.quoted) == (False, False)
    assert answer.counts.citations == 1
    assert (answer.usage.calls, answer.usage.estimated, answer.usage.images) == (1, True, 0)
    prompt = prompt_of(model.asked[0])
    assert "[1] photo | caption: a brown dog runs along a red beach | year: 1990" in prompt
    assert prompt.count("a brown dog runs along a red beach") == 1, "a caption is folded into its image"
    assert "passage | text: The purple house was built by Ada Byron in 1843. | heading: Houses" in prompt
    assert all(isinstance(message.content, str) for message in model.asked[0])


def test_a_caption_found_stands_for_its_image(tmp_path: Path) -> None:
    retriever = collection(tmp_path)
    query = "a cat on a green sofa"
    by_image, by_caption = (retriever.search(query, 1, modality=m)[0].id for m in ("image", "text"))
    assert (by_image, by_caption) == ("img-green", "cap-green")
    options = ChatOptions(max_evidence=1)
    only_texts = {"image": {"$exists": True}}
    (found,) = find(retriever, query, options)
    assert (found.id, found.modality, found.text) == ("img-green", "image", CAPTIONS["green"])
    (found,) = find(retriever, query, options, {"$or": [only_texts, {"year": 1991}]})
    assert found.id == "img-green"
    (found,) = find(retriever, query, options, only_texts)
    assert found.id == "cap-green", "the image does not match the filter"
    judged = collection(tmp_path, kind=JudgedRetriever)
    everything = find(judged, "green", ChatOptions(max_evidence=8, gate=None))
    scores = {hit.id: hit.score for m in ("image", "text") for hit in judged.search("green", 8, modality=m)}
    best = {hit.id: hit.relevance for hit in everything}
    assert best["img-green"] == max(scores["img-green"], scores["cap-green"])
    assert set(best) == {"img-red", "img-green", "img-blue", "txt-1"}


def test_events_come_in_order(retriever: Retriever) -> None:
    events = list(GroundedChat(retriever, Scripted(replies=[TRUTH])).stream(QUESTION))
    assert isinstance(events[0], EvidenceFound)
    assert isinstance(events[-1], Final)
    assert all(isinstance(event, Token) for event in events[1:-1])
    assert "".join(event.text for event in events[1:-1]).strip() == TRUTH


def test_nothing_relevant_is_refused_without_a_call(tmp_path: Path) -> None:
    model = Scripted(replies=[TRUTH])
    chat = GroundedChat(collection(tmp_path, kind=JudgedRetriever), model, ChatOptions(gate=0.999))
    answer = chat.ask("Where is the submarine?")
    assert (answer.text, answer.refused) == (REFUSAL, True)
    assert model.asked == []
    assert answer.usage.calls == 0
    assert answer.sources == answer.evidence == ()
    assert answer.first_token_s is None


def test_the_gate_lets_the_relevant_through(tmp_path: Path) -> None:
    retriever = collection(tmp_path, kind=JudgedRetriever)
    answer = GroundedChat(retriever, Scripted(replies=[TRUTH]), ChatOptions(gate=0.8)).ask("red")
    assert [piece.item.id for piece in answer.evidence] == ["img-red"] or len(answer.evidence) < 4
    assert all((piece.relevance or 0) >= 0.8 for piece in answer.evidence)
    relevances = [piece.relevance for piece in answer.evidence]
    assert relevances == sorted(relevances, reverse=True)


@pytest.mark.parametrize(
    ("reply", "text", "counts"),
    [
        ("A dog runs [9].", "A dog runs [1].", {"unresolved": 1, "corrected": 1}),
        ("A dog runs.", "A dog runs [1].", {"corrected": 1}),
        ("A dog runs [1, 77].", "A dog runs [1].", {"unresolved": 1}),
        ("A cat sleeps [1].", "A cat sleeps [{green}].", {"corrected": 1}),
        (
            "A dog runs [1]. It is called Rex [1].",
            "A dog runs [1].",
            {"unsupported": 1},
        ),
        ("Yes. The dog runs [1].", "Yes [1]. The dog runs [1].", {"corrected": 1}),
        ("A dog runs [1]. A dog runs [1].", "A dog runs [1].", {}),
        ("Here it is:\n- A dog runs [1].", "A dog runs [1].", {}),
        ("The house was built in 1843 [1].", "The house was built in 1843 [{house}].", {"corrected": 1}),
        ("The house was built in 1844 [1].", REFUSAL, {"unsupported": 1}),
        ("It is Rex [1].", REFUSAL, {"unsupported": 1}),
        ("", REFUSAL, {}),
        ("Nothing in the collection answers this.", REFUSAL, {}),
        ("I don't know.", REFUSAL, {}),
        ("<think>a dog [1]</think>A dog runs [1].", "A dog runs [1].", {}),
        ("<think>A dog runs [1].", REFUSAL, {}),
    ],
)
def test_strict_keeps_only_what_has_support(
    retriever: Retriever, reply: str, text: str, counts: dict[str, int]
) -> None:
    answer = GroundedChat(retriever, Scripted(replies=[reply]), STRICT).ask("Is the dog running along the red beach?")
    numbers = {piece.item.id: piece.number for piece in answer.evidence}
    assert numbers["img-red"] == 1
    assert answer.text == text.format(green=numbers["img-green"], house=numbers["txt-1"])
    assert answer.refused is (text == REFUSAL)
    for name, value in counts.items():
        assert getattr(answer.counts, name) == value, name
    assert {source.number for source in answer.sources} >= set(answer.sentences[0].citations if answer.sources else ())


def test_strict_drops_what_the_other_way_marks(retriever: Retriever) -> None:
    reply = "Here:\nA dog runs [1]. It is called Rex [1]. Nobody knows why."
    answer = GroundedChat(retriever, Scripted(replies=[reply]), STRICT).ask(QUESTION)
    assert answer.text == "A dog runs [1]."
    assert [(each.verdict, each.start) for each in answer.sentences] == [
        ("no_claim", None),
        ("stated", 0),
        ("unsupported", None),
        ("unsupported", None),
    ]
    marked = GroundedChat(retriever, Scripted(replies=[reply])).ask(QUESTION)
    assert marked.text == reply
    assert [each.verdict for each in marked.sentences] == ["no_claim", "stated", "cited", "uncited"]


def test_a_weak_model_is_helped_out_by_a_quotation(retriever: Retriever) -> None:
    options = ChatOptions(check="strict", fallback="quote")
    chat = GroundedChat(retriever, Scripted(replies=["The moon is made of cheese [1]."]), options)
    answer = chat.ask(QUESTION)
    assert answer.text == "“a brown dog runs along a red beach” [1]"
    assert answer.quoted
    assert [source.item.id for source in answer.sources] == ["img-red"]
    assert chat.ask("Which submarine won the opera prize?").text == REFUSAL
    # A follow-up is about its own words too, not only about those of the last topic.
    turn = Turn(QUESTION, TRUTH, QUESTION)
    rules = ChatOptions(check="strict", fallback="quote", rewrite="rules")
    followed = GroundedChat(retriever, Scripted(replies=["A dog runs [1]."]), rules)
    assert followed.ask("And a submarine?", history=[turn]).text == REFUSAL
    assert followed.ask("And what does it do?", history=[turn]).text == "A dog runs [1]."
    # What is true of some item, but not about the question, is no answer.
    off_topic = GroundedChat(retriever, Scripted(replies=["A dog runs [1]."]), options)
    assert off_topic.ask("Which submarine won the opera prize?").text == REFUSAL


def test_a_model_that_repeats_itself_is_stopped(retriever: Retriever) -> None:
    model = Scripted(replies=["A dog runs [1]. " + "It has a variety of toppings on it and also " * 5000])
    started = time.monotonic()
    answer = GroundedChat(retriever, model, STRICT).ask(QUESTION)
    assert answer.text == "A dog runs [1]."
    assert answer.truncated
    assert time.monotonic() - started < 5


def test_follow_ups_are_rewritten_by_the_model_and_checked(retriever: Retriever) -> None:
    model = Scripted(replies=[TRUTH, "What colour is the dog on the beach?", "The dog is brown [1]."])
    talk = Conversation(GroundedChat(retriever, model))
    talk.ask(QUESTION)
    answer = talk.ask("What colour is it?")
    assert answer.query == "What colour is the dog on the beach?"
    assert answer.text == "The dog is brown [1]."
    assert (len(model.asked), answer.usage.calls) == (3, 2)
    last = model.asked[2]
    assert isinstance(last[1], HumanMessage)
    assert last[1].content == QUESTION
    assert "[1]" not in str(last[2].content), "old citations name other evidence"
    assert "Question: What colour is the dog on the beach?" in prompt_of(last)
    talk.clear()
    assert talk.history == []


@pytest.mark.parametrize("bad", ["What colour is the submarine in Paris?", "", "Brown.\nIt is\nbrown."])
def test_a_bad_rewrite_falls_back_to_the_rules(retriever: Retriever, bad: str) -> None:
    chat = GroundedChat(retriever, Scripted(replies=[bad, "The dog is brown [1]."]))
    answer = chat.ask("What colour is it?", history=[Turn(QUESTION, TRUTH, QUESTION)])
    assert answer.query == "What colour is it? (dog, red, beach)"


def test_rewriting_by_rules_and_not_at_all(retriever: Retriever) -> None:
    for rewrite, query in (("rules", "What colour is it? (dog, red, beach)"), ("off", "What colour is it?")):
        model = Scripted(replies=["The dog is brown [1]."])
        chat = GroundedChat(retriever, model, ChatOptions(rewrite=rewrite))  # type: ignore[arg-type]
        answer = chat.ask("What colour is it?", history=[Turn(QUESTION, TRUTH, QUESTION)])
        assert (answer.query, len(model.asked)) == (query, 1)


def test_the_context_budget_is_kept(tmp_path: Path) -> None:
    long = {colour: f"a {colour} thing " + "with many words about it " * 200 for colour in CAPTIONS}
    retriever = collection(tmp_path, long)
    for context in (768, 1024, 2048):
        model = Scripted(replies=["x"])
        options = ChatOptions(context_tokens=context, max_answer_tokens=64, max_passage_tokens=150)
        answer = GroundedChat(retriever, model, options).ask("red")
        assert answer.usage.input_tokens + 64 <= context
        assert 1 <= len(answer.evidence) < 4 or context > 768
        assert "…" in answer.evidence[0].shown
    with pytest.raises(ChatError, match="too small"):
        GroundedChat(retriever, Scripted(replies=["x"]), ChatOptions(context_tokens=256, max_answer_tokens=64)).ask(
            "red"
        )


@pytest.mark.parametrize("question", ["", "   ", "x" * 5000])
def test_questions_are_bounded(retriever: Retriever, question: str) -> None:
    with pytest.raises(ChatError):
        GroundedChat(retriever, Scripted(replies=["x"])).ask(question)


def test_images_are_given_as_blocks_in_the_budget(retriever: Retriever, tmp_path: Path, server: FakeOpenAI) -> None:
    Image.effect_noise((900, 700), 80).convert("RGB").save(tmp_path / "green.png")
    (tmp_path / "blue.png").unlink()
    options = ChatOptions(vision=True, max_images=2, max_image_side=96, max_image_bytes=6000)
    answer = GroundedChat(retriever, over_http(server, "fake-vision"), options).ask(QUESTION)
    assert answer.counts.images == answer.usage.images == 2
    (received,) = server.received
    assert len(received.images) == 2
    for data in received.images:
        assert len(data) <= 6000
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= 96
    assert answer.text == "A brown dog runs along a red beach [1]."


def test_what_only_the_image_shows_is_marked(retriever: Retriever) -> None:
    options = ChatOptions(check="strict", vision=True)
    reply = "The square is red [1]. The square is blue [1]. It is called Red Rex [1]."
    answer = GroundedChat(retriever, Scripted(replies=[reply]), options).ask("What is on the red photo?")
    assert answer.text == "The square is red [1] (from the image)."
    assert (answer.counts.seen, answer.counts.unsupported) == (1, 2)
    blind = GroundedChat(retriever, Scripted(replies=[reply]), STRICT).ask("What is on the red photo?")
    assert blind.counts.seen == 0


def test_an_attached_picture_is_searched_with_and_seen(
    retriever: Retriever, tmp_path: Path, server: FakeOpenAI
) -> None:
    picture = paint(tmp_path / "mine.png", "green")
    for image in (picture, picture.read_bytes(), Image.open(picture)):
        server.received.clear()
        options = ChatOptions(vision=True)
        answer = GroundedChat(retriever, over_http(server, "fake-vision"), options).ask(
            "What sleeps here?", image=image
        )
        assert answer.evidence[0].item.id == "img-green"
        assert len(server.received[0].images) == answer.usage.images == 4
        assert "picture that comes with the question" in server.received[0].prompt
    model = Scripted(replies=["The square is green."])
    options = ChatOptions(check="strict", vision=True, max_images=0)
    answer = GroundedChat(retriever, model, options).ask("What is it?", image=picture)
    assert answer.text == "The square is green (from the image)."


def test_tags_stand_in_for_images_that_the_model_does_not_see(tmp_path: Path) -> None:
    retriever = collection(tmp_path)
    calls = []

    def zero_shot_labels(image: object, k: int) -> list[tuple[str, float]]:
        calls.append(image)
        return [("beach", 0.9), ("seashore", 0.31), ("banana", 0.1)][:k]

    retriever.encoder.zero_shot_labels = zero_shot_labels  # type: ignore[attr-defined]
    model = Scripted(replies=["There is a seashore [1]."])
    chat = GroundedChat(retriever, model, STRICT)
    answer = chat.ask(QUESTION)
    assert "| looks like: beach, seashore |" in answer.evidence[0].shown
    assert answer.text == "There is a seashore [1] (from the image)."
    chat.ask(QUESTION)
    assert len(calls) == 3, "tags are kept"
    assert Tagger(object()).tags(tmp_path / "red.png", 3) == ""  # type: ignore[arg-type]


def test_closing_the_generator_stops_the_model(retriever: Retriever) -> None:
    model = Scripted(replies=["word " * 500], pause_s=0.02)
    events = GroundedChat(retriever, model).stream(QUESTION)
    assert any(isinstance(event, Token) for event in events)
    events.close()
    assert model.left.wait(2)


def test_a_cancel_token_stops_a_model_that_says_nothing(retriever: Retriever, server: FakeOpenAI) -> None:
    server.behaviour.first_token_s = 3
    cancel = CancelToken()
    timer = threading.Timer(0.3, cancel.cancel)
    timer.start()
    started = time.monotonic()
    with pytest.raises(ChatCancelled):
        GroundedChat(retriever, over_http(server)).ask(QUESTION, cancel=cancel)
    assert time.monotonic() - started < 2
    with pytest.raises(ChatCancelled):
        GroundedChat(retriever, Scripted(replies=["x"])).ask(QUESTION, cancel=cancel)
    timer.join()


def test_time_outs(retriever: Retriever) -> None:
    silent = Scripted(replies=["a b"], pause_s=0.6)
    with pytest.raises(ChatTimeout, match=r"nothing within 0\.1 s"):
        GroundedChat(retriever, silent, ChatOptions(first_token_s=0.1)).ask(QUESTION)
    slow = Scripted(replies=["word " * 100], pause_s=0.03)
    with pytest.raises(ChatTimeout, match=r"not done within 0\.3 s"):
        GroundedChat(retriever, slow, ChatOptions(total_s=0.3)).ask(QUESTION)


def test_transient_errors_are_retried_before_the_first_token(retriever: Retriever, server: FakeOpenAI) -> None:
    server.behaviour.failures = [Failure(429, "0.2"), Failure(503)]
    started = time.monotonic()
    events = list(GroundedChat(retriever, over_http(server), ChatOptions(backoff_s=0.05)).stream(QUESTION))
    retries = [event for event in events if isinstance(event, Retrying)]
    assert [event.attempt for event in retries] == [1, 2]
    assert retries[0].wait_s == 0.2
    assert time.monotonic() - started >= 0.2
    answer = events[-1].answer  # type: ignore[union-attr]
    assert (answer.usage.calls, answer.usage.retries) == (3, 2)
    assert answer.text == "A brown dog runs along a red beach [1]."


def test_no_retry_after_the_first_token_nor_for_ever(retriever: Retriever, server: FakeOpenAI) -> None:
    chat = GroundedChat(retriever, over_http(server), ChatOptions(backoff_s=0.01, retries=1))
    server.behaviour.break_after = 3
    with pytest.raises(ChatError, match="broke off after 3"):
        chat.ask(QUESTION)
    assert len(server.received) == 1
    server.behaviour = Behaviour(failures=[Failure(0), Failure(500)])
    with pytest.raises(ChatError, match="500"):
        chat.ask(QUESTION)
    server.behaviour = Behaviour(failures=[Failure(429, "3600")])
    with pytest.raises(ChatError, match="429"):
        chat.ask(QUESTION)


def test_errors_name_no_key(retriever: Retriever, server: FakeOpenAI) -> None:
    server.behaviour.api_key = "another"
    with pytest.raises(ChatError, match="refused the key") as caught:
        GroundedChat(retriever, over_http(server)).ask(QUESTION)
    assert "thekey" not in str(caught.value)
    assert caught.value.__cause__ is None
    server.behaviour = Behaviour(context_tokens=10)
    with pytest.raises(ChatError, match="too long"):
        GroundedChat(retriever, over_http(server)).ask(QUESTION)
    with pytest.raises(ChatError, match="no model 'gone'"):
        GroundedChat(retriever, over_http(server, "gone")).ask(QUESTION)
    nowhere = ChatOpenAI(model="m", base_url="http://127.0.0.1:9/v1", api_key="x", max_retries=0)
    with pytest.raises(ChatError, match="cannot be reached"):
        GroundedChat(retriever, nowhere, ChatOptions(retries=0)).ask(QUESTION)


@pytest.mark.parametrize(
    ("answering", "text"),
    [
        ("honest", "A brown dog runs along a red beach [1]."),
        ("wrong_citations", "A brown dog runs along a red beach [1]."),
        ("uncited", "A brown dog runs along a red beach [1]."),
        (
            "hallucinate",
            "A brown dog runs along a red beach [1].",
        ),
        ("refuse", REFUSAL),
    ],
)
def test_the_whole_path_over_http(retriever: Retriever, server: FakeOpenAI, answering: str, text: str) -> None:
    server.behaviour.answering = answering  # type: ignore[assignment]
    answer = GroundedChat(retriever, over_http(server), STRICT).ask(QUESTION)
    assert answer.text == text
    assert not answer.usage.estimated
    assert answer.usage.input_tokens > 100
    assert answer.usage.output_tokens > 0
    assert server.received[0].stream


def test_without_reported_usage_it_is_estimated(retriever: Retriever, server: FakeOpenAI) -> None:
    server.behaviour.usage = False
    server.behaviour.max_tokens = 4
    answer = GroundedChat(retriever, over_http(server)).ask(QUESTION)
    assert answer.usage.estimated
    assert answer.usage.input_tokens > 100
    assert answer.truncated


def test_a_conversation_over_http(retriever: Retriever, server: FakeOpenAI) -> None:
    talk = Conversation(GroundedChat(retriever, over_http(server)))
    talk.ask("What is the cat doing?")
    answer = talk.ask("Where is it?")
    assert answer.query == "Where is the cat?"
    assert answer.text.startswith("A white cat sleeps on a green sofa [")


def test_a_model_that_does_not_stream(retriever: Retriever, server: FakeOpenAI) -> None:
    answer = GroundedChat(retriever, over_http(server, disable_streaming=True)).ask(QUESTION)
    assert answer.text == "A brown dog runs along a red beach [1]."
    assert not server.received[0].stream


def test_astream_gives_the_same_events_and_can_be_left(retriever: Retriever) -> None:
    async def read() -> list[object]:
        chat = GroundedChat(retriever, Scripted(replies=[TRUTH]))
        return [event async for event in chat.astream(QUESTION)]

    events = asyncio.run(read())
    assert isinstance(events[0], EvidenceFound)
    assert isinstance(events[-1], Final)
    model = Scripted(replies=["word " * 500], pause_s=0.02)

    async def leave() -> None:
        stream = GroundedChat(retriever, model).astream(QUESTION)
        async for event in stream:
            if isinstance(event, Token):
                break
        await stream.aclose()

    asyncio.run(leave())
    assert model.left.wait(2)

    async def fail() -> None:
        async for _ in GroundedChat(retriever, Scripted(replies=[ValueError("odd")])).astream(QUESTION):
            pass

    with pytest.raises(ChatError, match="odd"):
        asyncio.run(fail())


def test_astream_runs_in_the_context_of_its_reader(retriever: Retriever) -> None:
    request = contextvars.ContextVar("request", default="nobody's")
    seen = set()

    def read(path: Path) -> Path:
        seen.add(request.get())
        return path

    async def ask() -> None:
        request.set("mine")
        chat = GroundedChat(retriever, Scripted(replies=[TRUTH]), ChatOptions(vision=True), pictures=read)
        async for _ in chat.astream(QUESTION):
            pass

    asyncio.run(ask())
    assert seen == {"mine"}


def test_two_turns_at_once_share_nothing(retriever: Retriever, server: FakeOpenAI) -> None:
    server.behaviour.token_s = 0.01
    chat = GroundedChat(retriever, over_http(server))
    questions = [QUESTION, "What is the cat doing?", "Who cooks in the kitchen?"] * 3
    answers: dict[int, str] = {}

    def work(number: int) -> None:
        answers[number] = chat.ask(questions[number]).text

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, text in answers.items():
        assert ("dog", "cat", "men")[number % 3] in text
    assert len(answers) == 9


def test_the_fake_lists_models_and_refuses_what_the_api_refuses(server: FakeOpenAI) -> None:
    with httpx.Client(base_url=server.base_url, headers={"Authorization": "Bearer x"}) as client:
        assert {model["id"] for model in client.get("/models").json()["data"]} == {"fake-text", "fake-vision"}
        bad = client.post("/chat/completions", json={"model": "fake-text", "messages": []})
        assert bad.status_code == 400
        assert bad.json()["error"]["type"] == "invalid_request_error"
        image = [{"type": "image_url", "image_url": {"url": "http://evil/x.png"}}]
        for model in ("fake-text", "fake-vision"):
            body = {"model": model, "messages": [{"role": "user", "content": image}]}
            assert client.post("/chat/completions", json=body).status_code == 400
        server.behaviour.api_key = "y"
        assert client.get("/models").status_code == 401


def test_the_fake_is_extractive() -> None:
    prompt = "reply with exactly: no\n[1] photo | caption: a dog / a puppy | year: 1990\n[2] photo | caption: a cat\n"
    prompt += "Question: {}"
    assert respond(prompt.format("a puppy?")) == "A puppy [1]."
    assert respond(prompt.format("what year 1990?")) == "The year is 1990 [1]."
    assert respond(prompt.format("a submarine?")) == "no"
    assert respond(prompt.format("a cat?"), "wrong_citations") == "A cat [3]."
