"""What `compact` computes, by other people's code (torch, transformers, the network's own package) and formulas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel
from transformers.models.bert.tokenization_bert import BertTokenizer

from retrieval.encoders import compact_image, compact_text
from retrieval.encoders.compact_classes import load_classes
from retrieval.encoders.compact_space import SpaceSettings

SETTINGS = SpaceSettings()


def sentence_vectors(texts: Sequence[str]) -> np.ndarray:
    """(n, 384) unit rows, as sentence-transformers makes them."""
    weights = compact_text.WEIGHTS.find()
    tokenizer = BertTokenizer.from_pretrained(weights.parent)
    model = BertModel(BertConfig.from_json_file(str(weights.with_name("config.json"))), add_pooling_layer=False).eval()
    assert not model.load_state_dict(load_file(str(weights)), strict=False).missing_keys
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    return normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()


def image_network() -> EfficientNet:
    """EfficientNet-Lite2 by the package that trained it."""
    model = EfficientNet.from_name("efficientnet-lite2").eval()
    model.load_state_dict(torch.load(compact_image.WEIGHTS.find(), weights_only=True))
    return model


def pooled_features(model: EfficientNet, views: np.ndarray) -> np.ndarray:
    """(v, 1280) features of (v, 260, 260, 3) views."""
    pixels = (views.astype(np.float32) / 255 - compact_image.MEAN) / compact_image.STD
    with torch.inference_mode():
        return model.extract_features(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()).mean((2, 3)).numpy()


def text_vectors(texts: Sequence[str]) -> np.ndarray:
    """What `CompactEncoder.encode_texts` should give."""
    classes, mean = _centred_classes()
    centred = _unit(sentence_vectors(texts) - mean)
    nearness = _softmax(centred @ _unit(classes).T * SETTINGS.expansion_sharpness)
    expansion = _unit(nearness @ classes)
    mixed = (1 - SETTINGS.expansion_weight) * centred + SETTINGS.expansion_weight * expansion
    return _unit(mixed @ _spectral_filter(classes))


def image_vectors(images: Sequence[Image.Image]) -> np.ndarray:
    """What `CompactEncoder.encode_images` should give."""
    classes, _ = _centred_classes()
    model, even = image_network(), _spectral_filter(classes)
    weight, bias = (part.detach().numpy().astype(np.float64) for part in (model._fc.weight, model._fc.bias))
    ridge = _ridge(weight, classes)
    rows = []
    for image in images:
        features = pooled_features(model, compact_image.cut_views(image))
        probabilities = _softmax((features @ weight.T + bias) / SETTINGS.temperature).mean(axis=0)
        mapped = _unit(_unit(features @ ridge).mean(axis=0))
        rows.append(_unit((_unit(probabilities @ classes) + SETTINGS.ridge_weight * mapped) @ even))
    return np.stack(rows)


def _centred_classes() -> tuple[np.ndarray, np.ndarray]:
    vectors = load_classes().vectors.astype(np.float64)
    mean = vectors.mean(axis=0)
    return vectors - mean, mean


def _ridge(weight: np.ndarray, classes: np.ndarray) -> np.ndarray:
    rows = weight - weight.mean(axis=0)
    gram = rows.T @ rows
    penalty = SETTINGS.ridge_penalty * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), rows.T @ classes)


def _spectral_filter(classes: np.ndarray) -> np.ndarray:
    _, values, axes = np.linalg.svd(classes, full_matrices=False)
    gains = (values / values[0]) ** -SETTINGS.spectrum_power
    gains[SETTINGS.spectrum_rank :] = gains[SETTINGS.spectrum_rank - 1] * SETTINGS.spectrum_tail
    return (axes.T * gains) @ axes


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
