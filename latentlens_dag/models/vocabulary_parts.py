"""The parts of a language model that know its vocabulary, read without its other weights.

LogitLens needs the final norm and the unembedding, EmbeddingLens the input embedding: about 1 GB of the 15 GB of a
model with 7 billion parameters. The model is made on the meta device, where weights take no memory, and only the
wanted tensors are read into it, under the names that transformers gives them.

One rule decides whether that is safe: in doubt, the whole model is loaded. Then the tensors are right in any case, and
a checkpoint is refused in the words of `checkpoints`. Doubt is

- a model whose own code may be run, a quantized checkpoint, an adapter, or weights in other files than `weight_files`
  knows;
- a wanted tensor that is missing, stored twice or in no floating dtype, put together from others, of another shape, of
  another dtype than the model is loaded in, or not finite;
- a module that has other tensors than those in the files;
- whatever transformers fails at, and a model whose parts are not found.

Note: the weights that are not read are not checked either. The checks of a model read them all.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from latentlens_dag.device import default_device
from latentlens_dag.errors import UserError
from latentlens_dag.models.checkpoints import check_tokenizer, meta_model, not_finite
from latentlens_dag.models.configs import read_config
from latentlens_dag.models.dtypes import chosen_dtype
from latentlens_dag.models.families.registry import mend
from latentlens_dag.models.loading import (
    check_texts,
    checked_folder,
    language_model_of,
    load_language_model,
    load_tokenizer,
)
from latentlens_dag.models.model_parts import Head, decoder_of, final_norm_of
from latentlens_dag.models.model_ref import ModelRef, model_ref
from latentlens_dag.models.processors import load_processor
from latentlens_dag.models.remote_code import loading, may_have_vision, text_auto_class, vlm_auto_class
from latentlens_dag.models.weight_files import weight_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

VocabularyNeeds = Literal["head", "embedding"]
"""The head (final norm and unembedding), or the input embedding."""

_log = logging.getLogger(__name__)

_OTHER_WEIGHTS = ("adapter_config.json", "shard-*-model-*.safetensors")  # which transformers reads if it finds them
_FLOATING = ("F64", "F32", "F16", "BF16")  # as safetensors names dtypes


class Vocabulary(Protocol):
    """What a lens on the vocabulary uses: `VocabularyParts`, or a whole `LanguageModel`."""

    @property
    def name(self) -> str:
        """As `ModelParts.name`."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""

    @property
    def vocabulary_size(self) -> int:
        """Rows of the input embedding, V; some may have no token."""

    @property
    def device(self) -> torch.device:
        """Where states must be."""

    @property
    def embedding(self) -> Tensor:
        """[V, d]: the input embedding."""

    def logits(self, states: Tensor) -> Tensor:
        """The logits float32 [.., V] of states [.., d], as `ModelParts.logits`."""


