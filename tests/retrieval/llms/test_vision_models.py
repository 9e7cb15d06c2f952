"""Vision-language models in process: each family made tiny on the spot, saved, and loaded by the real path."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_tests.unit_tests import ChatModelUnitTests
from PIL import Image

from retrieval.llms import ModelError, ModelTimeout, load_model, traits
from retrieval.llms.vision import ChatTransformers
from tests.support.tiny_vision_models import FAMILIES, Tiny, save

QUESTION = "What is shown?"
WRITES = 12  # tokens an answer
SEVERAL = [tiny for tiny in FAMILIES if tiny.most_images > 1]
SINGLE = [tiny for tiny in FAMILIES if tiny.most_images == 1]


def picture(seed: int, width: int = 50, height: int = 40) -> Image.Image:
    samples = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(samples)


def block(image: Image.Image) -> dict[str, str]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"type": "image", "base64": base64.b64encode(file.getvalue()).decode(), "mime_type": "image/png"}


def asked(images: list[Image.Image], question: str = QUESTION) -> list[BaseMessage]:
    return [HumanMessage([*map(block, images), {"type": "text", "text": question}])]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, _unloaded: None) -> dict[str, Path]:
    return {tiny.name: save(tiny, tmp_path_factory.mktemp(tiny.name)) for tiny in FAMILIES}


_loaded: dict[str, ChatTransformers] = {}


def load(folders: dict[str, Path], name: str) -> ChatTransformers:
    if name not in _loaded:
        model = load_model(f"transformers:{folders[name]}", max_tokens=WRITES, device="cpu")
        assert isinstance(model, ChatTransformers)
        _loaded[name] = model
    return _loaded[name]


@pytest.fixture(scope="module", autouse=True)
def _unloaded() -> Any:
    # Networks of a few kilobytes only wait for one another on several cores, for long where others keep those busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for model in _loaded.values():
        model.close()
    _loaded.clear()


def by_transformers(folder: Path, tiny: Tiny, images: list[Image.Image]) -> str:
    """What the model writes when transformers alone is asked, in the words that its documentation gives."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    inputs = processor(**tiny.arguments(QUESTION, images), return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**inputs, max_new_tokens=WRITES, do_sample=False)[0]
    start = 1 if model.config.get_text_config().is_encoder_decoder else inputs["input_ids"].shape[-1]
    return str(
        processor.tokenizer.decode(written[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


@pytest.mark.parametrize(
    ("tiny", "count"),
    [
        pytest.param(tiny, count, id=f"{tiny.name}-{count}")
        for tiny in FAMILIES
        for count in range(1, tiny.most_images + 1)
    ],
)
def test_a_family_writes_what_transformers_writes(tiny: Tiny, count: int, folders: dict[str, Path]) -> None:
    images = [picture(seed) for seed in range(count)]
    model = load(folders, tiny.name)
    answer = model.invoke(asked(images))
    assert answer.content == by_transformers(folders[tiny.name], tiny, images)
    assert answer.content  # not two empty strings
    assert answer.usage_metadata is not None
    assert 1 <= answer.usage_metadata["output_tokens"] <= WRITES
    chunks = list(model.stream(asked(images)))
    assert "".join(str(chunk.content) for chunk in chunks) == answer.content
    assert len([chunk for chunk in chunks if chunk.content]) > 1
    assert sum(chunk.usage_metadata is not None for chunk in chunks) == 1


def last_logits(model: ChatTransformers, messages: list[BaseMessage]) -> torch.Tensor:
    inputs = model._inputs(model._request(messages, None, {}))
    with torch.inference_mode():
        return torch.as_tensor(model._model(**inputs).logits[0, -1])


@pytest.mark.parametrize("tiny", SEVERAL, ids=lambda tiny: tiny.name)
def test_the_order_of_images_counts(tiny: Tiny, folders: dict[str, Path]) -> None:
    model = load(folders, tiny.name)
    first, second = picture(1), picture(2)
    there, back = last_logits(model, asked([first, second])), last_logits(model, asked([second, first]))
    again = last_logits(model, asked([first, second]))
    assert torch.equal(there, again)
    assert (there - back).abs().max() > 1e-3


@pytest.mark.parametrize("tiny", SINGLE, ids=lambda tiny: tiny.name)
def test_a_family_of_one_image_sees_it_and_refuses_more(tiny: Tiny, folders: dict[str, Path]) -> None:
    model = load(folders, tiny.name)
    assert model.max_images == 1
    if tiny.name != "blip-2-t5":  # whose logits are those of its decoder
        seen, other = (last_logits(model, asked([picture(seed)])) for seed in (1, 2))
        assert (seen - other).abs().max() > 1e-3
    with pytest.raises(ModelError, match="takes one image a request, not 2"):
        model.invoke(asked([picture(1), picture(2)]))
    with pytest.raises(ModelError, match="answers about an image only"):
        model.invoke(QUESTION)


@pytest.mark.parametrize("tiny", SEVERAL, ids=lambda tiny: tiny.name)
def test_a_question_needs_no_image(tiny: Tiny, folders: dict[str, Path]) -> None:
    assert load(folders, tiny.name).invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)]).content


