"""Where torchvision is installed, families with a part for videos are read through transformers' whole processor."""

import json
from pathlib import Path

import pytest
import torch

from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.self_checks import check_model, noise_image
from latentlens_dag.testing import tiny_vlm
from tests.helpers.packages import need_torchvision

VIDEO = {
    "glm46v": "Glm46VVideoProcessor",
    "glm4v": "Glm4vVideoProcessor",
    "internvl": "InternVLVideoProcessor",
    "llava_onevision": "LlavaOnevisionVideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen2_vl": "Qwen2VLVideoProcessor",
    "qwen3_5": "Qwen3VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
    "qwen3_vl_moe": "Qwen3VLVideoProcessor",
}
"""Family -> its processor of videos, which tiny models leave out, since it cannot be made without torchvision."""


@pytest.mark.parametrize("family", VIDEO)
def test_the_whole_processor_shows_a_model_the_same_as_that_for_images_only(family: str, tmp_path: Path) -> None:
    need_torchvision("a processor of videos")
    for_images = load_vlm(tiny_vlm(family, tmp_path), device="cpu")
    path = tmp_path / "processor_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"video_processor": {"video_processor_type": VIDEO[family]}}))
    whole = load_vlm(tmp_path, device="cpu")
    assert type(whole.processor.video_processor).__name__ == VIDEO[family]
    assert not hasattr(for_images.processor, "video_processor")
    images = [noise_image(150, 100), noise_image(90, 140)]
    one, other = (vlm.visual_states(images, [0, 2]) for vlm in (for_images, whole))
    assert one.tokens.equals(other.tokens)
    assert all(torch.equal(one.states[layer], other.states[layer]) for layer in (0, 2))
    assert localization(whole, images[0], per_view=3).passed
    assert all(check.passed for check in check_model(whole).checks)
