"""A tiny random model of each family of VLMs: one builder each, called through `testing.tiny_vlm`.

Note: a builder must give the processor the settings of the real family (which size is requested, what is cropped, which
tokens are written), else the test of its region map proves nothing. Families with several views per image are in
`tiled_families.py`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from latentlens_dag.testing.grid_families import GRID_BUILDERS
from latentlens_dag.testing.models import (
    CHAT_TEMPLATE,
    SIGLIP_CONFIG,
    TEXT_CONFIG,
    Builder,
    chat_template,
    save_random_model,
    tiny_llava,
    tiny_tokenizer,
)
from latentlens_dag.testing.more_families import MORE_BUILDERS
from latentlens_dag.testing.tiled_families import TILED_BUILDERS
from latentlens_dag.testing.torchvision_families import TORCHVISION_BUILDERS
from latentlens_dag.testing.video_families import VIDEO_BUILDERS


def _paligemma(folder: Path, seed: int) -> None:
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = tiny_tokenizer(bos_first=False)
    image_processor = SiglipImageProcessorPil(size={"height": 48, "width": 48}, image_seq_length=9)
    processor = PaliGemmaProcessor(image_processor, tokenizer)  # adds tokens, so that it comes first
    config = PaliGemmaConfig(
        vision_config={**SIGLIP_CONFIG, "image_size": 48, "patch_size": 16},
        text_config={**TEXT_CONFIG, "model_type": "gemma", "head_dim": 8, "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        projection_dim=32,
        hidden_size=32,
        vocab_size=len(tokenizer),
    )
    save_random_model(PaliGemmaForConditionalGeneration, config, processor, folder, seed)


def _deepseek_vl(folder: Path, seed: int) -> None:
    from transformers import DeepseekVLConfig, DeepseekVLForConditionalGeneration, DeepseekVLProcessor
    from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil

    tokenizer = tiny_tokenizer()
    config = DeepseekVLConfig(
        vision_config={**SIGLIP_CONFIG, "image_size": 64, "patch_size": 16},
        text_config={**TEXT_CONFIG, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
    )
    processor = DeepseekVLProcessor(
        DeepseekVLImageProcessorPil(size={"height": 64, "width": 64}),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        num_image_tokens=16,
    )
    save_random_model(DeepseekVLForConditionalGeneration, config, processor, folder, seed)


_QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}

_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def _qwen(name: str, vision: dict[str, Any], patch: int, text: dict[str, Any], folder: Path, seed: int) -> None:
    """Write a model of the family whose classes begin with `name`; `vision` and `text` are what is its own."""
    import transformers

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens=_QWEN_TOKENS, bos_first=False)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1]}
    config = getattr(transformers, f"{name}Config")(
        text_config={**TEXT_CONFIG, "vocab_size": len(tokenizer), "rope_parameters": rope, **text},
        vision_config={"depth": 2, "num_heads": 4, "patch_size": patch, **vision},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in _QWEN_TOKENS.items()},
    )
    image_processor = transformers.Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 12 * (2 * patch) ** 2}
    )
    processor_name = f"{name}Processor" if hasattr(transformers, f"{name}Processor") else "Qwen3VLProcessor"
    processor = for_images_only(getattr(transformers, processor_name))(
        image_processor, tokenizer, chat_template=chat_template(_QWEN_IMAGE)
    )
    save_random_model(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


_RECURRENT_QWEN = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "head_dim": 16,
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5},
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_SHARED_EXPERTS = {**_EXPERTS, "shared_expert_intermediate_size": 16}
_QWEN2_VISION = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
_MERGED_VISION = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32}
_QWEN2_5_VISION = {**_MERGED_VISION, "window_size": 56, "fullatt_block_indexes": [1]}
_QWEN3_VISION = {**_MERGED_VISION, "num_position_embeddings": 64}
_DEEPSTACK_VISION = {**_QWEN3_VISION, "deepstack_visual_indexes": [0, 1]}

_ENDS = {"start": "begin", "end": "end"}


_GLM_EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def _glm(name: str, parts: str, text: dict[str, Any], folder: Path, seed: int) -> None:
    """Write a model of the GLM family whose classes begin with `name`, those of its processor with `parts`."""
    import transformers

    from latentlens_dag.models.processors import for_images_only

    tokens = {"image_token": "<|image|>", "video_token": "<|video|>"}
    ends = {
        f"{kind}_{end}_token": f"<|{word}_of_{kind}|>" for kind in ("image", "video") for end, word in _ENDS.items()
    }
    tokenizer = tiny_tokenizer(image_tokens={**tokens, **ends}, bos_first=False)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_heads": 4}
    config = getattr(transformers, f"{name}Config")(
        text_config={
            **TEXT_CONFIG,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": len(tokenizer),
            "rope_parameters": rope,
            **text,
        },
        vision_config={**vision, "image_size": 56, "patch_size": 14},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in {**tokens, **ends}.items()},
    )
    image_processor = getattr(transformers, f"{parts}ImageProcessorPil")(
        patch_size=14, size={"shortest_edge": 2 * 4 * 28**2, "longest_edge": 2 * 12 * 28**2}
    )
    processor = for_images_only(getattr(transformers, f"{parts}Processor"))(
        image_processor, tokenizer, chat_template=chat_template("<|begin_of_image|><|image|><|end_of_image|>")
    )
    save_random_model(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


_PIXTRAL_TOKENS = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}

_PIXTRAL_VISION = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
    "image_size": 128,
}


def _pixtral(name: str, patch: int, merged: int, folder: Path, seed: int) -> None:
    """Write a model of the family whose classes begin with `name`, with the vision tower of Pixtral."""
    import transformers

    from latentlens_dag.models.families.pixtral import processor_class

    tokenizer = tiny_tokenizer(image_tokens=_PIXTRAL_TOKENS)
    own = {"spatial_merge_size": merged} if merged > 1 else {"vision_feature_select_strategy": "full"}
    config = getattr(transformers, f"{name}Config")(
        vision_config={**_PIXTRAL_VISION, "patch_size": patch},
        text_config={**TEXT_CONFIG, "model_type": "mistral", "head_dim": 8, "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        vision_feature_layer=-1,
        **own,
    )
    processor = processor_class()(
        transformers.PixtralImageProcessorPil(size={"longest_edge": 128}, patch_size={"height": patch, "width": patch}),
        tokenizer,
        patch_size=patch,
        spatial_merge_size=merged,
        chat_template="{{ bos_token }}" + chat_template("[IMG]"),
    )
    save_random_model(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


BUILDERS: dict[str, Builder] = {
    "deepseek_vl": _deepseek_vl,
    "glm46v": partial(_glm, "Glm46V", "Glm46V", {}),
    "glm4v": partial(_glm, "Glm4v", "Glm4v", {}),
    "glm4v_moe": partial(_glm, "Glm4vMoe", "Glm4v", _GLM_EXPERTS),
    "glm_ocr": partial(_glm, "GlmOcr", "Glm46V", {}),
    "llava": tiny_llava,
    "mistral3": partial(_pixtral, "Mistral3", 14, 2),
    "paligemma": _paligemma,
    "pixtral": partial(_pixtral, "Llava", 32, 1),  # of the family `llava`, with another vision tower
    "qwen2_5_vl": partial(_qwen, "Qwen2_5_VL", _QWEN2_5_VISION, 14, {}),
    "qwen2_vl": partial(_qwen, "Qwen2VL", _QWEN2_VISION, 14, {}),
    "qwen3_5": partial(_qwen, "Qwen3_5", _QWEN3_VISION, 16, _RECURRENT_QWEN),
    "qwen3_5_moe": partial(_qwen, "Qwen3_5Moe", _QWEN3_VISION, 16, {**_RECURRENT_QWEN, **_SHARED_EXPERTS}),
    "qwen3_vl": partial(_qwen, "Qwen3VL", _DEEPSTACK_VISION, 16, {"head_dim": 8}),
    "qwen3_vl_moe": partial(_qwen, "Qwen3VLMoe", _DEEPSTACK_VISION, 16, {**_EXPERTS, "head_dim": 8}),
    **GRID_BUILDERS,
    **TILED_BUILDERS,
    **MORE_BUILDERS,
    **TORCHVISION_BUILDERS,
    **VIDEO_BUILDERS,
}
