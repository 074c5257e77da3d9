"""Pixtral and Mistral 3: files without processor_config.json, images that are not resized, images of one cell."""

import json
from pathlib import Path

import pytest
import torch

from latentlens_dag.errors import UserError
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.self_checks import check_model, noise_image
from latentlens_dag.testing import tiny_vlm


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("family", ["pixtral", "mistral3"])
def test_without_its_processor_config_a_folder_is_read_as_with_it(tmp_path: Path, family: str, named: bool) -> None:
    before = load_vlm(tiny_vlm(family, tmp_path), device="cpu")
    file, tokenizer = tmp_path / "processor_config.json", tmp_path / "tokenizer_config.json"
    settings = json.loads(file.read_text())["image_processor"]
    file.unlink()
    if not named:  # neither file says which processor it belongs to
        tokenizer.write_text(
            json.dumps({k: v for k, v in json.loads(tokenizer.read_text()).items() if k[:9] != "processor"})
        )
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(settings | ({"processor_class": "PixtralProcessor"} if named else {}))
    )
    after = load_vlm(tmp_path, device="cpu")
    for name in ("patch_size", "spatial_merge_size", "chat_template"):
        assert getattr(after.processor, name) == getattr(before.processor, name)
    images = [noise_image(150, 100), noise_image(90, 140)]
    one, other = (vlm.visual_states(images, [0, 2]) for vlm in (before, after))
    assert one.tokens.equals(other.tokens)
    assert all(torch.equal(one.states[layer], other.states[layer]) for layer in (0, 2))
    assert all(check.passed for check in check_model(after).checks)


@pytest.mark.parametrize("family", ["lighton_ocr", "mistral3", "pixtral"])
def test_without_resizing_the_cells_are_the_whole_ones_of_the_image_itself(tmp_path: Path, family: str) -> None:
    tiny_vlm(family, tmp_path)
    file = tmp_path / "processor_config.json"
    settings = json.loads(file.read_text())
    settings["image_processor"]["do_resize"] = False
    file.write_text(json.dumps(settings))
    vlm = load_vlm(tmp_path, device="cpu")
    cell = vlm.processor.patch_size * vlm.processor.spatial_merge_size
    for size in [(150, 100), (90, 140), (96, 96)]:
        check = localization(vlm, noise_image(*size), per_view=None)
        assert (check.passed, check.figure) == (True, 1.0)
        tokens = vlm.visual_states([noise_image(*size)], [0]).tokens
        assert (tokens["x1"].max(), tokens["y1"].max()) == tuple(side // cell * cell for side in size)


@pytest.mark.parametrize("family", ["mistral3", "mistral_large4"])
def test_an_image_of_one_cell_is_refused_alone_and_read_beside_another(tmp_path: Path, family: str) -> None:
    vlm = load_vlm(tiny_vlm(family, tmp_path), device="cpu")
    with pytest.raises(UserError, match=r"10 x 10 pixels.*single visual token, but its model needs at least 2"):
        vlm.visual_states([noise_image(10, 10)], [0])
    tokens = vlm.visual_states([[noise_image(10, 10), noise_image(10, 10)]], [0]).tokens
    assert tokens.select("image_in_prompt", "x1", "y1").rows() == [(0, 10, 10), (1, 10, 10)]
