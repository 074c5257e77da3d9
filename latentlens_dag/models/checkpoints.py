"""Refusing checkpoints that transformers would load with weights that nobody trained.

transformers draws missing weights at random, leaves what it does not know unread, and takes the defaults of a family
for what a config does not say; all of it with a table in the log at most. Here such a checkpoint is refused, with the
names of the weights and the way out:

- before anything is read (`stored_weights`, `check_size`): no safetensors, a pointer of Git LFS in place of a file, a
  file that is cut or damaged, a missing shard, two sets of weights, a config of a model far larger than the weights;
- after loading (`check_loaded`): weights that are missing or have another shape than the config says, and weights that
  the model leaves unread though they belong to its language model, vision tower or connector;
- and weights that are no numbers (`check_finite`);
- with the tokenizer (`check_tokenizer`): tokens that have no row in the embedding.

Left unread without a word: what transformers lists itself (`_keys_to_ignore_on_load_unexpected`), layers that predict
several tokens at once (`mtp`, `nextn`), the pooling head of a vision tower, and tables that were once stored
(`inv_freq`, `position_ids`, `masked_bias`). Other parts that a model lacks, such as an audio tower or a value head, are
left unread with a warning: the model that transformers defines has all it needs. A quantized checkpoint holds other
numbers than the model's parameters, so it is not compared by size, and what it holds besides is no reason to refuse it.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from latentlens_dag.errors import UserError
from latentlens_dag.models.remote_code import may_have_vision

if TYPE_CHECKING:
    from torch import nn

    from latentlens_dag.models.language_model import LanguageModel

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARDS = "model-*-of-*.safetensors"
_READ = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_POINTER, _POINTER_BYTES = b"version https://git-lfs.github.com/spec/v1", 1024
_PICKLES = ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_FACTOR, _FREE = 1.5, 10**8  # a model may have so many times the weights of its files, and so many more
_NAMED = 3  # weights that a message names

_SEVERAL_TOKENS = re.compile(r"(^|\.)(mtp|nextn)")
_SEVERAL_TOKENS_LAYER = re.compile(r"(.*\.\d+\.)(eh_proj|enorm|hnorm|shared_head)\.")
_POOLING = re.compile(r"(^|\.)(vision_tower|vision_model|visual)\.(vision_model\.)?head\.")
_TABLE = re.compile(r"(^|\.)(inv_freq|position_ids|masked_bias|(cos|sin)_cached)$")

_BEYOND_THE_EMBEDDING = {"gemma3_text": {"<image_soft_token>"}}
"""Special tokens without a row, by `model_type`: the 1B and 270M of Gemma 3 have the tokenizer of its VLMs."""


def load_checkpoint(auto: Any, folder: Path, name: str, trusted: bool, dtype: str) -> Any:
    """Load a model all of whose weights come from its folder.

    Args:
        auto: the class of transformers that it is loaded with, such as AutoModelForCausalLM.
        folder: with its config.json and its weights.
        name: of the model, for messages.
        trusted: whether code that comes with it may be run.
        dtype: a torch dtype's name, or "auto".

    Raises:
        UserError: where the checkpoint is refused (see the module).
        OSError, ValueError, ...: what transformers raises for a model that it cannot load.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    stored = stored_weights(folder, name, auto.__name__)
    check_size(auto, config, stored, folder, name, trusted)
    gc.collect()  # the model before this one may be held by a cycle: a build's first one was, beside its second
    with _without_report(name):
        model, read = auto.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=trusted,
            use_safetensors=True,  # pickled weights are not read
            ignore_mismatched_sizes=True,  # `read` has them, and they are refused below
            output_loading_info=True,
        )
    check_loaded(model, read, name)
    check_finite(model, name)
    return model


def stored_weights(folder: Path, name: str, auto: str) -> dict[str, int]:
    """The weights in a model's files, by name: how many numbers each has, as the headers say; none is read.

    Args:
        folder: with the weights.
        name: of the model, for messages.
        auto: the class of transformers that can convert other weights, for messages.

    Raises:
        UserError: where the weights are not in safetensors, or a file is missing, damaged or no more than a pointer.
    """
    check_lfs_pointers(folder, name)
    files = _weight_files(folder, name, auto)
    if absent := [file.name for file in files if not file.is_file()]:
        raise UserError(
            f"{name} cannot be read: {len(absent)} of its {len(files)} weight files are missing, "
            f"{_some(absent)}, which {_INDEX} names. Finish the download, or copy the whole folder again."
        )
    return {weight: count for file in files for weight, count in _header(file).items()}


