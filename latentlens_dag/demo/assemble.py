"""The demo model as a whole: put together, saved in Hugging Face format, and gated on its captions.

The parts become an ordinary `LlavaForConditionalGeneration` with tokenizer, image processor, chat
template and generation settings, so that the auto classes load it offline like any other VLM, and
without torchvision.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.demo.backdrops import PIXELS
from latentlens_dag.demo.scenes import HELD_OUT_FROM, PATCH, PATCHES, SceneSource, View, scene_truth, visible_view
from latentlens_dag.demo.text_captions import mentioned_names
from latentlens_dag.demo.training import Gate
from latentlens_dag.demo.vision import IMAGE_MEAN, IMAGE_STD
from latentlens_dag.demo.world import World

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor
    from transformers import CLIPVisionModel, LlamaForCausalLM, PreTrainedTokenizerBase

IMAGE_TOKEN = "<image>"
QUESTION = "Describe this image in detail."
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ '\\n' + message['content'] + '\\n' }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% elif part['type'] == 'text' %}{{ '\\n' + part['text'] + '\\n' }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)
"""<image>\\nDescribe this image in detail.\\n, without roles; the tokenizer puts one <bos> before it."""
GATES = (Gate("object_recall", 0.88), Gate("object_precision", 0.83), Gate("background_recall", 0.97))


@dataclass(frozen=True)
class CaptionScores:
    """Recall and precision of the names in captions of held-out scenes or passages."""

    object_recall: float
    object_precision: float
    background_recall: float


def save_model(
    language: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    encoder: CLIPVisionModel,
    connector: dict[str, Tensor],
    out: Path,
) -> None:
    """Write the model of these parts to `out`: weights in bfloat16, configuration and processor."""
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=encoder.config,
        text_config=language.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    model.model.vision_tower.load_state_dict(encoder.state_dict())
    model.model.multi_modal_projector.load_state_dict(connector)
    model.generation_config = _generation_config(tokenizer)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config._name_or_path = ""  # otherwise paths of the training machine are shipped
    model.to(torch.bfloat16).save_pretrained(out)
    new_processor(tokenizer).save_pretrained(out)


def load_saved_parts(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase, CLIPVisionModel]:
    """Language model, tokenizer and vision encoder of a model that `save_model` wrote, in float32.

    The weights are the saved bfloat16 ones, between which connectors are trained: a new connector meets the same
    frozen models as the one in `folder` did.
    """
    import torch
    from transformers import AutoTokenizer, CLIPVisionModel, LlamaForCausalLM, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    language = LlamaForCausalLM(model.config.text_config)
    language.model.load_state_dict(model.model.language_model.state_dict())
    language.lm_head.load_state_dict(model.lm_head.state_dict())
    encoder = CLIPVisionModel(model.config.vision_config)
    encoder.load_state_dict(model.model.vision_tower.state_dict())
    return language.eval(), AutoTokenizer.from_pretrained(folder), encoder.eval()


def new_processor(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The processor for the demo's pictures: pixels as they are, 144 image tokens, the chat template."""
    # The Pillow class, since the default one needs torchvision. The encoder's class token is one additional token,
    # which "default" drops again; with 0 there would be 143 image tokens.
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": PIXELS},
        crop_size={"height": PIXELS, "width": PIXELS},
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_STD),
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def generate_captions(
    model: Any, processor: Any, images: list[Image.Image], batch: int = 16, beams: int | None = None
) -> list[str]:
    """Caption `images` with the model's own generation settings, or with another number of beams (1: greedy)."""
    import torch

    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(talk, add_generation_prompt=True)
    texts: list[str] = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        inputs = processor(text=[prompt] * len(part), images=part, return_tensors="pt")
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            answers = model.generate(**inputs, **({} if beams is None else {"num_beams": beams}))
        answers = answers[:, inputs["input_ids"].shape[1] :]
        texts += [text.strip() for text in processor.batch_decode(answers, skip_special_tokens=True)]
    return texts


def caption_scores(
    folder: Path, source: SceneSource, scenes: int = 200, beams: int | None = None
) -> tuple[CaptionScores, list[tuple[str, View]]]:
    """Load the model of `folder` with the auto classes and score its captions of held-out scenes.

    Also gives every caption with the view that it should describe. `beams` as in `generate_captions`.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(folder)
    drawn = [source(HELD_OUT_FROM + index) for index in range(scenes)]
    texts = generate_captions(model, processor, [rendered.image for _, rendered in drawn], beams=beams)
    views = [visible_view(scene_truth(rendered, scene)) for scene, rendered in drawn]
    pairs = list(zip(texts, views, strict=True))
    return score_captions(source.world, pairs), pairs


def score_captions(world: World, pairs: Iterable[tuple[str, View]]) -> CaptionScores:
    """Recall and precision of the named objects, and recall of the backgrounds, over all captions together."""
    hits = named = visible = found = grounds = 0
    for text, view in pairs:
        mentioned = mentioned_names(world, text)
        truth = {item.name for item in view.objects}
        objects = mentioned & {item.name for item in world.objects}
        hits += len(objects & truth)
        named += len(objects)
        visible += len(truth)
        halves = {half for half in (view.upper, view.lower) if half}
        found += len(halves & mentioned)
        grounds += len(halves)
    return CaptionScores(hits / max(1, visible), hits / max(1, named), found / max(1, grounds))


def _generation_config(tokenizer: PreTrainedTokenizerBase) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=110,
        do_sample=False,
        num_beams=5,  # greedy captions repeat and omit objects more often
        length_penalty=2.0,
    )
