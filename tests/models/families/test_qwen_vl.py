"""Families that squash images to whole cells: each limits the grid in its own way, which images at the limits show."""

import pytest

from latentlens_dag.errors import UserError
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_vlm

FAMILIES = ("glm46v", "glm4v", "glm_ocr", "paddleocr_vl", "qwen2_vl", "qwen3_5_moe")
SIZES = [(150, 20), (20, 150), (30, 30), (400, 300), (61, 200)]


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    return load_vlm(tiny_vlm(request.param, tmp_path_factory.mktemp(request.param)), device="cpu")


@pytest.mark.parametrize("size", SIZES)
def test_a_map_has_the_grid_of_its_familys_own_resizing_at_its_limits(vlm: Vlm, size: tuple[int, int]) -> None:
    tokens = vlm.visual_states([noise_image(*size)], [0]).tokens
    merge = vlm.processor.image_processor.merge_size
    _, rows, columns = (int(n) for n in vlm.inputs([noise_image(*size)])["image_grid_thw"][0])
    assert (tokens["row"].max() + 1, tokens["col"].max() + 1) == (rows // merge, columns // merge)
    assert tokens.select("x0", "y0").row(0) == (0, 0)
    assert tokens.select("x1", "y1").row(-1) == pytest.approx(size)


def test_without_resizing_the_grid_is_that_of_the_image_itself(vlm: Vlm) -> None:
    images = vlm.processor.image_processor
    cell, was = images.patch_size * images.merge_size, images.do_resize
    images.do_resize = False
    check = localization(vlm, noise_image(5 * cell, 3 * cell), per_view=None)
    tokens = vlm.visual_states([noise_image(5 * cell, 3 * cell)], [0]).tokens
    images.do_resize = was
    assert (check.figure, len(tokens)) == (1, 15)


def test_without_resizing_an_image_that_is_not_of_whole_cells_is_refused(
    vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = vlm.processor.image_processor
    monkeypatch.setattr(images, "do_resize", False)
    cell = images.patch_size * images.merge_size
    for size in [(2 * cell + 1, cell), (cell, 3 * cell - 1)]:
        with pytest.raises(UserError, match=f"{size[0]} x {size[1]} pixels.*do_resize.*multiples of {cell} pixels"):
            vlm.visual_states([noise_image(*size)], [0])
