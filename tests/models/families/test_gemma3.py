"""Gemma 3's pan and scan: the crops of a long image lie where the map says, where the files ask for them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.models.families import gemma3
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.self_checks import check_model, noise_image
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_vlm

CELLS = 9  # of a view of the tiny model
CROPS = {(200, 60): 3, (90, 140): 2, (61, 260): 4, (151, 100): 2, (100, 96): 0, (96, 96): 0, (400, 20): 0}


def _with(folder: Path, **told: object) -> Vlm:
    """The tiny Gemma 3 whose files say `told` of its image processor."""
    path = tiny_vlm("gemma3", folder) / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"] |= told
    path.write_text(json.dumps(config))
    return load_vlm(folder, device="cpu")


@pytest.fixture(scope="module")
def scanning(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    return _with(tmp_path_factory.mktemp("scanning"), do_pan_and_scan=True, pan_and_scan_min_crop_size=32)


@pytest.mark.parametrize("size", CROPS)
def test_every_token_of_a_crop_sees_exactly_the_pixels_of_its_box(scanning: Vlm, size: tuple[int, int]) -> None:
    places = scanning.token_map(*size)
    assert places.view == ["global"] * CELLS + ["tile"] * CELLS * CROPS[size]
    assert places.tile.tolist() == [number for number in range(CROPS[size] + 1) for _ in range(CELLS)]
    if min(size) > 48:  # in smaller ones boxes are too small to be painted
        check = localization(scanning, noise_image(*size), per_view=None)
        assert (check.passed, check.figure) == (True, 1.0)


def test_rows_and_columns_go_across_the_crops(scanning: Vlm) -> None:
    lies, stands = scanning.token_map(200, 60), scanning.token_map(61, 260)
    for places, shape in ((lies, (3, 9)), (stands, (12, 3))):
        grid = np.lexsort((places.col[CELLS:], places.row[CELLS:]))
        assert sorted(zip(places.row[CELLS:], places.col[CELLS:], strict=True)) == list(np.ndindex(shape))
        boxes = places.boxes[CELLS:][grid].reshape(*shape, 4)
        assert np.allclose(boxes[:, 1:, 0], boxes[:, :-1, 2], atol=1e-3)
        assert np.allclose(boxes[1:, :, 1], boxes[:-1, :, 3], atol=1e-3)


def test_a_wrong_map_of_the_crops_is_found_out(scanning: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    true = scanning.token_map(200, 60)
    order = np.r_[:CELLS, 2 * CELLS : 4 * CELLS, CELLS : 2 * CELLS]  # the first crop comes last
    monkeypatch.setattr(Vlm, "token_map", lambda self, width, height: true._replace(boxes=true.boxes[order]))
    check = localization(scanning, noise_image(200, 60), per_view=None)
    assert not check.passed
    assert check.figure < 0.6


def test_states_with_crops_are_the_residual_stream_alone_and_in_a_batch(scanning: Vlm) -> None:
    images, slow = [noise_image(*size) for size in CROPS], []
    for image in images:
        inputs = scanning.inputs([image])
        here = inputs["input_ids"][0] == scanning.model.config.image_token_id
        with torch.inference_mode():
            slow.append(scanning.model(**inputs, output_hidden_states=True).hidden_states[2][0, here])
    together = scanning.visual_states(images, [2])
    assert torch.allclose(together.states[2], torch.cat(slow), atol=1e-5, rtol=1e-5)
    assert together.tokens["image_index"].value_counts(sort=False)["count"].to_list() == [len(one) for one in slow]


def test_every_check_passes_with_crops(scanning: Vlm) -> None:
    assert scanning.token_map(150, 100).view.count("tile") == 2 * CELLS
    assert all(check.passed for check in check_model(scanning).checks)


@pytest.mark.parametrize(
    "told", [{}, {"do_pan_and_scan": None, "pan_and_scan_min_crop_size": 32}, {"do_pan_and_scan": False}]
)
def test_without_a_word_in_the_files_there_are_no_crops(tmp_path: Path, told: dict[str, object]) -> None:
    vlm = _with(tmp_path, **told)
    assert vlm.token_map(600, 150).view == ["global"] * CELLS
    assert len(vlm.visual_states([noise_image(600, 150)], [0]).tokens) == CELLS


def test_what_the_files_do_not_say_is_as_transformers_has_it(tmp_path: Path) -> None:
    vlm = _with(tmp_path, do_pan_and_scan=True)
    for size, crops in (((600, 300), 2), ((300, 200), 0)):  # of at least 256 pixels
        assert vlm.token_map(*size).view.count("tile") == crops * CELLS
        assert len(vlm.visual_states([noise_image(*size)], [0]).tokens) == (1 + crops) * CELLS


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([16, 64, 256]), st.integers(2, 5), st.floats(1, 3))
def test_crops_are_those_that_the_processor_cuts(
    scanning: Vlm, width: int, height: int, least: int, most: int, ratio: float
) -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    numbers = np.arange(width * height).reshape(1, height, width)
    cut = Gemma3ImageProcessorPil().pan_and_scan(numbers, least, most, ratio)
    told = dict(zip(gemma3._CROPS, (True, least, most, ratio), strict=True))
    places = gemma3.region_map(SimpleNamespace(images_kwargs=told), scanning.model.config, width, height)
    ends = [np.divmod([crop.min(), crop.max()], width) for crop in cut]  # first and last row, first and last column
    expected = [[x[0], y[0], x[1] + 1, y[1] + 1] for y, x in ends]
    tiles = [places.boxes[places.tile == number + 1] for number in range(places.tile.max())]
    found = [[*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)] for boxes in tiles]
    assert np.allclose(found, expected, atol=1e-3) if expected else not found