def check_lfs_pointers(folder: Path, name: str) -> None:
    """Refuse a folder in which files are pointers of Git LFS, as a clone without it leaves them."""
    files = sorted({file for pattern in _READ for file in folder.glob(pattern) if file.is_file()})
    if pointers := [file.name for file in files if _is_pointer(file)]:
        raise UserError(
            f"{name} is not here yet: {_some(pointers)} {'is a pointer' if len(pointers) == 1 else 'are pointers'} of "
            f"Git LFS, a few lines of text in place of the file. Run `git lfs install` once, then `git lfs pull` in "
            f"{folder}."
        )


def gguf_instructions(place: Path, auto: str = "AutoModelForCausalLM") -> str | None:
    """How to make a model folder of a GGUF file, or of a folder with one; None where there is none."""
    folder = place.parent if place.is_file() else place
    files = [place] if place.suffix == ".gguf" and place.is_file() else sorted(place.glob("*.gguf"))
    if not files:
        return None
    source, save = f'"{folder}", gguf_file="{files[0].name}"', f'save_pretrained("{folder}-safetensors")'
    return (
        f"Its weights are a GGUF file ({_some([file.name for file in files])}), which is not read here. Convert it "
        "once, with the packages gguf and accelerate, and name the new folder:\n"
        f"  from transformers import {auto}, AutoTokenizer, GgufConfig\n"
        f"  whole = GgufConfig(dequantize=True)\n"
        f"  {auto}.from_pretrained({source}, quantization_config=whole).{save}\n"
        f"  AutoTokenizer.from_pretrained({source}).{save}"
    )


def check_size(auto: Any, config: Any, stored: Mapping[str, int], folder: Path, name: str, trusted: bool) -> None:
    """Refuse a config of a model far larger than its weights, before memory is taken for it.

    A config that lacks a part, such as `text_config`, gets that of a model of 7 billion parameters.

    Args:
        auto: the class that the model is loaded with.
        config: of transformers.
        stored: as `stored_weights` gives.
        folder: of the model.
        name: of the model, for messages.
        trusted: whether code that comes with it may be run.

    Raises:
        UserError: where the model has more than 1.5 times the parameters that are stored, and 10^8 more.
    """
    if getattr(config, "quantization_config", None):
        return
    model = _without_weights(auto, config, trusted)
    tied = getattr(model, "all_tied_weights_keys", {})
    needed = sum(p.numel() for key, p in model.named_parameters(remove_duplicate=False) if key not in tied)
    held = sum(stored.values())
    if needed > max(_FACTOR * held, held + _FREE):
        raise UserError(
            f"{name} cannot be read: its config.json is of a {type(model).__name__} with {needed:,} parameters, but "
            f"its weight files hold {held:,} ({_some(sorted(stored))}), and the rest would be random. "
            f"{_lacking(folder)}"
            "Put the config.json beside the weights that it was published with."
        )


def check_loaded(model: Any, read: Mapping[str, Any], name: str) -> None:
    """Refuse a model that does not fit its checkpoint; warn of parts of the checkpoint that are not read.

    Args:
        model: as loaded.
        read: what transformers says of the loading: `missing_keys`, `unexpected_keys` and `mismatched_keys`.
        name: of the model.

    Raises:
        UserError: where weights are missing or wrongly shaped, or weights of parts that the model has are left over;
            or any, of a VLM whose own code offers it as a class for text: it may be the text half.
    """
    missing = sorted(key for key in read["missing_keys"] if not _is_pooled(model, key))
    shapes = sorted((key, tuple(found), tuple(wanted)) for key, found, wanted in read["mismatched_keys"])
    left = _left_over(read["unexpected_keys"])
    if missing or shapes:
        raise UserError(f"{name} cannot be read: {_disagreement(model, missing, shapes, left)}")
    if left and _may_be_half(model):
        raise UserError(
            f"{name} cannot be read: its class {type(model).__name__} leaves {_weights(left)} of its checkpoint "
            "unread. It may be the text half of the model: `auto_map` must name the whole one, best as "
            "AutoModelForImageTextToText."
        )
    if (inside := [key for key in left if _lies_inside(model, key)]) and not _is_quantized(model):
        raise UserError(
            f"{name} cannot be read: {_weights(inside)} of its checkpoint would be left unread, though they belong to "
            f"parts that its class {type(model).__name__} has. {_OTHER_CONFIG}"
        )
    if left and not _is_quantized(model):
        warnings.warn(
            f"{name}: {_weights(left)} of its checkpoint left unread, for its class {type(model).__name__} has no such "
            "parts.",
            stacklevel=3,
        )


