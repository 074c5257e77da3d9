"""Reverse search: the same visual tokens as the definition gives, however a study is cut into batches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import latentlens_dag.browse.reverse_search as reverse
from latentlens_dag.browse.reverse_search import NearestToken, nearest_tokens, token_boxes, visual_state_files
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.errors import UserError
from latentlens_dag.index.state_tables import write_states
from latentlens_dag.storage.files import write_json
from latentlens_dag.storage.hashing import hash_bytes
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.small_dataset import image_id, write_warehouse

IMAGES, TOKENS, WIDTH, LAYERS = 6, 7, 8, (0, 3)
IDS = sorted(hash_bytes(bytes([number])) for number in range(IMAGES))
States = dict[int, NDArray[np.float32]]


def written(warehouse: Warehouse, states: States, batches: int) -> Warehouse:
    """The states [images, tokens, width] of a study, in batches; within one the last image comes first."""
    for layer, values in states.items():
        for batch in range(batches):
            mine = [number for number in range(IMAGES) if number % batches == batch][::-1]
            ids = [IDS[number] for number in mine for _ in range(TOKENS)]
            tokens = np.tile(np.arange(TOKENS, dtype=np.int32), len(mine))
            write_states(warehouse.visual("s", layer, batch), ids, tokens, values[mine].reshape(-1, WIDTH))
    write_json({"parts": batches, "visual_layers": list(states), "lenses": []}, warehouse.shape("study", "s"))
    return warehouse


def slowly(state: NDArray[np.floating], states: States, k: int) -> list[NearestToken]:
    """The definition: every cosine in float64, rounded to float32, and a full sort."""
    found = []
    for layer, values in states.items():
        for number, image in enumerate(IDS):
            for token in range(TOKENS):
                row, query = values[number, token].astype(np.float64), state.astype(np.float64)
                cosine = np.float32(row @ query / (np.linalg.norm(row) * np.linalg.norm(query)))
                found.append(NearestToken(layer, image, token, float(cosine)))
    return sorted(found, key=lambda hit: (-hit.cosine, *hit[:3]))[:k]


def some_states(seed: int, axes: bool) -> States:
    """States at random; or along axes, so that most cosines are equal."""
    random = np.random.default_rng(seed)
    shape = (IMAGES, TOKENS, WIDTH)
    if axes:
        return {n: np.eye(WIDTH, dtype=np.float32)[random.integers(0, 3, shape[:2])] * 2 for n in LAYERS}
    return {n: random.standard_normal(shape).astype(np.float32) for n in LAYERS}


@pytest.mark.parametrize("batches", [1, 2, 5])
@pytest.mark.parametrize("axes", [False, True])
def test_the_nearest_are_those_of_the_definition_however_they_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int, axes: bool
) -> None:
    monkeypatch.setattr(reverse, "_LEAST_ROWS", 3)
    monkeypatch.setattr(reverse, "_READ_BYTES", 1)
    states = some_states(batches, axes)
    files = visual_state_files(written(Warehouse(tmp_path), states, batches), "s")
    state = states[0][2, 3] if axes else np.random.default_rng(9).standard_normal(WIDTH)
    for k in (1, 10, IMAGES * TOKENS * len(LAYERS) + 5):
        found = nearest_tokens(state, files, k)
        expected = slowly(state, states, k)
        assert [hit[:3] for hit in found.tokens] == [hit[:3] for hit in expected]
        assert np.allclose([hit.cosine for hit in found.tokens], [hit.cosine for hit in expected], atol=1e-7)
        assert found.compared == IMAGES * TOKENS * len(LAYERS)
    only = nearest_tokens(state, {3: files[3]}, 10)
    assert [hit[:3] for hit in only.tokens] == [hit[:3] for hit in slowly(state, {3: states[3]}, 10)]


def test_batches_that_are_not_built_are_left_out_and_a_study_without_any_is_told(tmp_path: Path) -> None:
    house = written(Warehouse(tmp_path), some_states(1, axes=False), 3)
    shutil.rmtree(house.visual("s", 0, 1))
    assert [len(paths) for paths in visual_state_files(house, "s").values()] == [2, 3]
    for layer in LAYERS:
        shutil.rmtree(house.visual("s", layer, 0).parent)
    with pytest.raises(UserError, match=r"Study s has no stored states here.*latentlens-dag build s"):
        visual_state_files(house, "s")
    with pytest.raises(UserError, match="Study other is not built yet"):
        visual_state_files(house, "other")


def test_a_file_that_vanishes_and_another_model_are_told(tmp_path: Path) -> None:
    house = written(Warehouse(tmp_path), some_states(1, axes=False), 2)
    files = visual_state_files(house, "s")
    with pytest.raises(UserError, match=r"width 4.*width 8"):
        nearest_tokens(np.ones(4), files, 1)
    (data,) = (files[3][1] / "data").iterdir()
    data.unlink()
    with pytest.raises(UserError, match=r"cannot be read.*latentlens-dag build"):
        nearest_tokens(np.ones(WIDTH), files, 1)
    shutil.rmtree(files[0][0])
    with pytest.raises(UserError, match=r"cannot be read.*latentlens-dag build"):
        nearest_tokens(np.ones(WIDTH), files, 1)


def test_hits_have_the_boxes_of_their_tokens(tmp_path: Path) -> None:
    hits = [
        NearestToken(8, image_id("dog"), 1, 0.9),
        NearestToken(8, image_id("cat"), 2, 0.8),
        NearestToken(8, image_id("cat"), 4, 0.7),
    ]
    with open_dataset(write_warehouse(tmp_path / "warehouse")) as opened:
        assert token_boxes(opened, "one", hits) == {
            (image_id("dog"), 1): [16, 0, 32, 16],
            (image_id("cat"), 2): [0, 16, 16, 32],
        }