def test_images_stand_where_the_message_has_them(folders: dict[str, Path]) -> None:
    model = load(folders, "llava")
    first, second = block(picture(1)), block(picture(2))
    told = [{"type": "text", "text": "[1]"}, first, {"type": "text", "text": "[2]"}, second]
    inputs = model._inputs(model._request([HumanMessage([*told, {"type": "text", "text": QUESTION}])], None, {}))
    words = model._processor.tokenizer.decode(inputs["input_ids"][0])
    image = "<image>" * 4 + "\n"
    assert words == f"USER: [1]{image}[2]{image}{QUESTION}\nASSISTANT:"


def test_a_conversation_keeps_its_turns(folders: dict[str, Path]) -> None:
    messages = [
        SystemMessage("Be brief."),
        HumanMessage("Is it a dog?"),
        AIMessage("Yes."),
        *asked([picture(1)]),
    ]
    image = "<image>" * 4
    expected = {
        "llava": f"SYSTEM: Be brief.\nUSER: Is it a dog?\nASSISTANT: Yes.\nUSER: {image}\n{QUESTION}\nASSISTANT:",
        "blip-2": f"{image}Question: Be brief.\nIs it a dog? Answer: Yes. Question: {QUESTION} Answer:",
        "instructblip": f"{image}Question: Be brief.\nIs it a dog?\nAnswer: Yes.\nQuestion: {QUESTION}\nAnswer:",
    }
    for name, words in expected.items():
        model = load(folders, name)
        inputs = model._inputs(model._request(messages, None, {}))
        assert model._processor.tokenizer.decode(inputs["input_ids"][0]) == words


@pytest.mark.parametrize("tiny", SEVERAL, ids=lambda tiny: tiny.name)
def test_text_cannot_pose_as_an_image_or_end_a_turn(tiny: Tiny, folders: dict[str, Path]) -> None:
    model = load(folders, tiny.name)
    hostile = "".join(sorted(model._processor.tokenizer.get_added_vocab())) + getattr(
        model._processor, "image_token", ""
    )
    tokenizer = model._processor.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}

    def control(question: str) -> list[int]:
        inputs = model._inputs(model._request(asked([picture(1)], question), None, {}))
        return [token for token in inputs["input_ids"][0].tolist() if token in special]

    assert control(f"a {hostile} b") == control("a b")


def test_a_caption_that_is_an_address_is_not_fetched(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folders, "idefics")

    def fetch(self: Any, images: Any) -> Any:
        assert not isinstance(images, str), "fetched"
        return images

    monkeypatch.setattr(type(model._processor.image_processor), "fetch_images", fetch)
    with pytest.raises(AssertionError, match="fetched"):  # what the processor does with an address that it is given
        model._processor(text=[["http://127.0.0.1:9/x.png"]], return_tensors="pt")
    model.invoke([HumanMessage([block(picture(1)), {"type": "text", "text": "http://127.0.0.1:9/x.png"}])])


def test_the_instruction_of_instructblip_may_be_longer_than_its_qformer_reads(folders: dict[str, Path]) -> None:
    assert load(folders, "instructblip").invoke(asked([picture(1)], "word " * 80)).content


