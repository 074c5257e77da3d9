"""Families that are read without boxes: their states are those of the definition, and it is said why there are none."""

from pathlib import Path

import pytest
import torch

from latentlens_dag.models.families import registry
from latentlens_dag.models.inspection import inspect_model
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.self_checks import check_model, noise_image
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_vlm
from latentlens_dag.testing.unmapped_families import UNMAPPED_BUILDERS

SIZES = [(150, 100), (90, 140), (96, 96)]


@pytest.fixture(scope="module", params=UNMAPPED_BUILDERS)
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vlm:
    return load_vlm(tiny_vlm(request.param, tmp_path_factory.mktemp(request.param)), device="cpu")


def test_states_are_the_residual_stream_and_layer_0_is_the_connectors_output(vlm: Vlm) -> None:
    for size in SIZES:
        inputs = vlm.inputs([noise_image(*size)])
        here = inputs["input_ids"][0] == vlm.model.config.image_token_id
        with torch.inference_mode():
            slow = vlm.model(**inputs, output_hidden_states=True).hidden_states
        seen = vlm.visual_states([noise_image(*size)], [0, 1, 2], connector=True)
        for layer in (0, 1, 2):
            assert torch.allclose(seen.states[layer], slow[layer][0, here], atol=1e-5, rtol=1e-5)
        assert torch.allclose(seen.connector, seen.states[0], atol=1e-5)
        assert set(seen.tokens["view"]) == {"unmapped"}


def test_a_batch_of_images_has_the_states_of_each_alone(vlm: Vlm) -> None:
    images = [noise_image(*size) for size in SIZES]
    alone = torch.cat([vlm.visual_states([image], [2]).states[2] for image in images])
    assert torch.allclose(vlm.visual_states(images, [2]).states[2], alone, atol=1e-4)


def test_every_check_passes_but_for_boxes_of_which_it_is_said_why_there_are_none(vlm: Vlm) -> None:
    *checks, boxes = check_model(vlm).checks
    assert all(check.passed for check in checks)
    assert registry.why_unmapped(vlm.model.config.model_type) in str(boxes.not_checked)


def test_inspecting_one_says_why_it_has_no_boxes(tmp_path: Path) -> None:
    family = next(iter(UNMAPPED_BUILDERS))
    found = inspect_model(tiny_vlm(family, tmp_path))
    assert str(found.not_checked).endswith(f"since {registry.why_unmapped(family)}")


def test_got_ocr2_has_the_prompt_that_its_processor_writes(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("got_ocr2", tmp_path), device="cpu")
    written = vlm.processor(images=[noise_image(96, 96)], return_tensors="pt")["input_ids"]
    assert torch.equal(vlm.inputs([noise_image(96, 96)], " OCR: ")["input_ids"], written)


def test_a_token_of_got_ocr2_sees_more_than_its_cell_of_the_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without attention in the vision tower, so that no other way is left than the convolutions."""
    vlm = load_vlm(tiny_vlm("got_ocr2", tmp_path), device="cpu")
    for module in vlm.model.modules():
        if type(module).__name__.endswith("VisionAttention"):
            module.register_forward_hook(lambda _module, _args, output: (torch.zeros_like(output[0]), None))
    image = noise_image(128, 128)
    changed = image.copy()
    changed.paste((0, 0, 0), (8 * 5, 8 * 7, 8 * 6, 8 * 8))  # the cell in row 7 and column 5
    one, other = (vlm.visual_states([image], [0]).states[0] for image in (image, changed))
    assert sorted((one - other).norm(dim=1).gt(1e-3).nonzero()[:, 0].tolist()) == [
        16 * row + column for row in (6, 7, 8) for column in (4, 5, 6)
    ]


def test_no_family_is_both_mapped_and_without_boxes() -> None:
    assert not registry._MODULES.keys() & registry._UNMAPPED.keys()
    assert not registry._REFUSED.keys() & registry._UNMAPPED.keys()
    assert UNMAPPED_BUILDERS.keys() <= registry._UNMAPPED.keys()
