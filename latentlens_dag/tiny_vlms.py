"""A tiny random model of each family of VLMs: one small builder each, called through `testing.tiny_vlm`.

What a newcomer gets wrong: a builder must give the processor the settings that the real family has (which size is
asked for, what is cropped, which tokens are written), else the test of its region map proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentlens_dag.testing import tiny_llava, tiny_tokenizer

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


def chat_template(image: str) -> str:
    """A template that writes `image` where an image is, and text on its own lines."""
    return (
        "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        + image
        + "{% else %}\n{{ part['text'] }}\n{% endif %}{% endfor %}{% endfor %}"
    )


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


def _qwen(name: str, vision: dict[str, Any], patch: int, folder: Path, seed: int) -> None:
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from latentlens_dag.models import _for_images_only

    tokenizer = tiny_tokenizer(image_tokens=_QWEN_TOKENS, bos_first=False)
    text = {
        **_TEXT,
        "vocab_size": len(tokenizer),
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]},
    }
    if name == "Qwen3VL":
        text["head_dim"] = 8
    config = getattr(transformers, f"{name}Config")(
        text_config=text,
        vision_config={"depth": 2, "num_heads": 4, "patch_size": patch, **vision},
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in _QWEN_TOKENS.items()},
    )
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": 4 * (2 * patch) ** 2, "longest_edge": 12 * (2 * patch) ** 2}
    )
    processor = _for_images_only(getattr(transformers, f"{name}Processor"))(
        image_processor, tokenizer, chat_template=chat_template(_QWEN_IMAGE)
    )
    save(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder, seed)


def _qwen2_vl(folder: Path, seed: int) -> None:
    _qwen("Qwen2VL", {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}, 14, folder, seed)


def _qwen2_5_vl(folder: Path, seed: int) -> None:
    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "window_size": 56}
    _qwen("Qwen2_5_VL", {**vision, "fullatt_block_indexes": [1]}, 14, folder, seed)


def _qwen3_vl(folder: Path, seed: int) -> None:
    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 64}
    _qwen("Qwen3VL", {**vision, "deepstack_visual_indexes": [0, 1]}, 16, folder, seed)


def _llava(folder: Path, seed: int) -> None:
    tiny_llava(folder, seed)


BUILDERS: dict[str, Callable[[Path, int], None]] = {
    "llava": _llava,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_vl": _qwen2_vl,
    "qwen3_vl": _qwen3_vl,
}
