"""Models exported to ONNX against open_clip itself, on small random models of four architectures and a fake hub."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import onnx
import open_clip
import pytest
import skimage.data
import tokenizers
import torch
from huggingface_hub import constants
from onnx import TensorProto, helper
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from retrieval.encoders import Encoder, EncoderError, load_encoder, onnx_export
from retrieval.encoders import onnx_layout as layout
from retrieval.encoders.onnx_export import ExportReport, _same_nearest, export
from retrieval.encoders.onnx_model import OnnxEncoder
from retrieval.encoders.onnx_quantize import quantize
from retrieval.encoders.openclip import OpenClipEncoder
from retrieval.encoders.preprocess import Preprocessing
from retrieval.encoders.text_cleaning import clean
from retrieval.encoders.token_ids import TextSettings, TokenReader, clip_tokenizer, load_tokenizer
from retrieval.encoders.weights import drop_folder
from retrieval.images.decode import ImageError
from tests.support.fake_hub import serving
from tests.support.repository import ROOT
from tests.support.small_models import CONFIGS, make, texts_here

pytestmark = pytest.mark.slow

TEXTS = [
    "a dog on a beach",
    "",
    "Zwei Hunde, am Meer!",
    "chien_et chat",
    "naïve café &amp; “bar”",
    "x y " * 40,
    "红色的汽车",
]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model, what its export came to, and the folder that has it."""

    name: str
    folder: Path
    report: ExportReport


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    with texts_here(home):
        yield home