def check_finite(model: Any, name: str) -> None:
    """Refuse weights that are not numbers; one pass over them.

    Raises:
        UserError: where a weight is NaN or infinite, naming the tensors.
    """
    import torch

    floating = (pair for pair in model.named_parameters() if pair[1].is_floating_point() and pair[1].numel())
    if bad := [key for key, weight in floating if not all(map(torch.isfinite, torch.aminmax(weight.detach())))]:
        raise UserError(
            f"{name} cannot be read: {_weights(bad)} hold values that are not finite numbers (NaN or infinite). The "
            "training diverged, a conversion overflowed, or the file is damaged: take another checkpoint, or copy it "
            "again."
        )


def check_tokenizer(model: LanguageModel) -> None:
    """Refuse a tokenizer that gives tokens which have no row in the embedding.

    Two kinds are no reason to: those of `_BEYOND_THE_EMBEDDING`, and the token for what is unknown, which the classes
    of some tokenizers add where their files have none (Qwen2, Qwen3.5): in neither case does a text have it that does
    not spell it out.

    Raises:
        UserError: where there are other such tokens.
    """
    rows, config = len(model.embedding), cast("Any", model.decoder.config)
    spared = {model.tokenizer.unk_token, *_BEYOND_THE_EMBEDDING.get(config.model_type, ())}
    beyond = sorted((i, token) for token, i in model.tokenizer.get_vocab().items() if i >= rows and token not in spared)
    if beyond:
        raise UserError(
            f"{model.name} and its tokenizer do not belong together: the embedding has {rows:,} rows, but the "
            f"tokenizer goes up to token {beyond[-1][0]:,}; without a row: {_some([token for _, token in beyond])}. It "
            "may be the tokenizer of another model, or of a VLM whose tokens for images were added to this language "
            "model's. Put the tokenizer files into the folder that the model was published with."
        )


def _weight_files(folder: Path, name: str, auto: str) -> list[Path]:
    """The files that transformers reads the weights from, which need not be there."""
    single, index = folder / _SINGLE, folder / _INDEX
    if not single.is_file() and not index.is_file():
        raise _no_weights(folder, name, auto)
    shards = _shards(index, name) if index.is_file() else sorted(folder.glob(_SHARDS))
    others = [file for file in shards if file != single]
    if single.is_file() and others:
        raise UserError(
            f"{name} has two sets of weights: {_SINGLE}, and {_some([file.name for file in others])}; only the first "
            "would be read. Move the set that is not meant out of the folder"
            f"{f', with {_INDEX}' if index.is_file() else ''}."
        )
    return shards or [single]


def _shards(index: Path, name: str) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [index.parent / file for file in names]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{name} cannot be read: {index.name} does not say which file holds which weights "
            f"({type(error).__name__}: {error}). Download or copy it again."
        ) from error


def _no_weights(folder: Path, name: str, auto: str) -> UserError:
    start = f"{name} cannot be read: it has no {_SINGLE} and no {_INDEX}."
    return UserError(f"{start} {_way_to_weights(folder, auto)}")


def _way_to_weights(folder: Path, auto: str) -> str:
    """What a folder without weights in safetensors has instead, and how to make them of it."""
    if others := [file.name for file in sorted(folder.glob("*.safetensors"))]:
        return (
            f"It has {_some(others)}: copy the index that belongs to these shards, too; a single file must be called "
            f"{_SINGLE}."
        )
    if gguf := gguf_instructions(folder, auto):
        return gguf
    pickles = list(dict.fromkeys(file for pattern in _PICKLES for file in sorted(folder.glob(pattern))))
    if not pickles:
        return f"Finish the download, or copy the weights into {folder}."
    return (
        f"Its weights are pickles ({_some([file.name for file in pickles])}), which are not read: to open one may run "
        f"any code that somebody put into it. If you trust where they are from, convert them once:\n"
        f"{_conversion_of_pickle(pickles[0], auto)}"
    )


