"""Where torchvision is installed, families with a part for videos are read through transformers' whole processor."""

import json
from pathlib import Path

import pytest
import torch
from transformers import ProcessorMixin
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.processors import for_images_only
from latentlens_dag.models.self_checks import check_model, noise_image
from latentlens_dag.testing import tiny_tokenizer, tiny_vlm
from tests.helpers.packages import need_torchvision

VIDEO = {
    "gemma4": "Gemma4VideoProcessor",
    "glm46v": "Glm46VVideoProcessor",
    "glm4v": "Glm4vVideoProcessor",
    "internvl": "InternVLVideoProcessor",
    "llava_next_video": "LlavaNextVideoVideoProcessor",
    "llava_onevision": "LlavaOnevisionVideoProcessor",
    "minicpmv4_6": "MiniCPMV4_6VideoProcessor",
    "minicpmv4_7": "MiniCPMV4_6VideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen2_vl": "Qwen2VLVideoProcessor",
    "qwen3_5": "Qwen3VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
    "qwen3_vl_moe": "Qwen3VLVideoProcessor",
    "video_llava": "VideoLlavaVideoProcessor",
}
"""Family -> its processor of videos, which tiny models leave out, since it cannot be made without torchvision."""


@pytest.mark.parametrize("family", VIDEO)
def test_the_whole_processor_shows_a_model_the_same_as_that_for_images_only(family: str, tmp_path: Path) -> None:
    need_torchvision("a processor of videos")
    for_images = load_vlm(tiny_vlm(family, tmp_path), device="cpu")
    path = tmp_path / "processor_config.json"
    config = json.loads(path.read_text())
    sounds = {"feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"}}
    videos = {"video_processor": {"video_processor_type": VIDEO[family]}}
    path.write_text(json.dumps(config | videos | (sounds if family == "gemma4" else {})))
    whole = load_vlm(tmp_path, device="cpu")
    assert type(whole.processor.video_processor).__name__ == VIDEO[family]
    assert for_images.processor.video_processor.size is None
    images = [noise_image(150, 100), noise_image(90, 140)]
    one, other = (vlm.visual_states(images, [0, 2]) for vlm in (for_images, whole))
    assert one.tokens.equals(other.tokens)
    assert all(torch.equal(one.states[layer], other.states[layer]) for layer in (0, 2))
    assert localization(whole, images[0], per_view=3).passed
    assert all(check.passed for check in check_model(whole).checks)


class _Unordered(ProcessorMixin):
    """A processor with its parts in an order of its own, one of which it reads when it is made."""

    def __init__(  # type: ignore[no-untyped-def]
        self, feature_extractor, video_processor, image_processor=None, tokenizer=None, chat_template=None, patch_size=1
    ) -> None:
        super().__init__(feature_extractor, video_processor, image_processor, tokenizer, chat_template=chat_template)
        self.slices, self.patch_size = self.video_processor.slice_mode, patch_size


def test_a_processor_for_images_only_is_saved_and_loaded_wherever_the_class_has_its_parts(tmp_path: Path) -> None:
    tokenizer, images = tiny_tokenizer(), CLIPImageProcessorPil()
    made = for_images_only(_Unordered)(None, None, images, tokenizer, chat_template="{{ 1 }}", patch_size=7)
    made.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    published = json.loads(path.read_text()) | {"video_processor": {"slice_mode": 3}}  # as a published file has it
    path.write_text(json.dumps(published))
    loaded = for_images_only(_Unordered).from_pretrained(tmp_path)
    for processor in (made, loaded):
        assert (processor.image_processor.size, processor.tokenizer.get_vocab()) == (images.size, tokenizer.get_vocab())
        assert (processor.chat_template, processor.patch_size) == ("{{ 1 }}", 7)
        assert processor.slices is None
        assert processor.feature_extractor.sampling_rate is None
    assert made.get_attributes() == ["image_processor", "tokenizer"]
