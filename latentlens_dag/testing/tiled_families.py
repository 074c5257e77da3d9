"""Tiny random models of the families that show an image to the model in several views: tiles, crops, or resolutions.

A builder gives the processor the settings of the real family, as in `families.py`.
"""

from __future__ import annotations

from functools import partial
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


def _gemma3(folder: Path, seed: int) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil, Gemma3Processor

    tokens = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = tiny_tokenizer(image_tokens=tokens)
    config = Gemma3Config(
        vision_config={**SIGLIP_CONFIG, "image_size": 96, "patch_size": 16},
        text_config={**TEXT_CONFIG, "head_dim": 8, "vocab_size": len(tokenizer), "sliding_window_pattern": 2},
        mm_tokens_per_image=9,
        **{f"{name}_index": tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()},
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 96, "width": 96}),
        tokenizer,
        image_seq_length=9,
        chat_template="{{ bos_token }}" + chat_template("<start_of_image>"),
    )
    save_random_model(Gemma3ForConditionalGeneration, config, processor, folder, seed)


_TILE = {"image_size": 40, "patch_size": 12}

_PINPOINTS = [[40, 80], [80, 40], [80, 80], [120, 40], [40, 120]]


def _llava_next(folder: Path, seed: int) -> None:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer = tiny_tokenizer()
    vision = {**VISION_CONFIG, "num_hidden_layers": 3, **_TILE}
    config = LlavaNextConfig(
        vision_config={**vision, "model_type": "clip_vision_model"},
        text_config={**TEXT_CONFIG, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        image_grid_pinpoints=_PINPOINTS,
    )
    image_processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 40, "width": 40}, image_grid_pinpoints=_PINPOINTS
    )
    processor = LlavaNextProcessor(
        image_processor,
        tokenizer,
        patch_size=12,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    save_random_model(LlavaNextForConditionalGeneration, config, processor, folder, seed)


def _llava_onevision(folder: Path, seed: int) -> None:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens={"image_token": "<image>", "video_token": "<video>"}, bos_first=False)
    config = LlavaOnevisionConfig(
        vision_config={**SIGLIP_CONFIG, **_TILE},
        text_config={**TEXT_CONFIG, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        image_grid_pinpoints=_PINPOINTS,
    )
    processor = for_images_only(LlavaOnevisionProcessor)(
        LlavaOnevisionImageProcessorPil(size={"height": 40, "width": 40}, image_grid_pinpoints=_PINPOINTS),
        tokenizer,
        num_image_tokens=9,
        vision_feature_select_strategy="full",
        chat_template=chat_template("<image>"),
    )
    save_random_model(LlavaOnevisionForConditionalGeneration, config, processor, folder, seed)


def _idefics(name: str, folder: Path, seed: int) -> None:
    """Write a model of the family whose classes begin with `name`, which cuts images as Idefics3 does."""
    import transformers

    from latentlens_dag.models.families.registry import replacement_processor

    tiles = {f"tile_{r}_{c}": f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)}
    tokens = {"image_token": "<image>", "fake_token": "<fake_token_around_image>", "global_token": "<global-img>"}
    tokenizer = tiny_tokenizer(image_tokens={**tokens, "end_token": "<end_of_utterance>", **tiles})
    image_processor = getattr(transformers, f"{name}ImageProcessorPil")(
        size={"longest_edge": 128}, max_image_size={"longest_edge": 64}
    )
    processor_class = replacement_processor(f"{name}Processor") or getattr(transformers, f"{name}Processor")
    processor = processor_class(image_processor, tokenizer, image_seq_len=4, chat_template=CHAT_TEMPLATE)
    vision = {key: value for key, value in SIGLIP_CONFIG.items() if key not in ("model_type", "vision_use_head")}
    config = getattr(transformers, f"{name}Config")(
        vision_config={**vision, "image_size": 64, "patch_size": 16},
        text_config={**TEXT_CONFIG, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        scale_factor=2,
        pad_token_id=0,
    )
    save_random_model(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


def _internvl(folder: Path, seed: int) -> None:
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    from latentlens_dag.models.processors import for_images_only

    tokens = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = tiny_tokenizer(image_tokens=tokens, bos_first=False)
    config = InternVLConfig(
        vision_config={**VISION_CONFIG, "image_size": [64, 64], "patch_size": [16, 16]},
        text_config={**TEXT_CONFIG, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
    )
    processor = for_images_only(InternVLProcessor)(
        GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, crop_to_patches=True, max_patches=6),
        tokenizer,
        image_seq_length=4,
        chat_template=chat_template("<IMG_CONTEXT>"),
    )
    save_random_model(InternVLForConditionalGeneration, config, processor, folder, seed)


def _aya_vision(folder: Path, seed: int) -> None:
    from transformers import AyaVisionConfig, AyaVisionForConditionalGeneration, AyaVisionProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    tokens = {"image_token": "<image>", "patch_token": "<|IMG_PATCH|>", "tile_token": "TILE", "whole": "TILE_GLOBAL"}
    ends = {"start_token": "<|START_OF_IMG|>", "end_token": "<|END_OF_IMG|>"}
    tokenizer = tiny_tokenizer(image_tokens={**tokens, **ends})
    config = AyaVisionConfig(
        vision_config={**SIGLIP_CONFIG, "image_size": 64, "patch_size": 16},
        text_config={**TEXT_CONFIG, "model_type": "cohere2", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
    )
    processor = AyaVisionProcessor(
        GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, crop_to_patches=True, max_patches=6),
        tokenizer,
        patch_size=16,
        img_size=64,
        downsample_factor=2,
        chat_template=CHAT_TEMPLATE,
    )
    save_random_model(AyaVisionForConditionalGeneration, config, processor, folder, seed)


def _ovis2(folder: Path, seed: int) -> None:
    from transformers import Ovis2Config, Ovis2ForConditionalGeneration, Ovis2ImageProcessorPil, Ovis2Processor

    indicators = [f"<IMG_{name}>" for name in ("START", "GRID", "COL", "ROW", "END")]
    tokens = {"image_token": "<image>", "atom_token": "<IMG_ATOM>"}
    tokenizer = tiny_tokenizer(
        image_tokens={**tokens, **{f"{name}_token": name for name in indicators}}, bos_first=False
    )
    config = Ovis2Config(
        vision_config={**VISION_CONFIG, "image_size": 64, "patch_size": 16, "hidden_stride": 2, "vocab_size": 64},
        text_config={**TEXT_CONFIG, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=tokenizer.convert_tokens_to_ids(indicators),
        vocab_size=len(tokenizer),
        hidden_size=32,
    )
    processor = Ovis2Processor(
        Ovis2ImageProcessorPil(size={"height": 64, "width": 64}, crop_to_patches=True, max_patches=6),
        tokenizer,
        image_seq_length=4,
        chat_template=chat_template("<image>"),
    )
    save_random_model(Ovis2ForConditionalGeneration, config, processor, folder, seed)


_MOLMO_TOKENS = {
    "image_token": "<|image|>",
    "video_token": "<|video|>",
    "image_patch_token": "<im_patch>",
    "image_col_token": "<im_col>",
    "image_start_token": "<im_start>",
    "image_end_token": "<im_end>",
    "low_res_image_start_token": "<low_res_im_start>",
    "low_res_image_token": "<im_low>",
    "frame_start_token": "<frame_start>",
    "frame_end_token": "<frame_end>",
}


def _molmo2(folder: Path, seed: int) -> None:
    """Write a Molmo2. As in the real ones, odd numbers of patches leave halved tokens, and tokens straddle crops."""
    from transformers import Molmo2Config, Molmo2ForConditionalGeneration, Molmo2Processor
    from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor
    from transformers.models.molmo2.video_processing_molmo2 import Molmo2VideoProcessor

    tokenizer = tiny_tokenizer(image_tokens=_MOLMO_TOKENS, bos_first=False)  # the processor writes it
    vision = {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 6}
    tower = {"intermediate_size": 48, "num_hidden_layers": 2, "image_size": [98, 98], "patch_size": 14}
    adapter = {"intermediate_size": 48, "text_hidden_size": 32, "vision_feature_layer": [1, 0]}
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _MOLMO_TOKENS.items()}
    config = Molmo2Config(
        vision_config=vision | tower,
        adapter_config=vision | adapter,
        text_config={
            **TEXT_CONFIG,
            "head_dim": 8,
            "rope_parameters": rope,
            "vocab_size": len(tokenizer),
            "additional_vocab_size": 8,
        },
        image_patch_id=ids["image_patch_token"],
        **{f"{name}_id": ids[name] for name in ids if name.endswith(("start_token", "end_token"))},
    )
    processor = Molmo2Processor(
        Molmo2ImageProcessor(size={"height": 98, "width": 98}, overlap_margins=[2, 2], max_crops=6),
        Molmo2VideoProcessor(),
        tokenizer,
        chat_template=chat_template("<|image|>"),
    )
    save_random_model(Molmo2ForConditionalGeneration, config, processor, folder, seed)


TILED_BUILDERS: dict[str, Builder] = {
    "aya_vision": _aya_vision,
    "gemma3": _gemma3,
    "idefics3": partial(_idefics, "Idefics3"),
    "internvl": _internvl,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "molmo2": _molmo2,  # needs torchvision
    "ovis2": _ovis2,
    "smolvlm": partial(_idefics, "SmolVLM"),
}
