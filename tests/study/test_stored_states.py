"""Images that were read before are not shown to the model again."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from latentlens_dag.index.state_tables import read_states
from latentlens_dag.inputs.images import ImageFile
from latentlens_dag.models import vlm
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.storage.hashing import hash_file
from latentlens_dag.study.stored_states import TOKENS, BatchStates, StoredStates, visual_batch_states
from latentlens_dag.study.token_tables import write_visual_layer

SIZES = [(48, 48), (100, 60), (60, 100), (50, 70), (70, 50)]
LAYERS = [0, 2]


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    found = []
    for number, size in enumerate(SIZES):
        path = tmp_path / f"{number}.png"
        noise_image(*size).save(path)
        found.append(ImageFile(hash_file(path), path))
    return found


def _seen(vlm: Vlm, files: list[ImageFile], stored: StoredStates, layers: list[int] = LAYERS) -> BatchStates:
    return visual_batch_states(lambda: vlm, "demo", files, layers, None, stored)


def _stored(seen: BatchStates, folder: Path, dtype: str = "float32") -> StoredStates:
    """As it comes back from the files of a batch, on a machine that computes in `dtype`."""
    folder.mkdir()
    pq.write_table(seen.tables[TOKENS], folder / "tokens.parquet")
    paths = {layer: folder / f"{layer}.lance" for layer in seen.states}
    for layer, path in paths.items():
        write_visual_layer(path, seen.tables[TOKENS], seen.states[layer])
    return StoredStates.read({TOKENS: folder / "tokens.parquet"}, paths, dtype)


def _same(one: BatchStates, other: BatchStates) -> bool:
    states = all(np.allclose(one.states[layer], other.states[layer], atol=1e-5) for layer in other.states)
    return states and one.tables[TOKENS].equals(other.tables[TOKENS])


def test_only_new_images_are_shown_and_the_batch_is_as_if_all_were(
    llava: Vlm, files: list[ImageFile], tmp_path: Path
) -> None:
    whole = _seen(llava, files, StoredStates())
    assert whole.forwarded == len(files)
    stored = _stored(_seen(llava, [files[3], files[1]], StoredStates()), tmp_path / "stored")
    found = _seen(llava, files, stored)
    assert found.forwarded == 3
    assert _same(found, whole)
    again = _seen(llava, files, _stored(found, tmp_path / "again"))
    assert again.forwarded == 0
    assert _same(again, whole)


def test_images_that_are_no_longer_wanted_are_left_out_without_the_model(
    llava: Vlm, files: list[ImageFile], tmp_path: Path
) -> None:
    stored = _stored(_seen(llava, files, StoredStates()), tmp_path / "stored")

    def load() -> Vlm:
        raise AssertionError("the model was loaded")

    found = visual_batch_states(load, "demo", files[2:4], LAYERS, None, stored)
    assert _same(found, _seen(llava, files[2:4], StoredStates()))


def test_a_layer_that_is_not_stored_is_read_of_every_image(llava: Vlm, files: list[ImageFile], tmp_path: Path) -> None:
    stored = _stored(_seen(llava, files, StoredStates()), tmp_path / "stored")
    found = _seen(llava, files, stored, [0, 1])
    assert found.forwarded == len(files)
    assert _same(found, _seen(llava, files, StoredStates(), [0, 1]))


def test_states_of_another_dtype_are_not_mixed_with_those_of_this_machine(
    llava: Vlm, files: list[ImageFile], tmp_path: Path
) -> None:
    stored = _stored(_seen(llava, files[:2], StoredStates()), tmp_path / "stored", "bfloat16")
    assert _seen(llava, files, stored).forwarded == len(files)


def test_an_image_whose_states_do_not_fit_its_tokens_is_shown_again(
    llava: Vlm, files: list[ImageFile], tmp_path: Path
) -> None:
    whole = _seen(llava, files, StoredStates())
    stored = _stored(whole, tmp_path / "stored")
    cut = read_states(tmp_path / "stored" / "2.lance")
    short = type(cut)(
        cut.image_ids[1:], cut.token_index[1:], cut.states[1:], cut.dtype
    )  # a row of the first image is lost
    found = _seen(llava, files, StoredStates(stored.tables, {**stored.states, 2: short}))
    assert found.forwarded == 1
    assert _same(found, whole)


@pytest.mark.parametrize(("stored", "reports"), [(0, [(2, 5), (4, 5), (5, 5)]), (2, [(2, 3), (3, 3)])])
def test_progress_counts_the_images_that_went_through_the_model(
    llava: Vlm,
    files: list[ImageFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: int,
    reports: list[tuple[int, int]],
) -> None:
    monkeypatch.setattr(vlm, "IMAGES_PER_PASS", 2)
    before = _stored(_seen(llava, files[:stored], StoredStates()), tmp_path / "stored")
    found = list[tuple[int, int]]()
    visual_batch_states(lambda: llava, "demo", files, LAYERS, None, before, lambda *counts: found.append(counts))
    assert found == reports
