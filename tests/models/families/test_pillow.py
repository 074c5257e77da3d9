"""Image processors that transformers has for torchvision only: the replacements cut images as the originals do.

The modules of the originals cannot be imported without torchvision, so functions are taken from their source.
"""

import ast
import importlib.util
import itertools
import math
from collections.abc import Callable
from functools import lru_cache, reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoImageProcessor, AutoProcessor

from latentlens_dag.models.families import cohere2_vision, kimi_k25, muse_glimmer, nemotron_omni, perception_lm
from latentlens_dag.models.families.registry import ALWAYS_REPLACED
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.testing import tiny_vlm
from tests.helpers.packages import need_torchvision

SIDES = st.one_of(st.integers(1, 3000), st.sampled_from([448, 512, 896, 1024, 1344, 1536]))
REPLACED = ("cohere2_vision", "kimi_k25", "minimax_m3_vl", "muse_glimmer", "muse_spark", "nemotron_h_omni")


def _from_source(family: str, name: str) -> Any:
    """A function or class of a family's image processor in transformers, with numbers only."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    path = Path(str(spec.origin)).parent / "models" / family / f"image_processing_{family}.py"
    wanted = {"get_all_supported_aspect_ratios", "_factors", name}
    tree = ast.parse(path.read_text("utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in wanted]
    names = {"np": np, "math": math, "lru_cache": lru_cache, "reduce": reduce, "itertools": itertools}
    for node in found:
        node.decorator_list = []
    exec(compile(ast.Module([*found], []), str(path), "exec"), names)
    return names[name]


@given(SIDES, SIDES, st.integers(1, 12))
@settings(deadline=None, max_examples=200)
def test_command_a_vision_has_the_tiles_of_transformers(width: int, height: int, most: int) -> None:
    original = _original("cohere2_vision", "get_optimal_tiled_canvas")
    assert cohere2_vision._tiles(width, height, 512, most) == original((height, width), (512, 512), 1, most)


@given(SIDES, SIDES, st.integers(4, 200), st.integers(8, 40))
@settings(deadline=None, max_examples=200)
def test_kimi_resizes_and_pads_as_transformers(width: int, height: int, most: int, most_along_side: int) -> None:
    new, padded = _original("kimi_k25", "navit_resize")(height, width, 14, 2, most, most_along_side)
    assert kimi_k25._resized(width, height, 14, most, most_along_side) == new[::-1]
    images = SimpleNamespace(
        do_resize=True, patch_size=14, merge_size=2, max_patches=most, size={"max_height": most_along_side}
    )
    places = kimi_k25.region_map(SimpleNamespace(image_processor=images), None, width, height)
    assert (places.row.max() + 1, places.col.max() + 1) == (padded[0] // 28, padded[1] // 28)


@given(SIDES, SIDES, st.integers(1, 300))
@settings(deadline=None, max_examples=200)
def test_muse_glimmer_has_the_grid_of_transformers(width: int, height: int, most: int) -> None:
    rows, columns = muse_glimmer._grid(width, height, 28, most)
    assert (rows * 28, columns * 28) == _original("muse_glimmer", "smart_resize")(height, width, 28, most)


@given(SIDES, SIDES, st.integers(4, 2000), st.integers(400, 20000))
@settings(deadline=None, max_examples=200)
def test_nemotron_omni_has_the_grid_of_transformers(width: int, height: int, least: int, most: int) -> None:
    images = SimpleNamespace(
        patch_size=16, downsample_ratio=0.5, min_num_patches=least, max_num_patches=most, max_model_len=16384
    )
    expected = _original("nemotron_h_omni", "get_patch_grid_size")(height, width, 16, 2, least, max(most, least))
    assert nemotron_omni._patches(images, width, height) == expected


@given(SIDES, SIDES, st.integers(1, 36))
@settings(deadline=None, max_examples=200)
def test_perception_lm_has_the_tiles_of_transformers(width: int, height: int, most: int) -> None:
    names = ("_find_supported_aspect_ratios", "_get_image_height_width", "_fit_image_to_canvas")
    methods = {name: _original("perception_lm", name) for name in (*names, "_find_closest_aspect_ratio", "_factors")}
    methods["_factors"] = staticmethod(methods["_factors"])
    original = type("Original", (), methods)()
    original.max_num_tiles = most
    fitting = original._fit_image_to_canvas(width, height, 448)
    expected = fitting or original._find_closest_aspect_ratio(width, height, 448)
    assert perception_lm._canvas(width, height, 448, most) == expected


@pytest.mark.parametrize("family", REPLACED)
def test_with_torchvision_the_image_processor_of_transformers_cuts_alike(family: str, tmp_path: Path) -> None:
    need_torchvision("the image processor of transformers")
    vlm = load_vlm(tiny_vlm(family, tmp_path), device="cpu")
    vlm.processor.image_processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert not type(vlm.processor.image_processor).__name__.endswith("Pil")
    for size in [(150, 100), (90, 140), (96, 96)]:
        assert localization(vlm, noise_image(*size), per_view=None).passed


def test_a_processor_that_cannot_show_images_together_is_replaced_even_where_it_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = type("PerceptionLMProcessor", (), {})
    assert original.__name__ in ALWAYS_REPLACED
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *args, **kwargs: original())
    vlm = load_vlm(tiny_vlm("perception_lm", tmp_path), device="cpu")
    seen = vlm.visual_states([noise_image(150, 100), noise_image(60, 60)], [0])
    assert seen.tokens.group_by("image_index", maintain_order=True).len()["len"].to_list() == [28, 20]


def test_an_image_of_one_tile_is_shown_twice_to_perception_lm(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("perception_lm", tmp_path), device="cpu")
    vlm.processor.image_processor.max_num_tiles = 1
    places = vlm.token_map(150, 100)
    assert (places.view, places.tile.tolist()) == (["global"] * 4 + ["tile"] * 4, [0] * 4 + [1] * 4)
    check = localization(vlm, noise_image(150, 100), per_view=None)
    assert (check.passed, check.figure) == (True, 1.0)


def test_without_tiles_perception_lm_shows_the_squashed_image_only(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("perception_lm", tmp_path), device="cpu")
    vlm.processor.image_processor.vision_input_type = "vanilla"
    assert vlm.token_map(150, 100).view == ["global"] * 4
    assert localization(vlm, noise_image(150, 100), per_view=None).passed


_ORIGINALS: dict[tuple[str, str], Callable[..., Any]] = {}


def _original(family: str, name: str) -> Callable[..., Any]:
    if (family, name) not in _ORIGINALS:
        _ORIGINALS[family, name] = _from_source(family, name)
    return _ORIGINALS[family, name]
