"""From texts to the numbers that a text tower reads, by a ``tokenizer.json`` alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.base import EncoderError
from retrieval.encoders.text_cleaning import bounded, clean
from retrieval.encoders.weights import read_object

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT_LENGTH = 77


@dataclass(frozen=True)
class TextSettings:
    """How a text becomes tokens: cleaned, cut to context_length from the right, filled up by pad_id.

    pad_left, cut_left: which side is filled and cut. zeroed_id: the token that is replaced by 0, or -1.
    """

    context_length: int
    clean: str
    pad_id: int
    pad_left: bool = False
    cut_left: bool = False
    zeroed_id: int = -1


class TokenReader:
    """Texts as rows of token ids, by a `tokenizer` of `load_tokenizer` that is this reader's alone.

    A text longer than the context is cut, which is logged once.
    """

    def __init__(self, name: str, tokenizer: Any, settings: TextSettings) -> None:
        self._name = name
        self._settings = settings
        self._said_cut = False
        self._tokenizer = tokenizer
        self._tokenizer.enable_truncation(settings.context_length, direction="left" if settings.cut_left else "right")
        # The token's own text is not looked at where a number is given.
        self._tokenizer.enable_padding(
            length=settings.context_length, pad_id=settings.pad_id, direction="left" if settings.pad_left else "right"
        )

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The tokens and which of them are no filling, each (n, context_length)."""
        settings = self._settings
        ids = np.empty((len(texts), settings.context_length), np.int64)
        mask = np.empty_like(ids)
        for row, text in enumerate(bounded(texts, settings.context_length)):
            # One by one: the library's own threads would not survive a fork, and gain nothing at this size.
            tokens = self._tokenizer.encode(clean(text, settings.clean))
            ids[row], mask[row] = tokens.ids, tokens.attention_mask
            if tokens.overflowing and not self._said_cut:
                self._said_cut = True
                length = settings.context_length
                logger.warning("%s reads %d tokens; longer texts are cut there, as %r", self._name, length, text[:60])
        if settings.zeroed_id >= 0:
            ids[ids == settings.zeroed_id] = 0
        return ids, mask


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a ``tokenizer.json``; raises `EncoderError` for what is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises plain Exception.
        raise EncoderError(f"{path}: is no tokenizer: {' '.join(str(error).split())[:200]}") from None


def text_settings(text_config: Mapping[str, Any], tokenizer: Any, config: Path) -> TextSettings:
    """What open_clip's ``text_cfg`` and transformers' ``tokenizer_config.json`` say of the texts; or `EncoderError`."""
    own = read_object(config)
    options = text_config.get("tokenizer_kwargs") or {}
    if text_config.get("tokenizer_mode") or options.get("tokenizer_mode"):
        raise EncoderError(f"{config}: a tokenizer with a mode of its own is not supported")
    # CLIP's own tokenizer is in no open_clip configuration; it fills with zeros, whatever token that is.
    clips_own = not text_config.get("hf_tokenizer_name") and str(own.get("tokenizer_class")).startswith("CLIPTokenizer")

    def id_of(name: str) -> int:
        token = own.get(name)
        found = tokenizer.token_to_id(token["content"] if isinstance(token, dict) else str(token))
        if found is None:
            raise EncoderError(f"{config}: its {name} {token!r} is not in tokenizer.json")
        return int(found)

    return TextSettings(
        context_length=int(text_config.get("context_length") or DEFAULT_CONTEXT_LENGTH),
        clean=str(options.get("clean") or ("lower" if clips_own else "whitespace")),
        pad_id=0 if clips_own else id_of("pad_token"),
        pad_left=own.get("padding_side") == "left",
        cut_left=own.get("truncation_side") == "left",
        zeroed_id=id_of("sep_token") if options.get("strip_sep_token") else -1,
    )


def clip_tokenizer(simple: Any) -> Any:
    """open_clip's own byte-pair tokenizer as one of `tokenizers`, which gives the same tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors

    start, end = simple.decoder[simple.sot_token_id], simple.decoder[simple.eot_token_id]
    merges = [pair for pair, _ in sorted(simple.bpe_ranks.items(), key=lambda ranked: ranked[1])]
    made = Tokenizer(models.BPE(vocab=simple.encoder, merges=merges, end_of_word_suffix="</w>"))
    made.add_special_tokens([AddedToken(token, normalized=False) for token in (start, end)])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.post_processor = processors.TemplateProcessing(
        f"{start} $A {end}", special_tokens=[(start, simple.sot_token_id), (end, simple.eot_token_id)]
    )
    return made
