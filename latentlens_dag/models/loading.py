"""Loading vision-language models, language models and tokenizers.

Note: `AutoModelForCausalLM` silently loads the text half of some VLMs, so VLMs are loaded as image-text-to-text models
only. A model's own code is run only if the user allows it (`remote_code.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from latentlens_dag.device import default_device
from latentlens_dag.errors import UserError
from latentlens_dag.models.checkpoints import check_tokenizer, load_checkpoint
from latentlens_dag.models.configs import check_objects, read_config
from latentlens_dag.models.dtypes import chosen_dtype
from latentlens_dag.models.families.registry import (
    apply_checkpoint_settings,
    check_family,
    check_packages,
    check_text_family,
    mend,
)
from latentlens_dag.models.hub_models import LocalModel, local_model
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.logit_rule import logit_rule
from latentlens_dag.models.model_parts import blocks_of, decoder_of, final_norm_of, position_limit_of
from latentlens_dag.models.model_ref import ModelRef, model_ref
from latentlens_dag.models.processors import load_processor
from latentlens_dag.models.prompts import check_template
from latentlens_dag.models.remote_code import check_code, loading, may_have_vision, text_auto_class, vlm_auto_class
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.models.weight_files import check_lfs_pointers


def load_vlm(
    source: str | Path | ModelRef,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> Vlm:
    """Load a VLM from a local folder or from the Hugging Face Hub.

    Args:
        source: a folder, user/name on the Hub, or a `ModelRef`.
        revision: for user/name, a full commit, branch or tag; the name of the result has the commit.
        device: a torch device; by default CUDA if available, else the CPU.
        dtype: the name of a torch dtype; by default (or "auto") that of `dtypes.chosen_dtype`.
        trust_remote_code: run the model's own code, with all your rights; for user/name, `revision` must then be a full
            commit.

    Raises:
        UserError: if the model cannot be downloaded, is not a VLM that transformers can load, needs its own code but
            may not run it, or its checkpoint is refused (see `checkpoints`).
    """
    ref = model_ref(source, revision, trust_remote_code)
    return _whole_vlm(ref, *checked_folder(ref, check=check_vlm), device, dtype, of_images=True)


def check_vlm(config: Mapping[str, Any], name: str, trusted: bool) -> None:
    """Refuse a model that is not a VLM whose visual tokens can be read, before its weights are downloaded.

    Args:
        config: its config.json.
        name: its name, for messages.
        trusted: whether its own code may be run.

    Raises:
        UserError: if its family is refused, it is not a VLM, or its processor needs a missing package.
    """
    model_type = config.get("model_type", "")
    check_family(model_type, name)
    if not may_have_vision(config, trusted):
        raise UserError(
            f"{name} is not a vision-language model: its config.json has no `vision_config`. A language model is "
            "loaded by `load_language_model` in Python, and named as `language_model` (not `vlm`) in the defs.yaml of "
            "a study of texts."
        )
    check_packages(model_type, name)


def check_texts(config: Mapping[str, Any], name: str, trusted: bool) -> None:
    """Refuse a model whose language model cannot be read; arguments and errors as `check_vlm`."""
    model_type = config.get("model_type", "")
    check_text_family(model_type, name)
    if may_have_vision(config, trusted):
        check_packages(model_type, name)


def _whole_vlm(
    ref: ModelRef, folder: Path, name: str, device: str | None, dtype: str | None, of_images: bool = False
) -> Vlm:
    """The VLM in a folder; without `of_images`, even if only its language model can be read."""
    trusted, kind = ref.trust_remote_code, "vision-language model"
    config = read_config(folder) or {}
    with loading(folder, name, kind, trusted):
        model = load_checkpoint(
            vlm_auto_class(config, trusted), folder, name, trusted, chosen_dtype(folder, device, dtype)
        )
        processor = load_processor(folder, trusted)
        apply_checkpoint_settings(model.config.model_type, processor)
        mend(model)
    if of_images:
        check_template(processor, model.config.model_type, name)
    model = model.to(device or default_device()).eval()
    with loading(folder, name, kind, trusted):
        language_model = language_model_of(name, model, processor.tokenizer)
        check_tokenizer(language_model)
    return Vlm(name, model, processor, language_model)


def checked_folder(
    model: ModelRef, weights: bool = True, check: Callable[[Mapping[str, Any], str, bool], None] | None = None
) -> LocalModel:
    """A model as a folder, with its weights or without; it is checked before they are downloaded.

    Args:
        model: the model.
        weights: whether its weights are needed.
        check: what else its config is checked for, besides its code, such as `check_vlm`.
    """
    without_weights = local_model(model, weights=False)
    config = read_config(without_weights.folder) or {}
    check_objects(without_weights.folder)
    check_code(config, *without_weights, model.trust_remote_code)
    if check is not None:
        check(config, without_weights.name, model.trust_remote_code)
    return local_model(model) if weights else without_weights


def load_language_model(
    source: str | Path | ModelRef,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a language model, or the language model inside a VLM; arguments and errors as `load_vlm`."""
    return load_with_language_model(model_ref(source, revision, trust_remote_code), device, dtype).language_model


