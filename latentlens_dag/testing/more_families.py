"""Tiny random models of further families; a builder gives the processor the settings of the real family.

Each is called through `testing.tiny_vlm`, as those in `families.py`.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from latentlens_dag.testing.models import (
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


def _janus(folder: Path, seed: int) -> None:
    from transformers import JanusConfig, JanusForConditionalGeneration, JanusProcessor
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

    tokens = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = tiny_tokenizer(image_tokens=tokens)
    vision = {key: value for key, value in VISION_CONFIG.items() if key != "intermediate_size"}
    codes = {"embed_dim": 8, "num_embeddings": 16, "latent_channels": 32, "base_channels": 32, "num_res_blocks": 1}
    config = JanusConfig(
        vision_config={**vision, "image_size": 64, "patch_size": 16, "projection_dim": 32, "num_image_tokens": 16},
        text_config={**TEXT_CONFIG, "model_type": "llama", "vocab_size": len(tokenizer)},
        vq_config={**codes, "channel_multiplier": [1, 1], "projection_dim": 32, "image_token_embed_dim": 32},
        image_token_id=tokenizer.image_token_id,
    )
    processor = JanusProcessor(
        JanusImageProcessorPil(size={"height": 64, "width": 64}),
        tokenizer,
        num_image_tokens=16,
        chat_template="{{ bos_token }}" + chat_template("<image_placeholder>"),
    )
    save_random_model(JanusForConditionalGeneration, config, processor, folder, seed)


_ERNIE_TOKENS = {
    "image_token": "<|IMAGE_PLACEHOLDER|>",
    "image_start_token": "<|IMAGE_START|>",
    "image_end_token": "<|IMAGE_END|>",
    "video_token": "<|VIDEO_PLACEHOLDER|>",
    "video_start_token": "<|VIDEO_START|>",
    "video_end_token": "<|VIDEO_END|>",
}


def _ernie(folder: Path, seed: int) -> None:
    from transformers import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeForConditionalGeneration, Ernie4_5_VLMoeProcessor
    from transformers.models.ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe import (
        Ernie4_5_VLMoeImageProcessorPil,
    )
    from transformers.processing_utils import ProcessorMixin

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens=_ERNIE_TOKENS, bos_first=False)
    rope = {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [1, 1, 2]}
    experts = {"moe_intermediate_size": [32, 16], "moe_k": 2, "moe_num_experts": 4}
    config = Ernie4_5_VLMoeConfig(
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 14},
        text_config={**TEXT_CONFIG, **experts, "vocab_size": len(tokenizer), "rope_parameters": rope},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in _ERNIE_TOKENS.items()},
    )
    image_processor = Ernie4_5_VLMoeImageProcessorPil(size={"shortest_edge": 4 * 28**2, "longest_edge": 12 * 28**2})
    processor = for_images_only(Ernie4_5_VLMoeProcessor)(
        image_processor,
        tokenizer,
        chat_template=chat_template("<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"),
    )
    type(processor).save_pretrained = ProcessorMixin.save_pretrained  # the class's own also saves a font for videos
    save_random_model(Ernie4_5_VLMoeForConditionalGeneration, config, processor, folder, seed)


_KIMI_TOKENS = {
    "image_token": "<|media_pad|>",
    "video_token": "<|kimi_k25_video_placeholder|>",
    "vision_start_token": "<|media_begin|>",
    "vision_content_token": "<|media_content|>",
    "vision_end_token": "<|media_end|>",
}
_KIMI_IMAGE = "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>"
_DEEPSEEK_V3 = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}


def _kimi_k25(folder: Path, seed: int) -> None:
    from transformers import Kimi_K25Config, Kimi_K25ForConditionalGeneration

    from latentlens_dag.models.families.kimi_k25 import processor_class

    tokenizer = tiny_tokenizer(image_tokens=_KIMI_TOKENS, bos_first=False)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Kimi_K25Config(
        vision_config={**tower, "patch_size": 14, "pos_emb_height": 8, "pos_emb_width": 8},
        text_config={**TEXT_CONFIG, **_DEEPSEEK_V3, "model_type": "deepseek_v3", "vocab_size": len(tokenizer)},
        projection_hidden_size=32,
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in _KIMI_TOKENS.items()},
    )
    whole = processor_class()
    processor = whole(whole.image_processor_type(max_patches=48), tokenizer, chat_template=chat_template(_KIMI_IMAGE))
    save_random_model(Kimi_K25ForConditionalGeneration, config, processor, folder, seed)


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
    )
    names = [name for name in tokens if name.startswith(("vision", "image"))]
    image = "".join(tokens[name] for name in sorted(names, key=lambda name: ("start" not in name, "end" in name)))
    saved = for_images_only(getattr(transformers, processor or f"{prefix}Processor"))(
        image_processor, tokenizer, chat_template=chat_template(image)
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

_GLM_TOKENS = {
    "image_token": "<|image|>",
    "video_token": "<|video|>",
    "image_start_token": "<|begin_of_image|>",
    "image_end_token": "<|end_of_image|>",
    "video_start_token": "<|begin_of_video|>",
    "video_end_token": "<|end_of_video|>",
}


def _glmga(folder: Path, seed: int) -> None:
    from transformers import Glm46VForConditionalGeneration, Glm46VProcessor, GlmgaConfig
    from transformers.models.glmga.image_processing_pil_glmga import GlmgaImageProcessorPil

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens=_GLM_TOKENS, bos_first=False)
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_heads": 4}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    text = {**TEXT_CONFIG, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": rope}
    config = GlmgaConfig(
        text_config={**text, "vocab_size": len(tokenizer)},
        vision_config={**vision, "image_size": 56, "patch_size": 14},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in _GLM_TOKENS.items()},
    )
    processor = for_images_only(Glm46VProcessor)(
        GlmgaImageProcessorPil(patch_size=14, size={"shortest_edge": 2 * 4 * 28**2, "longest_edge": 2 * 12 * 28**2}),
        tokenizer,
        chat_template=chat_template("<|begin_of_image|><|image|><|end_of_image|>"),
    )
    save_random_model(Glm46VForConditionalGeneration, config, processor, folder, seed)


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


def _mistral_large4(folder: Path, seed: int) -> None:
    from transformers import MistralLarge4Config, MistralLarge4ForConditionalGeneration, PixtralImageProcessorPil

    from latentlens_dag.models.families.pixtral import processor_class

    tokens = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    tokenizer = tiny_tokenizer(image_tokens=tokens)
    experts = {key: value for key, value in _DEEPSEEK_V3.items() if key != "q_lora_rank"}
    config = MistralLarge4Config(
        vision_config={
            **VISION_CONFIG,
            "model_type": "pixtral",
            "hidden_size": 32,
            "head_dim": 8,
            "image_size": 128,
            "patch_size": 14,
        },
        text_config={
            **TEXT_CONFIG,
            **experts,
            "index_n_heads": 2,
            "index_head_dim": 16,
            "vocab_size": len(tokenizer),
        },
        image_token_index=tokenizer.image_token_id,
    )
    processor = processor_class()(
        PixtralImageProcessorPil(size={"longest_edge": 128}, patch_size={"height": 14, "width": 14}),
        tokenizer,
        patch_size=14,
        spatial_merge_size=2,
        chat_template="{{ bos_token }}" + chat_template("[IMG]"),
    )
    save_random_model(MistralLarge4ForConditionalGeneration, config, processor, folder, seed)


def _qianfan_ocr(folder: Path, seed: int) -> None:
    from transformers import QianfanOCRConfig, QianfanOCRForConditionalGeneration, QianfanOCRProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    tokens = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokenizer = tiny_tokenizer(image_tokens={**tokens, "image_token": "<image>"}, bos_first=False)
    config = QianfanOCRConfig(
        vision_config={**VISION_CONFIG, "image_size": [64, 64], "patch_size": [16, 16]},
        text_config={**TEXT_CONFIG, "model_type": "qwen3", "head_dim": 8, "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = QianfanOCRProcessor(
        GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, crop_to_patches=True, max_patches=6),
        tokenizer,
        image_seq_length=4,
        chat_template=chat_template("<image>"),
    )
    save_random_model(QianfanOCRForConditionalGeneration, config, processor, folder, seed)


def _granite_docling(folder: Path, seed: int) -> None:
    from transformers import (
        GraniteDoclingConfig,
        GraniteDoclingForConditionalGeneration,
        GraniteDoclingImageProcessorPil,
        GraniteDoclingProcessor,
    )

    tiles = {f"tile_{r}_{c}": f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)}
    tokens = {"image_token": "<image>", "fake_token": "<fake_token_around_image>", "global_token": "<global-img>"}
    tokenizer = tiny_tokenizer(image_tokens={**tokens, **tiles}, bos_first=False)
    vision = {**VISION_CONFIG, "image_size": 64, "patch_size": 16, "scale_factor": 2, "out_hidden_size": 32}
    config = GraniteDoclingConfig(
        vision_config={**vision, "deepstack_visual_indexes": [0, 1]},
        text_config={**TEXT_CONFIG, "embedding_multiplier": 1.0, "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        pad_token_id=0,
    )
    processor = GraniteDoclingProcessor(
        GraniteDoclingImageProcessorPil(size={"height": 64, "width": 64}, max_patches=6),
        tokenizer,
        image_seq_len=4,
        chat_template=chat_template("<image>"),
    )
    save_random_model(GraniteDoclingForConditionalGeneration, config, processor, folder, seed)


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


_LFM3_VISION = {"hidden_size": 32, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}

MORE_BUILDERS: dict[str, Builder] = {
    "cohere2_vision": _cohere2_vision,
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
    "ernie4_5_vl_moe": _ernie,
    "exaone4_5": partial(
        _qwen_like, "Exaone4_5_", {**_QWEN2_5_VISION, "num_key_value_heads": 2}, {"model_type": "exaone4"}
    ),
    "glmga": _glmga,
    "granite_docling": _granite_docling,
    "hyperclovax_vision_v2": partial(
        _qwen_like,
        "HyperCLOVAXVisionV2",
        {**_QWEN2_5_VISION, "model_type": "qwen2_5_vl_vision", "patch_size": 14},
        {"model_type": "hyperclovax"},
    ),
    "janus": _janus,
    "kimi_k25": _kimi_k25,
    "lfm3_vl": partial(
        _qwen_like,
        "Lfm3Vl",
        {**VISION_CONFIG, **_LFM3_VISION},
        {"model_type": "lfm3", "head_dim": 8, "layer_types": ["conv", "sliding_attention", "full_attention"]},
    ),
    "minimax_m3_vl": _minimax_m3_vl,
    "mistral_large4": _mistral_large4,
    "muse_glimmer": partial(_muse, "Glimmer"),
    "muse_spark": partial(_muse, "Spark", audio_config=_MUSE_AUDIO),
    "perception_lm": _perception_lm,
    "qianfan_ocr": _qianfan_ocr,
    "video_llama_3": partial(
        _qwen_like,
        "VideoLlama3",
        {**VISION_CONFIG, "hidden_size": 32, "patch_size": 14},
        {"model_type": "qwen2"},
        images="VideoLlama3ImageProcessorPil",
        merged=1,
    ),
}