@pytest.fixture(autouse=True)
def _alone(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's files or the network."""
    monkeypatch.setenv("SIGHTLINE_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """torch's threads wait for one another at every layer: for models as small as these on a busy machine, seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=list(CONFIGS))
def exported(request: pytest.FixtureRequest, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    name = make(request.param, folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SIGHTLINE_HOME", str(home))
        return Exported(name, folder / "onnx", export(name, folder / "onnx", pictures=photographs()))


@pytest.fixture(scope="module")
def clip(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """ViT-B-32's shape, for what does not depend on the architecture."""
    folder = tmp_path_factory.mktemp("clip")
    name = make("ViT-B-32", folder)
    return Exported(name, folder / "onnx", export(name, folder / "onnx"))


def photographs() -> list[Image.Image]:
    """Real ones of several shapes, and one smaller than any input."""
    cat = Image.fromarray(skimage.data.chelsea())
    made = [cat, Image.fromarray(skimage.data.astronaut()), Image.fromarray(skimage.data.coffee())]
    return [*made, cat.crop((0, 0, 451, 97)), cat.crop((100, 0, 145, 290)), cat.resize((20, 17))]


# Pictures and texts on their way to the model


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [64, (96, 96), (48, 80)])
def test_pixels_are_open_clips_own_to_the_bit(resize_mode: str, interpolation: str, size: Any) -> None:
    settings = {"size": size, "resize_mode": resize_mode, "interpolation": interpolation, "fill_color": 7}
    theirs = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    ours = Preprocessing.of(settings)
    for image in photographs():
        np.testing.assert_array_equal(ours(image), theirs(image).numpy())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": "large"},
        {"size": 0},
        {"size": 64, "interpolation": "nearest"},
        {"size": 64, "mean": [1, 2]},
        {"size": 64, "resize_mode": "crop"},
        {"size": 64, "mode": "L"},
    ],
)
def test_preprocessing_that_is_not_understood(settings: dict[str, Any]) -> None:
    with pytest.raises(EncoderError, match="the preprocessing is not understood"):
        Preprocessing.of(settings)


def odd_texts(count: int) -> list[str]:
    """Texts of many scripts, with ligatures, wide letters, control characters, entities; none in a wrong encoding."""
    chance = random.Random(3)
    ranges = [(0x20, 0x7F), (0, 0x250), (0x2000, 0x2070), (0xFB00, 0xFB07), (0xFF00, 0xFFFF), (0x370, 0x500)]
    ranges += [(0x3000, 0x3100), (0x4E00, 0x4F00), (0x80, 0xA0), (0x600, 0x700), (0x1F300, 0x1F320), (0x900, 0x980)]
    made = []
    while len(made) < count:
        two = chance.sample(ranges, 2)
        text = "".join(chr(chance.randrange(*chance.choice(two))) for _ in range(chance.randint(0, 12)))
        text += chance.choice(["", " &amp; x", "&lt;b&gt;", " a_b, C!", "\r\n x", "\x1b[1m don't"])
        if ftfy.fix_text(text) == ftfy.fix_text(text, fix_encoding=False):
            made.append(text)
    return made


@pytest.mark.parametrize("how", ["lower", "whitespace", "canonicalize"])
def test_texts_are_cleaned_as_open_clip_does(how: str) -> None:
    theirs = open_clip.tokenizer.get_clean_fn(how)
    for text in odd_texts(1500):
        assert clean(text, how) == theirs(text)


def test_clips_tokens_are_open_clips_own(tmp_path: Path) -> None:
    simple = open_clip.get_tokenizer("ViT-B-32")
    clip_tokenizer(simple).save(str(tmp_path / "tokenizer.json"))
    ours = TokenReader("x", load_tokenizer(tmp_path / "tokenizer.json"), TextSettings(77, "lower", pad_id=0))
    chance = random.Random(4)
    words = [
        "dogs",
        "we'll",
        "DON'T",
        "3.14",
        "naïve",
        "straße",
        "🐕🐕",
        "!!!",
        "日本語",
        "antidisestablishment",
        "<b>",
    ]
    texts = [" ".join(chance.choices(words, k=chance.randint(0, 50))) for _ in range(100)]
    texts += [*odd_texts(500), "a <start_of_text> b <end_of_text>", "", " "]
    np.testing.assert_array_equal(ours(texts)[0], simple(texts).numpy())


# Exports


def test_vectors_are_torchs(exported: Exported) -> None:
    ours = load_encoder(f"onnx:{exported.folder}", device="cpu")
    theirs = OpenClipEncoder(exported.name.removeprefix("openclip:"), device="cpu")
    assert isinstance(ours, Encoder)
    assert (ours.name, ours.dim) == (f"onnx:{exported.folder}", theirs.dim)
    assert ours.fingerprint == theirs.fingerprint == exported.report.fingerprint
    assert ours.context_length == theirs.context_length  # type: ignore[attr-defined]
    np.testing.assert_allclose(ours.encode_images(photographs()), theirs.encode_images(photographs()), atol=1e-4)
    np.testing.assert_allclose(ours.encode_texts(TEXTS), theirs.encode_texts(TEXTS), atol=1e-4)
    assert min(exported.report.image_cosine, exported.report.text_cosine) >= 0.9999
    assert exported.report.same_nearest == 1
    # A random network whose vectors are all the same would pass anything.
    assert np.abs(np.diff(ours.encode_images(photographs()), axis=0)).max() > 1e-2
    assert np.abs(np.diff(ours.encode_texts(TEXTS), axis=0)).max() > 1e-2


def test_it_runs_without_torch(exported: Exported, tmp_path: Path) -> None:
    photographs()[0].save(tmp_path / "cat.png")
    code = (
        "import sys; from retrieval.encoders import load_encoder; e = load_encoder(sys.argv[1]);"
        "e.encode_images([sys.argv[2]]); e.encode_texts(['two dogs']);"
        "sys.exit(str({'torch', 'torchvision', 'open_clip', 'timm', 'transformers', 'ftfy'} & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"onnx:{exported.folder}", str(tmp_path / "cat.png")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == ""


def test_the_nearest_pictures_of_an_export_are_compared_with_those_of_torch() -> None:
    pictures = np.array([[1, 0], [0.96, 0.28], [0, 1]], np.float32)
    texts = np.array([[0.9, 0.44]], np.float32)
    # The middle picture and the text have another nearest one where the middle picture is turned towards the last.
    turned = np.array([[1, 0], [0.28, 0.96], [0, 1]], np.float32)
    assert _same_nearest((pictures, texts), (pictures, texts)) == 1
    assert _same_nearest((turned, texts), (pictures, texts)) == 0.5


def test_int8_is_close_smaller_and_a_space_of_its_own(clip: Exported, tmp_path: Path) -> None:
    report = export(clip.name, tmp_path / "int8", int8=True, pictures=photographs())
    ours = load_encoder(f"onnx:{tmp_path / 'int8'}")
    assert report.precision == "int8"
    assert ours.fingerprint == report.fingerprint != clip.report.fingerprint
    assert ours.fingerprint.startswith("onnx:")
    assert min(report.image_cosine, report.text_cosine) > 0.99
    assert 0.5 < report.same_nearest <= 1
    assert json.loads((tmp_path / "int8" / layout.MANIFEST).read_text())["same_nearest"] == report.same_nearest
    exact = load_encoder(f"onnx:{clip.folder}").encode_texts(TEXTS)
    assert (ours.encode_texts(TEXTS) * exact).sum(axis=1).min() > 0.99
    # The table of words is most of this model.
    assert report.size_bytes < 0.7 * clip.report.size_bytes
    narrow = onnx.load(tmp_path / "int8" / layout.TEXT_TOWER).graph
    assert {table.data_type for table in narrow.initializer if list(table.dims) == [49408, 32]} == {TensorProto.INT8}


def test_towers_of_all_kinds_become_int8(exported: Exported, tmp_path: Path) -> None:
    ours = Path(shutil.copytree(exported.folder, tmp_path / "int8"))
    (ours / layout.MANIFEST).unlink()
    for tower in layout.TOWERS:
        quantize(ours / tower)
        assert "DynamicQuantizeLinear" in {node.op_type for node in onnx.load(ours / tower).graph.node}
    exact, close = load_encoder(f"onnx:{exported.folder}"), load_encoder(f"onnx:{ours}")
    assert (exact.encode_images(photographs()) * close.encode_images(photographs())).sum(axis=1).min() > 0.99
    assert (exact.encode_texts(TEXTS) * close.encode_texts(TEXTS)).sum(axis=1).min() > 0.99


def test_weights_beside_a_large_graph_are_one_file_and_belong_to_its_hash(clip: Exported, copied: Path) -> None:
    """As torch writes a graph of over 2 GB: each tensor in a file of its own."""
    tower = copied / layout.TEXT_TOWER
    model = onnx.load(tower)
    onnx.save_model(model, tower, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    assert len(list(tower.parent.iterdir())) > 10
    onnx_export._join_weights(tower)
    assert {path.name for path in tower.parent.iterdir()} == {
        *("model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json")
    }
    (copied / layout.MANIFEST).unlink()
    encoder = OnnxEncoder(str(copied))
    exact = OnnxEncoder(str(clip.folder)).encode_texts(TEXTS)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), exact, atol=1e-6)
    with (copied / "textual" / "model.onnx.data").open("ab") as weights:
        weights.write(b"\0")
    assert OnnxEncoder(str(copied)).fingerprint != encoder.fingerprint
    quantize(tower)
    assert not (copied / "textual" / "model.onnx.data").exists()
    assert (OnnxEncoder(str(copied)).encode_texts(TEXTS) * exact).sum(axis=1).min() > 0.99


def test_long_texts_are_cut_with_one_warning(clip: Exported, caplog: pytest.LogCaptureFixture) -> None:
    encoder = load_encoder(f"onnx:{clip.folder}")
    fits = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    encoder.encode_texts([fits])
    assert not caplog.records
    rows = encoder.encode_texts([fits + " fifteen", fits + " sixteen", "a" * 1_000_000, "\ud800 x"])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "reads 16 tokens" in caplog.text
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_rows_for_nothing_and_wrong_inputs(clip: Exported, tmp_path: Path) -> None:
    encoder = load_encoder(f"onnx:{clip.folder}")
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 24)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"b\.png"):
        encoder.encode_images([photographs()[0], tmp_path / "b.png"])
    with pytest.raises(TypeError, match="strings"):
        encoder.encode_texts("bare")
    with pytest.raises(TypeError, match="sequence of images"):
        encoder.encode_images(photographs()[0])  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="precision fp16 is not for onnx: models"):
        load_encoder(f"onnx:{clip.folder}", precision="fp16")
    with pytest.raises(EncoderError, match="needs ONNX Runtime's DmlExecutionProvider"):
        load_encoder(f"onnx:{clip.folder}", device="directml")


