"""`compact` with its image tower in eight bits, beside the one in fp32, on photographs that scikit-image carries."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from retrieval.encoders import Encoder, EncoderError, compact_int8, load_encoder
from retrieval.encoders.compact import CompactEncoder
from retrieval.encoders.compact_calibration import bounds, corrections, picture_files, picture_views, pictures_digest
from retrieval.encoders.compact_graph import Network
from retrieval.encoders.compact_image import cut_views, image_graph
from retrieval.encoders.compact_int8 import CompactInt8Encoder, activations, int8_graph, load_calibration

TEXTS = ["a cat", "a cup of coffee on a table", "a rocket on its launch pad"]
PHOTOS = ("chelsea", "coffee", "rocket")


@pytest.fixture(scope="module")
def whole() -> CompactEncoder:
    return CompactEncoder(device="cpu")


@pytest.fixture(scope="module")
def narrow() -> CompactInt8Encoder:
    return CompactInt8Encoder()


def _cosines(narrow: Encoder, whole: Encoder, images: list[Image.Image | str | Path]) -> np.ndarray:
    return (narrow.encode_images(images) * whole.encode_images(images)).sum(axis=1)


def test_pictures_lie_where_compact_puts_them(narrow: CompactInt8Encoder, whole: CompactEncoder) -> None:
    photos = [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOS]
    # These three were calibrated on. Mirrored and turned they are pictures that were not.
    unseen = [
        photo.transpose(turn)
        for photo in photos
        for turn in (Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT)
    ]
    assert _cosines(narrow, whole, [*photos, *unseen]).min() > 0.998
    similarity = narrow.encode_texts(TEXTS) @ narrow.encode_images(photos).T
    assert similarity.argmax(axis=0).tolist() == similarity.argmax(axis=1).tolist() == [0, 1, 2]


def test_pictures_of_all_kinds(narrow: CompactInt8Encoder, whole: CompactEncoder, tmp_path: Path) -> None:
    colour = Image.fromarray(skimage.data.chelsea())
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    clear = colour.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    kinds = {
        "grey.png": colour.convert("L"),
        "palette.gif": colour.convert("P"),
        "clear.png": clear,
        "print.jpg": colour.convert("CMYK"),
        "deep.tif": Image.fromarray(skimage.data.camera().astype(np.uint16) * 257),
        "small.png": colour.resize((64, 43)),
        "noise.png": noise,
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
    flat = [Image.new("RGB", size, "red") for size in ((1, 1), (1, 3000), (3000, 2))]
    images = [
        *(tmp_path / name for name in kinds),
        *flat,
        Image.new("RGB", (300, 200)),
        Image.new("RGB", (90, 90), "white"),
    ]
    vectors = narrow.encode_images(images)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert _cosines(narrow, whole, images).min() > 0.97


def test_texts_are_those_of_compact(narrow: CompactInt8Encoder, whole: CompactEncoder) -> None:
    np.testing.assert_array_equal(narrow.encode_texts([*TEXTS, "", "犬"]), whole.encode_texts([*TEXTS, "", "犬"]))
    assert narrow.encode_texts([]).shape == narrow.encode_images([]).shape == (0, 384)


def test_the_same_picture_has_the_same_vector_each_time(narrow: CompactInt8Encoder) -> None:
    photos = [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOS]
    first = narrow.encode_images(photos)
    np.testing.assert_array_equal(CompactInt8Encoder().encode_images(photos[::-1])[::-1], first)


def test_it_is_an_encoder_with_a_name_and_a_space_of_its_own(narrow: CompactInt8Encoder, whole: CompactEncoder) -> None:
    assert isinstance(narrow, Encoder)
    assert isinstance(load_encoder("compact-int8", device="cpu"), CompactInt8Encoder)
    assert (narrow.name, narrow.dim) == ("compact-int8", whole.dim)
    assert narrow.image_space.startswith("compact-int8:1:")
    assert narrow.fingerprint.startswith(narrow.image_space)
    assert narrow.fingerprint == CompactInt8Encoder().fingerprint != whole.fingerprint
    # What follows the images' space says how texts are read, which is the same.
    assert narrow.fingerprint.removeprefix(narrow.image_space) == whole.fingerprint.removeprefix(whole.image_space)


def test_the_fingerprint_names_the_calibration(narrow: CompactInt8Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    before, shipped = narrow.fingerprint, load_calibration()
    moved = [
        dataclasses.replace(shipped, lows=shipped.lows - 1),
        dataclasses.replace(shipped, highs=shipped.highs + 1),
        dataclasses.replace(shipped, corrections=(shipped.corrections[0] + 1, *shipped.corrections[1:])),
    ]
    found = set()
    for calibration in moved:
        monkeypatch.setattr(compact_int8, "_calibration", lambda calibration=calibration: calibration)
        found.add(narrow.fingerprint)
    assert len(found - {before}) == len(moved)


@pytest.mark.parametrize(
    ("device", "precision"), [("cuda", "auto"), ("mps", "auto"), ("cpu", "bf16"), ("auto", "fp32")]
)
def test_it_is_for_the_cpu_and_has_one_precision(device: str, precision: str) -> None:
    with pytest.raises(EncoderError, match=r"^compact-int8 runs on the CPU and has its own precision.*: use compact$"):
        CompactInt8Encoder(device, precision)


def test_all_but_the_first_two_blocks_have_eight_bits() -> None:
    graph, _ = image_graph()
    made = int8_graph(graph, load_calibration())
    convolutions = [node.operator for node in made.nodes if node.operator.endswith("Conv")]
    assert convolutions == ["Conv"] * 6 + ["QLinearConv"] * (len(convolutions) - 6)
    assert len(convolutions) == sum(node.operator == "Conv" for node in graph.nodes) > 60


def test_weights_without_signs_give_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = image_graph()
    views = cut_views(Image.fromarray(skimage.data.coffee()))
    if not compact_int8.signed_weights_are_exact():
        pytest.skip("signed weights are not exact on this processor")
    found = []
    for signed in (True, False):
        monkeypatch.setattr(compact_int8, "signed_weights_are_exact", lambda signed=signed: signed)
        found.append(Network(int8_graph(graph, load_calibration())).run(views=views)[0])
    np.testing.assert_allclose(*found, atol=1e-5)


def test_where_signed_weights_are_exact() -> None:
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists() or "flags" not in (known := cpu.read_text()):
        pytest.skip("the processor's instructions are not known")
    if "vnni" in known:
        assert compact_int8.signed_weights_are_exact()


@pytest.mark.slow
def test_the_data_file_is_what_the_command_makes() -> None:
    shipped, files, (graph, _) = load_calibration(), picture_files(), image_graph()
    assert shipped.pictures_sha256 == pictures_digest(files)
    kept, views = list(activations(graph)), picture_views(files)
    # The first ones stand for all, for which a core needs a minute.
    np.testing.assert_allclose(
        bounds(graph, views, kept[:2]), np.stack([shipped.lows[:2], shipped.highs[:2]], axis=1), rtol=1e-3
    )
    (correction,) = corrections(graph, views, shipped, kept[1:2])
    np.testing.assert_allclose(correction, shipped.corrections[0], atol=2e-3)
    assert np.abs(shipped.corrections[0]).max() > 0.004