def _conversion_of_pickle(file: Path, auto: str) -> str:
    if file.name.startswith("pytorch_model"):  # transformers knows it, and its shards
        return (
            f"  from transformers import {auto}\n"
            f'  {auto}.from_pretrained("{file.parent}", use_safetensors=False).save_pretrained("{file.parent}")'
        )
    return (
        "  import torch\n"
        "  from safetensors.torch import save_file\n"
        f'  weights = torch.load("{file}", weights_only=True)\n'
        f'  save_file(weights, "{file.parent / _SINGLE}", metadata={{"format": "pt"}})'
    )


def _is_pointer(file: Path) -> bool:
    if file.stat().st_size > _POINTER_BYTES:
        return False
    with file.open("rb") as opened:
        return opened.read(len(_POINTER)) == _POINTER


def _header(file: Path) -> dict[str, int]:
    """How many numbers each weight in a file has; nothing but its header is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return {key: math.prod(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        size, whole = file.stat().st_size, _whole_size(file) or 0
        state = f"is cut off: {size:,} of {whole:,} bytes are here" if size < whole else "is cut off or damaged"
        raise UserError(
            f"{file} {state} ({error}). Download or copy it again, and compare its size with that of the original."
        ) from error


def _whole_size(file: Path) -> int | None:
    """How many bytes a file of weights should have, by its header; None where that is damaged too."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        text = opened.read(length) if length <= file.stat().st_size else b""
    try:
        entries = [entry for key, entry in json.loads(text).items() if key != "__metadata__"]
        return 8 + length + max(int(entry["data_offsets"][1]) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _without_weights(auto: Any, config: Any, trusted: bool) -> Any:
    """The model that a config describes, without memory for its weights: 0.04 s for one of 7 billion parameters."""
    from copy import deepcopy

    import torch
    from transformers.initialization import meta_device_safe_creation_ops, no_init_weights

    with torch.device("meta"), meta_device_safe_creation_ops(), no_init_weights():  # as transformers makes them
        return auto.from_config(deepcopy(config), trust_remote_code=trusted)


def _lacking(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "vision_config" not in config or "text_config" in config:
        return ""
    return "It has no `text_config`, so the language model's shape is what transformers takes by default. "


@contextmanager
def _without_report(name: str) -> Iterator[None]:
    """Leave out transformers' table of what it missed, for here it becomes one message."""
    reports: list[str] = []

    def is_other(record: logging.LogRecord) -> bool:
        report = "LOAD REPORT" in record.getMessage()
        reports.extend([record.getMessage()] if report else [])
        return not report

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_other)
    try:
        yield
    except RuntimeError as error:
        keys = re.findall(r"^(\S+)\s*\|\s*(?:\x1b\[\d+m)*CONVERSION", "\n".join(reports), re.MULTILINE)
        if not keys:
            raise
        raise UserError(
            f"{name} cannot be read: of what the checkpoint holds, {_weights(keys)} cannot be put together: parts of "
            f"them, such as single experts, are missing or have another shape. {_NOT_WHOLE}"
        ) from error
    finally:
        logger.removeFilter(is_other)


_NOT_WHOLE = "Was the download finished, or a part left out when it was converted? Download or convert it again."
_OTHER_CONFIG = (
    "The config.json and the weights are of different models, or of a family that this transformers knows by other "
    "names: put the config.json beside the weights that it was published with."
)


def _disagreement(
    model: Any, missing: list[str], shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]], left: list[str]
) -> str:
    """What is wrong with the weights of a model, and the likely cause."""
    wrong = [
        f"{_weights(missing)} of its class {type(model).__name__} {'are' if len(missing) > 1 else 'is'} not in its "
        "checkpoint, and would be random"
        if missing
        else "",
        f"{len(shapes)} {_plural(shapes)} another shape than its config.json says "
        f"({_some([f'{key} is {list(found)}, not {list(wanted)}' for key, found, wanted in shapes])})"
        if shapes
        else "",
        f"{_weights(left)} of its checkpoint would be left unread" if left else "",
    ]
    return f"{'; '.join(part for part in wrong if part)}. {_cause(model, missing, bool(shapes), left)}"


