"""The encoders a person can choose, with what is published of each."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from retrieval.encoders.onnx_layout import is_here
from retrieval.encoders.weights import find_file, find_text_folder, hub_files

#: Recall@1 in percent: text to image, image to text.
Recall = tuple[float, float]

# Where the figures come from. All are zero-shot, on the Karpathy test splits (Flickr30k 1,000 photographs,
# COCO 5,000) with five captions each.
_OPEN_CLIP = "open_clip, docs/openclip_retrieval_results.csv"
_MOBILECLIP2 = "Faghri et al., MobileCLIP2, TMLR 2025"
_SIGLIP2 = "Tschannen et al., SigLIP 2, arXiv:2502.14786"  # the same figures: big_vision, README_siglip2.md

_APPLE = "Apple's model licence, research only: read the model card"


@dataclass(frozen=True)
class ModelCard:
    """One encoder: `name` chooses it (``--encoder NAME``).

    parameters counts both towers. flickr30k and coco are Recall@1 (text to image, image to text) in percent
    as `source` published them, or None where no such figure was found; then `source` is empty, too.
    repository is the weights' place on the hub in open_clip's form, text_repository that of a tokenizer or
    text configuration that comes apart from them. best_for says what it is recommended for, by the published
    figures, size and languages. An ``onnx:`` model has the weights, and so the figures, of the model that it was
    exported from.
    """

    name: str
    summary: str
    dim: int
    parameters: int
    languages: str
    licence: str
    flickr30k: Recall | None = None
    coco: Recall | None = None
    source: str = ""
    repository: str = ""
    text_repository: str = ""
    best_for: str = ""

    @property
    def size_bytes(self) -> int:
        """Roughly what the weights take on disk and in memory: four bytes a parameter (fp32)."""
        return 4 * self.parameters


CATALOGUE = (
    ModelCard(
        "compact",
        "the default: comes with the installation, needs no download; weakest",
        dim=384,
        # Without the tower of many languages: a table in six bits, 30 MB.
        parameters=28_800_000,
        languages="16",
        licence="Apache-2.0",
    ),
    ModelCard(
        "compact-int8",
        "compact nearly twice as fast, with nearly the same vectors; on the CPU",
        dim=384,
        parameters=28_800_000,
        languages="English",
        licence="Apache-2.0",
    ),
    ModelCard(
        "onnx:immich-app/ViT-B-32__laion2b-s34b-b79k",
        "quick on a CPU, and free to use",
        dim=512,
        parameters=151_277_313,
        languages="English",
        licence="MIT",
        flickr30k=(66.8, 84.1),
        coco=(39.3, 56.3),
        source=_OPEN_CLIP,
        repository="immich-app/ViT-B-32__laion2b-s34b-b79k",
        best_for="a laptop",
    ),
    ModelCard(
        "onnx:immich-app/ViT-B-16-SigLIP2__webli",
        "strong, multilingual, four times the work of a ViT-B-32",
        dim=768,
        parameters=375_187_970,
        languages="about 100",
        licence="Apache-2.0",
        coco=(52.1, 68.9),
        source=_SIGLIP2,
        repository="immich-app/ViT-B-16-SigLIP2__webli",
        best_for="many languages",
    ),
    ModelCard(
        "onnx:immich-app/ViT-SO400M-16-SigLIP2-384__webli",
        "the best published figures here, multilingual, for a GPU",
        dim=1152,
        parameters=1_136_039_602,
        languages="about 100",
        licence="Apache-2.0",
        coco=(56.0, 71.2),
        source=_SIGLIP2,
        repository="immich-app/ViT-SO400M-16-SigLIP2-384__webli",
        best_for="the best quality",
    ),
    ModelCard(
        "openclip:MobileCLIP2-S0/dfndr2b",
        "best for its size, quick on a CPU",
        dim=512,
        parameters=74_835_073,
        languages="English",
        licence=_APPLE,
        flickr30k=(69.2, 86.6),
        coco=(43.7, 62.7),
        source=_MOBILECLIP2,
        repository="timm/MobileCLIP2-S0-OpenCLIP/",
    ),
    ModelCard(
        "openclip:MobileCLIP2-S2/dfndr2b",
        "larger sister of MobileCLIP2-S0",
        dim=512,
        parameters=99_243_329,
        languages="English",
        licence=_APPLE,
        repository="timm/MobileCLIP2-S2-OpenCLIP/",
    ),
    ModelCard(
        "openclip:ViT-B-32/openai",
        "the original CLIP, what others are compared with",
        dim=512,
        parameters=151_277_313,
        languages="English",
        licence="MIT",
        flickr30k=(58.8, 78.9),
        coco=(30.4, 50.1),
        source=_OPEN_CLIP,
        repository="timm/vit_base_patch32_clip_224.openai/",
    ),
    ModelCard(
        "openclip:ViT-B-32/laion2b_s34b_b79k",
        "quick and free to use, good first choice on a CPU",
        dim=512,
        parameters=151_277_313,
        languages="English",
        licence="MIT",
        flickr30k=(66.8, 84.1),
        coco=(39.3, 56.3),
        source=_OPEN_CLIP,
        repository="laion/CLIP-ViT-B-32-laion2B-s34B-b79K/",
    ),
    ModelCard(
        "openclip:ViT-B-32-256/datacomp_s34b_b86k",
        "as quick, a little larger picture",
        dim=512,
        parameters=151_288_833,
        languages="English",
        licence="MIT",
        flickr30k=(64.9, 84.8),
        coco=(39.9, 57.9),
        source=_OPEN_CLIP,
        repository="laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K/",
    ),
    ModelCard(
        "openclip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
        "queries in about a hundred languages",
        dim=512,
        parameters=366_120_000,
        languages="about 100",
        licence="MIT",
        flickr30k=(64.5, 82.7),
        coco=(37.8, 53.5),
        source=_OPEN_CLIP,
        repository="laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k/",
        text_repository="xlm-roberta-base",
    ),
    ModelCard(
        "openclip:ViT-B-16-quickgelu/dfn2b",
        "trained on filtered data",
        dim=512,
        parameters=149_620_737,
        languages="English",
        licence=_APPLE,
        repository="apple/DFN2B-CLIP-ViT-B-16/",
    ),
    ModelCard(
        "openclip:ViT-B-16-SigLIP-256/webli",
        "the strong middle, wants a GPU for large folders",
        dim=768,
        parameters=203_202_050,
        languages="English",
        licence="Apache-2.0",
        flickr30k=(75.0, 90.4),
        coco=(48.3, 66.1),
        source=_OPEN_CLIP,
        repository="timm/ViT-B-16-SigLIP-256/",
        text_repository="timm/ViT-B-16-SigLIP",
    ),
    ModelCard(
        "openclip:ViT-B-16-SigLIP2-256/webli",
        "successor of SigLIP, multilingual",
        dim=768,
        parameters=375_234_050,
        languages="about 100",
        licence="Apache-2.0",
        coco=(53.2, 69.7),
        source=_SIGLIP2,
        repository="timm/ViT-B-16-SigLIP2-256/",
        text_repository="timm/ViT-B-16-SigLIP2-256",
    ),
    ModelCard(
        "openclip:ViT-L-14/datacomp_xl_s13b_b90k",
        "large and free to use, for a GPU",
        dim=768,
        parameters=427_616_513,
        languages="English",
        licence="MIT",
        flickr30k=(73.4, 89.0),
        coco=(45.7, 63.3),
        source=_OPEN_CLIP,
        repository="laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K/",
    ),
    ModelCard(
        "openclip:ViT-SO400M-14-SigLIP-384/webli",
        "best of SigLIP, for a GPU",
        dim=1152,
        parameters=877_960_498,
        languages="English",
        licence="Apache-2.0",
        flickr30k=(83.0, 94.3),
        coco=(54.2, 72.4),
        source=_OPEN_CLIP,
        repository="timm/ViT-SO400M-14-SigLIP-384/",
        text_repository="timm/ViT-B-16-SigLIP",
    ),
    ModelCard(
        "openclip:ViT-SO400M-16-SigLIP2-384/webli",
        "largest SigLIP 2 here, multilingual, for a GPU",
        dim=1152,
        parameters=1_136_039_602,
        languages="about 100",
        licence="Apache-2.0",
        coco=(56.0, 71.2),
        source=_SIGLIP2,
        repository="timm/ViT-SO400M-16-SigLIP2-384/",
        text_repository="timm/ViT-SO400M-16-SigLIP2-384",
    ),
    ModelCard(
        "openclip:ViT-H-14-378-quickgelu/dfn5b",
        "huge, on filtered data, for a GPU",
        dim=1024,
        parameters=986_714_881,
        languages="English",
        licence=_APPLE,
        repository="apple/DFN5B-CLIP-ViT-H-14-378/",
    ),
)


def recommended(best_for: str) -> str:
    """The name of the encoder that is recommended for it, one of the `best_for` of the catalogue."""
    return next(card.name for card in CATALOGUE if card.best_for == best_for)


def may_start(name: str) -> bool:
    """Whether what the encoder `name` needs is here, as far as that is known without loading it. Uses no network."""
    scheme, _, spec = name.partition(":")
    if scheme == "openclip":
        return importlib.util.find_spec("open_clip") is not None
    if scheme == "onnx":
        return Path(spec).is_dir() or (not Path(spec).is_absolute() and is_here(spec))
    return True


def installed(card: ModelCard) -> bool:
    """Whether the encoder's files are on this machine, so that it starts without a download. Uses no network."""
    if not card.repository:
        from retrieval.encoders import compact_image, compact_multilingual, compact_text

        towers = (compact_image, compact_text, compact_multilingual)
        return all(tower.WEIGHTS.folder() is not None for tower in towers)
    if card.name.startswith("onnx:"):
        return is_here(card.repository)
    if importlib.util.find_spec("open_clip") is None or find_file(*hub_files(card.repository)) is None:
        return False
    return not card.text_repository or find_text_folder(card.text_repository) is not None