def test_an_export_appears_whole_or_not_at_all(clip: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "MIN_COSINE", 1.1)
    with pytest.raises(EncoderError, match=r"gives other vectors than torch: cosine [01]\.\d+ for pictures"):
        export(clip.name, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "place", "reason"),
    [
        ("compact", "new", "'compact' cannot be exported: name an open_clip model"),
        ("openclip:", "new", "cannot be exported"),
        ("openclip:nothing/x", "new", "open_clip knows no model 'nothing'"),
        ("openclip:ViT-B-32/openai", "full", "full: is there already: name a folder that is new or empty"),
        ("openclip:ViT-B-32/openai", "full/file", "file: is there already"),
    ],
)
def test_what_cannot_be_exported(name: str, place: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(EncoderError, match=reason):
        export(name, tmp_path / place)
    assert (tmp_path / "full" / "file").read_text() == "mine"


def test_an_export_without_its_package_says_so(clip: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = onnx_export.importlib.util.find_spec
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None if name == "onnx" else there(name))
    with pytest.raises(EncoderError, match=r"pip install 'sightline\[export\]'"):
        export(clip.name, tmp_path / "new")


# Folders


@pytest.fixture
def copied(clip: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip.folder, tmp_path / "copy"))


@pytest.mark.parametrize("file", [*layout.DESCRIPTIONS, *layout.TOWERS])
def test_a_missing_file_is_named(file: str, copied: Path) -> None:
    (copied / file).unlink()
    with pytest.raises(EncoderError, match=f"is no exported model: it has no {file}"):
        OnnxEncoder(str(copied))


