"""Tiny random models of the families whose image processor we have for Pillow, and transformers for torchvision only.

A builder gives the processor the settings of the real family, as in `families.py`.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from latentlens_dag.testing.models import (
    DEEPSEEK_V3_CONFIG,
    SIGLIP_CONFIG,
    TEXT_CONFIG,
    VISION_CONFIG,
    Builder,
    chat_template,
    save_random_model,
    tiny_tokenizer,
)


def _cohere2_vision(folder: Path, seed: int) -> None:
    from transformers import Cohere2VisionConfig, Cohere2VisionForConditionalGeneration

    from latentlens_dag.models.families.cohere2_vision import processor_class

    tokens = {"image_token": "<|IMG_PATCH|>", "img_line_break_token": "<|IMG_LINE_BREAK|>"}
    ends = {"boi_token": "<|START_OF_IMG|>", "eoi_token": "<|END_OF_IMG|>"}
    tokenizer = tiny_tokenizer(image_tokens={**tokens, **ends})
    config = Cohere2VisionConfig(
        vision_config={**SIGLIP_CONFIG, "image_size": 64, "patch_size": 16},
        text_config={**TEXT_CONFIG, "model_type": "cohere2", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        alignment_intermediate_size=64,
    )
    whole = processor_class()
    processor = whole(
        whole.image_processor_type(size={"height": 64, "width": 64}, patch_size=2, max_patches=6),
        tokenizer,
        chat_template="{{ bos_token }}" + chat_template("<|IMG_PATCH|>"),
    )
    save_random_model(Cohere2VisionForConditionalGeneration, config, processor, folder, seed)


_KIMI_TOKENS = {
    "image_token": "<|media_pad|>",
    "video_token": "<|kimi_k25_video_placeholder|>",
    "vision_start_token": "<|media_begin|>",
    "vision_content_token": "<|media_content|>",
    "vision_end_token": "<|media_end|>",
}
_KIMI_IMAGE = "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>"


def _kimi_k25(folder: Path, seed: int) -> None:
    from transformers import Kimi_K25Config, Kimi_K25ForConditionalGeneration

    from latentlens_dag.models.families.kimi_k25 import processor_class

    tokenizer = tiny_tokenizer(image_tokens=_KIMI_TOKENS, bos_first=False)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Kimi_K25Config(
        vision_config={**tower, "patch_size": 14, "pos_emb_height": 8, "pos_emb_width": 8},
        text_config={**TEXT_CONFIG, **DEEPSEEK_V3_CONFIG, "model_type": "deepseek_v3", "vocab_size": len(tokenizer)},
        projection_hidden_size=32,
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in _KIMI_TOKENS.items()},
    )
    whole = processor_class()
    processor = whole(whole.image_processor_type(max_patches=48), tokenizer, chat_template=chat_template(_KIMI_IMAGE))
    save_random_model(Kimi_K25ForConditionalGeneration, config, processor, folder, seed)


_MINIMAX_TOKENS = {
    "image_token": "]<]image[>[",
    "video_token": "]<]video[>[",
    "vision_start_token": "]<]start of image[>[",
    "vision_end_token": "]<]end of image[>[",
}


def _minimax_m3_vl(folder: Path, seed: int) -> None:
    from transformers import MiniMaxM3SparseForConditionalGeneration, MiniMaxM3VLConfig

    from latentlens_dag.models.families.minimax_m3 import processor_class

    tokenizer = tiny_tokenizer(image_tokens=_MINIMAX_TOKENS, bos_first=False)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "dense_intermediate_size": 64}
    text = {**experts, "shared_intermediate_size": 16, "head_dim": 8, "rotary_dim": 8, "mlp_layer_types": None}
    config = MiniMaxM3VLConfig(
        vision_config={**VISION_CONFIG, "hidden_size": 32, "patch_size": 14, "image_size": 56},
        text_config={**TEXT_CONFIG, **text, "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        projector_hidden_size=64,
    )
    whole = processor_class()
    processor = whole(
        whole.image_processor_type(size={"shortest_edge": 4 * 28**2, "longest_edge": 12 * 28**2}),
        tokenizer,
        chat_template=chat_template("]<]image[>["),
    )
    save_random_model(MiniMaxM3SparseForConditionalGeneration, config, processor, folder, seed)


_MUSE_TOKENS = {
    "image_token": "<|patch|>",
    "image_start_token": "<|image_start|>",
    "image_end_token": "<|image_end|>",
    "video_token": "<|video|>",
}


def _muse(name: str, folder: Path, seed: int, **own: Any) -> None:
    """Write a model of the Muse family `name`; `own` are further values of its config."""
    import transformers

    module = import_module(f"latentlens_dag.models.families.muse_{name.lower()}")
    tokenizer = tiny_tokenizer(image_tokens=_MUSE_TOKENS, bos_first=False)
    tower = {**VISION_CONFIG, "hidden_size": 32, "patch_size": 14, "pos_emb_height": 4, "pos_emb_width": 4}
    text = {"head_dim": 8, **(_MUSE_EXPERTS if name == "Spark" else {})}
    config = getattr(transformers, f"Muse{name}Config")(
        vision_config={**tower, "max_position_embeddings": 16},
        text_config={**TEXT_CONFIG, **text, "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        out_hidden_size=128,
        projector_hidden_size=64,
        **own,
    )
    whole = module.processor_class()
    processor = whole(
        whole.image_processor_type(max_image_tokens=12), tokenizer, chat_template=chat_template("<|patch|>")
    )
    save_random_model(getattr(transformers, f"Muse{name}ForConditionalGeneration"), config, processor, folder, seed)


_MUSE_EXPERTS = {
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "moe_intermediate_size": 16,
    "moe_hidden_size": 16,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
_MUSE_AUDIO = {
    "patch_sizes": [4, 2],
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "num_hidden_layers": 2,
    "out_hidden_size": 32,
}


def _perception_lm(folder: Path, seed: int) -> None:
    """Write a Perception LM, with the vision tower of SigLIP in place of one of timm, which need not be installed."""
    from transformers import PerceptionLMConfig, PerceptionLMForConditionalGeneration

    from latentlens_dag.models.families.perception_lm import processor_class

    tokenizer = tiny_tokenizer(image_tokens={"image_token": "<|image|>", "video_token": "<|video|>"})
    config = PerceptionLMConfig(
        vision_config={**SIGLIP_CONFIG, "image_size": 60, "patch_size": 14, "model_args": {"embed_dim": 24}},
        text_config={**TEXT_CONFIG, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_use_cls_token=False,
        projector_pooling_ratio=2,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    whole = processor_class()
    processor = whole(
        whole.image_processor_type(tile_size=60, max_num_tiles=6),
        tokenizer,
        patch_size=14,
        pooling_ratio=2,
        chat_template="{{ bos_token }}" + chat_template("<|image|>"),
    )
    save_random_model(PerceptionLMForConditionalGeneration, config, processor, folder, seed)


_NEMOTRON_TOKENS = {
    "image_token": "<image>",
    "video_token": "<video>",
    "audio_token": "<so_embedding>",
    "image_start_token": "<img>",
    "image_end_token": "</img>",
}
_NEMOTRON_H = {
    "model_type": "nemotron_h",
    "layers_block_type": ["mamba", "attention", "moe"],
    "head_dim": 8,
    "ssm_state_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "chunk_size": 16,
    "n_routed_experts": 4,
    "moe_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
}


def _nemotron_h_omni(folder: Path, seed: int) -> None:
    import transformers

    from latentlens_dag.models.families.nemotron_omni import processor_class

    tokenizer = tiny_tokenizer(image_tokens=_NEMOTRON_TOKENS, bos_first=False)
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_img_size": 128}
    config = transformers.NemotronH_Omni_Reasoning_V3_Config(
        vision_config={**tower, "mlp_ratio": 2.0, "video_temporal_patch_size": 2},
        text_config={**TEXT_CONFIG, **_NEMOTRON_H, "vocab_size": len(tokenizer)},
        audio_config=None,
        vision_hidden_size=32,
        projector_hidden_size=64,
        image_token_id=tokenizer.image_token_id,
    )
    whole = processor_class()
    processor = whole(
        whole.image_processor_type(min_num_patches=16, max_num_patches=48),
        tokenizer,
        chat_template=chat_template("<image>"),
    )
    save_random_model(transformers.NemotronH_Omni_Reasoning_V3, config, processor, folder, seed)


PILLOW_BUILDERS: dict[str, Builder] = {
    "cohere2_vision": _cohere2_vision,
    "kimi_k25": _kimi_k25,
    "minimax_m3_vl": _minimax_m3_vl,
    "muse_glimmer": partial(_muse, "Glimmer"),
    "muse_spark": partial(_muse, "Spark", audio_config=_MUSE_AUDIO),
    "nemotron_h_omni": _nemotron_h_omni,
    "perception_lm": _perception_lm,
}
