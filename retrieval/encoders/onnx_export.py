"""Writing an open_clip model as ONNX, in the folder that ``onnx:`` reads."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders import onnx_layout as layout
from retrieval.encoders.base import Encoder, EncoderError, ImageInput
from retrieval.encoders.onnx_model import OnnxEncoder
from retrieval.encoders.onnx_quantize import quantize
from retrieval.encoders.token_ids import clip_tokenizer

if TYPE_CHECKING:
    from retrieval.encoders.openclip import OpenClipEncoder, Parts

logger = logging.getLogger(__name__)

Floats: TypeAlias = NDArray[np.float32]

#: What the cosine of an fp32 export's vector and torch's must reach, for every picture and text.
MIN_COSINE = 0.9999
_OPSET = 17
_SAMPLE_TEXTS = (
    "a photo of a dog on the beach",
    "two people riding bicycles through a city at night",
    "snow",
    "",
    "ein rotes Auto vor einem alten Haus",
    "海の上の白い船",
    "a black and white drawing of a lighthouse, with the sea behind it and a small boat that comes home in the evening "
    "while the birds fly over the harbour and the lamps of the village are lit one after the other along the shore",
    "die Katze schläft auf dem Sofa 🐈",
)
_TIMED_TEXTS = 16
_TIMED_PICTURES = 8


@dataclass(frozen=True)
class Speed:
    """Items a second in torch and in ONNX Runtime, on this machine's processor."""

    torch: float
    onnx: float


@dataclass(frozen=True)
class ExportReport:
    """What an export came to: the lowest cosines with torch's vectors, speeds, and bytes on disk.

    same_nearest: the share of pictures and texts to which the same other picture is the nearest as in torch. It says
    what a loss of cosine does to searches; recall itself can be known only of photographs with captions.
    """

    name: str
    fingerprint: str
    precision: str
    image_cosine: float
    text_cosine: float
    same_nearest: float
    images: Speed
    texts: Speed
    size_bytes: int