@pytest.mark.parametrize("file", [*layout.DESCRIPTIONS, *layout.TOWERS])
def test_a_changed_file_is_refused(file: str, copied: Path) -> None:
    with (copied / file).open("ab") as changed:
        changed.write(b"\0" if file in layout.TOWERS else b"\n")
    with pytest.raises(EncoderError, match=f"{file}: is not the file that was exported"):
        OnnxEncoder(str(copied))


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        (layout.MANIFEST, '{"format": 99}', "was written by another version"),
        (layout.MANIFEST, '{"format": 1, "fingerprint": "x"}', "does not say which files were exported"),
        (layout.MANIFEST, '{"format": 1, "fingerprint": "x", "files": []}', "does not say which files were exported"),
        (layout.MANIFEST, '{"format": 1, "fingerprint": "x", "files": {}}', "is not the file that was exported"),
        (layout.CONFIG, "{", "config.json: cannot be read"),
        (layout.CONFIG, "{}", "is not the description of an open_clip model"),
        (layout.PREPROCESSING, "{}", "the preprocessing is not understood"),
        (layout.TOKENIZER, "{}", "is no tokenizer"),
        (layout.TOKENIZER_CONFIG, '{"pad_token": "<none>"}', "its pad_token '<none>' is not in tokenizer.json"),
    ],
)
def test_damaged_descriptions_say_which(file: str, text: str, reason: str, copied: Path) -> None:
    (copied / file).write_text(text)
    with pytest.raises(EncoderError, match=reason) as caught:
        OnnxEncoder(str(copied))
    assert "\n" not in str(caught.value)


