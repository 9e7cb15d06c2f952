"""Small models with random weights, of the architectures that people use, in open_clip's own form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from timm.models import fastvit, vision_transformer
from timm.models._registry import register_model

from retrieval.encoders.weights import drop_folder

CONTEXT = 16
_CLIP_TEXT = {"context_length": CONTEXT, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
_WORDS = [
    "a photo of two dogs",
    "ein Hund läuft am Strand",
    "红色的汽车",
    "the sea, the sky and a boat",
    "chien et chat",
]


@register_model  # type: ignore[untyped-decorator]
def vit_sightline_siglip(pretrained: bool = False, **options: Any) -> Any:
    """SigLIP's image tower, narrow: no class token, attention pooling."""
    shape = {"patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 2, "img_size": 64}
    own = {"class_token": False, "global_pool": "map", **shape, **options}
    return vision_transformer._create_vision_transformer("vit_base_patch16_siglip_256", pretrained=pretrained, **own)


@register_model  # type: ignore[untyped-decorator]
def fastvit_sightline(pretrained: bool = False, **options: Any) -> Any:
    """MobileCLIP2-S0's image tower, narrow: its kinds of block, one or two of each."""
    shape = {"layers": (1, 2, 1, 1), "embed_dims": (16, 16, 32, 32), "mlp_ratios": (2, 2, 2, 2)}
    own = {
        "se_downsamples": (False, False, True, True),
        "pos_embs": (None, None, None, partial(fastvit.RepConditionalPosEnc, spatial_shape=(7, 7))),
        "token_mixers": ("repmixer", "repmixer", "repmixer", "attention"),
        "lkc_use_act": True,
    }
    return fastvit._create_fastvit("fastvit_mci0", pretrained=pretrained, **shape, **own, **options)


CONFIGS: dict[str, dict[str, Any]] = {
    "ViT-B-32": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 32},
        "text_cfg": _CLIP_TEXT,
    },
    "MobileCLIP2-S0": {
        "embed_dim": 24,
        "vision_cfg": {"timm_model_name": "fastvit_sightline", "timm_pool": "avg", "timm_proj": None, "image_size": 64},
        "text_cfg": {**_CLIP_TEXT, "no_causal_mask": True},
        "custom_text": True,
    },
    "SigLIP2": {
        "embed_dim": 48,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 64,
            "timm_model_name": "vit_sightline_siglip",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **_CLIP_TEXT,
            "vocab_size": 400,
            "width": 48,
            "hf_tokenizer_name": "demo/gemma",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "act_kwargs": {"approximate": "tanh"},
        },
    },
    "XLM-R": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "patch_size": 32},
        "text_cfg": {
            "hf_model_name": "demo/xlm-r",
            "hf_tokenizer_name": "demo/xlm-r",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "mean_pooler",
            "context_length": CONTEXT,
        },
    },
}
#: How each model's own weights want their pictures.
PREPROCESSING: dict[str, dict[str, Any]] = {
    "MobileCLIP2-S0": {"image_mean": (0, 0, 0), "image_std": (1, 1, 1), "image_interpolation": "bilinear"},
    "SigLIP2": {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3, "image_resize_mode": "squash"},
}


def make(kind: str, folder: Path) -> str:
    """Write the model `kind` below `folder`; gives the name that loads it while `texts_here` is open."""
    place = folder / kind
    place.mkdir(parents=True)
    config = json.loads(json.dumps(CONFIGS[kind]))
    (place / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": _without_prefix(PREPROCESSING.get(kind, {}))})
    )
    text = config["text_cfg"]
    if text.get("hf_model_name"):
        text["hf_model_name"] = str(drop_folder("demo/xlm-r"))
    (place / f"sightline-{kind}.json").write_text(json.dumps(config))
    open_clip.add_model_config(place / f"sightline-{kind}.json")
    torch.manual_seed(1)
    model = open_clip.create_model(f"sightline-{kind}", pretrained_hf=False)
    _spread(model)
    torch.save(model.state_dict(), place / "open_clip_pytorch_model.bin")
    return f"openclip:local-dir:{place}"


def _without_prefix(options: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("image_"): value for key, value in options.items()}


def _spread(model: Any) -> None:
    """Weights at which a picture's and a text's vectors depend on the picture and the text, as trained ones do."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
        elif isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and "head" not in name:
            module.weight.data *= 2


@contextmanager
def texts_here(home: Path) -> Iterator[None]:
    """The tokenizers that the models name, where a person without a connection would put them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SIGHTLINE_HOME", str(home))
        _write_gemma(drop_folder("demo/gemma"))
        _write_xlm_roberta(drop_folder("demo/xlm-r"))
        yield


def _write_gemma(place: Path) -> None:
    """As Gemma's: byte pairs with bytes for what is unknown, an end mark, filled on the right."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_previous")
    tokenizer.decoder = decoders.ByteFallback()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    tokenizer.train_from_iterator(_WORDS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    own = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="right", **own).save_pretrained(place)


def _write_xlm_roberta(place: Path) -> None:
    """As XLM-RoBERTa's: a unigram model over pieces, with marks of beginning and end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(_WORDS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    own = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **own).save_pretrained(place)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    XLMRobertaConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=30, **sizes).save_pretrained(place)
