"""Pixtral and Mistral 3: a folder without processor_config.json is read by the sizes in its config.json."""

import json
from pathlib import Path

import pytest
import torch

from latentlens_dag.models.loading import load_vlm
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
