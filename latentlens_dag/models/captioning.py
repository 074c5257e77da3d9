"""A VLM's own captions of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from latentlens_dag.errors import UserError
from latentlens_dag.models.prompts import Prompt
from latentlens_dag.models.vlm import Vlm

if TYPE_CHECKING:
    from PIL.Image import Image

CAPTION_TOKENS = 60
"""The most tokens of a caption."""


def generate_captions(vlm: Vlm, images: Iterable[Image], prompt: str | Prompt | None = None) -> Iterator[str]:
    """What a VLM says of each image, greedily: the most likely token each time, at most CAPTION_TOKENS of them.

    One image at a time, so that what it says of one does not depend on the others.

    Raises:
        UserError: if the model cannot generate text, or as of `Vlm.inputs`.
    """
    import torch

    if not getattr(vlm.model, "can_generate", lambda: False)():
        raise UserError(
            f"{vlm.name}, a {type(vlm.model).__name__}, cannot generate text, so it has no captions. Set `captions: "
            "false`, or leave it out."
        )
    for image in images:
        inputs = vlm.inputs([image], prompt)
        with torch.inference_mode():
            answer = vlm.model.generate(
                **inputs, max_new_tokens=CAPTION_TOKENS, do_sample=False, num_beams=1, repetition_penalty=1.0
            )
        new = answer[0, inputs["input_ids"].shape[1] :]
        yield vlm.processor.tokenizer.decode(new, skip_special_tokens=True).strip()
