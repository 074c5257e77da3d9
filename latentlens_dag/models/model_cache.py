"""The last model that a process loaded, kept for the steps that need it again.

Loading a model of 7 billion parameters reads 15 GB. A build has dozens of steps that use one model, partition by
partition, so the last model stays in memory until another one is needed. It is known by its reference (with consent to
its own code), dtype and device, and by the sizes and times of the files in its folder: changed weights are loaded anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from latentlens_dag.device import default_device
from latentlens_dag.models.checkpoints import free_unused_models
from latentlens_dag.models.dtypes import chosen_dtype
from latentlens_dag.models.language_model import LanguageModel
from latentlens_dag.models.loading import FullModel, check_vlm, checked_folder, load_model
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.models.vocabulary_parts import (
    Vocabulary,
    VocabularyNeeds,
    VocabularyParts,
    read_vocabulary_parts,
)

M = TypeVar("M")


class _Key(NamedTuple):
    model: ModelRef
    dtype: str
    device: str
    files: tuple[tuple[str, int, int], ...]
    """Name, size and time (ns) of each file of a local folder."""
    use: str = ""
    """What it is loaded as, where that is neither a VLM nor a language model."""


class ModelCache:
    """Loads models, and keeps the last one."""

    def __init__(self) -> None:
        """Start empty."""
        self._key: _Key | None = None
        self._model: Any = None
        self._parts_key: _Key | None = None
        self._parts: dict[VocabularyNeeds, VocabularyParts] = {}

    def vlm(self, source: ModelRef, dtype: str | None = None) -> Vlm:
        """As `load_vlm`, on the default device."""
        checked_folder(source, weights=False, check=check_vlm)  # before anything is loaded or forgotten
        found = self._load(source, dtype)
        assert isinstance(found, Vlm)
        return found

    def full_model(self, source: ModelRef, dtype: str | None = None) -> FullModel:
        """As `load_with_language_model`, on the default device."""
        found = self._load(source, dtype)
        return FullModel(found.model, found.language_model) if isinstance(found, Vlm) else found

    def language_model(self, source: ModelRef, dtype: str | None = None) -> LanguageModel:
        """As `load_language_model`, on the default device."""
        return self.full_model(source, dtype).language_model

    def vocabulary(self, source: ModelRef, needs: VocabularyNeeds, dtype: str | None = None) -> Vocabulary:
        """The language model if it is in memory, else the part that is needed, which is kept too."""
        key = _key(source, dtype)
        if key != self._key:
            if key != self._parts_key:
                self.clear()  # the model, too: it is another one
                self._parts_key = key
            part = self._parts.get(needs) or read_vocabulary_parts(source, needs, key.device, key.dtype)
            if part is not None:
                self._parts[needs] = part
                return part
        return self.language_model(source, dtype)

    def kept(self, source: ModelRef, dtype: str, use: str, load: Callable[[], M]) -> M:
        """What `load` gives for a model that is used otherwise, such as a vision encoder alone; `use` names all else
        that decides it."""
        key = _key(source, dtype)._replace(use=use)
        if self._model is None or key != self._key:
            self.clear()
            self._model, self._key = load(), key
        found: M = self._model
        return found

    def clear(self) -> None:
        """Forget the model, and give its memory back where nobody else uses it."""
        held = self._model is not None or self._parts
        self._key = self._model = self._parts_key = None
        self._parts = {}
        if not held:
            return
        free_unused_models()
        if default_device() != "cpu":
            import torch

            torch.cuda.empty_cache()

    def _load(self, source: ModelRef, dtype: str | None) -> Vlm | FullModel:
        key = _key(source, dtype)
        if self._model is None or key != self._key:
            self.clear()  # first, since two models may not fit
            self._model = load_model(source, key.device, key.dtype)
            self._key = key
        found: Vlm | FullModel = self._model
        return found


MODELS = ModelCache()
"""That of this process."""


def _key(source: ModelRef, dtype: str | None) -> _Key:
    device = default_device()
    chosen = chosen_dtype(source, device, dtype)
    if source.path is None:
        return _Key(source, chosen, device, ())  # a commit never changes
    facts = ((file.name, file.stat()) for file in sorted(source.path.iterdir()) if file.is_file())
    files = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in facts)
    return _Key(replace(source, path=source.path.resolve()), chosen, device, files)
