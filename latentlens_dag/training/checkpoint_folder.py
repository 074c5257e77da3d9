"""The finished model: the frozen parts and a connector as one checkpoint of the class Llava of transformers.

It is loaded by the auto classes like any other vision-language model. The text layers are those of the frozen language
model, so that an index of that model serves it too; its embedding and unembedding have one more row, of the image
token, which is the mean of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from latentlens_dag.errors import UserError
from latentlens_dag.models.dtypes import DTYPES
from latentlens_dag.storage.files import atomic_path, scratch_folder, write_json
from latentlens_dag.storage.records import FileFacts
from latentlens_dag.training.modules import PROJECTOR_ACTIVATION, Kind
from latentlens_dag.training.prompt import IMAGE_TOKEN, TrainingPrompt, with_image_token
from latentlens_dag.training.vision_encoder import Tower, VisionEncoder, vision_tower

if TYPE_CHECKING:
    from torch import Tensor

    from latentlens_dag.models.loading import FullModel
    from latentlens_dag.models.model_parts import ModelParts

_PROJECTOR = "model.multi_modal_projector"
_INDEX = "model.safetensors.index.json"
_CONNECTOR = "connector.safetensors"
_SHARD_SIZE = "5GB"
_STRATEGIES = {0: "full", 1: "default"}
"""`vision_feature_select_strategy` by the number of rows before those of the patches."""


def save_llava(
    language: FullModel, encoder: VisionEncoder, weights: Mapping[str, Tensor], kind: Kind, out: Path, dtype: str
) -> None:
    """Write a model folder; `write_frozen_parts` and `write_checkpoint` in one.

    Raises:
        UserError: as both.
    """
    _check_weights(weights, kind, encoder.hidden, language.language_model.width)
    with scratch_folder(out) as scratch:
        write_frozen_parts(language, encoder, scratch / "frozen", dtype)
        write_checkpoint(scratch / "frozen", weights, kind, out)


def write_frozen_parts(language: FullModel, encoder: VisionEncoder, out: Path, dtype: str) -> None:
    """Write what all models between two frozen parts have in common: their weights, named as in the finished model.

    Args:
        language: the frozen language model.
        encoder: the frozen vision encoder.
        out: the folder; it is complete, or not there.
        dtype: in which all weights are stored.

    Raises:
        UserError: if the class Llava cannot have these parts (`check_llava`).
    """
    import torch

    check_llava(language.language_model)
    if dtype not in DTYPES:
        raise UserError(f"`dtype: {dtype}` of {out} must be one of {', '.join(DTYPES)}.")
    tokenizer, tower = with_image_token(language.language_model.tokenizer), vision_tower(encoder)
    model = _empty_model(_config(language, encoder, tower, tokenizer))
    state = {name: value.to(getattr(torch, dtype)) for name, value in _state(language.language_model, tower).items()}
    model.load_state_dict(state, assign=True, strict=False)
    model.tie_weights()
    model.generation_config = deepcopy(language.model.generation_config)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config._name_or_path = ""  # otherwise it has paths of this machine
    frozen = {name: value for name, value in model.state_dict().items() if not name.startswith(_PROJECTOR)}
    with atomic_path(out) as partial:
        _save(model, partial, frozen)
        _processor(encoder, tower, tokenizer).save_pretrained(partial)
        (partial / _INDEX).unlink(missing_ok=True)
        for number, file in enumerate(sorted(partial.glob("*.safetensors")), 1):
            file.rename(partial / f"frozen-{number:05d}.safetensors")


def write_checkpoint(frozen: Path, weights: Mapping[str, Tensor], kind: Kind, out: Path) -> None:
    """Write the model of two frozen parts and a connector, as transformers loads it.

    The files of frozen weights are links to those of `frozen`, so that a further model takes no more than its
    connector; copies where the file system has no links.

    Args:
        frozen: what `write_frozen_parts` wrote.
        weights: of the projector, as `llava_weights`.
        kind: of the connector.
        out: the folder; it is complete, or not there.

    Raises:
        UserError: if the weights do not fit the frozen parts.
    """
    from transformers import AutoConfig

    from latentlens_dag.models import vision_grid  # noqa: F401 - registers its class

    config = AutoConfig.from_pretrained(frozen)
    config.projector_hidden_act = PROJECTOR_ACTIVATION[kind]
    _check_weights(weights, kind, config.vision_config.hidden_size, config.text_config.hidden_size)
    own = {f"{_PROJECTOR}.{name}": weight.to(config.dtype).contiguous() for name, weight in weights.items()}
    with atomic_path(out) as partial:
        partial.mkdir()
        _link_files(frozen, partial)
        config.save_pretrained(partial)
        model = _empty_model(config)
        with scratch_folder(partial) as scratch:
            _save(model, scratch, own)  # by which the weights get the names of a checkpoint
            [saved] = scratch.glob("*.safetensors")
            saved.rename(partial / _CONNECTOR)
        write_json(_weight_map(partial), partial / _INDEX)


def link_folder(frozen: Path, out: Path) -> None:
    """Give what `write_frozen_parts` wrote to another connector, with links to its weights."""
    with atomic_path(out) as partial:
        partial.mkdir()
        _link_files(frozen, partial)


def linked_facts(files: Iterable[FileFacts], frozen: Path, out: Path, warehouse: Path) -> list[FileFacts]:
    """The facts of a folder's links, by those of the files of frozen weights, which need not be hashed again."""
    inside, to = frozen.relative_to(warehouse).as_posix(), out.relative_to(warehouse).as_posix()
    weights = (fact for fact in files if fact.path.endswith(".safetensors"))
    return [fact._replace(path=fact.path.replace(inside, to, 1)) for fact in weights]


