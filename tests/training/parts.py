"""Small frozen parts for tests of connectors: encoders and language models of several families, images, captions."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from latentlens_dag.models.loading import FullModel, load_with_language_model
from latentlens_dag.testing.models import tiny_tokenizer
from latentlens_dag.training.vision_encoder import VisionEncoder, load_vision_encoder
from tests.models.test_language_families import tiny_language_model

SIZE, PATCH = 32, 8
_SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE, "patch_size": PATCH}
ENCODERS = {
    "clip": ("CLIPVisionConfig", {"intermediate_size": 16}, "CLIPImageProcessorPil"),
    "clip with its text model": ("CLIPConfig", {"intermediate_size": 16}, "CLIPImageProcessorPil"),
    "siglip": ("SiglipVisionConfig", {"intermediate_size": 16, "vision_use_head": False}, "SiglipImageProcessorPil"),
    "vit": ("ViTConfig", {"intermediate_size": 16}, "ViTImageProcessorPil"),
    "dinov2": ("Dinov2Config", {"mlp_ratio": 1}, "BitImageProcessorPil"),
    "dinov2 with registers": ("Dinov2WithRegistersConfig", {"mlp_ratio": 1}, "BitImageProcessorPil"),
    "siglip whose patches leave pixels over": (
        "SiglipVisionConfig",
        {"intermediate_size": 16, "vision_use_head": False, "image_size": SIZE, "patch_size": 7},
        "SiglipImageProcessorPil",
    ),
    "dinov2 of a larger image": ("Dinov2Config", {"mlp_ratio": 1, "image_size": 2 * SIZE}, "BitImageProcessorPil"),
    "swin": (
        "SwinConfig",
        {"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        "ViTImageProcessorPil",
    ),
    "resnet": (
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "ViTImageProcessorPil",
    ),
    "convnext": (
        "ConvNextConfig",
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        "ViTImageProcessorPil",
    ),
}
"""Config, its own fields, and image processor. The last three merge patches or are convolutional."""
MERGING = ("swin", "resnet", "convnext")
LANGUAGES = ("Llama", "Qwen3", "GPTNeoX", "Gemma2", "Granite", "Phi")
"""The last three scale or cap their logits, or have a bias."""
COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "yellow": (230, 220, 40)}


def save_encoder(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a random vision encoder with its image processor."""
    config_name, own, processor_name = ENCODERS[name]
    config_class = getattr(transformers, config_name)
    small = {**_SMALL, **own}
    if config_name == "CLIPConfig":
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = config_class(vision_config=small, text_config=text, projection_dim=8)
    elif name in MERGING:
        config = config_class(**own, **({} if name == "resnet" else {"image_size": SIZE}))
    else:
        config = config_class(**small)
    torch.manual_seed(seed)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    image_processor(processor_name).save_pretrained(folder)
    return folder


def image_processor(name: str) -> Any:
    """One that gives images of SIZE pixels, made with Pillow."""
    from importlib import import_module

    family = {"CLIP": "clip", "Siglip": "siglip", "ViT": "vit", "Bit": "bit"}[name.removesuffix("ImageProcessorPil")]
    module = import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    cropped = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    size = cropped if family in ("clip", "bit") else {"size": {"height": SIZE, "width": SIZE}}
    return getattr(module, name)(**size)


def encoder(name: str, folder: Path, layer: int = -1, pool: int = 1) -> VisionEncoder:
    """A random vision encoder, written and loaded."""
    return load_vision_encoder(save_encoder(name, folder), layer, pool)


def save_language_model(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a random language model with its tokenizer."""
    tiny_language_model(family, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def language_model(family: str, folder: Path) -> FullModel:
    """A random language model, written and loaded."""
    return load_with_language_model(save_language_model(family, folder))


def pictures(count: int, seed: int = 0) -> tuple[list[Image.Image], list[list[str]]]:
    """Images of two halves in one color each, and a caption or two of each."""
    rng = np.random.default_rng(seed)
    images, captions = [], []
    for _ in range(count):
        left, right = (list(COLORS)[number] for number in rng.integers(0, len(COLORS), 2))
        picture = Image.new("RGB", (SIZE, SIZE), COLORS[left])
        picture.paste(COLORS[right], (SIZE // 2, 0, SIZE, SIZE))
        images.append(picture)
        captions.append([f"The {left} carpet near the {right} door.", f"A {left} boat and a {right} ball."])
    return images, captions
