"""Any model of open_clip as an encoder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders.base import EncoderError, ImageInput
from retrieval.encoders.checkpoints import Checkpoint, resolve
from retrieval.encoders.devices import choose_device, choose_precision, require
from retrieval.encoders.openclip_identity import Identity, recall_identity, remember_identity, stamps
from retrieval.encoders.preprocess import max_aspect
from retrieval.encoders.text_cleaning import bounded
from retrieval.encoders.weights import fetch_text_folder, file_sha256
from retrieval.images.decode import ImageError, available_cores, crop_elongated, map_images

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# Rows per forward pass: enough to fill the device, few enough for the largest towers; halved on CUDA when
# memory runs out.
_BATCH = {"cpu": 32, "mps": 64, "cuda": 256}


class Parts(NamedTuple):
    """Model and tokenizer of open_clip, and what describes the architecture and the preprocessing."""

    model: Any
    tokenizer: Any
    config: dict[str, Any]
    preprocessing: dict[str, Any]


class _Towers(NamedTuple):
    """What is loaded when it is first used."""

    model: Any
    tokenizer: Any
    config: dict[str, Any]
    settings: dict[str, Any]
    preprocess: Callable[..., Any]
    max_aspect: float


class OpenClipEncoder:
    """Images and texts by the two towers of an open_clip model; see `retrieval.encoders.base.Encoder`.

    spec: what follows ``openclip:``, as `retrieval.encoders.checkpoints.resolve` reads it. Weights that are
    not here are downloaded. device and precision: see `retrieval.encoders.devices`. Only tensors are read
    from a checkpoint, never code. Vectors are those of open_clip's own ``encode_image`` and
    ``encode_text`` with its own preprocessing, with the activation the weights were trained with. Texts
    longer than the model's context are cut, which is logged once. A model that was loaded on this machine before, from
    files that have not changed since, is loaded when it is first used, and torch with it. Raises `EncoderError`.

    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021.
    """

    def __init__(self, spec: str, *, device: str = "auto", precision: str = "auto") -> None:
        self.name = f"openclip:{spec}"
        require("open_clip", self.name)
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self._spec = spec
        self._loading = threading.Lock()
        self._towers: _Towers | None = None
        known = recall_identity(spec)
        if known is None:
            self._towers, known = self._load()
        self.fingerprint, self.dim, self.context_length = known
        self._batch = _BATCH[self.device.partition(":")[0]]
        self._tokenizing = threading.Lock()
        self._said_cut = False

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32 rows of unit length, in the order given; n may be 0."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("encode_texts takes a sequence of strings")
        # CLIP's text towers pad every text to the context length and read it whole, so texts are batched by
        # count: grouping them by length would save nothing.
        rows: list[NDArray[np.float32]] = []
        done = 0
        while done < len(texts):
            part = texts[done : done + self._batch]
            tokens = self._tokenize(part)
            rows.append(self._forward(self._loaded.model.encode_text, tokens.to(self.device)))
            done += len(part)
        return self._stack(rows)

    def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        """(n, dim) float32 rows of unit length, in the order given; n may be 0.

        Paths are decoded in threads as `retrieval.images.decode.load_image` does; raises the first `ImageError`.
        """
        if isinstance(images, str | Path | Image.Image):
            raise TypeError("encode_images takes a sequence of images")
        rows: list[NDArray[np.float32]] = []
        waiting: list[torch.Tensor] = []
        # A whole batch is decoded ahead, so that the next is ready when the towers have done this one.
        ahead = max(self._batch, 2 * available_cores())
        prepared = map_images(images, self._prepare, prefetch=ahead)
        with contextlib.closing(prepared):
            for tensor in prepared:
                if isinstance(tensor, ImageError):
                    raise tensor
                waiting.append(tensor)
                if len(waiting) >= self._batch:
                    rows.append(self._encode_tensors(waiting))
                    waiting = []
        if waiting:
            rows.append(self._encode_tensors(waiting))
        return self._stack(rows)

    @property
    def parts(self) -> Parts:
        """What this encoder is made of, for an export."""
        loaded = self._loaded
        return Parts(loaded.model, loaded.tokenizer, loaded.config, loaded.settings)

    @property
    def _loaded(self) -> _Towers:
        with self._loading:
            if self._towers is None:
                towers, found = self._load()
                if found.fingerprint != self.fingerprint:
                    raise EncoderError(f"{self.name}: its files are not those that it had before: run this again")
                self._towers = towers
            return self._towers

    def _load(self) -> tuple[_Towers, Identity]:
        checkpoint = resolve(self._spec)
        files = stamps(checkpoint)
        model, preprocess, settings = _build(checkpoint, self.device, self.precision)
        tokenizer = _tokenizer(checkpoint)
        aspect = max_aspect(settings["size"], settings["resize_mode"])
        found = Identity(
            _fingerprint(checkpoint, settings), int(checkpoint.config["embed_dim"]), int(tokenizer.context_length)
        )
        remember_identity(self._spec, found, files)
        return _Towers(model, tokenizer, checkpoint.config, settings, preprocess, aspect), found

    def _prepare(self, image: Image.Image) -> torch.Tensor:
        tensor: torch.Tensor = self._loaded.preprocess(crop_elongated(image, self._loaded.max_aspect))
        return tensor

    def _encode_tensors(self, tensors: list[torch.Tensor]) -> NDArray[np.float32]:
        import open_clip
        import torch

        batch = torch.stack(tensors)
        dtype = open_clip.get_input_dtype(self.precision)
        return self._forward(self._loaded.model.encode_image, batch.to(device=self.device, dtype=dtype))

    def _forward(self, tower: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> NDArray[np.float32]:
        """Unit rows of one batch; in halves when the GPU's memory does not hold it."""
        import torch

        try:
            with torch.inference_mode():
                vectors = torch.nn.functional.normalize(tower(batch).float(), dim=-1).cpu()
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(batch) == 1:
                raise EncoderError(f"{self.name}: device {self.device} has too little memory for one item") from None
            half = len(batch) // 2
            self._batch = max(1, min(self._batch, half))
            logger.warning("%s: out of memory with %d items; going on with %d", self.name, len(batch), self._batch)
            return np.concatenate([self._forward(tower, batch[:half]), self._forward(tower, batch[half:])])
        rows: NDArray[np.float32] = vectors.numpy()
        if not np.isfinite(rows).all():
            raise EncoderError(f"{self.name}: gives no finite vectors in {self.precision}: try precision bf16 or fp32")
        return rows

    def _stack(self, rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def _tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        context = self.context_length
        clean, tokenizer = bounded(texts, context), self._loaded.tokenizer
        # The fast tokenizers of transformers set their truncation on a shared object.
        with self._tokenizing:
            tokens: torch.Tensor = tokenizer(clean)
            if not self._said_cut:
                self._report_cut(clean, context)
        return tokens

    def _report_cut(self, texts: Sequence[str], context: int) -> None:
        for text in texts:
            # A token stands for at least one byte, and two are spent on the marks of beginning and end.
            if len(text.encode()) > context - 2 and _token_count(self._loaded.tokenizer, text) > context:
                logger.warning("%s reads %d tokens; longer texts are cut there, as %r", self.name, context, text[:60])
                self._said_cut = True
                return


def _token_count(tokenizer: Any, text: str) -> int:
    if hasattr(tokenizer, "sot_token_id"):
        return len(tokenizer.encode(text)) + 2
    return len(tokenizer.tokenizer(tokenizer.clean_fn(text), truncation=False, verbose=False)["input_ids"])


def _build(checkpoint: Checkpoint, device: str, precision: str) -> tuple[Any, Callable[..., Any], dict[str, Any]]:
    """The model, its preprocessing, and the settings of the latter."""
    import open_clip
    import torch
    from open_clip import transform

    text_config = dict(checkpoint.config["text_cfg"])
    overrides: dict[str, Any] = {}
    if text_config.get("hf_model_name"):
        folder = fetch_text_folder(text_config["hf_model_name"])
        overrides["text_cfg"] = {**text_config, "hf_model_name": str(folder), "hf_model_pretrained": False}
    try:
        with _quiet_root_logger():
            model = open_clip.create_model(
                checkpoint.source,
                pretrained=None if checkpoint.described else str(checkpoint.weights),
                precision=precision,
                device=device,
                force_quick_gelu=checkpoint.quick_gelu,
                force_preprocess_cfg=checkpoint.preprocess,
                require_pretrained=True,
                weights_only=True,
                **overrides,
            )
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise EncoderError(f"device {device} has too little memory for {checkpoint.source}") from None
    except Exception as error:
        # torch, safetensors and open_clip raise a dozen types for a file that is damaged or does not fit.
        raise EncoderError(_why_not_loaded(checkpoint, error)) from error
    settings = dict(model.visual.preprocess_cfg)
    preprocess = transform.image_transform_v2(transform.PreprocessCfg(**settings), is_train=False)
    return model.eval().requires_grad_(False), preprocess, settings


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep open_clip's calls of ``logging.info`` from setting up the root logger for the whole process."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _why_not_loaded(checkpoint: Checkpoint, error: Exception) -> str:
    """One line from the many that torch writes."""
    message = str(error)
    if "weights_only" in message or "Weights only load failed" in message:
        with checkpoint.weights.open("rb") as file:
            pickled = file.read(2) in (b"PK", b"\x80\x02", b"\x80\x04")
        if pickled:
            return f"{checkpoint.weights}: holds objects that could run code: save its state dict as safetensors"
        return f"{checkpoint.weights}: is not a file of weights"
    patterns = {
        "lacks": r'Missing key\(s\) in state_dict: "([^"]+)"',
        "has besides": r'Unexpected key\(s\) in state_dict: "([^"]+)"',
        "has in another shape": r"size mismatch for ([\w.]+)",
    }
    found = [f"{what} {match[1]}" for what, pattern in patterns.items() if (match := re.search(pattern, message))]
    if found:
        return f"{checkpoint.weights} does not fit {checkpoint.source}: it {', '.join(found)}"
    return f"{checkpoint.weights} cannot be loaded as {checkpoint.source}: {' '.join(message.split())[:300]}"


def _tokenizer(checkpoint: Checkpoint) -> Any:
    """As `open_clip.get_tokenizer`, but from files that `fetch_text_folder` has."""
    import open_clip
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

    text = checkpoint.config["text_cfg"]
    if not text.get("hf_tokenizer_name"):
        return open_clip.get_tokenizer(checkpoint.source)
    folder = fetch_text_folder(text["hf_tokenizer_name"])
    try:
        return HFTokenizer(
            str(folder),
            context_length=text.get("context_length") or DEFAULT_CONTEXT_LENGTH,
            tokenizer_mode=text.get("tokenizer_mode"),
            **text.get("tokenizer_kwargs", {}),
        )
    except Exception as error:
        raise EncoderError(f"{folder}: its tokenizer cannot be loaded: {' '.join(str(error).split())[:200]}") from error


def _fingerprint(checkpoint: Checkpoint, preprocess: dict[str, Any]) -> str:
    """Names the vector space: not the device, the precision or what the model is called."""
    identity = {
        "architecture": {**checkpoint.config, "quick_gelu": checkpoint.quick_gelu},
        "weights": file_sha256(checkpoint.weights),
        "preprocess": preprocess,
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    return f"openclip:{digest[:32]}"
