"""Tiny random models of the families whose processors also read videos or sounds; tiny ones read images only.

A builder gives the processor the settings of the real family, as in `families.py`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from latentlens_dag.testing.models import (
    CHAT_TEMPLATE,
    TEXT_CONFIG,
    VISION_CONFIG,
    Builder,
    chat_template,
    save_random_model,
    tiny_tokenizer,
)

_VIDEO_TOKENS = {"image_token": "<image>", "video_token": "<video>"}
_GEMMA_TOKENS = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "video_token": "<|video|>",
}


def _gemma4(folder: Path, seed: int) -> None:
    """Write a Gemma 4. As in small real ones, each block has inputs of its own, and the last share keys and values."""
    from transformers import Gemma4Config, Gemma4ForConditionalGeneration, Gemma4ImageProcessorPil, Gemma4Processor

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens=_GEMMA_TOKENS)
    vision = {**VISION_CONFIG, "num_key_value_heads": 4, "head_dim": 8, "patch_size": 6, "position_embedding_size": 256}
    own_inputs = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": len(tokenizer)}
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _GEMMA_TOKENS.items()}
    config = Gemma4Config(
        vision_config=vision,
        text_config={
            **TEXT_CONFIG,
            **own_inputs,
            "num_hidden_layers": 4,
            "head_dim": 8,
            "global_head_dim": 16,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "vocab_size": len(tokenizer),
            "final_logit_softcapping": 30.0,
        },
        eoa_token_index=ids.pop("eoa_token"),
        **{f"{name}_id": token_id for name, token_id in ids.items()},
    )
    processor = for_images_only(Gemma4Processor)(
        feature_extractor=None,
        image_processor=Gemma4ImageProcessorPil(patch_size=6, max_soft_tokens=70),
        tokenizer=tokenizer,
        video_processor=None,
        image_seq_length=70,
        chat_template="{{ bos_token }}" + chat_template("<|image|>"),
    )
    save_random_model(Gemma4ForConditionalGeneration, config, processor, folder, seed)


def _llava(
    name: str, image_processor: Any, vision: dict[str, Any], own: dict[str, Any], folder: Path, seed: int
) -> None:
    """Write a model of the family whose classes begin with `name`, with the vision tower of LLaVA.

    Args:
        name: beginning of the names of the family's classes.
        image_processor: its image processor.
        vision: the size of its images and patches.
        own: what else is in its config.
        folder: to write to.
        seed: of the weights.
    """
    import transformers

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens=_VIDEO_TOKENS)
    config = getattr(transformers, f"{name}Config")(
        vision_config={**VISION_CONFIG, **vision, "num_hidden_layers": 3, "model_type": "clip_vision_model"},
        text_config={**TEXT_CONFIG, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        **own,
    )
    processor = for_images_only(getattr(transformers, f"{name}Processor"))(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=vision["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    save_random_model(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


def _video_llava(folder: Path, seed: int) -> None:
    from transformers import VideoLlavaImageProcessor

    size, crop = {"shortest_edge": 48}, {"height": 48, "width": 48}
    image_processor = VideoLlavaImageProcessor(size=size, crop_size=crop)
    _llava("VideoLlava", image_processor, {"image_size": 48, "patch_size": 12}, {}, folder, seed)


def _llava_next_video(folder: Path, seed: int) -> None:
    from transformers import LlavaNextImageProcessorPil

    pinpoints = [[48, 96], [96, 48], [96, 96], [144, 48], [48, 144]]
    size, crop = {"shortest_edge": 48}, {"height": 48, "width": 48}
    image_processor = LlavaNextImageProcessorPil(size=size, crop_size=crop, image_grid_pinpoints=pinpoints)
    own = {"image_grid_pinpoints": pinpoints}
    _llava("LlavaNextVideo", image_processor, {"image_size": 48, "patch_size": 12}, own, folder, seed)


_MINICPM_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def _minicpm(version: str, own: dict[str, str], folder: Path, seed: int) -> None:
    """Write a MiniCPM-V, whose language model is a Qwen3.5.

    Args:
        version: of the family, as it stands in the names of its classes.
        own: tokens whose ids are in its config, by their names there.
        folder: to write to.
        seed: of the weights.
    """
    import transformers
    from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

    from latentlens_dag.models.processors import for_images_only

    name = f"MiniCPMV{version}"
    tokenizer = tiny_tokenizer(image_tokens=_MINICPM_TOKENS, bos_first=False)
    config = getattr(transformers, f"{name}Config")(
        vision_config={**VISION_CONFIG, "num_hidden_layers": 3, "image_size": 64, "patch_size": 4},
        text_config={
            **TEXT_CONFIG,
            "model_type": "qwen3_5_text",
            "head_dim": 16,
            "layer_types": ["full_attention"] * 3,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5},
            "vocab_size": len(tokenizer),
        },
        insert_layer_id=1,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in own.items()},
    )
    processor = for_images_only(getattr(transformers, f"{name}Processor"))(
        image_processor=MiniCPMV4_6ImageProcessorPil(scale_resolution=64, patch_size=4),
        tokenizer=tokenizer,
        chat_template=chat_template("<|image_pad|>"),
    )
    save_random_model(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


_MINICPM_MARKERS = {
    "image_start_id": "<image>",
    "image_end_id": "</image>",
    "slice_start_id": "<slice>",
    "slice_end_id": "</slice>",
    "newline_id": "\u010a",
}
"""By which MiniCPM-V 4.7 finds the places of its visual tokens; the last is how the tokenizer writes a newline."""


VIDEO_BUILDERS: dict[str, Builder] = {
    "gemma4": _gemma4,
    "llava_next_video": _llava_next_video,
    "minicpmv4_6": partial(_minicpm, "4_6", {}),
    "minicpmv4_7": partial(_minicpm, "4_7", _MINICPM_MARKERS),
    "video_llava": _video_llava,
}
