"""LLaVA-NeXT and LLaVA-OneVision: images so narrow that no column, or only one row, of their tiles remains."""

import pytest

from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_vlm

SIZES = [(1, 40), (1, 2000), (2000, 1), (13, 977), (977, 13), (1, 1), (4, 700), (20, 150)]


@pytest.fixture(scope="module", params=["llava_next", "llava_next_video", "llava_onevision"])
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    return load_vlm(tiny_vlm(request.param, tmp_path_factory.mktemp(request.param)), device="cpu")


@pytest.mark.parametrize("size", SIZES)
def test_the_map_of_a_very_narrow_image_has_as_many_tokens_as_the_model(vlm: Vlm, size: tuple[int, int]) -> None:
    token = vlm.model.config.image_token_id
    written = int((vlm.inputs([noise_image(*size)])["input_ids"] == token).sum())
    assert len(vlm.token_map(*size).view) == len(vlm.visual_states([noise_image(*size)], [0]).tokens) == written


def test_where_unpadding_removes_all_columns_the_newlines_of_the_rows_remain(vlm: Vlm) -> None:
    tokens = vlm.visual_states([noise_image(1, 2000)], [0]).tokens
    views = tokens["view"].to_list()
    cells = views.index("newline")
    rows = len(views) - cells
    assert views == ["global"] * cells + ["newline"] * rows
    newlines = tokens[cells:]
    assert newlines["row"].to_list() == list(range(rows))
    assert newlines["col"].to_list() == [0] * rows
    assert newlines["x0"].null_count() == rows
