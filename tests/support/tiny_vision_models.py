"""Vision-language models of every family that people ask for, tiny and random, saved as real checkpoints are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as t
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SIDE = 28  # of the images that the towers see, in pixels

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 14,
}
_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@dataclass(frozen=True)
class Tiny:
    """One family: how to make it, and what its processor is to be given for a question on n images."""

    name: str
    build: Callable[[], tuple[Any, Any]]
    #: (question, images) to the processor's arguments, written down from each family's documentation.
    arguments: Callable[[str, list[Image.Image]], dict[str, Any]]
    most_images: int = 2
    needs_image: bool = False


def tokenizer(*special: str, **named: str) -> t.PreTrainedTokenizerFast:
    """A tokenizer of bytes, with the special tokens given; `named` ones become attributes, as image_token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*_TOKENS.values(), *alphabet]
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = t.PreTrainedTokenizerFast(tokenizer_object=core, **_TOKENS, extra_special_tokens=named)
    made.add_special_tokens({"additional_special_tokens": list(special)}, replace_extra_special_tokens=False)
    return made


def _pieces(*whole: str) -> t.PreTrainedTokenizerFast:
    """Fuyu's kind: a space begins every text, and the tokens for images are pieces of the vocabulary like any other."""
    spelled = [*_TOKENS.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(
        models.Unigram([*((piece, -10.0) for piece in spelled), *((piece, 0.0) for piece in whole)], unk_id=3)
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return t.PreTrainedTokenizerFast(tokenizer_object=core, **_TOKENS)


def save(tiny: Tiny, folder: Path) -> Path:
    """Save the family's processor and random weights to `folder` as a published model's folder looks."""
    torch.manual_seed(7)
    model, processor = tiny.build()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                # Wide enough that what is in the images decides what is written.
                parameter.normal_(0.0, 0.25)
    model.generation_config.eos_token_id = None  # so that every answer is as long as it may be
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _ids(processor_tokenizer: Any) -> dict[str, int]:
    return {name: getattr(processor_tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}


def _clip(**more: Any) -> Any:
    return t.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_center_crop=True, **more
    )


_TURNS = (
    "{% for m in messages %}{{ m['role'] | upper }}: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def llava() -> tuple[Any, Any]:
    words = tokenizer(image_token="<image>")
    text = t.LlamaConfig(vocab_size=len(words), **_TEXT, **_ids(words))
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**_VISION, projection_dim=32),
        text_config=text,
        image_token_index=words.image_token_id,
        image_seq_length=4,
    )
    processor = t.LlavaProcessor(
        _clip(),
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TURNS.replace("IMAGE", "<image>\n"),
    )
    return t.LlavaForConditionalGeneration(config), processor


def qwen() -> tuple[Any, Any]:
    words = tokenizer(
        "<|im_start|>",
        "<|im_end|>",
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_bos_token="<|vision_start|>",
        vision_eos_token="<|vision_end|>",
    )
    text = {
        **_TEXT,
        "vocab_size": len(words),
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        **_ids(words),
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
        "window_size": 112,
    }
    config = t.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
        vision_start_token_id=words.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=words.convert_tokens_to_ids("<|vision_end|>"),
    )
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    processor = t.Qwen2_5_VLProcessor(
        t.Qwen2VLImageProcessor(size=size), words, t.Qwen2VLVideoProcessor(), chat_template=template
    )
    return t.Qwen2_5_VLForConditionalGeneration(config), processor


