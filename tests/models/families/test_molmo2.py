"""Molmo2: its boxes are where its processor looks, and without torchvision it is refused in plain words."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from latentlens_dag.errors import UserError
from latentlens_dag.models.families import molmo2, registry
from latentlens_dag.models.families.registry import region_map
from latentlens_dag.models.inspection import inspect_model
from latentlens_dag.models.loading import load_language_model, load_vlm
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.testing import tiny_vlm
from tests.helpers.packages import need_packages_of


def _coordinates(width: int, height: int) -> torch.Tensor:
    """A picture whose pixels say where they are: x, y and 0."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)])


def _ends(coordinates: np.ndarray) -> tuple[float, float]:
    """Where a row of pixels begins and ends, by the places of their centres."""
    places = np.unique(coordinates.round(3))
    half = (places[-1] - places[0]) / (len(places) - 1) / 2
    return places[0] - half, places[-1] + half


@pytest.mark.parametrize("margins", [[4, 4], [3, 6], [0, 5]])
@pytest.mark.parametrize("size", [(150, 100), (90, 140), (378, 378), (1000, 400), (300, 112), (113, 900), (1500, 80)])
def test_boxes_and_tiles_are_those_of_the_patches_that_a_token_pools(size: tuple[int, int], margins: list[int]) -> None:
    """The other settings are the real ones. Every patch that is pooled is in one token."""
    need_packages_of("molmo2")
    from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor

    processor = Molmo2ImageProcessor(overlap_margins=margins)
    shown = processor([_coordinates(*size)], do_rescale=False, do_normalize=False, return_tensors="pt")
    patches = shown["pixel_values"].flatten(0, 1).unflatten(-1, (14 * 14, 3)).numpy()  # [crop and patch, pixel, x y 0]
    pooled = [window[window >= 0].numpy() for window in shown["image_token_pooling"]]
    assert len(np.unique(np.concatenate(pooled))) == sum(map(len, pooled))
    places = molmo2.region_map(SimpleNamespace(image_processor=processor), None, *size)
    assert places.tile.tolist() == [window[0] // 27**2 for window in pooled]
    ends = [[_ends(patches[window][..., axis]) for axis in (0, 1)] for window in pooled]
    expected = np.array(ends).transpose(0, 2, 1).reshape(-1, 4)
    assert np.abs(places.boxes - expected).max() < 0.6  # at the rim, pixels are not interpolated beyond the image


def test_rows_and_columns_are_those_of_each_grid_and_tokens_at_the_rim_may_be_halved() -> None:
    need_packages_of("molmo2")
    from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor

    places = molmo2.region_map(SimpleNamespace(image_processor=Molmo2ImageProcessor()), None, 540, 270)
    low, high = (np.array(places.view) == view for view in ("global", "tile"))
    for grid, (rows, columns), patches in ((low, (14, 14), (27, 27)), (high, (14, 23), (27, 46))):
        numbers = list(zip(places.row[grid], places.col[grid], strict=True))
        assert numbers == list(np.ndindex(rows, columns))
        widths = (places.boxes[grid][:columns, 2] - places.boxes[grid][:columns, 0]) * patches[1] / 540
        heights = (places.boxes[grid][::columns, 3] - places.boxes[grid][::columns, 1]) * patches[0] / 270
        assert np.allclose(widths, [2] * (columns - 1) + [2 - patches[1] % 2], atol=1e-3)
        assert np.allclose(heights, [2] * (rows - 1) + [1], atol=1e-3)
    assert set(places.tile[high]) == {1, 2}


def test_separators_of_rows_are_no_visual_tokens(tmp_path: Path) -> None:
    need_packages_of("molmo2")
    vlm = load_vlm(tiny_vlm("molmo2", tmp_path), device="cpu")
    inputs = vlm.inputs([noise_image(150, 100)])
    names = vlm.processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    tokens = vlm.visual_states([noise_image(150, 100)], [0]).tokens
    assert names.count("<im_col>") == len(set(tokens.select("view", "row").rows())) > 0
    assert len(tokens) == names.count("<im_patch>") < int(inputs["mm_token_type_ids"].sum())


def test_image_features_are_added_to_the_embedding_of_the_placeholder(tmp_path: Path) -> None:
    """So layer 0 is what enters the first block, not what the connector gives."""
    need_packages_of("molmo2")
    vlm = load_vlm(tiny_vlm("molmo2", tmp_path), device="cpu")
    inputs = vlm.inputs([noise_image(96, 96)])
    with torch.inference_mode():
        names = ("pixel_values", "image_token_pooling", "image_grids")
        (features,) = vlm.model.get_image_features(**{name: inputs[name] for name in names}).pooler_output
    placeholder = vlm.language_model.embedding.detach()[vlm.model.config.image_patch_id]
    assert float(placeholder.norm()) > 0.1
    assert torch.allclose(vlm.visual_states([noise_image(96, 96)], [0]).states[0], features + placeholder, atol=1e-5)


def test_a_checkpoint_in_the_words_of_its_makers_is_read_without_their_code(tmp_path: Path) -> None:
    """They call the vision tower `vit_config`, use other names in it, and point to code that comes with the weights."""
    need_packages_of("molmo2")
    before = load_vlm(tiny_vlm("molmo2", tmp_path), device="cpu").token_map(150, 100)
    config = json.loads((tmp_path / "config.json").read_text())
    tower, adapter = config.pop("vision_config"), config["adapter_config"]
    theirs = {"image_size": "image_default_input_size", "patch_size": "image_patch_size"}
    theirs["num_position_embeddings"] = "image_num_pos"
    config["vit_config"] = {theirs.get(name, name): value for name, value in tower.items()}
    adapter["vit_layers"] = adapter.pop("vision_feature_layer")
    code = {"AutoConfig": "configuration_molmo2.Molmo2Config"}
    config["auto_map"] = code | {"AutoModelForImageTextToText": "modeling_molmo2.Molmo2ForConditionalGeneration"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (load_vlm(tmp_path, device="cpu").token_map(150, 100).boxes == before.boxes).all()
    assert load_language_model(tmp_path, device="cpu").depth == 3
    assert inspect_model(tmp_path, localize=False).size.model_type == "molmo2"


BLOCK = "import sys; sys.modules['torchvision'] = None; "


@pytest.fixture
def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with nothing but what a config.json begins with."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "molmo2", "vit_config": {}}')
    return tmp_path / "model"


@pytest.mark.usefixtures("without_torchvision")
def test_without_torchvision_every_way_in_says_what_to_install(bare: Path) -> None:
    message = "of the family `molmo2`, whose image processor needs torchvision: pip install torchvision"
    for way in (load_vlm, inspect_model, lambda folder: tiny_vlm("molmo2", folder)):
        with pytest.raises(UserError, match=message):
            way(bare)
    with pytest.raises(UserError, match=f"allenai/x is {message}"):
        region_map("molmo2", "allenai/x")
    assert region_map("llava", "any") is not None


def test_a_torchvision_of_another_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(registry, "import_module", broken)
    with pytest.raises(UserError, match=r"belongs to your torch.*\(operator torchvision::nms does not exist\)"):
        registry.check_packages("molmo2", "x")


def test_inspect_model_exits_with_2_and_one_message_without_torchvision(bare: Path) -> None:
    command = f"{BLOCK}from latentlens_dag.cli.main import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", command, "inspect-model", str(bare)], capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert "pip install torchvision" in run.stderr
    assert "Traceback" not in run.stderr
