"""Tiny random models of families whose image processor needs torchvision.

A builder gives the processor the settings of the real family, as in `families.py`.
"""

from __future__ import annotations

from pathlib import Path

from latentlens_dag.testing.models import (
    TEXT_CONFIG,
    VISION_CONFIG,
    Builder,
    chat_template,
    save_random_model,
    tiny_tokenizer,
)

_LLAMA4_TOKENS = {
    "image_token": "<|image|>",
    "patch_token": "<|patch|>",
    "start_token": "<|image_start|>",
    "end_token": "<|image_end|>",
    "column_token": "<|tile_x_separator|>",
    "row_token": "<|tile_y_separator|>",
}


def _llama4(folder: Path, seed: int) -> None:
    """Write a Llama 4, with attention in chunks that are shorter than the prompt, and images that are padded."""
    from transformers import Llama4Config, Llama4ForConditionalGeneration, Llama4Processor
    from transformers.models.llama4.image_processing_llama4 import Llama4ImageProcessor

    tokenizer = tiny_tokenizer(image_tokens=_LLAMA4_TOKENS, bos_first=False)
    adapter = {"intermediate_size": 128, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
    experts = {"num_local_experts": 2, "intermediate_size_mlp": 64, "interleave_moe_layer_step": 2}
    config = Llama4Config(
        vision_config={**VISION_CONFIG, **adapter, "hidden_size": 32, "image_size": 40, "patch_size": 10},
        text_config={
            **TEXT_CONFIG,
            **experts,
            "head_dim": 8,
            "no_rope_layer_interval": 3,
            "attention_chunk_size": 16,
            "vocab_size": len(tokenizer),
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<|patch|>"),
    )
    processor = Llama4Processor(
        Llama4ImageProcessor(size={"height": 40, "width": 40}, max_patches=4),
        tokenizer,
        patch_size=10,
        chat_template=chat_template("<|image|>"),
    )
    save_random_model(Llama4ForConditionalGeneration, config, processor, folder, seed)


def _lfm2_vl(folder: Path, seed: int) -> None:
    from transformers import Lfm2VlConfig, Lfm2VlForConditionalGeneration, Lfm2VlProcessor
    from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor

    tiles = {f"tile_{r}_{c}": f"<|img_row_{r}_col_{c}|>" for r in range(1, 7) for c in range(1, 7)}
    ends = {"image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>"}
    tokens = {"image_token": "<image>", **ends, "image_thumbnail_token": "<|img_thumbnail|>", **tiles}
    tokenizer = tiny_tokenizer(image_tokens=tokens, bos_first=False)
    config = Lfm2VlConfig(
        vision_config={**VISION_CONFIG, "model_type": "siglip2_vision_model", "patch_size": 8, "num_patches": 64},
        text_config={
            **TEXT_CONFIG,
            "model_type": "lfm2",
            "layer_types": ["full_attention", "conv", "full_attention"],
            "vocab_size": len(tokenizer),
        },
        image_token_id=tokenizer.image_token_id,
        projector_hidden_size=48,
    )
    processor = Lfm2VlProcessor(
        Lfm2VlImageProcessor(encoder_patch_size=8, tile_size=32, min_image_tokens=4, max_image_tokens=16, max_tiles=6),
        tokenizer,
        chat_template="{{ bos_token }}" + chat_template("<image>"),
    )
    save_random_model(Lfm2VlForConditionalGeneration, config, processor, folder, seed)


TORCHVISION_BUILDERS: dict[str, Builder] = {
    "lfm2_vl": _lfm2_vl,
    "llama4": _llama4,
}