def deepseek() -> tuple[Any, Any]:
    words = tokenizer(image_token="<image_placeholder>")
    config = t.DeepseekVLConfig(
        text_config=t.LlamaConfig(vocab_size=len(words), **_TEXT, **_ids(words)),
        vision_config=t.SiglipVisionConfig(**_VISION),
        image_token_id=words.image_token_id,
    )
    template = (
        "{% for m in messages %}{{ m['role'] | capitalize }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
        "<image_placeholder>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    images = t.DeepseekVLImageProcessor(size={"height": SIDE, "width": SIDE}, min_size=14)
    return t.DeepseekVLForConditionalGeneration(config), t.DeepseekVLProcessor(
        images, words, chat_template=template, num_image_tokens=4
    )


def _blip_parts(words: Any) -> dict[str, Any]:
    return {
        "vision_config": {**_VISION, "qkv_bias": True},
        "qformer_config": {
            "vocab_size": len(words),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "encoder_hidden_size": 32,
            "max_position_embeddings": 256,
        },
        "text_config": {
            "model_type": "opt",
            "vocab_size": len(words),
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            **_ids(words),
        },
        "num_query_tokens": 4,
    }


def _blip_images() -> Any:
    return t.BlipImageProcessor(size={"height": SIDE, "width": SIDE})


def blip2() -> tuple[Any, Any]:
    words = tokenizer()
    processor = t.Blip2Processor(_blip_images(), words, num_query_tokens=4)
    config = t.Blip2Config(**_blip_parts(words), image_token_index=words.convert_tokens_to_ids("<image>"))
    return t.Blip2ForConditionalGeneration(config), processor


def blip2_t5() -> tuple[Any, Any]:
    words = tokenizer()
    processor = t.Blip2Processor(_blip_images(), words, num_query_tokens=4)
    parts = _blip_parts(processor.tokenizer)
    parts["text_config"] = {
        "model_type": "t5",
        "vocab_size": len(words),
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": words.pad_token_id,
        "pad_token_id": words.pad_token_id,
        "eos_token_id": words.eos_token_id,
    }
    config = t.Blip2Config(**parts, image_token_index=words.convert_tokens_to_ids("<image>"))
    return t.Blip2ForConditionalGeneration(config), processor


def instructblip() -> tuple[Any, Any]:
    words, qformer_words = tokenizer(), tokenizer()
    processor = t.InstructBlipProcessor(_blip_images(), words, qformer_words, num_query_tokens=4)
    config = t.InstructBlipConfig(**_blip_parts(words), image_token_index=words.convert_tokens_to_ids("<image>"))
    return t.InstructBlipForConditionalGeneration(config), processor


def idefics() -> tuple[Any, Any]:
    words = tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    config = t.IdeficsConfig(
        vocab_size=len(words) - 3,
        additional_vocab_size=3,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        alpha_initializer="ones",
        cross_layer_interval=1,
        use_resampler=False,
        vision_config={
            "embed_dim": 32,
            "image_size": SIDE,
            "intermediate_size": 64,
            "patch_size": 14,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        **_ids(words),
    )
    processor = t.IdeficsProcessor(t.IdeficsImageProcessor(image_size=SIDE), words)
    return t.IdeficsForVisionText2Text(config), processor


def idefics2() -> tuple[Any, Any]:
    words = tokenizer()
    images = t.Idefics2ImageProcessor(size={"shortest_edge": 14, "longest_edge": SIDE}, do_image_splitting=False)
    processor = t.Idefics2Processor(
        images,
        words,
        image_seq_len=4,
        chat_template=_TURNS.replace("IMAGE", "<image>").replace("'\n'", "'<end_of_utterance>\n'"),
    )
    words = processor.tokenizer
    config = t.Idefics2Config(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_config=_VISION,
        perceiver_config={
            "hidden_size": 32,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        text_config={"model_type": "mistral", "vocab_size": len(words), **_TEXT, "head_dim": 8, **_ids(words)},
    )
    return t.Idefics2ForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, Any]:
    words = tokenizer("<global-img>", *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)))
    images = t.Idefics3ImageProcessor(
        size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=False
    )
    processor = t.Idefics3Processor(
        images,
        words,
        image_seq_len=1,
        chat_template=_TURNS.replace("IMAGE", "<image>").replace("'\n'", "'<end_of_utterance>\n'"),
    )
    words = processor.tokenizer
    config = t.Idefics3Config(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_config=_VISION,
        text_config={"model_type": "llama", "vocab_size": len(words), **_TEXT, **_ids(words)},
        scale_factor=2,
        pad_token_id=words.pad_token_id,
    )
    return t.Idefics3ForConditionalGeneration(config), processor


def kosmos2() -> tuple[Any, Any]:
    words = tokenizer()
    processor = t.Kosmos2Processor(_clip(), words, num_patch_index_tokens=4)
    words = processor.tokenizer
    config = t.Kosmos2Config(
        text_config={
            "vocab_size": len(words),
            "embed_dim": 32,
            "ffn_dim": 64,
            "layers": 2,
            "attention_heads": 4,
            "max_position_embeddings": 512,
            **_ids(words),
        },
        vision_config=_VISION,
        latent_query_num=64,
    )
    return t.Kosmos2ForConditionalGeneration(config), processor


