"""A tiny random LLaVA, and the tokenizer of all tiny models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Builder = Callable[[Path, int], object]
"""Writes a tiny random model into a folder, by a seed."""

SENTENCES = (
    "A brown dog sleeps on the warm carpet near the door.",
    "The dog runs over the green grass after a red ball.",
    "Two cats watch the rain from a small window.",
    "She put an apple and a pear into the basket.",
    "The boat rests on the blue water of the quiet lake.",
    "Snow covers the roof of the old house in winter.",
    "A yellow bus waits in front of the school.",
    "He reads a long book under the lamp every night.",
)
TEXT_CONFIG = {
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
VISION_CONFIG = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIGLIP_CONFIG = {**VISION_CONFIG, "model_type": "siglip_vision_model", "vision_use_head": False}

DEEPSEEK_V3_CONFIG = {
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
"""What a DeepSeek-V3 has beside TEXT_CONFIG: attention with compressed keys and values, and experts."""


def chat_template(image: str) -> str:
    """A template that writes `image` where an image is, and text on its own lines."""
    return (
        "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        + image
        + "{% else %}\n{{ part['text'] }}\n{% endif %}{% endfor %}{% endfor %}"
    )


CHAT_TEMPLATE = "{{ bos_token }}" + chat_template("<image>")


def tiny_tokenizer(  # type: ignore[no-untyped-def]
    sentences: tuple[str, ...] = SENTENCES,
    vocabulary: int = 400,
    image_tokens: dict[str, str] | None = None,
    bos_first: bool = True,
):
    """A byte-level BPE tokenizer with <pad>, <bos>, <eos> and the tokens of images; it puts <bos> first.

    Args:
        sentences: trained on them.
        vocabulary: how many tokens at most.
        image_tokens: attribute of the tokenizer -> token; {"image_token": "<image>"} by default.
        bos_first: False for families whose processor or template writes what comes first.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    image_tokens = image_tokens or {"image_token": "<image>"}
    specials = ["<pad>", "<bos>", "<eos>", *image_tokens.values()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(sentences, trainer)
    if bos_first:
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=image_tokens,
    )


def tiny_llava(
    folder: Path,
    seed: int = 0,
    blocks: int = 3,
    width: int = 32,
    image_size: int = 48,
    bidirectional: bool = False,
) -> Path:
    """Write a random LLaVA-1.5 model: `blocks` blocks, (image_size / 16) squared visual tokens.

    Its language model is a Llama or, where it is to read text in both directions, a Gemma 3 with
    `use_bidirectional_attention`.
    """
    from transformers import (
        CLIPVisionConfig,
        Gemma3TextConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = tiny_tokenizer()
    family = partial(Gemma3TextConfig, head_dim=8, use_bidirectional_attention=True) if bidirectional else LlamaConfig
    text = family(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    vision = CLIPVisionConfig(**VISION_CONFIG, image_size=image_size, patch_size=16)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=3,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
    )
    save_random_model(LlavaForConditionalGeneration, config, processor, folder, seed)
    return folder


def save_random_model(model_class: Any, config: Any, processor: Any, folder: Path, seed: int) -> None:
    """Write a model with random weights, and its processor.

    The weights are larger than transformers' own initial ones, which make all tokens look alike.
    """
    import torch

    torch.manual_seed(seed)
    model = model_class(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else None
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
