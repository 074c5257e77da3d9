"""Padding: tokens that show nothing of the image because their whole box is outside of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from latentlens_dag.cli.models import _layout_rows
from latentlens_dag.models.families.token_map import PADDING, WITHOUT_BOX, TokenMap, grid_map, grid_view, mark_padding
from latentlens_dag.models.inspection import inspect_model, token_layout
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.models.token_map_image import COLORS, draw_token_map
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_vlm
from latentlens_dag.testing.families import BUILDERS
from tests.helpers.packages import need_packages_of

LONG = [(240, 80), (80, 240), (150, 100)]
PADS = {"deepseek_vl", "deepseek_vl_hybrid"}


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    return load_vlm(tiny_vlm("deepseek_vl", tmp_path_factory.mktemp("deepseek")), device="cpu")


def _clipped_area(box: Any, width: int, height: int) -> float:
    """The slow definition: what is left of a box inside the image."""
    x0, y0, x1, y1 = (float(side) for side in box)
    return max(0.0, min(x1, width) - max(x0, 0.0)) * max(0.0, min(y1, height) - max(y0, 0.0))


@given(
    corners=arrays(np.int32, (7, 2), elements=st.integers(-60, 60)),
    sides=arrays(np.int32, (7, 2), elements=st.integers(1, 40)),
    width=st.integers(1, 50),
    height=st.integers(1, 50),
)
def test_padding_is_what_has_no_area_inside_of_the_image(
    corners: np.ndarray, sides: np.ndarray, width: int, height: int
) -> None:
    boxes = np.hstack([corners, corners + sides]).astype(np.float32)
    boxes[-1] = np.nan  # a newline
    numbers = np.arange(7, dtype=np.int32)
    plain = TokenMap(["global"] * 3 + ["tile"] * 3 + ["newline"], numbers, numbers, numbers, boxes)
    marked = mark_padding(plain, width, height)
    outside = [_clipped_area(box, width, height) == 0 for box in boxes[:-1]]
    expected = [PADDING if out else view for out, view in zip(outside, plain.view[:-1], strict=True)]
    assert marked.view == [*expected, "newline"]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(marked[1:], plain[1:], strict=True))


@pytest.mark.parametrize("family", BUILDERS)
def test_every_family_tells_padding_by_the_boxes_and_its_grid_by_the_tile(family: str, tmp_path: Path) -> None:
    need_packages_of(family)
    vlm, found = load_vlm(tiny_vlm(family, tmp_path), device="cpu"), set()
    for size in LONG:
        marked, tokens = vlm.token_map(*size), vlm.visual_states([noise_image(*size)], [0]).tokens
        assert tokens["view"].to_list() == marked.view
        for view, tile, box in zip(marked.view, marked.tile, marked.boxes, strict=True):
            found.add(view)
            if view not in WITHOUT_BOX:
                assert (view == PADDING) == (_clipped_area(box, *size) < 0.1)
                assert grid_view(view, tile) == ("tile" if tile else "global")
        padding = tokens.filter(view=PADDING)
        assert padding.select("tile", "row", "col", "x0", "y0", "x1", "y1").null_count().row(0) == (0,) * 7
    assert PADDING in found or family not in PADS


@pytest.mark.parametrize("family", sorted(PADS))
def test_padding_does_not_change_with_the_image_and_all_other_tokens_see_their_box(family: str, tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm(family, tmp_path), device="cpu")
    for size in LONG:
        assert localization(vlm, noise_image(*size), per_view=None).figure == 1


def test_a_token_that_shows_pixels_though_the_map_says_padding_fails_the_check(
    deepseek: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 1 and 2 of four show a wide image; the map says that row 2 is padding, and has the boxes of row 1 twice."""
    true = deepseek.token_map(240, 80)
    view, boxes = list(true.view), true.boxes.copy()
    assert [view[4 * row] for row in range(4)] == [PADDING, "global", "global", PADDING]
    view[8:12], boxes[8:12] = [PADDING] * 4, boxes[4:8]
    boxes[4:8, 3] = boxes[4:8, 3] + 60  # the boxes of both rows
    monkeypatch.setattr(Vlm, "token_map", lambda *_: true._replace(view=view, boxes=boxes))
    assert localization(deepseek, noise_image(240, 80), per_view=None).figure == 0


def test_padding_is_counted_in_the_grid_that_it_fills_up_and_told(deepseek: Vlm) -> None:
    found = inspect_model(deepseek.name, Image.new("RGB", (240, 80)), localize=False)
    layout = found.layout
    assert layout is not None
    assert [tuple(view) for view in layout.views] == [("global", 16, 1, 4, 4)]
    assert (layout.padding, layout.covered) == (8, 1.0)
    assert layout.first_box == pytest.approx([0, -20, 60, 40], abs=2)  # the first with pixels
    text = "\n".join(line for _, line in _layout_rows(found))
    assert "global 4 x 4, 8 of these in padding, outside of the image" in text
    assert "padding" not in "\n".join(line for _, line in _layout_rows(inspect_model(deepseek.name, localize=False)))


def test_padding_is_drawn_in_gray_in_the_panel_of_its_grid(deepseek: Vlm, tmp_path: Path) -> None:
    image = Image.new("RGB", (240, 80), (255, 255, 255))
    draw_token_map(image, deepseek.token_map(240, 80), tmp_path / "tokens.png")
    with Image.open(tmp_path / "tokens.png") as picture:
        panel = np.asarray(picture.convert("RGB"))[24 + 40 : -24, 24:-24]  # without margins and title
    assert abs(panel.shape[0] - panel.shape[1]) < 25  # one panel, with the whole square
    gray, brown = ((panel == COLORS[name]).all(axis=2).any(axis=1) for name in (PADDING, "global"))
    height = len(gray)
    assert gray[: height // 4].any() and gray[-height // 4 :].any()
    assert brown[height // 3 : 2 * height // 3].any()
    assert not brown[: height // 5].any() and not brown[-height // 5 :].any()
    assert not gray[height // 3 : 2 * height // 3].any()


def test_tokens_before_and_after_padding_in_a_tile_stay_in_its_view() -> None:
    tiles = grid_map(2, 2, (-40, 0, 40, 40), "tile")
    marked = mark_padding(tiles._replace(tile=tiles.tile + 1), 40, 40)
    assert marked.view == [PADDING, "tile"] * 2
    assert [view.name for view in token_layout(marked, 40, 40).views] == ["tile"]
