"""Tiny random models of families that are read, but whose visual tokens have no boxes (`registry.why_unmapped`)."""

from __future__ import annotations

from pathlib import Path

from latentlens_dag.testing.models import TEXT_CONFIG, Builder, save_random_model, tiny_tokenizer


def _got_ocr2(folder: Path, seed: int) -> None:
    """Write a GOT-OCR 2.0; as in the real one, an image has 256 tokens, one for 4 x 4 patches."""
    from transformers import GotOcr2Config, GotOcr2ForConditionalGeneration, GotOcr2Processor
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    tokens = {"image_token": "<imgpad>", "start_token": "<img>", "end_token": "</img>"}
    tokens |= {"message_start_token": "<|im_start|>", "message_end_token": "<|im_end|>"}
    tokenizer = tiny_tokenizer(image_tokens=tokens, bos_first=False)
    size = {"hidden_size": 16, "output_channels": 16, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = GotOcr2Config(
        vision_config={**size, "image_size": 128, "patch_size": 2, "window_size": 8, "global_attn_indexes": []},
        text_config={**TEXT_CONFIG, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
    )
    processor = GotOcr2Processor(
        GotOcr2ImageProcessorPil(size={"height": 128, "width": 128}),
        tokenizer,  # without chat template, as the real one
    )
    save_random_model(GotOcr2ForConditionalGeneration, config, processor, folder, seed)


UNMAPPED_BUILDERS: dict[str, Builder] = {"got_ocr2": _got_ocr2}