def _cause(model: Any, missing: list[str], shapes: bool, left: list[str]) -> str:
    """Why weights are missing or wrongly shaped, and the way out."""
    if (prefix := _common_prefix(model, left)) is not None and missing:
        return (
            f"Names in the checkpoint begin with `{prefix}`, which a wrapper for training puts before them. Take it "
            "off, in each of the files:\n"
            "  from safetensors.torch import load_file, save_file\n"
            f'  save_file({{key.removeprefix("{prefix}"): weight for key, weight in load_file(file).items()}}, file, '
            'metadata={"format": "pt"})'
        )
    if getattr(type(model), "_auto_class", None) is not None:
        return "The code that comes with it and the weights do not belong together: take both of one commit."
    if shapes or left:
        return _OTHER_CONFIG
    if missing == ["lm_head.weight"]:
        return (
            "Was it saved without its head, or does the head share the embedding? Then config.json must say "
            "`tie_word_embeddings: true`."
        )
    return _NOT_WHOLE


def _common_prefix(model: Any, left: Sequence[str]) -> str | None:
    """The first part of the names of weights, where all have the same and the model has no such part."""
    first = {key.partition(".")[0] for key in left}
    known = len(first) != 1 or any(hasattr(model, part) for part in first)
    return None if known else f"{first.pop()}."


def _may_be_half(model: Any) -> bool:
    """Whether a VLM is of a class of its own for text."""
    for_text = getattr(type(model), "_auto_class", None) == "AutoModelForCausalLM"
    return for_text and may_have_vision(model.config.to_dict(), trusted=True)


def _left_over(unexpected: Collection[str]) -> list[str]:
    """Weights that are not read, but for those of which that is known to be right."""
    extra = {found[1] for key in unexpected if (found := _SEVERAL_TOKENS_LAYER.match(key))}
    known = (_SEVERAL_TOKENS, _POOLING, _TABLE)
    return sorted(
        key
        for key in unexpected
        if not any(pattern.search(key) for pattern in known) and not any(key.startswith(layer) for layer in extra)
    )


def _lies_inside(model: Any, key: str) -> bool:
    """Whether a weight that a model does not know lies in a part that it has, such as its decoder or vision tower.

    The whole model, and what holds both the decoder and the vision tower, are no such parts. A name may lack that of
    the base model (`layers.3.` for `model.layers.3.`); it is taken for such a one only if it leads into the base model.
    """
    prefix = getattr(model, "base_model_prefix", "")
    base, from_base = _modules(model, f"{prefix}."), _modules(model, f"{prefix}.{key}")
    innermost = max(_modules(model, key), from_base if len(from_base) > len(base) else [model], key=len)[-1]
    decoder = model.get_decoder()
    return innermost is not model and (innermost is decoder or all(part is not decoder for part in innermost.modules()))


def _is_pooled(model: Any, key: str) -> bool:
    """Whether a weight is of a vision tower's pooling head, which no visual token goes through."""
    return any(type(part).__name__.endswith("PoolingHead") for part in _modules(model, key))


def _modules(model: Any, key: str) -> list[nn.Module]:
    """The modules that a weight lies in, by its name, the outermost first, as far as the model has them."""
    found = [model]
    for part in key.split(".")[:-1]:
        child = found[-1]._modules.get(part)
        if child is None:
            break
        found.append(child)
    return found


def _is_quantized(model: Any) -> bool:
    return getattr(model.config, "quantization_config", None) is not None


def _weights(keys: Sequence[str]) -> str:
    """How many weights, and the names of some: of different blocks and parts where there are several."""
    of_parts = {re.sub(r"(\.\d+)\..*", r"\1", key): key for key in reversed(keys)}  # up to the block's number
    first = list(reversed(of_parts.values()))
    names = [*first, *sorted({*keys} - {*first})]
    return f"{len(keys):,} weight{'s' if len(keys) > 1 else ''} ({_some(names)})"


def _plural(found: Sequence[object]) -> str:
    return "weights have" if len(found) > 1 else "weight has"


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
