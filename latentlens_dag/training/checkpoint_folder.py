"""The finished model: the frozen parts and a connector as one checkpoint of the class Llava of transformers.

It is loaded by the auto classes like any other vision-language model. The text layers are those of the frozen language
model, so that an index of that model serves it too; its embedding and unembedding have one more row, of the image
token, which is the mean of the others.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.dtypes import DTYPES
from latentlens_dag.storage.files import atomic_path
from latentlens_dag.training.modules import PROJECTOR_ACTIVATION, Kind
from latentlens_dag.training.prompt import IMAGE_TOKEN, TrainingPrompt, with_image_token
from latentlens_dag.training.vision_encoder import VisionEncoder, rows_before_patches

if TYPE_CHECKING:
    from torch import Tensor

    from latentlens_dag.models.loading import FullModel
    from latentlens_dag.models.model_parts import ModelParts

_STRATEGIES = {0: "full", 1: "default"}
"""`vision_feature_select_strategy` by the number of rows before those of the patches."""


def save_llava(
    language: FullModel, encoder: VisionEncoder, weights: dict[str, Tensor], kind: Kind, out: Path, dtype: str
) -> None:
    """Write a model folder.

    Args:
        language: the frozen language model.
        encoder: the frozen vision encoder.
        weights: of the projector, as `llava_weights`.
        kind: of the connector.
        out: the folder; it is complete, or not there.
        dtype: in which all weights are stored.

    Raises:
        UserError: if the class Llava cannot have these parts (`check_llava`).
    """
    import torch
    from transformers import LlavaForConditionalGeneration

    check_llava(language.language_model, encoder)
    _check_weights(weights, kind, encoder.hidden, language.language_model.width)
    if dtype not in DTYPES:
        raise UserError(f"`dtype: {dtype}` of {out} must be one of {', '.join(DTYPES)}.")
    tokenizer = with_image_token(language.language_model.tokenizer)
    state = _state(language.language_model, encoder, weights)
    with torch.device("meta"):
        model: Any = LlavaForConditionalGeneration(_config(language, encoder, kind, tokenizer))
    model.load_state_dict({name: value.to(getattr(torch, dtype)) for name, value in state.items()}, assign=True)
    model.tie_weights()
    model.generation_config = deepcopy(language.model.generation_config)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config._name_or_path = ""  # otherwise it has paths of this machine
    with atomic_path(out) as partial:
        model.save_pretrained(partial)
        _processor(encoder, tokenizer).save_pretrained(partial)


def check_llava(language: ModelParts, encoder: VisionEncoder) -> None:
    """Refuse parts that the class Llava cannot have, or with which it would not compute what was trained."""
    before = rows_before_patches(encoder)
    if encoder.pool > 1 or before not in _STRATEGIES:
        reason = (
            f"its patches are pooled (`pool: {encoder.pool}`)"
            if encoder.pool > 1
            else f"it has {before} rows before those of the patches (class token and registers)"
        )
        raise UserError(
            f"{encoder.name} cannot be part of a Llava model: {reason}, and that class takes all patches after at most "
            "one row. Keep the weights of the connector by themselves, or choose another encoder."
        )
    if (
        language.logit_scale != 1
        or language.softcap is not None
        or getattr(language.unembedding, "bias", None) is not None
    ):
        raise UserError(
            f"{language.name} cannot be part of a Llava model: its logits are scaled, soft-capped, or have a bias, "
            "which that class leaves out. Keep the weights of the connector by themselves, or choose another language "
            "model."
        )


def _check_weights(weights: dict[str, Tensor], kind: Kind, hidden: int, width: int) -> None:
    """Refuse the weights of a connector between other models, or of the other kind."""
    import torch

    shapes = [list(weights[name].shape) for name in ("linear_1.weight", "linear_2.weight")]
    if shapes != [[width, hidden], [width, width]]:
        raise UserError(
            f"The connector's weights have the shapes {shapes}, but between these models they must have "
            f"{[[width, hidden], [width, width]]}: it was trained between others."
        )
    if kind == "linear" and not torch.equal(weights["linear_2.weight"], torch.eye(width)):
        raise UserError("`kind: linear` is not that of this connector: its second layer is not the identity.")


def _config(language: FullModel, encoder: VisionEncoder, kind: Kind, tokenizer: Any) -> Any:
    from transformers import LlavaConfig

    text = deepcopy(language.model.config.get_text_config(decoder=True))
    text.vocab_size = len(language.language_model.embedding) + 1
    return LlavaConfig(
        vision_config=encoder.config,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        projector_hidden_act=PROJECTOR_ACTIVATION[kind],
        image_seq_length=encoder.tokens,
        vision_feature_layer=encoder.layer,
        vision_feature_select_strategy=_STRATEGIES[rows_before_patches(encoder)],
        tie_word_embeddings=bool(getattr(text, "tie_word_embeddings", False)),
    )


def _state(language: ModelParts, encoder: VisionEncoder, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of all parts, named as in Llava."""
    parts = {
        "model.language_model": language.decoder.state_dict(),
        "model.vision_tower": encoder.model.state_dict(),
        "model.multi_modal_projector": weights,
        "lm_head": language.unembedding.state_dict(),
    }
    state = {f"{part}.{name}": value.cpu() for part, values in parts.items() for name, value in values.items()}
    decoder: Any = language.decoder
    embedding = decoder.get_input_embeddings().weight
    names = {f"model.language_model.{name}" for name, weight in decoder.named_parameters() if weight is embedding}
    return state | {name: _with_mean_row(state[name]) for name in {*names, "lm_head.weight"}}


def _with_mean_row(matrix: Tensor) -> Tensor:
    import torch

    return torch.cat([matrix, matrix.float().mean(dim=0, keepdim=True).to(matrix.dtype)])


def _processor(encoder: VisionEncoder, tokenizer: Any) -> Any:
    from transformers import LlavaProcessor

    before = rows_before_patches(encoder)
    return LlavaProcessor(
        image_processor=encoder.processor,
        tokenizer=tokenizer,
        patch_size=encoder.config.patch_size,
        vision_feature_select_strategy=_STRATEGIES[before],
        num_additional_image_tokens=before,
        image_token=IMAGE_TOKEN,
        chat_template=TrainingPrompt.of(tokenizer).chat_template,
    )
