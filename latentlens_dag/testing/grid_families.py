"""Tiny random models of more families that show the whole image to the model at once, as a grid.

A builder gives the processor the settings of the real family, as in `families.py`.
"""

from __future__ import annotations

from pathlib import Path

from latentlens_dag.testing.models import (
    CHAT_TEMPLATE,
    SIGLIP_CONFIG,
    TEXT_CONFIG,
    VISION_CONFIG,
    Builder,
    chat_template,
    save_random_model,
    tiny_tokenizer,
)


def _deepseek_vl_hybrid(folder: Path, seed: int) -> None:
    """Write a hybrid DeepSeek-VL, whose two vision towers see 6 x 6 and 16 x 16 patches (in the real one 24 and 64)."""
    from transformers import (
        DeepseekVLHybridConfig,
        DeepseekVLHybridForConditionalGeneration,
        DeepseekVLHybridImageProcessorPil,
        DeepseekVLHybridProcessor,
    )

    tokenizer = tiny_tokenizer()
    sam = {**VISION_CONFIG, "output_channels": 8, "image_size": 256, "patch_size": 16, "mlp_dim": 48}
    config = DeepseekVLHybridConfig(
        vision_config={**SIGLIP_CONFIG, "image_size": 96, "patch_size": 16},
        high_res_vision_config={**sam, "window_size": 14, "global_attn_indexes": [0, 1]},
        text_config={**TEXT_CONFIG, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
    )
    processor = DeepseekVLHybridProcessor(
        DeepseekVLHybridImageProcessorPil(
            size={"height": 96, "width": 96}, high_res_size={"height": 256, "width": 256}
        ),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        num_image_tokens=36,
    )
    save_random_model(DeepseekVLHybridForConditionalGeneration, config, processor, folder, seed)


def _hunyuan_vl(folder: Path, seed: int) -> None:
    from transformers import (
        HunYuanVLConfig,
        HunYuanVLForConditionalGeneration,
        HunYuanVLImageProcessorPil,
        HunYuanVLProcessor,
    )

    tokens = {"image_token": "<image>", "image_start_token": "<img>", "image_end_token": "</img>"}
    tokenizer = tiny_tokenizer(image_tokens=tokens, bos_first=False)
    rope = {"rope_type": "dynamic", "factor": 1.0, "alpha": 1000.0, "mrope_section": [1] * 4, "rope_theta": 1e4}
    config = HunYuanVLConfig(
        vision_config={**VISION_CONFIG, "patch_size": 14, "max_image_size": 140, "text_hidden_size": 32},
        text_config={
            **TEXT_CONFIG,
            "head_dim": 8,
            "vocab_size": len(tokenizer),
            "rope_parameters": {**rope, "rope_theta": 1e4},
        },
        image_token_id=tokenizer.image_token_id,
        im_start_id=tokenizer.image_start_token_id,
        im_end_id=tokenizer.image_end_token_id,
    )
    processor = HunYuanVLProcessor(
        HunYuanVLImageProcessorPil(patch_size=14, size={"shortest_edge": 4 * 28**2, "longest_edge": 12 * 28**2}),
        tokenizer,
        chat_template="{{ bos_token }}" + chat_template("<img><image></img>"),
    )
    save_random_model(HunYuanVLForConditionalGeneration, config, processor, folder, seed)


_PIXTRAL_TOKENS = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}


def _lighton_ocr(folder: Path, seed: int) -> None:
    """Write a LightOnOCR, whose processor resizes to whole patches, though a visual token is 2 x 2 of them."""
    from transformers import (
        LightOnOcrConfig,
        LightOnOcrForConditionalGeneration,
        LightOnOcrProcessor,
        PixtralImageProcessorPil,
    )

    tokenizer = tiny_tokenizer(image_tokens=_PIXTRAL_TOKENS, bos_first=False)
    vision = {**VISION_CONFIG, "hidden_size": 32, "num_attention_heads": 2, "head_dim": 16}
    config = LightOnOcrConfig(
        vision_config={**vision, "model_type": "pixtral", "image_size": 140, "patch_size": 14},
        text_config={**TEXT_CONFIG, "model_type": "qwen3", "head_dim": 8, "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
    )
    processor = LightOnOcrProcessor(
        PixtralImageProcessorPil(size={"longest_edge": 140}, patch_size={"height": 14, "width": 14}),
        tokenizer,
        chat_template=chat_template("[IMG]"),
    )
    save_random_model(LightOnOcrForConditionalGeneration, config, processor, folder, seed)


def _paddleocr_vl(folder: Path, seed: int) -> None:
    from transformers import (
        PaddleOCRVLConfig,
        PaddleOCRVLForConditionalGeneration,
        PaddleOCRVLImageProcessorPil,
        PaddleOCRVLProcessor,
    )

    tokens = {"image_token": "<|IMAGE_PLACEHOLDER|>", "video_token": "<|video_pad|>"}
    ends = {"vision_start_token": "<|IMAGE_START|>", "vision_end_token": "<|IMAGE_END|>"}
    tokenizer = tiny_tokenizer(image_tokens={**tokens, **ends})
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1]}
    config = PaddleOCRVLConfig(
        text_config={**TEXT_CONFIG, "head_dim": 8, "vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config={**VISION_CONFIG, "hidden_size": 32, "image_size": 56, "patch_size": 14},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in {**tokens, **ends}.items()},
    )
    processor = PaddleOCRVLProcessor(
        PaddleOCRVLImageProcessorPil(size={"shortest_edge": 4 * 28**2, "longest_edge": 12 * 28**2}),
        tokenizer,
        chat_template="{{ bos_token }}" + chat_template("<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"),
    )
    save_random_model(PaddleOCRVLForConditionalGeneration, config, processor, folder, seed)


def _vipllava(folder: Path, seed: int) -> None:
    """Write a VipLlava, whose connector takes the features of five blocks of the vision tower."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor, VipLlavaConfig, VipLlavaForConditionalGeneration

    tokenizer = tiny_tokenizer()
    config = VipLlavaConfig(
        vision_config={
            **VISION_CONFIG,
            "model_type": "clip_vision_model",
            "num_hidden_layers": 12,
            "image_size": 48,
            "patch_size": 16,
        },
        text_config={**TEXT_CONFIG, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        image_seq_length=9,
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
    )
    save_random_model(VipLlavaForConditionalGeneration, config, processor, folder, seed)


GRID_BUILDERS: dict[str, Builder] = {
    "deepseek_vl_hybrid": _deepseek_vl_hybrid,
    "hunyuan_vl": _hunyuan_vl,
    "lighton_ocr": _lighton_ocr,
    "paddleocr_vl": _paddleocr_vl,
    "vipllava": _vipllava,
}
