"""The cache of the last model: one load for as long as the same model is asked for."""

import gc
import os
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch
from transformers import LlavaForConditionalGeneration, PreTrainedModel

from latentlens_dag.errors import UserError
from latentlens_dag.models import checkpoints, model_cache
from latentlens_dag.models.model_cache import ModelCache
from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.models.vocabulary_parts import VocabularyNeeds


@pytest.fixture
def cache() -> Iterator[ModelCache]:
    """An empty one."""
    cache = ModelCache()
    yield cache
    cache.clear()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that transformers has loaded weights from."""
    folders: list[Path] = []
    load = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def counted(kind: type[PreTrainedModel], folder: Path, *arguments: object, **options: object) -> object:
        folders.append(Path(folder))
        return load(kind, folder, *arguments, **options)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(counted))
    return folders


def test_a_model_is_loaded_once_as_a_vlm_and_as_a_language_model(
    cache: ModelCache, loads: list[Path], llava_folder: Path
) -> None:
    ref = ModelRef(path=llava_folder)
    vlm = cache.vlm(ref)
    assert cache.vlm(ModelRef(path=llava_folder / ".." / llava_folder.name)) is vlm
    assert cache.language_model(ref) is vlm.language_model
    assert cache.full_model(ref).model is vlm.model
    assert cache.vlm(ref, "float32") is vlm
    assert isinstance(vlm.model, LlavaForConditionalGeneration)
    assert len(loads) == 1


@pytest.mark.parametrize("change", ["dtype", "trust", "files", "weights", "time"])
def test_what_may_give_other_states_is_another_model(
    cache: ModelCache, loads: list[Path], llava_folder: Path, tmp_path: Path, change: str
) -> None:
    folder = copytree(llava_folder, tmp_path / "model")
    ref, dtype = ModelRef(path=folder), None
    before = cache.vlm(ref)
    if change == "dtype":
        dtype = "bfloat16"
    elif change == "trust":
        ref = replace(ref, trust_remote_code=True)
    elif change == "files":
        (folder / "added_tokens.json").write_text("{}")
    elif change == "weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes())
    else:
        os.utime(folder / "model.safetensors", ns=(1, 1))
    after = cache.vlm(ref, dtype)
    assert after is not before
    assert after.model.dtype == (torch.bfloat16 if change == "dtype" else torch.float32)
    assert len(loads) == 2


def test_the_memory_of_a_model_returns_before_another_is_loaded(
    cache: ModelCache, llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_WORTH_FREEING_BYTES", 0)
    other = ModelRef(path=copytree(llava_folder, tmp_path / "model"))
    first = weakref.ref(cache.vlm(ModelRef(path=llava_folder)).model)
    gone = []

    load = model_cache.load_model
    monkeypatch.setattr(
        model_cache, "load_model", lambda *arguments: (gone.append(first() is None), load(*arguments))[1]
    )
    cache.vlm(other)
    assert gone == [True]
    second = weakref.ref(cache.vlm(other).model)
    cache.clear()
    gc.collect()
    assert second() is None


def test_a_model_that_cannot_be_loaded_leaves_nothing_behind(
    cache: ModelCache, llava_folder: Path, tmp_path: Path
) -> None:
    broken = copytree(llava_folder, tmp_path / "model")
    (broken / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError):
        cache.vlm(ModelRef(path=broken))
    assert cache.vlm(ModelRef(path=llava_folder)).depth


def test_a_language_model_is_no_vlm(cache: ModelCache, loads: list[Path], language_folder: Path) -> None:
    ref = ModelRef(path=language_folder)
    assert cache.language_model(ref).depth
    loads.clear()
    with pytest.raises(UserError, match="is not a vision-language model"):
        cache.vlm(ref)
    assert cache.language_model(ref).depth
    assert loads == []  # neither the refused model, nor again the one that was in memory


def test_a_lens_uses_the_model_in_memory_or_reads_its_part_once(
    cache: ModelCache, loads: list[Path], llava_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, reads = ModelRef(path=llava_folder), []
    read = model_cache.read_vocabulary_parts
    monkeypatch.setattr(
        model_cache, "read_vocabulary_parts", lambda *arguments: (reads.append(arguments[1]), read(*arguments))[1]
    )
    needs: tuple[VocabularyNeeds, ...] = ("head", "embedding")
    parts = [cache.vocabulary(ref, part) for _ in range(3) for part in needs]
    assert (reads, loads) == (["head", "embedding"], [])
    whole = cache.language_model(ref)
    assert all(cache.vocabulary(ref, part) is whole for part in needs)
    assert (reads, len(loads)) == (["head", "embedding"], 1)
    assert torch.equal(parts[1].embedding, whole.embedding)
    assert cache.vocabulary(ref, "embedding", "bfloat16").embedding.dtype == torch.bfloat16


def test_a_part_in_doubt_is_that_of_the_whole_model_which_is_kept(
    cache: ModelCache, loads: list[Path], llava_folder: Path
) -> None:
    ref = ModelRef(path=llava_folder, trust_remote_code=True)
    assert cache.vocabulary(ref, "head") is cache.vocabulary(ref, "embedding") is cache.language_model(ref)
    assert len(loads) == 1


def test_the_memory_of_a_part_returns_before_a_model_is_loaded(cache: ModelCache, llava_folder: Path) -> None:
    part = weakref.ref(cache.vocabulary(ModelRef(path=llava_folder), "embedding").embedding)
    cache.language_model(ModelRef(path=llava_folder))
    assert part() is None
