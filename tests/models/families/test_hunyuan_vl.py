"""HunYuan-VL: rows that end with newlines, between separators, all of which are embeddings without pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentlens_dag.models.inspection import inspect_model
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.models.token_map_image import COLORS, draw_token_map
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_vlm


@pytest.fixture(scope="module")
def hunyuan(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    return load_vlm(tiny_vlm("hunyuan_vl", tmp_path_factory.mktemp("hunyuan")), device="cpu")


def test_newlines_and_separators_have_the_same_state_in_every_image_and_place_and_cells_do_not(hunyuan: Vlm) -> None:
    seen = hunyuan.visual_states([noise_image(150, 100), noise_image(90, 140)], [0])
    for view, number in (("newline", 2 + 4), ("separator", 4)):
        states = seen.states[0][torch.from_numpy((seen.tokens["view"] == view).to_numpy())]
        distinct = torch.unique((states * 1e4).round(), dim=0)
        assert (len(states), len(distinct)) == (number, 1 if view == "newline" else 2)  # the first, and the last
    cells = seen.states[0][torch.from_numpy((seen.tokens["view"] == "global").to_numpy())]
    assert len(torch.unique((cells * 1e4).round(), dim=0)) == len(cells)


def test_a_newline_follows_its_row_and_separators_have_no_place(hunyuan: Vlm) -> None:
    tokens = hunyuan.visual_states([noise_image(150, 100)], [0]).tokens
    row = ["global"] * 4 + ["newline"]
    assert tokens["view"].to_list() == ["separator", *row, *row, "separator"]
    assert tokens["row"].to_list() == [None, *[0] * 5, *[1] * 5, None]
    assert tokens["col"].to_list() == [None, *range(5), *range(5), None]
    assert tokens["tile"].to_list() == [None, *[0] * 10, None]


def test_without_the_extra_tokens_of_its_processor_there_are_no_separators(hunyuan: Vlm) -> None:
    hunyuan.processor.cat_extra_token = False
    view = hunyuan.token_map(150, 100).view
    hunyuan.processor.cat_extra_token = True
    assert view == (["global"] * 4 + ["newline"]) * 2


def test_separators_are_counted_and_not_drawn(hunyuan: Vlm, tmp_path: Path) -> None:
    layout = inspect_model(hunyuan.name, localize=False).layout
    assert layout is not None
    assert [(view.name, view.tokens) for view in layout.views] == [("separator", 2), ("global", 8)]
    assert (layout.tokens, layout.newlines, layout.padding) == (12, 2, 0)
    draw_token_map(Image.new("RGB", (150, 100)), hunyuan.token_map(150, 100), tmp_path / "tokens.png")
    with Image.open(tmp_path / "tokens.png") as picture:
        assert picture.width / picture.height == pytest.approx(1.5, abs=0.15)  # one panel
        assert (np.asarray(picture.convert("RGB")) == COLORS["global"]).all(axis=2).any()