def _link_files(folder: Path, to: Path) -> None:
    for file in sorted(folder.iterdir()):
        (_link if file.suffix == ".safetensors" else copyfile)(file, to / file.name)


def _link(file: Path, to: Path) -> None:
    try:
        to.hardlink_to(file)
    except OSError:
        copyfile(file, to)


def _weight_map(folder: Path) -> dict[str, object]:
    """Which file has which weight, as transformers writes it for models of several files."""
    from safetensors import safe_open

    found, size = dict[str, str](), 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            found |= dict.fromkeys(weights.keys(), file.name)
        size += file.stat().st_size
    return {"metadata": {"total_size": size}, "weight_map": dict(sorted(found.items()))}


def _save(model: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Save a model with these weights alone, without a bar of progress on the terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder, state_dict=dict(weights), max_shard_size=_SHARD_SIZE)
    finally:
        if shown:
            logging.enable_progress_bar()


def _empty_model(config: Any) -> Any:
    import torch
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):
        return LlavaForConditionalGeneration(config)


def check_llava(language: ModelParts) -> None:
    """Refuse a language model with which the class Llava would not compute what was trained."""
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


def _check_weights(weights: Mapping[str, Tensor], kind: Kind, hidden: int, width: int) -> None:
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


def _config(language: FullModel, encoder: VisionEncoder, tower: Tower, tokenizer: Any) -> Any:
    from transformers import LlavaConfig

    text = deepcopy(language.model.config.get_text_config(decoder=True))
    text.vocab_size = len(language.language_model.embedding) + 1
    return LlavaConfig(
        vision_config=tower.model.config,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=encoder.tokens,
        vision_feature_layer=tower.layer,
        vision_feature_select_strategy=_STRATEGIES[tower.rows_before],
        tie_word_embeddings=bool(getattr(text, "tie_word_embeddings", False)),
    )


def _state(language: ModelParts, tower: Tower) -> dict[str, Tensor]:
    """The weights of the frozen parts, named as in Llava."""
    parts = {
        "model.language_model": language.decoder.state_dict(),
        "model.vision_tower": tower.model.state_dict(),
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


def _processor(encoder: VisionEncoder, tower: Tower, tokenizer: Any) -> Any:
    from transformers import LlavaProcessor

    return LlavaProcessor(
        image_processor=encoder.processor,
        tokenizer=tokenizer,
        patch_size=tower.patch_size,
        vision_feature_select_strategy=_STRATEGIES[tower.rows_before],
        num_additional_image_tokens=tower.rows_before,
        image_token=IMAGE_TOKEN,
        chat_template=TrainingPrompt.of(tokenizer).chat_template,
    )
