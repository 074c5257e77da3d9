"""DeepSeek-VL: the two vision towers of the hybrid models, of which only one keeps to a token's box."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ImageChops

from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import _overlapping_convolutions, localization
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_vlm

SIZES = [(150, 100), (90, 140), (96, 96)]
FILES = ("config.json", "processor_config.json")


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    return load_vlm(tiny_vlm("deepseek_vl_hybrid", tmp_path_factory.mktemp("hybrid")), device="cpu")


def _changed(vlm: Vlm, token: int, size: tuple[int, int]) -> torch.Tensor:
    """How much inverting the box of a token changes each token's state at layer 0, on its grid."""
    image = noise_image(*size)
    box = tuple(round(float(side)) for side in vlm.token_map(*size).boxes[token])
    changed = image.copy()
    changed.paste(ImageChops.invert(image.crop(box)), box[:2])
    before, after = (vlm.visual_states([one], [0]).states[0] for one in (image, changed))
    return (after - before).norm(dim=1).reshape(6, 6)


@contextmanager
def _without_attention(*towers: Any) -> Iterator[None]:
    def zeros(_module: object, _args: object, output: Any) -> Any:
        return (torch.zeros_like(output[0]), *output[1:])

    found = [module for tower in towers for module in tower.modules() if type(module).__name__.endswith("Attention")]
    hooks = [module.register_forward_hook(zeros) for module in found]
    yield
    for hook in hooks:
        hook.remove()


def test_the_convolutions_of_the_high_resolution_tower_reach_into_the_boxes_next_to_a_tokens_own(
    hybrid: Vlm,
) -> None:
    """So the check of boxes leaves them out: row 2, column 3 of a wide image is inverted, without attention."""
    model = hybrid.model.model
    with _without_attention(model.vision_model, model.high_res_vision_model):
        change = _changed(hybrid, 15, (150, 100))
    assert change.argmax() == 15
    assert (change[1:4, 2:5] > 0).all()  # that of the box itself, and all eight around it
    assert change[:, 0].max() == 0  # three columns away


def test_the_check_leaves_out_convolutions_whose_windows_overlap_and_not_those_that_cut_patches(hybrid: Vlm) -> None:
    found = _overlapping_convolutions(hybrid.model)
    assert {conv.kernel_size for conv in found} == {(3, 3)}
    assert len(found) == 4  # two of each neck: SAM's own, that of the global features; and the projection's
    for size in SIZES:
        assert localization(hybrid, noise_image(*size), per_view=None).figure == 1


def test_the_padding_of_both_resolutions_is_one_square(hybrid: Vlm) -> None:
    """An image of 3 : 1 fills two of six rows of tokens, from 2/6 to 4/6 of the square."""
    boxes = hybrid.token_map(240, 80).boxes
    assert boxes[0].tolist() == pytest.approx([0, -80, 40, -40], abs=1)
    assert boxes[-1].tolist() == pytest.approx([200, 120, 240, 160], abs=1)


def test_the_last_pixels_of_the_padded_square_are_in_no_box(tmp_path: Path) -> None:
    """A square of 72 pixels has four patches of 16 along a side, and 8 pixels more."""
    tiny_vlm("deepseek_vl", tmp_path)
    config, processor = (json.loads((tmp_path / name).read_text()) for name in FILES)
    config["vision_config"]["image_size"] = 72
    processor["image_processor"]["size"] = {"height": 72, "width": 72}
    for name, content in zip(FILES, (config, processor), strict=True):
        (tmp_path / name).write_text(json.dumps(content))
    vlm = load_vlm(tmp_path, device="cpu")
    assert vlm.token_map(144, 144).boxes[-1].tolist() == [96, 96, 128, 128]
    for size in SIZES:
        assert localization(vlm, noise_image(*size), per_view=None).figure == 1