def export(name: str, folder: Path, *, int8: bool = False, pictures: Sequence[ImageInput] = ()) -> ExportReport:
    """Write the model ``openclip:…`` as ONNX into `folder`, which must not exist or be empty.

    int8: with weights of eight bits, see `retrieval.encoders.onnx_quantize`. pictures: photographs to compare vectors
    on; made-up pictures without them. The folder appears when all is written and checked. An fp32 export has the
    fingerprint of its model, whose vectors it gives, so that collections of the one can be searched by the other.

    Raises `EncoderError` where the model cannot be had or exported, or gives other vectors than torch.
    """
    encoder, target = _checked(name, folder)
    sample = list(pictures) or _made_up_pictures()
    work = target.with_name(f".{target.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    try:
        reference = (encoder.encode_images(sample), encoder.encode_texts(_SAMPLE_TEXTS))
        torch_speed = _speeds(encoder, sample)
        _write(encoder.parts, work)
        if int8:
            for tower in layout.TOWERS:
                quantize(work / tower)
        exported = OnnxEncoder(str(work), device="cpu")
        vectors = (exported.encode_images(sample), exported.encode_texts(_SAMPLE_TEXTS))
        cosines = [float((ours * theirs).sum(axis=1).min()) for ours, theirs in zip(vectors, reference, strict=True)]
        if not int8 and min(cosines) < MIN_COSINE:
            raise EncoderError(
                f"{name}: the export gives other vectors than torch: cosine {cosines[0]:.5f} for pictures, "
                f"{cosines[1]:.5f} for texts, {MIN_COSINE} wanted; nothing was written"
            )
        onnx_speed = _speeds(exported, sample)
        report = ExportReport(
            name=name,
            fingerprint=exported.fingerprint if int8 else encoder.fingerprint,
            precision="int8" if int8 else "fp32",
            image_cosine=cosines[0],
            text_cosine=cosines[1],
            same_nearest=_same_nearest(vectors, reference),
            images=Speed(torch_speed[0], onnx_speed[0]),
            texts=Speed(torch_speed[1], onnx_speed[1]),
            size_bytes=sum(path.stat().st_size for path in work.rglob("*") if path.is_file()),
        )
        _write_manifest(work, report)
        if target.exists():
            target.rmdir()
        work.rename(target)
    except OSError as error:
        raise EncoderError(f"cannot write {error.filename or target}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return report


def _same_nearest(ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]) -> float:
    return float(np.mean(_nearest(*ours) == _nearest(*theirs)))


def _nearest(pictures: Floats, texts: Floats) -> NDArray[np.intp]:
    """Which picture is nearest to each picture but itself, and to each text."""
    among = pictures @ pictures.T
    np.fill_diagonal(among, -2)
    nearest: NDArray[np.intp] = np.concatenate([among, texts @ pictures.T]).argmax(axis=1)
    return nearest


def _checked(name: str, folder: Path) -> tuple[OpenClipEncoder, Path]:
    """The model, once it is known that it can be written; nothing is loaded before."""
    scheme, _, spec = name.partition(":")
    if scheme != "openclip" or not spec:
        raise EncoderError(f"{name!r} cannot be exported: name an open_clip model, openclip:MODEL/PRETRAINED")
    target = folder.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise EncoderError(f"{target}: is there already: name a folder that is new or empty")
    if importlib.util.find_spec("onnx") is None:
        raise EncoderError("an export needs the package onnx: pip install 'sightline[export]'")
    from retrieval.encoders.openclip import OpenClipEncoder

    return OpenClipEncoder(spec, device="cpu", precision="fp32"), target


def _write(parts: Parts, folder: Path) -> None:
    """Everything but the manifest."""
    for name in ("visual", "textual"):
        (folder / name).mkdir(parents=True)
    _write_json(folder / layout.CONFIG, parts.config)
    _write_json(folder / layout.PREPROCESSING, parts.preprocessing)
    _write_tokenizer(parts.tokenizer, folder)
    import torch

    size = parts.preprocessing["size"]
    height, width = (size, size) if isinstance(size, int) else size
    picture = torch.zeros(2, 3, height, width)
    tokens = torch.ones(2, int(parts.tokenizer.context_length), dtype=torch.int32)
    with _exportable(parts.model):
        _write_graph(parts.model, parts.model.encode_image, "image", picture, folder / layout.IMAGE_TOWER)
        _write_graph(parts.model, parts.model.encode_text, "text", tokens, folder / layout.TEXT_TOWER)


def _write_graph(model: Any, tower: Callable[..., Any], name: str, example: Any, path: Path) -> None:
    import torch

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: torch.Tensor) -> Any:
            return tower(batch, normalize=True)

    try:
        torch.onnx.export(
            Tower().eval(),
            (example,),
            str(path),
            input_names=[name],
            output_names=["embedding"],
            dynamic_axes={name: {0: "batch"}, "embedding": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )
    except Exception as error:
        # torch raises whatever it meets in tracing.
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(f"torch cannot write the {name} tower as ONNX: {reason}") from error
    _join_weights(path)


def _join_weights(path: Path) -> None:
    """One file for the weights beside a graph of over 2 GB, where torch writes one for each."""
    beside = [other for other in path.parent.iterdir() if other != path and other.suffix != ".json"]
    if not beside:
        return
    import onnx

    model = onnx.load(str(path))
    for other in beside:
        other.unlink()
    onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data")


@contextlib.contextmanager
def _exportable(model: Any) -> Iterator[None]:
    """Have torch trace plain operations, and the branches of mobile networks merged as for inference."""
    import torch

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    if importlib.util.find_spec("timm"):
        from timm.utils.model import reparameterize_model

        reparameterize_model(model.visual, inplace=True)
    try:
        with warnings.catch_warnings():
            # The exporter is deprecated, and tells of every number that it takes for a constant.
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """The tokenizer as one file, and which of its tokens fills, as transformers would say it."""
    if getattr(tokenizer, "tokenizer_mode", "") or getattr(tokenizer, "reduction_fn", None):
        raise EncoderError("a tokenizer with a mode of its own cannot be exported")
    if hasattr(tokenizer, "sot_token_id"):
        clip_tokenizer(tokenizer).save(str(folder / layout.TOKENIZER))
        config = {"tokenizer_class": "CLIPTokenizer", "pad_token": tokenizer.decoder[0]}
    else:
        own = tokenizer.tokenizer
        if not hasattr(own, "backend_tokenizer"):
            raise EncoderError(f"the tokenizer {type(own).__name__} cannot be written as tokenizer.json")
        own.backend_tokenizer.save(str(folder / layout.TOKENIZER))
        wanted = ("pad_token", "sep_token", "padding_side", "truncation_side")
        config = {"tokenizer_class": type(own).__name__, **{key: getattr(own, key, None) for key in wanted}}
    _write_json(folder / layout.TOKENIZER_CONFIG, config)


def _write_manifest(folder: Path, report: ExportReport) -> None:
    manifest = {
        "format": layout.MANIFEST_FORMAT,
        "model": report.name,
        "precision": report.precision,
        "fingerprint": report.fingerprint,
        "lowest_cosine": {"images": report.image_cosine, "texts": report.text_cosine},
        "same_nearest": report.same_nearest,
        "files": layout.hash_files(folder),
    }
    _write_json(folder / layout.MANIFEST, manifest)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def _made_up_pictures() -> list[Image.Image]:
    """Pictures with edges, gradients and noise, the same each time."""
    chance = np.random.default_rng(0)
    made = []
    for width, height in ((640, 480), (480, 640), (300, 300), (900, 400)):
        coarse = Image.fromarray(chance.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = chance.integers(-12, 13, (height, width, 3))
        made.append(Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)))
    return made


def _speeds(encoder: Encoder, pictures: Sequence[ImageInput]) -> tuple[float, float]:
    """Pictures and texts a second, the better of two runs after one that is not counted."""
    images = [pictures[number % len(pictures)] for number in range(_TIMED_PICTURES)]
    texts = [_SAMPLE_TEXTS[number % len(_SAMPLE_TEXTS)] for number in range(_TIMED_TEXTS)]
    return _rate(lambda: encoder.encode_images(images), len(images)), _rate(
        lambda: encoder.encode_texts(texts), len(texts)
    )


def _rate(work: Callable[[], Any], items: int) -> float:
    work()
    times = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return items / min(times)
