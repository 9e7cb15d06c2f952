"""The open_clip encoder on small random models made on the spot, and a named fake of the model hub."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from huggingface_hub import constants
from PIL import Image

from backends import connect
from backends.base import CollectionSpec, Record
from retrieval import Retriever
from retrieval.encoders import Encoder, EncoderError, load_encoder
from retrieval.encoders import weights as weights_module
from retrieval.encoders.catalogue import CATALOGUE, installed
from retrieval.encoders.checkpoints import resolve
from retrieval.encoders.openclip import OpenClipEncoder
from retrieval.encoders.weights import drop_folder, fetch_file, fetch_text_folder, file_sha256, hub_files
from retrieval.images.decode import ImageError
from tests.support.fake_hub import FakeHub, point_at, serving

TINY: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
MODEL = "sightline-test"
TEXTS = ["a dog on a beach", "", "two cats", "ein Hund 🐕", "naïve café " * 3, "x" * 10]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations registered with open_clip, and random weights for them as .pt and .safetensors."""
    folder = tmp_path_factory.mktemp("models")
    configs = {
        MODEL: TINY,
        f"{MODEL}-quickgelu": {**TINY, "quick_gelu": True},
        f"{MODEL}-wide": {**TINY, "embed_dim": 40},
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    state = open_clip.create_model(MODEL).state_dict()
    # Random towers saturate no activation; larger weights make GELU and QuickGELU tell apart.
    state = {key: value * 3 if "mlp" in key else value for key, value in state.items()}
    torch.save(state, folder / "weights.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, folder / "training.pt")
    safetensors.torch.save_file(state, folder / "weights.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's files or the network."""
    monkeypatch.setenv("SIGHTLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def loaded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenClipEncoder:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SIGHTLINE_HOME", str(tmp_path_factory.mktemp("home")))
        return OpenClipEncoder(f"{MODEL}/{folder}/weights.pt", device="cpu")


@pytest.fixture
def encoder(loaded: OpenClipEncoder) -> OpenClipEncoder:
    """The same model for all tests, loaded once, with nothing left of what they did to it."""
    return copy.copy(loaded)


def pictures() -> list[Image.Image]:
    chance = np.random.default_rng(1)
    sizes = [(64, 48), (32, 32), (20, 90), (200, 100), (48, 33)]
    return [Image.fromarray(chance.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def by_open_clip(name: str, pretrained: str | None, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """What open_clip's own calls give for `pictures` and TEXTS."""
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=pretrained, **options)
    model.eval()
    with torch.inference_mode():
        images = model.encode_image(torch.stack([preprocess(image) for image in pictures()]), normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)
    return images.numpy(), texts.numpy()


@pytest.mark.parametrize("file", ["weights.pt", "weights.safetensors", "training.pt"])
def test_vectors_are_open_clips_own(folder: Path, file: str) -> None:
    encoder = load_encoder(f"openclip:{MODEL}/{folder}/{file}", device="cpu")
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim) == (f"openclip:{MODEL}/{folder}/{file}", 24)
    images, texts = by_open_clip(MODEL, str(folder / file))
    np.testing.assert_allclose(encoder.encode_images(pictures()), images, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=1e-5)


def test_rows_are_unit_float32_and_none_for_nothing(encoder: OpenClipEncoder) -> None:
    for rows in (encoder.encode_images(pictures()), encoder.encode_texts(TEXTS)):
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 24)


def test_order_and_independence_of_batches(encoder: OpenClipEncoder) -> None:
    images, texts = pictures() * 3, TEXTS * 3
    together = encoder.encode_images(images), encoder.encode_texts(texts)
    encoder._batch = 4
    np.testing.assert_allclose(encoder.encode_images(images), together[0], atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(texts), together[1], atol=1e-5)
    np.testing.assert_allclose(encoder.encode_images(images[::-1]), together[0][::-1], atol=1e-5)
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    np.testing.assert_allclose(alone, together[1], atol=1e-5)
    assert np.abs(together[0][0] - together[0][1]).max() > 1e-3


def test_paths_and_broken_images(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pictures()[0].save(path)
    rows = encoder.encode_images([path, str(path), pictures()[0]])
    np.testing.assert_allclose(rows, np.tile(rows[:1], (3, 1)), atol=1e-6)
    (tmp_path / "b.png").write_bytes(b"no image")
    threads = threading.active_count()
    with pytest.raises(ImageError, match=r"b\.png"):
        encoder.encode_images([path, tmp_path / "b.png"] * 20)
    assert threading.active_count() <= threads


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_a_very_long_picture_does_not_eat_the_memory(mode: str, folder: Path, tmp_path: Path) -> None:
    encoder = described(folder, tmp_path / mode, {"resize_mode": mode})
    started = time.monotonic()
    assert encoder.encode_images([Image.new("RGB", (1, 2_000_000)), Image.new("RGB", (60_000, 1))]).shape == (2, 24)
    assert time.monotonic() - started < 2


def test_the_crop_of_a_long_picture_changes_nothing_to_speak_of(folder: Path, encoder: OpenClipEncoder) -> None:
    tall = Image.effect_noise((50, 700), 80).convert("RGB")
    model, _, preprocess = open_clip.create_model_and_transforms(MODEL, pretrained=str(folder / "weights.pt"))
    with torch.inference_mode():
        whole = model.eval().encode_image(preprocess(tall)[None], normalize=True).numpy()
    assert float((encoder.encode_images([tall]) @ whole.T).item()) > 0.999


def test_bf16_is_close(folder: Path, encoder: OpenClipEncoder) -> None:
    half = OpenClipEncoder(f"{MODEL}/{folder}/weights.pt", device="cpu", precision="bf16")
    for exact, rounded in (
        (encoder.encode_images(pictures()), half.encode_images(pictures())),
        (encoder.encode_texts(TEXTS), half.encode_texts(TEXTS)),
    ):
        assert (exact * rounded).sum(axis=1).min() > 0.99
        assert np.abs(exact - rounded).max() > 0
    assert half.fingerprint == encoder.fingerprint


def test_threads_share_an_encoder(encoder: OpenClipEncoder) -> None:
    expected = encoder.encode_texts(TEXTS), encoder.encode_images(pictures())
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(encoder.encode_texts, [TEXTS] * 12))
        images = list(pool.map(encoder.encode_images, [pictures()] * 12))
    for rows, wanted in ((texts, expected[0]), (images, expected[1])):
        for row in rows:
            np.testing.assert_allclose(row, wanted, atol=1e-5)


def test_quick_gelu_is_another_space(folder: Path, encoder: OpenClipEncoder) -> None:
    quick = OpenClipEncoder(f"{MODEL}-quickgelu/{folder}/weights.pt", device="cpu")
    assert quick.fingerprint != encoder.fingerprint
    images, texts = by_open_clip(f"{MODEL}-quickgelu", str(folder / "weights.pt"))
    np.testing.assert_allclose(quick.encode_images(pictures()), images, atol=1e-5)
    np.testing.assert_allclose(quick.encode_texts(TEXTS), texts, atol=1e-5)
    assert np.abs(encoder.encode_images(pictures()) - images).max() > 1e-3


def test_files_that_look_trained_with_quick_gelu_are_warned_of(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    suspect = tmp_path / "vit_openai.pt"
    suspect.write_bytes((folder / "weights.pt").read_bytes())
    OpenClipEncoder(f"{MODEL}/{suspect}", device="cpu")
    assert f"use {MODEL}-quickgelu" in caplog.text
    caplog.clear()
    OpenClipEncoder(f"{MODEL}-quickgelu/{suspect}", device="cpu")
    OpenClipEncoder(f"{MODEL}/{folder}/weights.pt", device="cpu")
    assert "quickgelu" not in caplog.text.replace(str(folder), "")


def test_fingerprint_follows_weights_architecture_and_preprocessing(folder: Path, tmp_path: Path) -> None:
    first = OpenClipEncoder(f"{MODEL}/{folder}/weights.pt", device="cpu").fingerprint
    other = tmp_path / "elsewhere.pt"
    other.write_bytes((folder / "weights.pt").read_bytes())
    assert OpenClipEncoder(f"{MODEL}/{other}", device="cpu").fingerprint == first
    state = torch.load(other)
    state["logit_scale"] = state["logit_scale"] + 1
    torch.save(state, other)
    assert OpenClipEncoder(f"{MODEL}/{other}", device="cpu").fingerprint != first
    plain = described(folder, tmp_path / "plain", {})
    shifted = described(folder, tmp_path / "shifted", {"mean": [0.5, 0.5, 0.5]})
    assert plain.fingerprint != shifted.fingerprint


def described(folder: Path, at: Path, preprocess: dict[str, Any]) -> OpenClipEncoder:
    at.mkdir()
    (at / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocess}))
    (at / "open_clip_model.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    return OpenClipEncoder(f"local-dir:{at}", device="cpu")


def test_local_dir_with_its_own_preprocessing(folder: Path, tmp_path: Path) -> None:
    encoder = described(folder, tmp_path / "own", {"mean": [0.1, 0.2, 0.3], "resize_mode": "squash"})
    images, texts = by_open_clip(f"local-dir:{tmp_path / 'own'}", None)
    np.testing.assert_allclose(encoder.encode_images(pictures()), images, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=1e-5)
    assert encoder._loaded.preprocess.transforms[-1].mean == [0.1, 0.2, 0.3]  # type: ignore[attr-defined]


def test_long_captions_are_cut_with_one_warning(encoder: OpenClipEncoder, caplog: pytest.LogCaptureFixture) -> None:
    fits = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    encoder.encode_texts([fits, "antidisestablishmentarianism"])
    assert not caplog.records
    long = [fits + " fifteen", fits + " sixteen"]
    rows = encoder.encode_texts(long)
    encoder.encode_texts(long)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "reads 16 tokens" in caplog.text
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_endless_words_and_lone_surrogates(encoder: OpenClipEncoder) -> None:
    started = time.monotonic()
    assert encoder.encode_texts(["a" * 1_000_000, "\ud800 x", "\0", " " * 100_000 + "dog"]).shape == (4, 24)
    assert time.monotonic() - started < 3
    spaced, plain = encoder.encode_texts([" " * 100_000 + "dog", "dog"])
    np.testing.assert_allclose(spaced, plain, atol=1e-6)


def test_out_of_memory_halves_the_batch(encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CUDA error is played: what follows it is the encoder's own."""
    wanted = encoder.encode_images(pictures())
    inner = encoder._loaded.model.encode_image
    room = 2

    def cramped(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return inner(batch)  # type: ignore[no-any-return]

    monkeypatch.setattr(encoder._loaded.model, "encode_image", cramped)
    np.testing.assert_allclose(encoder.encode_images(pictures()), wanted, atol=1e-5)
    assert encoder._batch <= 2
    room = 0
    with pytest.raises(EncoderError, match="too little memory"):
        encoder.encode_images(pictures())


BAD: dict[str, str] = {
    "sightline-tset/x": rf"knows no model 'sightline-tset': did you mean .*{MODEL}",
    "qqqqqqqq/x": "knows no model",
    "ViT-B-32": "names no weights: add /TAG or /PATH; its tags: openai, ",
    "ViT-B-32/": "names no weights",
    "ViT-B-32/opnai": "has no weights tagged 'opnai': its tags: openai, ",
    f"{MODEL}/tag": "its tags: none",
    f"{MODEL}/FOLDER/none.pt": "no file with weights at .*none.pt",
    f"{MODEL}/./none.pt": "no file with weights at .*none.pt",
    f"{MODEL}/none.safetensors": "no file with weights at",
    f"{MODEL}/FOLDER": "no file with weights at",
    f"{MODEL}-wide/FOLDER/weights.pt": f"does not fit {MODEL}-wide: it .*text_projection",
    "ViT-B-32/FOLDER/weights.pt": "cannot be loaded as ViT-B-32",
    f"{MODEL}/FOLDER/{MODEL}.json": "is not a file of weights",
    f"{MODEL}/FOLDER/half.pt": "half.pt",
    f"{MODEL}/FOLDER/half.safetensors": "cannot be loaded",
    f"{MODEL}/FOLDER/lacking.pt": "lacks visual.proj",
    f"{MODEL}/FOLDER/evil.pt": "could run code",
    "hf-hub:../../etc": "is not the name of a hub repository",
    "hf-hub:": "is not the name of a hub repository",
    "local-dir:FOLDER/absent": "open_clip_config.json: No such file",
    "local-dir:FOLDER/broken": "not the description of an open_clip model",
    "local-dir:FOLDER/bare": "has no weights: put open_clip_model.safetensors there",
}


class Evil:
    """Would make a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("spec", BAD)
def test_bad_specs_say_what_to_do_in_one_line(spec: str, folder: Path, tmp_path: Path) -> None:
    for name in ("weights.pt", "weights.safetensors"):
        whole = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(whole)
        (tmp_path / name.replace("weights", "half")).write_bytes(whole[: len(whole) // 2])
    (tmp_path / f"{MODEL}.json").write_text("{}")
    lacking = torch.load(folder / "weights.pt")
    del lacking["visual.proj"]
    torch.save(lacking, tmp_path / "lacking.pt")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Evil(tmp_path / "owned")}, protocol=2))
    for name, text in (("broken", "{}"), ("bare", json.dumps({"model_cfg": TINY}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "open_clip_config.json").write_text(text)
    with pytest.raises(EncoderError, match=BAD[spec]) as caught:
        OpenClipEncoder(spec.replace("FOLDER", str(tmp_path)), device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "gpu"}, "no device is called 'gpu'"),
        ({"device": "cuda:99"}, "cuda:99 is not here"),
        ({"precision": "int8"}, "no precision is called 'int8': use auto, fp32"),
        ({"device": "cpu", "precision": "fp16"}, "use fp32 or bf16 on the CPU"),
    ],
)
def test_bad_devices_and_precisions(options: dict[str, str], reason: str, folder: Path) -> None:
    with pytest.raises(EncoderError, match=reason):
        OpenClipEncoder(f"{MODEL}/{folder}/weights.pt", **options)


def test_wrong_types(encoder: OpenClipEncoder) -> None:
    for texts in ("a bare string", [1], [None]):
        with pytest.raises(TypeError, match="strings"):
            encoder.encode_texts(texts)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sequence of images"):
        encoder.encode_images(pictures()[0])  # type: ignore[arg-type]


def test_the_root_logger_is_left_alone(folder: Path) -> None:
    before = list(logging.getLogger().handlers)
    OpenClipEncoder(f"{MODEL}/{folder}/weights.pt", device="cpu")
    assert logging.getLogger().handlers == before


# Published tags and the hub


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag of the tiny model, published on the hub as trained with QuickGELU."""
    tag = open_clip.pretrained._pcfg(hf_hub="demo/tiny/", quick_gelu=True, mean=(0.4, 0.5, 0.6), resize_mode="squash")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, MODEL, {"demo": tag})


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    files = {
        "demo/tiny/open_clip_pytorch_model.bin": (folder / "weights.pt").read_bytes(),
        "demo/tiny/open_clip_config.json": json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}).encode(),
        "demo/words/tokenizer.json": b"{}",
        "demo/words/evil.py": b"raise SystemExit",
    }
    with serving(files, monkeypatch) as server:
        yield server


@pytest.mark.usefixtures("published")
def test_a_tag_is_downloaded_once_and_run_as_it_was_trained(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = OpenClipEncoder(f"{MODEL}/demo", device="cpu")
    assert hub.served == ["/demo/tiny/resolve/main/open_clip_pytorch_model.bin"]
    images, texts = by_open_clip(
        *(f"{MODEL}-quickgelu", str(folder / "weights.pt")), image_mean=(0.4, 0.5, 0.6), image_resize_mode="squash"
    )
    np.testing.assert_allclose(encoder.encode_images(pictures()), images, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=1e-5)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert OpenClipEncoder(f"{MODEL}/demo", device="cpu").fingerprint == encoder.fingerprint
    assert len(hub.served) == 1


def test_hf_hub_models_and_text_files_are_downloaded(hub: FakeHub) -> None:
    assert OpenClipEncoder("hf-hub:demo/tiny", device="cpu").dim == 24
    assert (fetch_text_folder("demo/words") / "tokenizer.json").read_bytes() == b"{}"
    assert not any("evil" in path for path in hub.served)
    with pytest.raises(EncoderError, match="the model's files are not here"):
        fetch_file("demo/tiny", ["absent.bin"])


@pytest.mark.usefixtures("published")
def test_offline_says_which_file_to_put_where_and_putting_it_there_works(folder: Path) -> None:
    with pytest.raises(EncoderError) as caught:
        OpenClipEncoder(f"{MODEL}/demo", device="cpu")
    message = str(caught.value)
    place = drop_folder("demo/tiny")
    assert "HF_HUB_OFFLINE is set" in message
    assert f"{constants.ENDPOINT}/demo/tiny/resolve/main/open_clip_model.safetensors" in message
    assert f"put it into {place}; the encoder compact needs no download" in message
    place.mkdir(parents=True)
    (place / "open_clip_model.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    assert OpenClipEncoder(f"{MODEL}/demo", device="cpu").dim == 24


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("answers", [False, True])
def test_an_unreachable_hub_is_given_up_soon(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights_module, "HUB_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        point_at(listener.getsockname()[1], monkeypatch)
        if not answers:
            listener.close()
        started = time.monotonic()
        with pytest.raises(EncoderError, match="no connection to http://127"):
            OpenClipEncoder(f"{MODEL}/demo", device="cpu")
        with pytest.raises(EncoderError, match=r"tokenizer\.json and"):
            fetch_text_folder("demo/words")
    assert time.monotonic() - started < 5
    huggingface_hub.close_session()


def test_text_towers_and_tokenizers_of_the_hub(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the multilingual XLM-RoBERTa model is made: configuration and tokenizer are files of their own."""
    place = drop_folder("demo/roberta")
    write_text_tower(place)
    text = {"hf_model_name": "demo/roberta", "hf_tokenizer_name": "demo/roberta", "context_length": 8}
    name = f"{MODEL}-multilingual"
    config = {**TINY, "text_cfg": {**text, "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}}
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    there = {**config["text_cfg"], "hf_model_name": str(place), "hf_tokenizer_name": str(place)}
    model = open_clip.create_model(name, text_cfg={**there, "hf_model_pretrained": False})
    torch.save(model.state_dict(), tmp_path / "multilingual.pt")
    encoder = OpenClipEncoder(f"{name}/{tmp_path}/multilingual.pt", device="cpu")
    tokens = open_clip.tokenizer.HFTokenizer(str(place), context_length=8)(["one two", "three"])
    with torch.inference_mode():
        wanted = model.eval().encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_texts(["one two", "three"]), wanted, atol=1e-5)
    assert not caplog.records or "cut there" not in caplog.text
    encoder.encode_texts(["one two three " * 5])
    assert "reads 8 tokens" in caplog.text


def write_text_tower(place: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

    words = ["<s>", "<pad>", "</s>", "<unk>", "one", "two", "three"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.save_pretrained(place)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    XLMRobertaConfig(vocab_size=len(words), max_position_embeddings=20, **sizes).save_pretrained(place)


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"one")
    digest = file_sha256(path)
    assert digest == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patched:
        patched.setattr(weights_module.hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
        assert file_sha256(path) == digest
    path.write_bytes(b"other")
    assert file_sha256(path) == hashlib.sha256(b"other").hexdigest()
    memory = tmp_path / "home" / "sha256.json"
    for damage in ("{", "[]", json.dumps({str(path): "x"})):
        memory.write_text(damage)
        assert file_sha256(path) == hashlib.sha256(b"other").hexdigest()
    monkeypatch.setenv("SIGHTLINE_HOME", str(path / "not a folder"))
    assert file_sha256(path) == hashlib.sha256(b"other").hexdigest()


# The catalogue


def test_the_catalogue_names_models_that_open_clip_has() -> None:
    available = set(open_clip.list_pretrained())
    assert [card.name for card in CATALOGUE[:2]] == ["compact", "compact-int8"]
    assert len({card.name for card in CATALOGUE}) == len(CATALOGUE) >= 13
    cards = [card for card in CATALOGUE[2:] if not card.name.startswith("onnx:")]
    assert len(cards) >= 13
    for card in cards:
        scheme, _, spec = card.name.partition(":")
        model, _, tag = spec.partition("/")
        config = open_clip.get_model_config(model)
        assert scheme == "openclip"
        assert (model, tag) in available
        assert config["embed_dim"] == card.dim
        assert open_clip.pretrained.get_pretrained_cfg(model, tag)["hf_hub"] == card.repository
        assert config["text_cfg"].get("hf_tokenizer_name", "") == card.text_repository


def test_exports_in_the_catalogue_are_of_models_that_open_clip_has() -> None:
    tags = {tag.replace("_", "-").lower(): (model, tag) for model, tag in open_clip.list_pretrained()}
    for card in (card for card in CATALOGUE if card.name.startswith("onnx:")):
        assert card.name == f"onnx:{card.repository}"
        model, _, tag = card.repository.removeprefix("immich-app/").partition("__")
        assert open_clip.get_model_config(model)["embed_dim"] == card.dim
        assert tag.replace("_", "-").lower() in tags
        # An export has the weights, and so the figures, of its model.
        for same in (other for other in CATALOGUE if other.name == f"openclip:{model}/{tag.replace('-', '_')}"):
            assert (same.flickr30k, same.coco, same.parameters) == (card.flickr30k, card.coco, card.parameters)


def test_the_catalogue_cites_what_it_states() -> None:
    for card in CATALOGUE:
        assert bool(card.source) == bool(card.flickr30k or card.coco), card.name
        for recall in filter(None, (card.flickr30k, card.coco)):
            assert all(20 < figure < 100 for figure in recall)
        assert card.summary
        assert card.languages
        assert card.licence


@pytest.mark.parametrize("name", ["openclip:MobileCLIP2-S0/dfndr2b", "openclip:ViT-B-32/openai"])
def test_parameters_are_counted(name: str) -> None:
    card = next(card for card in CATALOGUE if card.name == name)
    with torch.device("meta"):
        model = open_clip.create_model(name.partition(":")[2].partition("/")[0], device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == card.parameters


def test_installed_looks_without_the_network() -> None:
    cards = {card.name: card for card in CATALOGUE}
    assert installed(cards["compact"])
    assert installed(cards["compact-int8"])
    assert not any(installed(card) for card in CATALOGUE[2:])
    plain, paired = cards["openclip:ViT-B-32/openai"], cards["openclip:ViT-B-16-SigLIP-256/webli"]
    for card in (plain, paired):
        place = drop_folder(hub_files(card.repository)[0])
        place.mkdir(parents=True)
        (place / "open_clip_model.safetensors").write_bytes(b"x")
    assert installed(plain)
    assert not installed(paired), "its tokenizer is missing"
    place = drop_folder(paired.text_repository)
    place.mkdir(parents=True)
    (place / "tokenizer.json").write_bytes(b"{}")
    assert installed(paired)


def test_every_tag_of_open_clip_resolves_to_files_of_the_hub() -> None:
    for model, tag in open_clip.list_pretrained():
        published = open_clip.pretrained.get_pretrained_cfg(model, tag)
        repository, names = hub_files(published["hf_hub"])
        assert repository.count("/") == 1, (model, tag)
        assert all(name and "/" not in name for name in names)


def test_openai_tags_are_built_with_quick_gelu(caplog: pytest.LogCaptureFixture) -> None:
    place = drop_folder("timm/vit_base_patch32_clip_224.openai")
    place.mkdir(parents=True)
    (place / "open_clip_model.safetensors").write_bytes(b"x")
    with caplog.at_level(logging.INFO):
        checkpoint = resolve("ViT-B-32/openai")
    assert checkpoint.quick_gelu
    assert checkpoint.config["quick_gelu"]
    assert "trained with QuickGELU" in caplog.text
    assert resolve("ViT-B-32-quickgelu/openai").config == checkpoint.config


def test_relevance_of_an_untrained_model_is_sane(encoder: OpenClipEncoder) -> None:
    """Texts and images lie in two narrow cones, and nothing is related: numbers all the same, and no failure."""
    backend = connect("exact://")
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    vectors = np.tile(encoder.encode_images(pictures()), (8, 1))
    backend.upsert("c", [Record(str(row), vector, "image") for row, vector in enumerate(vectors)])
    found = Retriever(backend, encoder, "c")
    for query in (*TEXTS[2:], pictures()[0]):
        hits = found.search(query, 50, modality="image")
        values = [hit.relevance for hit in hits]
        assert all(value is not None and 0 <= value <= 1 for value in values)
        assert values == sorted(values, reverse=True)