def move_weights(folder: Path, location: str = "weights") -> Path:
    """Put the text tower's weights into a file beside it, which the graph calls `location`."""
    tower = folder / layout.TEXT_TOWER
    model = onnx.load(tower)
    onnx.save_model(model, tower, save_as_external_data=True, location="weights", size_threshold=0)
    model = onnx.load(tower, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    tower.write_bytes(model.SerializeToString())
    return tower.with_name("weights")


def test_the_manifest_names_what_decides_the_vectors_and_nothing_else(copied: Path) -> None:
    weights = move_weights(copied)
    manifest = json.loads((copied / layout.MANIFEST).read_text())
    assert set(manifest["files"]) == {*layout.DESCRIPTIONS, *layout.TOWERS}
    with pytest.raises(EncoderError, match=r"textual/model\.onnx: is not the file that was exported"):
        OnnxEncoder(str(copied))
    (copied / "visual" / "Thumbs.db").write_bytes(b"x")
    manifest["files"] = layout.hash_files(copied)
    assert set(manifest["files"]) == {*layout.DESCRIPTIONS, *layout.TOWERS, "textual/weights"}
    (copied / layout.MANIFEST).write_text(json.dumps(manifest))
    assert OnnxEncoder(str(copied)).fingerprint == manifest["fingerprint"]
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(EncoderError, match="textual/weights: is not the file that was exported"):
        OnnxEncoder(str(copied))
    weights.unlink()
    with pytest.raises(EncoderError, match="it has no textual/weights"):
        OnnxEncoder(str(copied))


@pytest.mark.parametrize(
    ("file", "reason"), [("visual/more", "visual/more: is missing"), ("../x", "lies outside of this folder")]
)
def test_a_file_that_only_the_manifest_names(file: str, reason: str, copied: Path) -> None:
    manifest = json.loads((copied / layout.MANIFEST).read_text())
    manifest["files"][file] = "0" * 64
    (copied / layout.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(EncoderError, match=reason):
        OnnxEncoder(str(copied))


def test_without_a_manifest_only_files_in_use_name_the_space(copied: Path) -> None:
    (copied / layout.MANIFEST).unlink()
    before = OnnxEncoder(str(copied)).fingerprint
    for unused in ("textual/sentencepiece.model", "visual/Thumbs.db", "visual/model.onnx.data", "README.md"):
        (copied / unused).write_bytes(b"x")
    assert OnnxEncoder(str(copied)).fingerprint == before
    for used in layout.DESCRIPTIONS:
        was = OnnxEncoder(str(copied)).fingerprint
        with (copied / used).open("a") as file:
            file.write("\n")
        assert OnnxEncoder(str(copied)).fingerprint != was


@pytest.mark.parametrize("location", ["../../weights", "/etc/hosts", "C:\\weights", "..\\weights", "."])
def test_weights_outside_of_the_folder_are_refused(location: str, copied: Path) -> None:
    (copied / layout.MANIFEST).unlink()
    move_weights(copied, location).rename(copied.parent / "weights")
    with pytest.raises(EncoderError, match=r"textual/model\.onnx: names weights outside of its folder"):
        OnnxEncoder(str(copied))


def test_weights_behind_a_link_out_of_the_folder_are_refused(copied: Path) -> None:
    (copied / layout.MANIFEST).unlink()
    weights = move_weights(copied)
    weights.rename(copied.parent / "elsewhere")
    weights.symlink_to(copied.parent / "elsewhere")
    with pytest.raises(EncoderError, match="'textual/weights' lies outside of this folder"):
        OnnxEncoder(str(copied))


def test_what_names_no_folder_and_no_repository() -> None:
    for spec in ("./absent", "/absent/x", "a b/c", "", "x"):
        with pytest.raises(EncoderError, match="names a folder of an export, or OWNER/NAME on the hub"):
            load_encoder(f"onnx:{spec}")


@pytest.mark.parametrize("spec", ["exports/my--model", "a/b..c", "a/b.", "a/b.git", "a/" + "b" * 100])
def test_what_is_no_folder_and_no_name_of_the_hub(spec: str) -> None:
    with pytest.raises(EncoderError) as caught:
        load_encoder(f"onnx:{spec}")
    assert str(caught.value).startswith(f"no folder {spec} here, and {spec} cannot be a repository of the hub: ")
    assert "\n" not in str(caught.value)


# The layout in which Immich publishes its models on the hub


def publish(exported: Exported) -> dict[str, bytes]:
    """The files of `exported` as on the hub: graphs for one row, transformers' tokenizer files, no manifest.

    The text tower's weights lie beside it, as those of the largest do.
    """
    files = {file: (exported.folder / file).read_bytes() for file in (*layout.DESCRIPTIONS, *layout.TOWERS)}
    for tower in layout.TOWERS:
        model = onnx.load(exported.folder / tower)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        files[tower] = model.SerializeToString()
    beside = exported.folder.parent / "beside"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    onnx.save_model(model, beside / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    files |= {f"textual/{path.name}": path.read_bytes() for path in beside.iterdir()}
    files |= {
        "README.md": b"#",
        "visual/fp16/model.armnn": b"x",
        "textual/model.rknn": b"x",
        "visual/model.armnn": b"x",
    }
    return {f"immich-app/model__tag/{name}": content for name, content in files.items()}


def test_the_hubs_layout_is_downloaded_once_and_gives_the_same_vectors(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(publish(exported), monkeypatch) as hub:
        encoder = load_encoder("onnx:immich-app/model__tag", device="cpu")
        names = {path.partition("/resolve/")[2].partition("/")[2] for path in hub.served}
        assert names == {*layout.DESCRIPTIONS, *layout.TOWERS, "textual/weights"}
        assert "Fetching" in capfd.readouterr().err
        again = load_encoder("onnx:immich-app/model__tag", device="cpu")
        assert len(hub.served) == len(names)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = load_encoder("onnx:immich-app/model__tag", device="cpu")
    assert encoder.name == "onnx:immich-app/model__tag"
    assert encoder.fingerprint == again.fingerprint == offline.fingerprint != exported.report.fingerprint
    own = load_encoder(f"onnx:{exported.folder}", device="cpu")
    np.testing.assert_allclose(offline.encode_images(photographs()), own.encode_images(photographs()), atol=1e-5)
    np.testing.assert_allclose(offline.encode_texts(TEXTS), own.encode_texts(TEXTS), atol=1e-5)


def test_offline_says_which_files_to_put_where_and_putting_them_there_works(clip: Exported) -> None:
    with pytest.raises(EncoderError) as caught:
        load_encoder("onnx:immich-app/model__tag")
    message = str(caught.value)
    place = drop_folder("immich-app/model__tag")
    assert message.startswith("no folder immich-app/model__tag here, and the model's files are not here")
    assert "HF_HUB_OFFLINE is set" in message
    assert ", ".join((*layout.DESCRIPTIONS, *layout.TOWERS)) in message
    assert f"{constants.ENDPOINT}/immich-app/model__tag," in message
    assert str(place) in message
    for name, content in publish(clip).items():
        path = place / name.removeprefix("immich-app/model__tag/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        assert load_encoder("onnx:immich-app/model__tag").encode_texts(["a dog"]).shape == (1, 24)
    finally:
        shutil.rmtree(place)


def test_a_download_that_was_broken_off_goes_on(clip: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(publish(clip), monkeypatch) as hub:
        hub.refused.add("immich-app/model__tag/textual/weights")
        for _ in range(2):
            with pytest.raises(EncoderError, match="cannot be downloaded"):
                load_encoder("onnx:immich-app/model__tag")
        hub.refused.clear()
        assert load_encoder("onnx:immich-app/model__tag").encode_texts(["a dog"]).shape == (1, 24)


def test_weights_in_a_folder_of_their_own_are_downloaded(clip: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    root, files = "immich-app/model__tag/textual/", publish(clip)
    model = onnx.ModelProto.FromString(files[f"{root}model.onnx"])
    for tensor in model.graph.initializer:
        for entry in (entry for entry in tensor.external_data if entry.key == "location"):
            entry.value = "parts/weights.bin"
    files[f"{root}model.onnx"] = model.SerializeToString()
    files[f"{root}parts/weights.bin"] = files.pop(f"{root}weights")
    files[f"{root}parts/others.bin"] = b"x"
    with serving(files, monkeypatch) as hub:
        hub.refused.add(f"{root}parts/weights.bin")
        for _ in range(2):
            with pytest.raises(EncoderError, match=r"cannot be downloaded.* get textual/parts/weights\.bin of "):
                load_encoder("onnx:immich-app/model__tag")
        hub.refused.clear()
        vectors = load_encoder("onnx:immich-app/model__tag").encode_texts(TEXTS)
        assert not any("others" in path for path in hub.served)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(load_encoder("onnx:immich-app/model__tag").encode_texts(TEXTS), vectors)
    np.testing.assert_allclose(load_encoder(f"onnx:{clip.folder}").encode_texts(TEXTS), vectors, atol=1e-5)


def test_the_tokenizer_is_read_once(clip: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Counting:
        @staticmethod
        def from_file(path: str) -> tokenizers.Tokenizer:
            read.append(path)
            return tokenizer.from_file(path)

    tokenizer = tokenizers.Tokenizer
    monkeypatch.setattr(tokenizers, "Tokenizer", Counting)
    assert load_encoder(f"onnx:{clip.folder}").encode_texts(["a dog"]).shape == (1, 24)
    assert len(read) == 1


@pytest.mark.parametrize("order", [("ids", "mask"), ("mask", "ids")])
def test_a_text_tower_with_a_mask_is_told_what_is_filling(order: tuple[str, str], copied: Path) -> None:
    """As M-CLIP's: two inputs, and vectors that are not of unit length."""
    (copied / layout.MANIFEST).unlink()
    inputs = {
        "ids": helper.make_tensor_value_info("input_ids", TensorProto.INT32, [1, 16]),
        "mask": helper.make_tensor_value_info("attention_mask", TensorProto.INT32, [1, 16]),
    }
    vector = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 24])
    widen = helper.make_tensor("widen", TensorProto.FLOAT, [1, 24], np.arange(24, dtype=np.float32))
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["masked"]),
        # With ids and mask the other way round the sum is another.
        helper.make_node("Add", ["input_ids", "masked"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axes"], ["sum"], keepdims=1),
        helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["float", "widen"], ["embedding"]),
    ]
    graph = helper.make_graph(nodes, "text", [inputs[name] for name in order], [vector], [widen, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, copied / layout.TEXT_TOWER)
    tokens = open_clip.get_tokenizer("ViT-B-32")(["two dogs"], context_length=16).numpy()
    wanted = 2 * tokens.sum() + np.arange(24)
    found = OnnxEncoder(str(copied)).encode_texts(["two dogs"])[0]
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), rtol=1e-5)


def test_a_graph_that_is_no_tower(copied: Path) -> None:
    (copied / layout.MANIFEST).unlink()
    (copied / layout.TEXT_TOWER).write_bytes(b"nothing")
    encoder = OnnxEncoder(str(copied))
    with pytest.raises(EncoderError, match=r"model\.onnx cannot be loaded by ONNX Runtime"):
        encoder.encode_texts(["a dog"])
    shutil.copy(copied / layout.IMAGE_TOWER, copied / layout.TEXT_TOWER)
    config = json.loads((copied / layout.CONFIG).read_text())
    (copied / layout.CONFIG).write_text(json.dumps({**config, "embed_dim": 25}))
    with pytest.raises(EncoderError, match=r"gives vectors of shape \(24,\), not of 25 numbers"):
        OnnxEncoder(str(copied)).encode_images(photographs()[:1])