def test_cancelling_stops_the_writing(folders: dict[str, Path]) -> None:
    model = load(folders, "qwen2.5-vl")
    stream = model.stream(asked([picture(1)]), max_tokens=800)
    next(stream)
    generation = model._running[-1]
    stream.close()  # type: ignore[attr-defined]
    assert generation.join(20)
    pieces = list(generation)
    assert pieces[-1].reason == "cancelled"  # type: ignore[union-attr]
    assert pieces[-1].output_tokens < 800  # type: ignore[union-attr]


async def _first_of(model: BaseChatModel) -> None:
    async for _ in model.astream(asked([picture(1)]), max_tokens=800):
        return


def test_an_answer_that_is_late_is_stopped(folders: dict[str, Path]) -> None:
    model = load_model(f"transformers:{folders['qwen2.5-vl']}", max_tokens=900, timeout_s=0.001, device="cpu")
    assert isinstance(model, ChatTransformers)
    with pytest.raises(ModelTimeout, match=r"after 0\.001 s"):
        model.invoke(asked([picture(1)]))
    model.close()
    with pytest.raises(ModelError, match="is closed"):
        model.invoke(QUESTION)


def test_stop_sequences_end_the_answer_before_them(folders: dict[str, Path]) -> None:
    model = load(folders, "qwen2.5-vl")
    whole = str(model.invoke(asked([picture(1)])).content)
    for stop in {whole[4], whole[5:7]}:
        cut = model.invoke(asked([picture(1)]), stop=[stop, "never written"])
        assert cut.content == whole[: whole.index(stop)]
        assert cut.response_metadata["finish_reason"] == "stop"
        streamed = "".join(str(chunk.content) for chunk in model.stream(asked([picture(1)]), stop=[stop]))
        assert streamed == cut.content


def test_the_end_token_ends_the_answer(folders: dict[str, Path]) -> None:
    model = load(folders, "qwen2.5-vl")
    config, before = model._model.generation_config, model._model.generation_config.eos_token_id
    whole = model.invoke(asked([picture(1)]))
    assert whole.response_metadata["finish_reason"] == "length"
    third = model._processor.tokenizer(str(whole.content))["input_ids"][-1]
    try:
        config.eos_token_id = [third]
        ended = model.invoke(asked([picture(1)]))
    finally:
        config.eos_token_id = before
    assert ended.response_metadata["finish_reason"] == "stop"
    assert whole.content.startswith(str(ended.content).rstrip("\ufffd"))


def test_sampling_follows_its_seed(folders: dict[str, Path]) -> None:
    model = load(folders, "qwen2.5-vl")
    state = torch.random.get_rng_state()
    texts = [model.invoke(asked([picture(1)]), temperature=1.5, seed=seed).content for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    assert torch.equal(state, torch.random.get_rng_state())


def test_threads_may_ask_at_once(folders: dict[str, Path]) -> None:
    model = load(folders, "llava")
    expected = {seed: model.invoke(asked([picture(seed)])).content for seed in range(3)}
    found: dict[int, Any] = {}

    def ask(seed: int) -> None:
        found[seed] = model.invoke(asked([picture(seed)])).content

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_too_long_a_prompt_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"prompt has \d+ tokens with its images.* more than the 1024"):
        load(folders, "llava").invoke(asked([picture(1)], "word " * 300))


def test_images_are_bounded(folders: dict[str, Path]) -> None:
    model = load(folders, "qwen2.5-vl")
    assert model.invoke(asked([picture(1, 3000, 20)])).content  # a strip, which the processor itself refuses
    with pytest.raises(ModelError, match="40 images are more than the 32"):
        model.invoke(asked([picture(1)] * 40))
    for bad, reason in (
        ({"type": "image", "url": "http://127.0.0.1:9/x.png"}, "no address is fetched"),
        ({"type": "image", "base64": "!!!!", "mime_type": "image/png"}, "not valid base64"),
        ({"type": "image", "base64": "aGVsbG8=", "mime_type": "image/png"}, "not an image"),
        ({"type": "audio", "base64": "aGVsbG8=", "mime_type": "audio/wav"}, "type audio"),
    ):
        with pytest.raises(ModelError, match=reason):
            model.invoke([HumanMessage([bad, {"type": "text", "text": QUESTION}])])


