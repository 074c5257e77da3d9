"""A model whose settings do not fit its pictures, or whose chat template fails, is reported by name and setting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from latentlens_dag.errors import UserError
from latentlens_dag.models.loading import load_language_model, load_vlm
from latentlens_dag.testing import tiny_llava
from latentlens_dag.testing.projects import tiny_families, tiny_vlm

SUITE = ["gemma3", "paligemma"]
SOAK = ["gemma4", "kimi_k25", "muse_glimmer", "minicpmv", "janus", "deepseek_vl", "llava", "qwen2_vl", "pixtral"]
FAMILIES = [name for name in SUITE if name in tiny_families()]
FAMILIES += [pytest.param(name, marks=pytest.mark.soak) for name in SOAK if name in tiny_families()]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("setting", ["do_resize", "do_pad", "do_rescale", "do_convert_rgb"])
def test_a_picture_that_the_settings_do_not_fit_is_reported_with_model_size_and_setting(
    tmp_path: Path, family: str, setting: str
) -> None:
    vlm = load_vlm(tiny_vlm(family, tmp_path / family), device="cpu")
    setattr(vlm.processor.image_processor, setting, False)
    try:
        vlm.visual_states([Image.new("RGB", (67, 45)), Image.new("RGB", (200, 31))], [0])
    except UserError as error:
        message = str(error)
        assert family in message or setting in message
        assert "pixels" in message or "match" in message


def test_the_setting_that_is_off_and_the_size_are_named(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("gemma3", tmp_path / "gemma3"), device="cpu")
    vlm.processor.image_processor.do_resize = False
    with pytest.raises(UserError, match=r"gemma3 fails on an image of 67 x 45 pixels .*`do_resize: false`"):
        vlm.visual_states([Image.new("RGB", (67, 45))], [0])


def test_an_error_of_the_device_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    vlm = load_vlm(tiny_llava(tmp_path / "model"), device="cpu")

    def fail(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("device-side assert")

    monkeypatch.setattr(type(vlm.model), "forward", fail)
    with pytest.raises(torch.AcceleratorError):
        vlm.visual_states([Image.new("RGB", (40, 30))], [0])


def test_a_vlm_without_a_chat_template_is_refused_when_it_is_loaded_but_not_for_its_language_model(
    tmp_path: Path,
) -> None:
    folder = tiny_llava(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"has no chat template.*chat_template\.jinja"):
        load_vlm(folder, device="cpu")
    assert load_language_model(folder, device="cpu").depth


@pytest.mark.parametrize("text", ["{% for x in %}", "{{ nothing.x.y }}", "{{ 1 // 0 }}"])
def test_a_chat_template_that_fails_is_named(tmp_path: Path, text: str) -> None:
    folder = tiny_llava(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(text)
    with pytest.raises(UserError, match=r"its chat template fails \("):
        load_vlm(folder, device="cpu").visual_states([Image.new("RGB", (40, 30))], [0])


def _config(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: (folder / "config.json").write_text("[" * 100_000), id="nested too deep"),
        pytest.param(lambda folder: (folder / "tokenizer_config.json").write_text("{"), id="no JSON"),
        pytest.param(_config(auto_map=["x"]), id="a list of classes"),
        pytest.param(_config(text_config=[1]), id="a list of settings"),
        pytest.param(_config(vision_config={"hidden_size": "8"}), id="a text for a number"),
        pytest.param(_config(vision_config={"num_attention_heads": 0}), id="no heads"),
        pytest.param(_config(image_token_index={}), id="an object for a token"),
    ],
)
def test_a_checkpoint_with_settings_of_wrong_types_is_refused_by_name(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    folder = tiny_llava(tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match="model"):
        load_vlm(folder, device="cpu").visual_states([Image.new("RGB", (40, 30))], [0])


@pytest.mark.parametrize("shard", ["../other/model.safetensors", "/etc/passwd", "", "a/b.safetensors"])
def test_a_list_of_shards_that_leads_out_of_the_folder_is_refused(tmp_path: Path, shard: str) -> None:
    folder = tiny_llava(tmp_path / "model")
    shutil.move(folder / "model.safetensors", tmp_path / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(UserError, match="is no name of a file beside it"):
        load_vlm(folder, device="cpu")
