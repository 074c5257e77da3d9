"""SmolVLM: images are cut as in Idefics3.

The processor of transformers needs torchvision and num2words, but only for videos, so this module has a replacement for
images only.
"""

from __future__ import annotations

from typing import Any

from latentlens_dag.models.families.idefics3 import region_map

__all__ = ["processor_class", "region_map"]


def processor_class() -> Any:
    """The SmolVLMProcessor of transformers without its part for videos."""
    from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor as Whole
    from transformers.processing_utils import ProcessorMixin

    class SmolVLMProcessor(Whole):  # type: ignore[misc]
        def __init__(  # type: ignore[no-untyped-def]
            self, image_processor, tokenizer, image_seq_len: int = 169, chat_template: str | None = None, **kwargs
        ) -> None:
            self.fake_image_token = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
            self.image_token = getattr(tokenizer, "image_token", "<image>")
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.end_of_utterance_token = getattr(tokenizer, "end_of_utterance_token", "<end_of_utterance>")
            self.global_image_token = getattr(tokenizer, "global_image_token", "<global-img>")
            self.video_token = getattr(tokenizer, "video_token", "<video>")
            self.image_seq_len = image_seq_len
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template, **kwargs)

        apply_chat_template = ProcessorMixin.apply_chat_template

    return SmolVLMProcessor
