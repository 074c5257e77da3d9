"""Tiny random models of further families whose images are cut as for Qwen-VL, with Qwen's tokens or their own.

A builder gives the processor the settings of the real family, as in `families.py`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from latentlens_dag.testing.models import (
    DEEPSEEK_V3_CONFIG,
    TEXT_CONFIG,
    VISION_CONFIG,
    Builder,
    chat_template,
    save_random_model,
    tiny_tokenizer,
)

_QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_QWEN2_5_VISION = {
    "depth": 2,
    "num_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 32,
    "window_size": 56,
    "fullatt_block_indexes": [1],
}


def _qwen_like(
    prefix: str,
    vision: dict[str, Any],
    text: dict[str, Any],
    folder: Path,
    seed: int,
    images: Any = "Qwen2VLImageProcessorPil",
    merged: int = 2,
    frames: int | None = None,
    processor: str | None = None,
    tokens: dict[str, str] = _QWEN_TOKENS,
    **own: Any,
) -> None:
    """Write a model of the family whose classes begin with `prefix`, which has Qwen's grid.

    Args:
        prefix: of the names of the config and the model.
        vision: the config of the vision tower.
        text: what the config of the language model has beside TEXT_CONFIG.
        folder: the folder to write into.
        seed: of the weights.
        images: the name of the image processor.
        merged: patches along a side of a visual token.
        frames: times that the pixels of a patch are repeated, if not as by default.
        processor: the name of the processor, if it does not begin with `prefix`.
        tokens: the special tokens, by their names in the config.
        own: further values of the config.
    """
    import transformers

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens=tokens, bos_first=False)
    config = getattr(transformers, f"{prefix}Config")(
        vision_config=vision,
        text_config={**TEXT_CONFIG, "vocab_size": len(tokenizer), **text},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()},
        **own,
    )
    cell = merged * config.vision_config.patch_size
    image_processor = getattr(transformers, images)(
        patch_size=config.vision_config.patch_size,
        merge_size=merged,
        size={"shortest_edge": 4 * cell**2, "longest_edge": 12 * cell**2},
        **({"temporal_patch_size": frames} if frames else {}),
    )
    names = [name for name in tokens if name.startswith(("vision", "image"))]
    places = ("start", "bos", "image", "end", "eos")
    names.sort(key=lambda name: next(place for place, word in enumerate(places) if word in name))
    image = "".join(dict.fromkeys(tokens[name] for name in names))
    saved = for_images_only(getattr(transformers, processor or f"{prefix}Processor"))(
        image_processor=image_processor, tokenizer=tokenizer, chat_template=chat_template(image)
    )
    save_random_model(getattr(transformers, f"{prefix}ForConditionalGeneration"), config, saved, folder, seed)


_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
_DEEPSTACK = {
    "depth": 2,
    "num_heads": 4,
    "patch_size": 16,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 32,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}
_COMPASS_TOKENS = {
    "image_token": "<|IMAGE_PAD|>",
    "video_token": "<|VIDEO_PAD|>",
    "vision_start_token": "<|VISION_START|>",
    "vision_end_token": "<|VISION_END|>",
}
_LFM3_VISION = {"hidden_size": 32, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}

_OMNI_TOKENS = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_start_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
_OMNI_AUDIO = {
    "num_mel_bins": 8,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "d_model": 16,
    "output_dim": 32,
}
_DOTS_TOKENS = {
    "image_token": "<|imgpad|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|audio_comp_pad|>",
    "vision_start_token": "<|img|>",
    "vision_end_token": "<|endofimg|>",
}
_DOTS_VISION = {
    **VISION_CONFIG,
    "hidden_size": 32,
    "moe_intermediate_size": 16,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "mlp_layer_types": ["dense", "sparse"],
    "adapter_in_dim": 32,
    "adapter_out_dim": 32,
}
_DOTS_AUDIO = {
    **VISION_CONFIG,
    "hidden_size": 32,
    "feature_size": 8,
    "downsample_hidden_size": 8,
    "adapter_input_size": 32,
    "adapter_out_dim": 32,
}

QWEN_LIKE_BUILDERS: dict[str, Builder] = {
    "cohere_compass": partial(
        _qwen_like,
        "CohereCompass",
        _DEEPSTACK,
        {"rope_parameters": {"full_attention": _MROPE}, "layer_types": ["full_attention"] * 3},
        images="CohereCompassImageProcessorPil",
        tokens=_COMPASS_TOKENS,
    ),
    "cosmos3_edge": partial(
        _qwen_like,
        "Cosmos3Edge",
        {**VISION_CONFIG, "patch_size": 16, "num_patches": 16},
        {"head_dim": 8, "rope_parameters": _MROPE},
        images="Cosmos3EdgeImageProcessorPil",
        projector_hidden_size=64,
    ),
    "cosmos3_omni": partial(
        _qwen_like,
        "Cosmos3Omni",
        {**_DEEPSTACK, "model_type": "qwen3_vl_vision"},
        {"model_type": "qwen3_vl_text", "head_dim": 8, "rope_parameters": _MROPE},
        processor="Qwen3VLProcessor",
    ),
    "dots3_note": partial(
        _qwen_like,
        "Dots3Note",
        _DOTS_VISION,
        {
            **DEEPSEEK_V3_CONFIG,
            "layer_types": ["full_attention"] * 3,
            "head_dim": 16,
            "shared_experts_intermediate_size": 16,
        },
        frames=1,
        tokens=_DOTS_TOKENS,
        audio_config=_DOTS_AUDIO,
    ),
    "exaone4_5": partial(
        _qwen_like, "Exaone4_5_", {**_QWEN2_5_VISION, "num_key_value_heads": 2}, {"model_type": "exaone4"}
    ),
    "hyperclovax_vision_v2": partial(
        _qwen_like,
        "HyperCLOVAXVisionV2",
        {**_QWEN2_5_VISION, "model_type": "qwen2_5_vl_vision", "patch_size": 14},
        {"model_type": "hyperclovax"},
    ),
    "lfm3_vl": partial(
        _qwen_like,
        "Lfm3Vl",
        {**VISION_CONFIG, **_LFM3_VISION},
        {"model_type": "lfm3", "head_dim": 8, "layer_types": ["conv", "sliding_attention", "full_attention"]},
    ),
    "qwen2_5_omni_thinker": partial(
        _qwen_like,
        "Qwen2_5OmniThinker",
        {**_QWEN2_5_VISION, "patch_size": 14},
        {"rope_parameters": _MROPE},
        processor="Qwen2_5OmniProcessor",
        tokens=_OMNI_TOKENS,
        audio_config=_OMNI_AUDIO,
    ),
    "qwen3_omni_moe_thinker": partial(
        _qwen_like,
        "Qwen3OmniMoeThinker",
        _DEEPSTACK,
        {
            "rope_parameters": _MROPE,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
        },
        processor="Qwen3OmniMoeProcessor",
        tokens=_OMNI_TOKENS,
        audio_config={**_OMNI_AUDIO, "downsample_hidden_size": 8},
    ),
    "video_llama_3": partial(
        _qwen_like,
        "VideoLlama3",
        {**VISION_CONFIG, "hidden_size": 32, "patch_size": 14},
        {"model_type": "qwen2"},
        images="VideoLlama3ImageProcessorPil",
        merged=1,
    ),
}
