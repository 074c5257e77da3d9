"""Loading checkpoints, and refusing those that transformers would load with random or missing weights.

transformers initializes missing weights at random, ignores weights it does not know, and fills gaps in a config with
the defaults of the family; at most it logs a table. Here such a checkpoint is refused, with the names of the weights
and the remedy:

- before it is read: broken or missing files (`weight_files`), and a config of a model far larger than its weights
  (`check_size`);
- after loading: weights that are missing or differ in shape from the config, and unread weights that belong to the
  language model, vision tower or connector (`check_loaded`);
- weights that are not finite (`check_finite`);
- tokens without a row in the embedding (`check_tokenizer`).

Ignored silently: what transformers itself lists (`_keys_to_ignore_on_load_unexpected`), layers for multi-token
prediction (`mtp`, `nextn`), the pooling head of a vision tower, and stored tables (`inv_freq`, `position_ids`,
`masked_bias`). Other parts that a model lacks, such as an audio tower or a value head, give a warning. A quantized
checkpoint is neither compared by size nor refused for unread weights, because its tensors are not the model's
parameters.
"""

from __future__ import annotations

import gc
import json
import logging
import re
import warnings
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from latentlens_dag.errors import UserError
from latentlens_dag.models.remote_code import may_have_vision
from latentlens_dag.models.weight_files import first_names, stored_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from latentlens_dag.models.language_model import LanguageModel

_SIZE_FACTOR, _SIZE_MARGIN = 1.5, 10**8  # a model may have this many times, or this many more, elements than its files

_MULTI_TOKEN = re.compile(r"(^|\.)(mtp|nextn)")
_MULTI_TOKEN_LAYER = re.compile(r"(.*\.\d+\.)(eh_proj|enorm|hnorm|shared_head)\.")
_POOLING_HEAD = re.compile(r"(^|\.)(vision_tower|vision_model|visual)\.(vision_model\.)?head\.")
_STORED_TABLE = re.compile(r"(^|\.)(inv_freq|position_ids|masked_bias|(cos|sin)_cached)$")

_TOKENS_WITHOUT_ROW = {"gemma3_text": {"<image_soft_token>"}}
"""Special tokens without a row, by `model_type`: the 1B and 270M of Gemma 3 have the tokenizer of its VLMs."""

_LOADED: weakref.WeakSet[Any] = weakref.WeakSet()
"""The models that were loaded and still exist."""
_WORTH_FREEING_BYTES = 64 << 20
"""Memory is not searched for models that hold less together: that takes a fifth of a second or more once torch,
transformers and Dagster are imported, four times what loading a tiny model does."""


