"""Maps have the grids that the processors cut, with the settings of the published models and images of any shape."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Gemma4ImageProcessorPil
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

from latentlens_dag.models.families import gemma4, lfm2_vl, llama4, minicpmv
from latentlens_dag.models.families.token_map import TokenMap
from tests.helpers.packages import need_packages_of

SIDES = st.integers(20, 1600)


def _shown(processor: Any, width: int, height: int) -> Any:
    return processor([Image.new("RGB", (width, height))], return_tensors="np")


def _grids(places: TokenMap) -> list[tuple[int, int]]:
    """Rows and columns of each tile of a map, in its order in the sequence."""
    view = np.array([place == "tile" for place in places.view])
    tiles = np.where(view, places.tile, 0)
    order = list(dict.fromkeys(tiles.tolist()))
    grids = [(places.row[tiles == tile], places.col[tiles == tile]) for tile in order]
    return [(len(np.unique(row)), len(np.unique(col))) for row, col in grids]


def _check_cover(places: TokenMap, width: int, height: int) -> None:
    """Every view without padding covers the whole image, and no more."""
    for view in set(places.view):
        boxes = places.boxes[np.array(places.view) == view]
        ends = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
        assert np.allclose(ends, [0, 0, width, height], atol=0.1)


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES)
def test_gemma4_has_a_token_for_each_cell(width: int, height: int) -> None:
    processor = Gemma4ImageProcessorPil()
    places = gemma4.region_map(SimpleNamespace(image_processor=processor), None, width, height)
    shown = _shown(processor, width, height)
    last = shown["image_position_ids"][0].max(axis=0) + 1  # columns and rows of patches
    assert _grids(places) == [(last[1] // 3, last[0] // 3)]
    assert len(places.view) == shown["num_soft_tokens_per_image"][0]
    _check_cover(places, width, height)


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, st.sampled_from(["4x", "16x"]), st.booleans())
def test_minicpmv_has_the_grids_of_the_whole_and_of_its_slices(width: int, height: int, mode: str, cut: bool) -> None:
    processor = MiniCPMV4_6ImageProcessorPil(downsample_mode=mode, slice_mode=cut)
    places = minicpmv.region_map(SimpleNamespace(image_processor=processor), None, width, height)
    cells = _shown(processor, width, height)["target_sizes"] // (2 if mode == "4x" else 4)
    assert _grids(places) == [tuple(grid) for grid in cells.tolist()]
    _check_cover(places, width, height)


SIZES = [(336, 336), (640, 480), (1024, 768), (768, 1024), (4000, 3000), (100, 1000), (30, 20), (337, 336), (1600, 90)]


@pytest.mark.parametrize("size", SIZES)
def test_lfm2_vl_has_the_grids_of_the_tiles_and_of_the_thumbnail(size: tuple[int, int]) -> None:
    need_packages_of("lfm2_vl")
    from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor

    processor = Lfm2VlImageProcessor()
    places = lfm2_vl.region_map(SimpleNamespace(image_processor=processor), None, *size)
    shown = processor([Image.new("RGB", size)], return_tensors="pt")
    assert _grids(places) == [tuple(grid) for grid in (shown["spatial_shapes"] // 2).tolist()]
    _check_cover(places, *size)


@pytest.mark.parametrize("enlarged", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_llama4_has_a_grid_for_each_tile_and_padding_beyond_the_image(size: tuple[int, int], enlarged: bool) -> None:
    need_packages_of("llama4")
    from transformers.models.llama4.image_processing_llama4 import Llama4ImageProcessor

    processor = Llama4ImageProcessor(resize_to_max_canvas=enlarged)
    vision = SimpleNamespace(image_size=336, patch_size=14, pixel_shuffle_ratio=0.5)
    places = llama4.region_map(SimpleNamespace(image_processor=processor), SimpleNamespace(vision_config=vision), *size)
    pixels = processor([Image.new("RGB", size, "white")], return_tensors="pt")["pixel_values"]
    assert _grids(places) == [(12, 12)] * len(pixels)
    white = (pixels == 1).all(dim=1).float()  # [tile, row, column]
    cells = (
        white.reshape(len(pixels), 12, 28, 12, 28).mean(dim=(2, 4)).flatten().numpy()
    )  # how much of it is no padding
    clipped = np.clip(places.boxes, 0, [*size, *size])
    area = np.prod(places.boxes[:, 2:] - places.boxes[:, :2], axis=1)
    inside = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1) / area
    assert np.abs(inside - cells).max() < 0.05
