"""Tiny random models of further families; a builder gives the processor the settings of the real family.

Each is called through `testing.tiny_vlm`, as those in `families.py`.
"""

from __future__ import annotations

from pathlib import Path

from latentlens_dag.testing.models import (
    DEEPSEEK_V3_CONFIG,
    TEXT_CONFIG,
    VISION_CONFIG,
    Builder,
    chat_template,
    save_random_model,
    tiny_tokenizer,
)
from latentlens_dag.testing.pillow_families import PILLOW_BUILDERS
from latentlens_dag.testing.qwen_like_families import QWEN_LIKE_BUILDERS


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


def _mistral_large4(folder: Path, seed: int) -> None:
    from transformers import MistralLarge4Config, MistralLarge4ForConditionalGeneration, PixtralImageProcessorPil

    from latentlens_dag.models.families.pixtral import processor_class

    tokens = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    tokenizer = tiny_tokenizer(image_tokens=tokens)
    experts = {key: value for key, value in DEEPSEEK_V3_CONFIG.items() if key != "q_lora_rank"}
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
_QWEN3_5_TEXT = {
    "model_type": "qwen3_5_text",
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "head_dim": 16,
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5},
}


def _minicpmv4_7(folder: Path, seed: int) -> None:
    from transformers import MiniCPMV4_7Config, MiniCPMV4_7ForConditionalGeneration, MiniCPMV4_7Processor
    from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens=_MINICPM_TOKENS, bos_first=False)
    config = MiniCPMV4_7Config(
        vision_config={**VISION_CONFIG, "num_hidden_layers": 3, "image_size": 64, "patch_size": 4},
        text_config={**TEXT_CONFIG, **_QWEN3_5_TEXT, "vocab_size": len(tokenizer)},
        insert_layer_id=1,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    processor = for_images_only(MiniCPMV4_7Processor)(
        image_processor=MiniCPMV4_6ImageProcessorPil(scale_resolution=64, patch_size=4),
        tokenizer=tokenizer,
        chat_template=chat_template("<|image_pad|>"),
    )
    save_random_model(MiniCPMV4_7ForConditionalGeneration, config, processor, folder, seed)


MORE_BUILDERS: dict[str, Builder] = {
    "ernie4_5_vl_moe": _ernie,
    "glmga": _glmga,
    "granite_docling": _granite_docling,
    "janus": _janus,
    "minicpmv4_7": _minicpmv4_7,
    "mistral_large4": _mistral_large4,
    "qianfan_ocr": _qianfan_ocr,
    **PILLOW_BUILDERS,
    **QWEN_LIKE_BUILDERS,
}