def load_checkpoint(auto: Any, folder: Path, name: str, trusted: bool, dtype: str) -> Any:
    """Load a model all of whose weights come from its folder.

    Args:
        auto: the class of transformers to load it with, such as AutoModelForCausalLM.
        folder: the model's folder.
        name: the model's name, for messages.
        trusted: whether the model's own code may be run.
        dtype: the name of a torch dtype.

    Raises:
        UserError: if the checkpoint is refused (see the module).
        OSError, ValueError, ...: what transformers raises for a model that it cannot load.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    with stored_weights(folder, name, auto.__name__) as stored, _load_report_as_error(name):
        check_size(auto, config, stored, folder, name, trusted)
        free_unused_models()
        model, loading_info = auto.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=trusted,
            use_safetensors=True,  # pickled weights are not read
            ignore_mismatched_sizes=True,  # reported in `loading_info`, refused below
            output_loading_info=True,
        )
    _LOADED.add(model)
    check_loaded(model, loading_info, name)
    check_finite(model, name)
    return model


def free_unused_models() -> None:
    """Free the models that only reference cycles hold: one kept the first model of a build beside the second."""
    if sum(_held_bytes(model) for model in _LOADED) > _WORTH_FREEING_BYTES:
        gc.collect()


def _held_bytes(model: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def check_size(auto: Any, config: Any, stored: Mapping[str, int], folder: Path, name: str, trusted: bool) -> None:
    """Refuse a config of a model far larger than its weights, before memory is allocated for it.

    For a config without `text_config`, for example, transformers makes one with 7 billion parameters.

    Args:
        auto, folder, name, trusted: as in `load_checkpoint`.
        config: the model's config, as transformers reads it.
        stored: number of elements per weight, from `stored_weights`.

    Raises:
        UserError: if the model has more than 1.5 times as many parameters as the files, and 10^8 more.
    """
    if getattr(config, "quantization_config", None):
        return
    model = meta_model(auto, config, trusted)
    tied = getattr(model, "all_tied_weights_keys", {})
    needed = sum(p.numel() for key, p in model.named_parameters(remove_duplicate=False) if key not in tied)
    held = sum(stored.values())
    if needed > max(_SIZE_FACTOR * held, held + _SIZE_MARGIN):
        raise UserError(
            f"{name} cannot be read: its config.json describes a {type(model).__name__} with {needed:,} parameters, "
            f"but its weight files hold {held:,} ({first_names(sorted(stored))}), and the rest would be random. "
            f"{_missing_text_config(folder)}"
            "Use the config.json that was published with the weights."
        )


def check_loaded(model: Any, loading_info: Mapping[str, Any], name: str) -> None:
    """Refuse a model that does not match its checkpoint; warn of other parts of the checkpoint that are not read.

    Args:
        model: the model as loaded.
        loading_info: from transformers: `missing_keys`, `unexpected_keys` and `mismatched_keys`.
        name: the model's name, for messages.

    Raises:
        UserError: if weights are missing or have the wrong shape, or weights of the model's parts are unread. Of a VLM
            whose own code registers it as a text model, any unread weight is an error: it may be the text half.
    """
    class_name = type(model).__name__
    missing = sorted(key for key in loading_info["missing_keys"] if not _in_pooling_head(model, key))
    shapes = sorted((key, list(stored), list(expected)) for key, stored, expected in loading_info["mismatched_keys"])
    unread = _unread_weights(loading_info["unexpected_keys"])
    if missing or shapes:
        raise UserError(f"{name} cannot be read: {_mismatch(model, missing, shapes, unread)}")
    if unread and _may_be_text_half(model):
        raise UserError(
            f"{name} cannot be read: its class {class_name} leaves {_count_and_names(unread)} of its checkpoint "
            "unread. It may be the text half of the model: `auto_map` must name the class of the whole model, "
            "preferably as AutoModelForImageTextToText."
        )
    if not unread or getattr(model.config, "quantization_config", None) is not None:
        return
    if of_parts := [key for key in unread if _belongs_to_part(model, key)]:
        raise UserError(
            f"{name} cannot be read: {_count_and_names(of_parts)} of its checkpoint would be left unread, though they "
            f"belong to parts that its class {class_name} has. {_OTHER_CONFIG}"
        )
    warnings.warn(
        f"{name}: {_count_and_names(unread)} of its checkpoint left unread: its class {class_name} has no such parts.",
        stacklevel=3,
    )


def check_finite(model: Any, name: str) -> None:
    """Refuse weights that are not finite, in one pass over them.

    Raises:
        UserError: if a weight is NaN or infinite, naming the tensors.
    """
    if bad := not_finite(model.named_parameters()):
        raise UserError(
            f"{name} cannot be read: {_count_and_names(bad)} hold values that are not finite numbers (NaN or "
            "infinite). The training diverged, a conversion overflowed, or the file is damaged: use another "
            "checkpoint, or copy this one again."
        )


def not_finite(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """The names of the weights with NaN or infinite values, in one pass over them."""
    import torch

    floating = (pair for pair in weights if pair[1].is_floating_point() and pair[1].numel())
    return [key for key, weight in floating if not all(map(torch.isfinite, torch.aminmax(weight.detach())))]


def check_tokenizer(model: LanguageModel) -> None:
    """Refuse a tokenizer with tokens that have no row in the embedding.

    Exempt are the tokens of `_TOKENS_WITHOUT_ROW`, and the unknown token, which the tokenizer classes of some families
    (Qwen2, Qwen3.5) add when the files have none: only a text that spells out such a token contains it.

    Raises:
        UserError: if there are other such tokens.
    """
    rows, config = len(model.embedding), cast("Any", model.decoder.config)
    exempt = {model.tokenizer.unk_token, *_TOKENS_WITHOUT_ROW.get(config.model_type, ())}
    vocabulary = model.tokenizer.get_vocab().items()
    without_row = sorted(
        (token_id, token) for token, token_id in vocabulary if token_id >= rows and token not in exempt
    )
    if without_row:
        raise UserError(
            f"{model.name} and its tokenizer do not match: the embedding has {rows:,} rows, but the tokenizer goes up "
            f"to token {without_row[-1][0]:,}; without a row: {first_names([token for _, token in without_row])}. It "
            "may be the tokenizer of another model, or of a VLM that adds tokens for images to those of this language "
            "model. Use the tokenizer files that were published with the model."
        )


def meta_model(auto: Any, config: Any, trusted: bool, dtype: torch.dtype | None = None) -> Any:
    """The model that a config describes, without memory for its weights: 0.04 s for 7 billion parameters.

    Args:
        auto, trusted: as in `load_checkpoint`.
        config: the model's config, as transformers reads it; it is not changed.
        dtype: of the weights; by default the config's.
    """
    from copy import deepcopy

    import torch
    from transformers.initialization import meta_device_safe_creation_ops, no_init_weights

    options = {} if dtype is None else {"dtype": dtype}
    with torch.device("meta"), meta_device_safe_creation_ops(), no_init_weights():  # as transformers makes them
        return auto.from_config(deepcopy(config), trust_remote_code=trusted, **options)


def _missing_text_config(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "vision_config" not in config or "text_config" in config:
        return ""
    return "It has no `text_config`, so the language model has the default shape of transformers. "


@contextmanager
def _load_report_as_error(name: str) -> Iterator[None]:
    """Suppress the table that transformers logs about a checkpoint; if loading fails, raise one error in its place."""
    reports: list[str] = []

    def keep_for_error(record: logging.LogRecord) -> bool:
        report = "LOAD REPORT" in record.getMessage()
        reports.extend([record.getMessage()] if report else [])
        return not report

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(keep_for_error)
    try:
        yield
    except RuntimeError as error:
        keys = re.findall(r"^(\S+)\s*\|\s*(?:\x1b\[\d+m)*CONVERSION", "\n".join(reports), re.MULTILINE)
        if not keys:
            raise
        raise UserError(
            f"{name} cannot be read: {_count_and_names(keys)} cannot be assembled from its checkpoint: parts of them, "
            f"such as single experts, are missing or have another shape. {_INCOMPLETE}"
        ) from error
    finally:
        logger.removeFilter(keep_for_error)


_INCOMPLETE = "Was the download finished, or a part left out when it was converted? Download or convert it again."
_OTHER_CONFIG = (
    "The config.json and the weights are of different models, or this version of transformers has other names for the "
    "weights of the family: use the config.json that was published with the weights."
)


def _mismatch(model: Any, missing: list[str], shapes: list[tuple[str, list[int], list[int]]], unread: list[str]) -> str:
    """What is wrong with the weights of a model, the likely cause and the remedy."""
    problems = []
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        weights = f"{_count_and_names(missing)} of its class {type(model).__name__}"
        problems.append(f"{weights} {verb} not in its checkpoint, and would be random")
    if shapes:
        weights = "weights have" if len(shapes) > 1 else "weight has"
        examples = first_names([f"{key} is {stored}, not {expected}" for key, stored, expected in shapes])
        problems.append(f"{len(shapes)} {weights} another shape than its config.json says ({examples})")
    if unread:
        problems.append(f"{_count_and_names(unread)} of its checkpoint would be left unread")
    return f"{'; '.join(problems)}. {_remedy(model, missing, bool(shapes), unread)}"


def _remedy(model: Any, missing: list[str], shapes: bool, unread: list[str]) -> str:
    """The likely cause of weights that are missing or have the wrong shape, and the remedy."""
    if (prefix := _wrapper_prefix(model, unread)) is not None and missing:
        return (
            f"Names in the checkpoint begin with `{prefix}`, a prefix added by a wrapper for training. Remove it in "
            "each of the files:\n"
            "  from safetensors.torch import load_file, save_file\n"
            f'  save_file({{key.removeprefix("{prefix}"): weight for key, weight in load_file(file).items()}}, file, '
            'metadata={"format": "pt"})'
        )
    if getattr(type(model), "_auto_class", None) is not None:
        return "The model's own code and its weights do not match: take both from one commit."
    if shapes or unread:
        return _OTHER_CONFIG
    if missing == ["lm_head.weight"]:
        return (
            "Was it saved without its head, or does the head share the embedding? Then config.json must say "
            "`tie_word_embeddings: true`."
        )
    return _INCOMPLETE


def _wrapper_prefix(model: Any, unread: Sequence[str]) -> str | None:
    """The common first part of the names of unread weights, if the model has no part of that name."""
    first_parts = {key.partition(".")[0] for key in unread}
    known = len(first_parts) != 1 or any(hasattr(model, part) for part in first_parts)
    return None if known else f"{first_parts.pop()}."


def _may_be_text_half(model: Any) -> bool:
    """Whether a VLM was loaded as a text model, by a class of its own code."""
    for_text = getattr(type(model), "_auto_class", None) == "AutoModelForCausalLM"
    return for_text and may_have_vision(model.config.to_dict(), trusted=True)


def _unread_weights(unexpected: Collection[str]) -> list[str]:
    """The unexpected weights, without those that no pass needs (see the module)."""
    extra_layers = tuple({match[1] for key in unexpected if (match := _MULTI_TOKEN_LAYER.match(key))})
    patterns = (_MULTI_TOKEN, _POOLING_HEAD, _STORED_TABLE)
    relevant = (key for key in unexpected if not any(pattern.search(key) for pattern in patterns))
    return sorted(key for key in relevant if not key.startswith(extra_layers))


def _belongs_to_part(model: Any, key: str) -> bool:
    """Whether an unexpected weight lies, by its name, in a part of the model such as its decoder or vision tower.

    The model itself, and a module that contains the decoder, do not count as parts. A name may lack the prefix of the
    base model (`layers.3.` for `model.layers.3.`); that is assumed only if the rest leads into the base model.
    """
    prefix = getattr(model, "base_model_prefix", "")
    base, from_base = _modules(model, f"{prefix}."), _modules(model, f"{prefix}.{key}")
    innermost = max(_modules(model, key), from_base if len(from_base) > len(base) else [model], key=len)[-1]
    decoder = model.get_decoder()
    return innermost is not model and (innermost is decoder or all(part is not decoder for part in innermost.modules()))


def _in_pooling_head(model: Any, key: str) -> bool:
    """Whether a weight belongs to the pooling head of a vision tower, which no visual token passes through."""
    return any(type(part).__name__.endswith("PoolingHead") for part in _modules(model, key))


def _modules(model: Any, key: str) -> list[nn.Module]:
    """The modules that contain a weight, by its name, outermost first, as far as the model has them."""
    modules = [model]
    for part in key.split(".")[:-1]:
        child = modules[-1]._modules.get(part)
        if child is None:
            break
        modules.append(child)
    return modules


def _count_and_names(keys: Sequence[str]) -> str:
    """The number of weights and some of their names, from different blocks and parts if possible."""
    one_per_part = {re.sub(r"(\.\d+)\..*", r"\1", key): key for key in reversed(keys)}  # up to the block's number
    first = list(reversed(one_per_part.values()))
    names = [*first, *sorted({*keys} - {*first})]
    return f"{len(keys):,} weight{'s' if len(keys) > 1 else ''} ({first_names(names)})"