@dataclass(frozen=True)
class VocabularyParts:
    """The head or the input embedding of a language model; the other one raises ValueError."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    vocabulary_size: int
    device: torch.device
    part: Head | Tensor
    """The head, or the input embedding [V, d]."""

    @property
    def embedding(self) -> Tensor:
        """[V, d]: the input embedding."""
        if isinstance(self.part, Head):
            raise ValueError(f"Of {self.name} only the head was read: read it with needs 'embedding'.")
        return self.part

    def logits(self, states: Tensor) -> Tensor:
        """The logits float32 [.., V] of states [.., d], as `ModelParts.logits`."""
        if not isinstance(self.part, Head):
            raise ValueError(f"Of {self.name} only the input embedding was read: read it with needs 'head'.")
        return self.part.logits(states)


def load_vocabulary_parts(
    source: str | Path | ModelRef, needs: VocabularyNeeds, device: str | None = None, dtype: str | None = None
) -> Vocabulary:
    """Read the head or the input embedding of a language model, or of the one inside a VLM.

    Logits and rows are equal to the bit to those of `load_language_model` with the same device and dtype.

    Args:
        source: a folder, user/name on the Hub, or a `ModelRef`.
        needs: the part.
        device, dtype: as in `load_vlm`.

    Returns:
        `VocabularyParts`; in doubt (see the module) the whole `LanguageModel`.

    Raises:
        UserError: as `load_language_model`, but not for weights that are not read.
    """
    ref = model_ref(source)
    parts = read_vocabulary_parts(ref, needs, device, dtype)
    return load_language_model(ref, device=device, dtype=dtype) if parts is None else parts


def read_vocabulary_parts(
    ref: ModelRef, needs: VocabularyNeeds, device: str | None = None, dtype: str | None = None
) -> VocabularyParts | None:
    """As `load_vocabulary_parts`, but None in doubt: then the caller is to load the whole model."""
    if ref.trust_remote_code:
        return None
    folder, name = checked_folder(ref, check=check_texts)
    config = read_config(folder) or {}
    with loading(folder, name, "language model", trusted=False):
        try:
            model = _model_with_part(folder, name, config, needs, chosen_dtype(folder, device, dtype))
            language_model = language_model_of(name, model, _tokenizer(folder, config))
        except UserError:
            raise
        except Exception as doubt:  # also what transformers raises: the whole model either loads, or says why not
            _log.info("%s is loaded whole for its %s: %s: %s", name, needs, type(doubt).__name__, doubt)
            return None
    check_tokenizer(language_model)
    place = device or default_device()
    part = language_model.head.to(place) if needs == "head" else language_model.embedding.to(place)
    return VocabularyParts(name, language_model.tokenizer, language_model.vocabulary_size, part.device, part)


class _DoubtError(Exception):
    """A part of a model cannot be read by itself."""


def _model_with_part(folder: Path, name: str, config: Mapping[str, Any], needs: VocabularyNeeds, dtype: str) -> Any:
    """A model of transformers with one part on the CPU, and all else on the meta device.

    Raises:
        _DoubtError, ...: in doubt, by the rule of the module.
        UserError: if the files are refused.
    """
    import torch
    from transformers import AutoConfig

    model_config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    _check_only_own_weights(folder, model_config)
    auto, own_dtype = _auto_class(config), getattr(torch, dtype)
    model = meta_model(auto, model_config, trusted=False, dtype=own_dtype).eval()
    mend(model)
    with ExitStack() as opened:
        slices = _stored_slices(weight_files(folder, name, auto.__name__), opened)
        checkpoint = _Checkpoint(model, own_dtype, slices, _stored_names(model, slices))
        if needs == "embedding":  # only its rows; not, for example, the factor that Gemma applies to them
            checkpoint.read_into(model.get_input_embeddings(), ["weight"])
        else:
            for module in (final_norm_of(decoder_of(model)), model.get_output_embeddings()):
                checkpoint.read_into(module, list(module.state_dict()))
                _check_complete(module)
    return model


def _check_only_own_weights(folder: Path, config: Any) -> None:
    """Doubt if a model's weights are quantized, or not all in the files of `weight_files`."""
    configs = (config, config.get_text_config(decoder=True))
    if any(getattr(part, "quantization_config", None) is not None for part in configs):
        raise _DoubtError("Its weights are quantized.")
    named = getattr(config, "transformers_weights", None) or type(config).extra_files
    if named or any(file for pattern in _OTHER_WEIGHTS for file in folder.glob(pattern)):
        raise _DoubtError("It has weights in other files.")


def _check_complete(module: nn.Module) -> None:
    """Doubt if a module still has tensors on the meta device, such as a buffer that no file holds."""
    attributes = (value for part in module.modules() for value in vars(part).values() if hasattr(value, "is_meta"))
    if any(tensor.is_meta for tensor in chain(module.parameters(), module.buffers(), attributes)):
        raise _DoubtError(f"A {type(module).__name__} has tensors that are not in the files.")


def _auto_class(config: Mapping[str, Any]) -> Any:
    """The class that the whole model is loaded with."""
    is_vlm = may_have_vision(config, trusted=False)
    return vlm_auto_class(config, trusted=False) if is_vlm else text_auto_class(config)