def test_images_in_the_form_of_openai_are_read_too(folders: dict[str, Path]) -> None:
    model = load(folders, "llava")
    url = f"data:image/png;base64,{block(picture(1))['base64']}"
    told = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    assert model.invoke([HumanMessage(told)]).content == model.invoke(asked([picture(1)])).content


def test_traits_come_from_the_configuration(folders: dict[str, Path]) -> None:
    found = traits(load(folders, "llava"))
    assert (found.vision, found.context_tokens, found.local) == (True, 1024, True)
    assert found.name == str(folders["llava"])
    assert found.max_images is None
    assert traits(load(folders, "blip-2")).max_images == 1


def test_what_cannot_be_loaded_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no such folder"):
        load_model("transformers:./nowhere")
    with pytest.raises(
        ModelError, match=r"someone/something is not on this machine .* put the repository's files into"
    ):
        load_model("transformers:someone/something")
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_model(f"transformers:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors"):
        load_model(f"transformers:{tmp_path}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"other weights can run programs"):
        load_model(f"transformers:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="bert is no vision-language model"):
        load_model(f"transformers:{tmp_path}")


def test_no_code_of_a_repository_is_run(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["llava"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(ModelError):
        load_model(f"transformers:{tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_a_model_without_a_chat_template_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["llava"].iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    model = load_model(f"transformers:{tmp_path}", device="cpu")
    with pytest.raises(ModelError, match=r"no chat template for images"):
        model.invoke(QUESTION)


def test_a_template_that_refuses_a_system_turn_gets_it_in_the_first_question(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for file in folders["llava"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = (tmp_path / "chat_template.jinja").read_text()
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    (tmp_path / "chat_template.jinja").write_text(strict + template)
    model = load_model(f"transformers:{tmp_path}", device="cpu")
    assert isinstance(model, ChatTransformers)
    inputs = model._inputs(model._request([SystemMessage("Be brief."), HumanMessage(QUESTION)], None, {}))
    assert model._processor.tokenizer.decode(inputs["input_ids"][0]) == f"USER: Be brief.\n{QUESTION}\nASSISTANT:"


def test_bf16_is_taken_where_it_is_asked_for(folders: dict[str, Path]) -> None:
    model = load_model(f"transformers:{folders['llava']}", max_tokens=WRITES, device="cpu", precision="bf16")
    assert isinstance(model, ChatTransformers)
    assert model._model.dtype == torch.bfloat16
    assert model.invoke(asked([picture(1), picture(2)])).content
    with pytest.raises(ModelError, match="fp16 is for GPUs"):
        load_model(f"transformers:{folders['llava']}", device="cpu", precision="fp16")


@pytest.mark.asyncio
async def test_a_stream_left_early_by_a_coroutine_is_stopped_too(folders: dict[str, Path]) -> None:
    model = load(folders, "qwen2.5-vl")
    started = time.monotonic()
    await _first_of(model)
    assert model._running[-1].join(20)
    assert time.monotonic() - started < 20


class TestAsLangChainModel(ChatModelUnitTests):
    """LangChain's own standard tests for chat models, over the tiny LLaVA."""

    folder: Path

    @pytest.fixture(autouse=True)
    def _folder(self, folders: dict[str, Path]) -> None:
        type(self).folder = folders["llava"]

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatTransformers

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model_path": self.folder, "model_name": "tiny", "device": "cpu"}

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.name)
def test_a_family_runs_on_a_gpu(tiny: Tiny, folders: dict[str, Path]) -> None:
    images = [picture(seed) for seed in range(tiny.most_images)]
    exact = load_model(f"transformers:{folders[tiny.name]}", max_tokens=WRITES, device="cuda", precision="fp32")
    assert exact.invoke(asked(images)).content == load(folders, tiny.name).invoke(asked(images)).content
    auto = load_model(f"transformers:{folders[tiny.name]}", max_tokens=WRITES, device="auto")
    assert isinstance(auto, ChatTransformers)
    assert auto._model.dtype == torch.bfloat16
    assert auto.invoke(asked(images)).content