def fuyu() -> tuple[Any, Any]:
    words = _pieces("|SPEAKER|", "|NEWLINE|", "<0x00>", "<0x01>", "<0x02>", "<0x03>", "<0x04>")
    images = t.FuyuImageProcessor(size={"height": 2 * SIDE, "width": 2 * SIDE}, patch_size={"height": 14, "width": 14})
    processor = t.FuyuProcessor(images, words)
    words = processor.tokenizer
    config = t.FuyuConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        image_size=2 * SIDE,
        patch_size=14,
        image_token_id=words.convert_tokens_to_ids("|SPEAKER|"),
        text_config={
            "model_type": "persimmon",
            "vocab_size": len(words),
            **{key: value for key, value in _TEXT.items() if key != "num_key_value_heads"},
            **_ids(words),
        },
        **_ids(words),
    )
    return t.FuyuForCausalLM(config), processor


_VQ = {
    "embed_dim": 16,
    "base_channels": 32,
    "channel_multiplier": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "latent_channels": 16,
}


def emu3() -> tuple[Any, Any]:
    words = tokenizer(
        *(f"<|visual token {i:06d}|>" for i in range(32)),
        "<|extra_200|>",
        image_token="<image>",
        boi_token="<|image start|>",
        eoi_token="<|image end|>",
        image_wrapper_token="<|image token|>",
        eof_token="<|extra_201|>",
    )
    vocabulary = words.get_vocab()
    config = t.Emu3Config(
        vq_config={
            **_VQ,
            "hidden_size": 32,
            "codebook_size": 32,
            "temporal_downsample_factor": 1,
            "double_latent": False,
        },
        text_config={"vocab_size": len(words), **_TEXT, **_ids(words)},
        vocabulary_map=vocabulary,
    )
    images = t.Emu3ImageProcessor(min_pixels=32 * 32, max_pixels=64 * 64)
    processor = t.Emu3Processor(images, words, chat_template=_TURNS.replace("IMAGE", "<image>"))
    return t.Emu3ForConditionalGeneration(config), processor


def chameleon() -> tuple[Any, Any]:
    words = tokenizer(
        *(f"IMGIMG{''.join(chr(65 + int(d)) for d in str(i))}Z" for i in range(32)),
        "<reserved08706>",
        image_token="<image>",
        boi_token="<racm3:break>",
        eoi_token="<eoss>",
    )
    words.sep_token = "<reserved08706>"
    config = t.ChameleonConfig(
        vocab_size=len(words),
        **_TEXT,
        vq_config={**_VQ, "num_embeddings": 32, "resolution": 32},
        vocabulary_map=words.get_vocab(),
        **_ids(words),
    )
    images = t.ChameleonImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = t.ChameleonProcessor(images, words, image_seq_length=16)
    return t.ChameleonForConditionalGeneration(config), processor


def _template(image: str, form: str) -> Callable[[str, list[Image.Image]], dict[str, Any]]:
    """Arguments for a family asked by a chat template: `image` for each image, the lot put into `form`."""
    return lambda question, images: {
        "text": [form.format(image * len(images) + question)],
        "images": images or None,
    }


def _plain(form: str) -> Callable[[str, list[Image.Image]], dict[str, Any]]:
    return lambda question, images: {"text": [form.format(question)], "images": images or None}


FAMILIES = (
    Tiny("llava", llava, _template("<image>\n", "USER: {}\nASSISTANT:")),
    Tiny(
        "qwen2.5-vl",
        qwen,
        _template(
            "<|vision_start|><|image_pad|><|vision_end|>", "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
        ),
    ),
    Tiny("deepseek-vl", deepseek, _template("<image_placeholder>", "User: {}\n\nAssistant:")),
    Tiny("blip-2", blip2, _plain("Question: {} Answer:"), most_images=1, needs_image=True),
    Tiny("blip-2-t5", blip2_t5, _plain("Question: {} Answer:"), most_images=1, needs_image=True),
    Tiny("instructblip", instructblip, _plain("{}"), most_images=1, needs_image=True),
    Tiny(
        "idefics",
        idefics,
        lambda question, images: {
            "text": [["\nUser:", *images, question, "<end_of_utterance>", "\nAssistant:"]],
            "add_end_of_utterance_token": False,
        },
    ),
    Tiny("idefics2", idefics2, _template("<image>", "USER: {}<end_of_utterance>\nASSISTANT:")),
    Tiny("idefics3", idefics3, _template("<image>", "USER: {}<end_of_utterance>\nASSISTANT:")),
    Tiny("kosmos-2", kosmos2, _plain("Question: {} Answer:"), most_images=1, needs_image=True),
    Tiny(
        "fuyu",
        fuyu,
        lambda question, images: {"text": question + "\n", "images": images, "return_legacy_image_output": False},
        most_images=1,
        needs_image=True,
    ),
    Tiny("emu3", emu3, _template("<image>", "USER: {}\nASSISTANT:")),
    Tiny("chameleon", chameleon, _template("<image>", "{}")),
)
