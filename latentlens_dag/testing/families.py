"""A tiny random model of each family of VLMs: one builder each, called through `testing.tiny_vlm`.

Note: a builder must give the processor the settings of the real family (which size is requested, what is cropped, which
tokens are written), else the test of its region map proves nothing. Families with several views per image are in
`tiled_families.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from latentlens_dag.testing.tiled_families import TILED_BUILDERS


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


def _qwen(
    name: str, vision: dict[str, Any], patch: int, folder: Path, seed: int, text: dict[str, Any] | None = None
) -> None:
    """Write a model of the family whose classes begin with `name`; `vision` and `text` are what is its own."""
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens=_QWEN_TOKENS, bos_first=False)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1]}
    config_text = {**TEXT_CONFIG, "vocab_size": len(tokenizer), "rope_parameters": rope, **(text or {})}
    config = getattr(transformers, f"{name}Config")(
        text_config=config_text,
        vision_config={"depth": 2, "num_heads": 4, "patch_size": patch, **vision},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in _QWEN_TOKENS.items()},
    )
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 12 * (2 * patch) ** 2}
    )
    processor_name = f"{name}Processor" if hasattr(transformers, f"{name}Processor") else "Qwen3VLProcessor"
    processor = for_images_only(getattr(transformers, processor_name))(
        image_processor, tokenizer, chat_template=chat_template(_QWEN_IMAGE)
    )
    save_random_model(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


def _qwen2_vl(folder: Path, seed: int) -> None:
    _qwen("Qwen2VL", {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}, 14, folder, seed)


def _qwen2_5_vl(folder: Path, seed: int) -> None:
    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "window_size": 56}
    _qwen("Qwen2_5_VL", {**vision, "fullatt_block_indexes": [1]}, 14, folder, seed)


_QWEN3_VISION = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 64}


def _qwen3_vl(folder: Path, seed: int) -> None:
    _qwen("Qwen3VL", {**_QWEN3_VISION, "deepstack_visual_indexes": [0, 1]}, 16, folder, seed, {"head_dim": 8})


def _qwen3_vl_moe(folder: Path, seed: int) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    _qwen("Qwen3VLMoe", {**_QWEN3_VISION, "deepstack_visual_indexes": [0, 1]}, 16, folder, seed, experts)


def _qwen3_5(folder: Path, seed: int) -> None:
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    linear |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    layers = ["linear_attention", "linear_attention", "full_attention"]
    text = {**linear, "layer_types": layers, "head_dim": 16, "rope_parameters": rope}
    _qwen("Qwen3_5", _QWEN3_VISION, 16, folder, seed, text)


_ENDS = {"start": "begin", "end": "end"}


def _glm(name: str, image_processor_class: Any, folder: Path, seed: int) -> None:
    """Write a model of the GLM family whose classes begin with `name`."""
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
        },
        vision_config={**vision, "image_size": 56, "patch_size": 14},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in {**tokens, **ends}.items()},
    )
    image_processor = image_processor_class(
        patch_size=14, size={"shortest_edge": 2 * 4 * 28**2, "longest_edge": 2 * 12 * 28**2}
    )
    processor = for_images_only(getattr(transformers, f"{name}Processor"))(
        image_processor, tokenizer, chat_template=chat_template("<|begin_of_image|><|image|><|end_of_image|>")
    )
    save_random_model(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


def _glm4v(folder: Path, seed: int) -> None:
    from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

    _glm("Glm4v", Glm4vImageProcessorPil, folder, seed)


def _glm46v(folder: Path, seed: int) -> None:
    from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

    _glm("Glm46V", Glm46VImageProcessorPil, folder, seed)


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


def _pixtral(config_class: Any, model_class: Any, patch: int, merged: int, folder: Path, seed: int) -> None:
    """Write a model whose vision tower is Pixtral's."""
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

    from latentlens_dag.models.families.pixtral import processor_class

    tokenizer = tiny_tokenizer(image_tokens=_PIXTRAL_TOKENS)
    own = {"spatial_merge_size": merged} if merged > 1 else {"vision_feature_select_strategy": "full"}
    config = config_class(
        vision_config={**_PIXTRAL_VISION, "patch_size": patch},
        text_config={**TEXT_CONFIG, "model_type": "mistral", "head_dim": 8, "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        vision_feature_layer=-1,
        **own,
    )
    processor = processor_class()(
        PixtralImageProcessorPil(size={"longest_edge": 128}, patch_size={"height": patch, "width": patch}),
        tokenizer,
        patch_size=patch,
        spatial_merge_size=merged,
        chat_template="{{ bos_token }}" + chat_template("[IMG]"),
    )
    save_random_model(model_class, config, processor, folder, seed)


def _mistral3(folder: Path, seed: int) -> None:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    _pixtral(Mistral3Config, Mistral3ForConditionalGeneration, 14, 2, folder, seed)


def _pixtral_llava(folder: Path, seed: int) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    _pixtral(LlavaConfig, LlavaForConditionalGeneration, 32, 1, folder, seed)


BUILDERS: dict[str, Builder] = {
    "deepseek_vl": _deepseek_vl,
    "glm46v": _glm46v,
    "glm4v": _glm4v,
    "llava": tiny_llava,
    "mistral3": _mistral3,
    "paligemma": _paligemma,
    "pixtral": _pixtral_llava,  # of the family `llava`, with another vision tower
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_vl": _qwen2_vl,
    "qwen3_5": _qwen3_5,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl_moe,
    **TILED_BUILDERS,
}
