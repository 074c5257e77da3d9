"""A tiny random model of each family of VLMs: one small builder each, called through `testing.tiny_vlm`.

What a newcomer gets wrong: a builder must give the processor the settings that the real family has (which size is
asked for, what is cropped, which tokens are written), else the test of its region map proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentlens_dag.testing.models import chat_template, tiny_llava, tiny_tokenizer

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def save(model_class: Any, config: Any, processor: Any, folder: Path, seed: int) -> None:
    """Write a model with random weights that are large enough to tell tokens apart, and its processor."""
    import torch

    torch.manual_seed(seed)
    model = model_class(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else None
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


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
    config_text = {**_TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope, **(text or {})}
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
    save(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


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


_SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vision_use_head": False,
}


def _paligemma(folder: Path, seed: int) -> None:
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = tiny_tokenizer(bos_first=False)
    image_processor = SiglipImageProcessorPil(size={"height": 48, "width": 48}, image_seq_length=9)
    processor = PaliGemmaProcessor(image_processor, tokenizer)  # adds tokens, so that it comes first
    config = PaliGemmaConfig(
        vision_config={**_SIGLIP, "image_size": 48, "patch_size": 16},
        text_config={**_TEXT, "model_type": "gemma", "head_dim": 8, "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        projection_dim=32,
        hidden_size=32,
        vocab_size=len(tokenizer),
    )
    save(PaliGemmaForConditionalGeneration, config, processor, folder, seed)


def _gemma3(folder: Path, seed: int) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    tokens = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = tiny_tokenizer(image_tokens=tokens)
    config = Gemma3Config(
        vision_config={**_SIGLIP, "image_size": 96, "patch_size": 16},
        text_config={**_TEXT, "head_dim": 8, "vocab_size": len(tokenizer), "sliding_window_pattern": 2},
        mm_tokens_per_image=9,
        **{f"{name}_index": tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()},
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 96, "width": 96}),
        tokenizer,
        image_seq_length=9,
        chat_template="{{ bos_token }}" + chat_template("<start_of_image>"),
    )
    save(Gemma3ForConditionalGeneration, config, processor, folder, seed)


# Tiles of 40 pixels hold 3 patches of 12: as in the real ones, the last pixels of a tile are in no patch.
_TILE = {"image_size": 40, "patch_size": 12}
_PINPOINTS = [[40, 80], [80, 40], [80, 80], [120, 40], [40, 120]]


def _llava_next(folder: Path, seed: int) -> None:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    tokenizer = tiny_tokenizer()
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, **_TILE}
    config = LlavaNextConfig(
        vision_config={**vision, "model_type": "clip_vision_model"},
        text_config={**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
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
        chat_template="{{ bos_token }}" + chat_template("<image>"),
    )
    save(LlavaNextForConditionalGeneration, config, processor, folder, seed)


def _llava_onevision(folder: Path, seed: int) -> None:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    from latentlens_dag.models.processors import for_images_only

    tokenizer = tiny_tokenizer(image_tokens={"image_token": "<image>", "video_token": "<video>"}, bos_first=False)
    config = LlavaOnevisionConfig(
        vision_config={**_SIGLIP, **_TILE},
        text_config={**_TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
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
    save(LlavaOnevisionForConditionalGeneration, config, processor, folder, seed)


def _idefics(name: str, image_processor_class: Any, processor_class: Any, folder: Path, seed: int) -> None:
    """Write a model of the family whose classes begin with `name`, which cuts images as Idefics3 does."""
    import transformers

    tiles = {f"tile_{r}_{c}": f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)}
    tokens = {"image_token": "<image>", "fake_token": "<fake_token_around_image>", "global_token": "<global-img>"}
    tokenizer = tiny_tokenizer(image_tokens={**tokens, "end_token": "<end_of_utterance>", **tiles})
    processor = processor_class(
        image_processor_class(size={"longest_edge": 128}, max_image_size={"longest_edge": 64}),
        tokenizer,
        image_seq_len=4,
        chat_template="{{ bos_token }}" + chat_template("<image>"),
    )
    vision = {key: value for key, value in _SIGLIP.items() if key not in ("model_type", "vision_use_head")}
    config = getattr(transformers, f"{name}Config")(
        vision_config={**vision, "image_size": 64, "patch_size": 16},
        text_config={**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        scale_factor=2,
        pad_token_id=0,
    )
    save(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


def _idefics3(folder: Path, seed: int) -> None:
    from transformers import Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    _idefics("Idefics3", Idefics3ImageProcessorPil, Idefics3Processor, folder, seed)


def _smolvlm(folder: Path, seed: int) -> None:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    from latentlens_dag.models.families.smolvlm import processor_class

    _idefics("SmolVLM", SmolVLMImageProcessorPil, processor_class(), folder, seed)


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
            **_TEXT,
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
    save(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


def _glm4v(folder: Path, seed: int) -> None:
    from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

    _glm("Glm4v", Glm4vImageProcessorPil, folder, seed)


def _glm46v(folder: Path, seed: int) -> None:
    from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

    _glm("Glm46V", Glm46VImageProcessorPil, folder, seed)


_ENDS = {"start": "begin", "end": "end"}


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
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = InternVLConfig(
        vision_config={**vision, "image_size": [64, 64], "patch_size": [16, 16]},
        text_config={**_TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
    )
    processor = for_images_only(InternVLProcessor)(
        GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, crop_to_patches=True, max_patches=6),
        tokenizer,
        image_seq_length=4,
        chat_template=chat_template("<IMG_CONTEXT>"),
    )
    save(InternVLForConditionalGeneration, config, processor, folder, seed)


def _aya_vision(folder: Path, seed: int) -> None:
    from transformers import AyaVisionConfig, AyaVisionForConditionalGeneration, AyaVisionProcessor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    tokens = {"image_token": "<image>", "patch_token": "<|IMG_PATCH|>", "tile_token": "TILE", "whole": "TILE_GLOBAL"}
    ends = {"start_token": "<|START_OF_IMG|>", "end_token": "<|END_OF_IMG|>"}
    tokenizer = tiny_tokenizer(image_tokens={**tokens, **ends})
    config = AyaVisionConfig(
        vision_config={**_SIGLIP, "image_size": 64, "patch_size": 16},
        text_config={**_TEXT, "model_type": "cohere2", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
    )
    processor = AyaVisionProcessor(
        GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, crop_to_patches=True, max_patches=6),
        tokenizer,
        patch_size=16,
        img_size=64,
        downsample_factor=2,
        chat_template="{{ bos_token }}" + chat_template("<image>"),
    )
    save(AyaVisionForConditionalGeneration, config, processor, folder, seed)


def _deepseek_vl(folder: Path, seed: int) -> None:
    from transformers import DeepseekVLConfig, DeepseekVLForConditionalGeneration, DeepseekVLProcessor
    from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil

    tokenizer = tiny_tokenizer()
    config = DeepseekVLConfig(
        vision_config={**_SIGLIP, "image_size": 64, "patch_size": 16},
        text_config={**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
    )
    processor = DeepseekVLProcessor(
        DeepseekVLImageProcessorPil(size={"height": 64, "width": 64}),
        tokenizer,
        chat_template="{{ bos_token }}" + chat_template("<image>"),
        num_image_tokens=16,
    )
    save(DeepseekVLForConditionalGeneration, config, processor, folder, seed)


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
        text_config={**_TEXT, "model_type": "mistral", "head_dim": 8, "vocab_size": len(tokenizer)},
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
    save(model_class, config, processor, folder, seed)


def _mistral3(folder: Path, seed: int) -> None:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    _pixtral(Mistral3Config, Mistral3ForConditionalGeneration, 14, 2, folder, seed)


def _pixtral_llava(folder: Path, seed: int) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    _pixtral(LlavaConfig, LlavaForConditionalGeneration, 32, 1, folder, seed)


def _ovis2(folder: Path, seed: int) -> None:
    from transformers import Ovis2Config, Ovis2ForConditionalGeneration, Ovis2Processor
    from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil

    indicators = [f"<IMG_{name}>" for name in ("START", "GRID", "COL", "ROW", "END")]
    tokens = {"image_token": "<image>", "atom_token": "<IMG_ATOM>"}
    tokenizer = tiny_tokenizer(
        image_tokens={**tokens, **{f"{name}_token": name for name in indicators}}, bos_first=False
    )
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Ovis2Config(
        vision_config={**vision, "image_size": 64, "patch_size": 16, "hidden_stride": 2, "vocab_size": 64},
        text_config={**_TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
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
    save(Ovis2ForConditionalGeneration, config, processor, folder, seed)


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
            **_TEXT,
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
    save(Molmo2ForConditionalGeneration, config, processor, folder, seed)


def _llava(folder: Path, seed: int) -> None:
    tiny_llava(folder, seed)


BUILDERS: dict[str, Callable[[Path, int], None]] = {
    "aya_vision": _aya_vision,
    "deepseek_vl": _deepseek_vl,
    "gemma3": _gemma3,
    "glm46v": _glm46v,
    "glm4v": _glm4v,
    "idefics3": _idefics3,
    "internvl": _internvl,
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "mistral3": _mistral3,
    "molmo2": _molmo2,  # needs torchvision
    "ovis2": _ovis2,
    "paligemma": _paligemma,
    "pixtral": _pixtral_llava,  # of the family `llava`, with another vision tower
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_vl": _qwen2_vl,
    "qwen3_5": _qwen3_5,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl_moe,
    "smolvlm": _smolvlm,
}