def _tokenizer(folder: Path, config: Mapping[str, Any]) -> Any:
    """The tokenizer of the whole model; a VLM's processor may add tokens to it."""
    if not may_have_vision(config, trusted=False):
        return load_tokenizer(folder)
    return load_processor(folder, trusted=False).tokenizer


def _stored_slices(files: Sequence[Path], opened: ExitStack) -> dict[str, Any]:
    """The weights in files, by their names there; only headers are read. As in transformers, the last file counts."""
    from safetensors import safe_open

    handles = [opened.enter_context(safe_open(file, framework="pt")) for file in files]
    return {key: handle.get_slice(key) for handle in handles for key in handle.keys()}  # noqa: SIM118


def _stored_names(model: Any, keys: Iterable[str]) -> dict[str, list[str | None]]:
    """For every tensor of a model its names in the files, by the mapping of transformers: almost always one.

    None stands for a tensor that is not stored as it is, but put together from others.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    prefix, expected = model.base_model_prefix, model.state_dict()
    names: dict[str, list[str | None]] = defaultdict(list)
    for key in sorted(keys, key=dot_natural_key):  # as transformers does: a renaming may depend on those before
        name, pattern = rename_source_key(key, renamings, converters, prefix, expected)
        if name not in expected and key in expected:
            name, pattern = rename_source_key(key, [], [], prefix, expected)
        if pattern is None:
            names[name].append(key)
            continue
        for converter in (converter for converter in converters if pattern in converter.source_patterns):
            for target in converter.target_patterns:  # `name` has the first of them
                names[name.replace(converter.target_patterns[0], target)].append(None)
    return names


@dataclass(frozen=True)
class _Checkpoint:
    """The files of a model on the meta device."""

    model: Any
    dtype: torch.dtype
    """In which the model is loaded."""
    slices: Mapping[str, Any]
    """By the names in the files."""
    stored_names: Mapping[str, Sequence[str | None]]
    """From `_stored_names`."""

    def read_into(self, module: nn.Module, names: Sequence[str]) -> None:
        """Read tensors of a module of the model, by their names in the module.

        Raises:
            _DoubtError, RuntimeError: in doubt, by the rule of the module; the latter if a shape is another.
        """
        path = next(path for path, part in self.model.named_modules() if part is module)
        tensors = {name: self._tensor(f"{path}.{name}", module.state_dict()[name].dtype) for name in names}
        if bad := not_finite(tensors.items()):
            raise _DoubtError(f"{bad} are not finite.")
        module.load_state_dict(tensors, strict=False, assign=True)

    def _tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        """A tensor by its name in the model, which made it in `dtype`."""
        keys = self.stored_names.get(self._stored_twin(name), [])
        if len(keys) != 1 or keys[0] is None:
            raise _DoubtError(f"{name} is not stored as one tensor.")
        stored = self.slices[keys[0]]
        if dtype != self.dtype or self._has_own_dtype(name) or stored.get_dtype() not in _FLOATING:
            raise _DoubtError(f"{name} is stored as {stored.get_dtype()}, or has a dtype of its own.")
        return stored[...].to(dtype)

    def _stored_twin(self, name: str) -> str:
        """The name of the stored tensor that shares its memory with a tensor, in the order of `tie_weights`."""
        tied: Mapping[str, str] = self.model.all_tied_weights_keys
        source = tied.get(name, name)
        twins = (name, source, *(twin for twin in tied if tied[twin] == source))
        return next((twin for twin in twins if twin in self.stored_names), name)

    def _has_own_dtype(self, name: str) -> bool:
        """Whether transformers loads a tensor in a dtype of its own, such as float32 in a model in bfloat16."""
        from transformers.core_model_loading import build_glob_alternation

        plan = self.model._get_dtype_plan(self.dtype)
        return bool(plan) and build_glob_alternation(list(plan))[0].search(name) is not None