class FullModel(NamedTuple):
    """A model and the language model in it."""

    model: Any
    """The model of transformers, which computes its own logits."""
    language_model: LanguageModel


def load_with_language_model(
    source: str | Path | ModelRef, device: str | None = None, dtype: str | None = None
) -> FullModel:
    """Load a language model or VLM and return both the whole model and its language model; see `load_vlm`."""
    found = load_model(source, device, dtype)
    return FullModel(found.model, found.language_model) if isinstance(found, Vlm) else found


def load_model(source: str | Path | ModelRef, device: str | None = None, dtype: str | None = None) -> Vlm | FullModel:
    """Load a VLM or, where the config has no vision, a language model; see `load_vlm`.

    Note: of a family that `load_vlm` refuses, the VLM is loaded for its language model.
    """
    ref = model_ref(source)
    trusted = ref.trust_remote_code
    folder, name = checked_folder(ref, check=check_texts)
    config = read_config(folder) or {}
    if may_have_vision(config, trusted):
        return _whole_vlm(ref, folder, name, device, dtype)
    with loading(folder, name, "language model", trusted):
        auto = text_auto_class(config)
        model = load_checkpoint(auto, folder, name, trusted, chosen_dtype(folder, device, dtype))
        tokenizer = load_tokenizer(folder, trusted)
    model = model.to(device or default_device()).eval()
    with loading(folder, name, "language model", trusted):
        language_model = language_model_of(name, model, tokenizer)
        check_tokenizer(language_model)
    return FullModel(model, language_model)


def load_tokenizer(source: str | Path | ModelRef, trust_remote_code: bool = False, revision: str | None = None) -> Any:
    """Load a model's tokenizer, without downloading weights; arguments and errors as `load_vlm`."""
    from transformers import AutoTokenizer

    ref = model_ref(source, revision, trust_remote_code)
    trusted = ref.trust_remote_code
    folder, name = checked_folder(ref, weights=False)
    check_lfs_pointers(folder, name)
    with loading(folder, name, "tokenizer", trusted):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted)


def position_limit(source: str | Path | ModelRef) -> int | None:
    """`LanguageModel.positions` by a model's config, without loading the model."""
    from transformers import AutoConfig

    ref = model_ref(source)
    folder, name = checked_folder(ref, weights=False)
    with loading(folder, name, "language model", ref.trust_remote_code):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=ref.trust_remote_code)
    return position_limit_of(config.get_text_config(decoder=True))


def language_model_of(name: str, model: Any, tokenizer: Any) -> LanguageModel:
    """The language model inside a loaded model of transformers.

    Raises:
        UserError: if it is not a language model, its family is refused, it has its blocks or final norm under unknown
            names, or its embedding or unembedding has another width than the residual stream.
    """
    try:
        decoder = decoder_of(model)
        blocks_of(decoder)
        check_text_family(cast("Any", decoder.config).model_type, name)
        _check_widths(name, model, decoder)
        final_norm_of(decoder)
        rule = logit_rule(model)
        return LanguageModel(
            name=name,
            decoder=decoder,
            embedding=model.get_input_embeddings().weight,
            unembedding=model.get_output_embeddings(),
            softcap=rule.softcap,
            tokenizer=tokenizer,
            logit_scale=rule.scale,
        )
    except (AttributeError, NotImplementedError) as error:  # the latter if transformers does not find the embedding
        raise UserError(
            f"{name}, a {type(model).__name__}, cannot be read: a transformers causal language model or "
            f"vision-language model is needed, with a stack of blocks and a norm after it ({error})."
        ) from error


def _check_widths(name: str, model: Any, decoder: Any) -> None:
    """Refuse a model with a projection between its embedding or unembedding and its residual stream."""
    embedding = model.get_input_embeddings().weight.shape[1]
    stream = getattr(decoder.config.get_text_config(decoder=True), "hidden_size", embedding)
    unembedding = getattr(model.get_output_embeddings(), "in_features", stream)
    if embedding != stream or unembedding != stream:
        raise UserError(
            f"{name}, a {type(model).__name__}, cannot be read: its embedding is {embedding} wide and its unembedding "
            f"{unembedding}, but its residual stream {stream} (`word_embed_proj_dim` and `hidden_size` of an OPT), "
            "with projections between them. The lenses compare states with rows of the embedding, so all three must "
            "have one width. Take another model of the family: of OPT, any but the one with 350 million parameters."
        )
