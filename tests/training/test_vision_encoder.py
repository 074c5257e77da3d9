"""What a vision encoder gives for the patches of images, and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from latentlens_dag.errors import UserError
from latentlens_dag.training.vision_encoder import load_vision_encoder, pooled
from tests.training.parts import ENCODERS, encoder, pictures, save_encoder

ROWS_BEFORE = {"clip": 1, "clip with its text model": 1, "siglip": 0, "vit": 1, "dinov2": 1, "dinov2 with registers": 5}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_features_are_the_rows_of_the_patches_of_the_layer(name: str, layer: int, tmp_path: Path) -> None:
    vision, (images, _) = encoder(name, tmp_path, layer), pictures(3)
    with torch.inference_mode():
        states = vision.model(pixel_values=vision.pixels(images), output_hidden_states=True).hidden_states
    assert torch.equal(vision.features(images), states[layer][:, ROWS_BEFORE[name] :].bfloat16())
    assert (vision.grid, vision.tokens, vision.hidden) == ((4, 4), 16, 16)


def test_pooled_rows_are_the_means_of_squares_of_patches(tmp_path: Path) -> None:
    rows = torch.randn(2, 36, 5)
    squares = rows.reshape(2, 6, 6, 5)
    for pool in (2, 3, 6):
        slow = [
            squares[:, y : y + pool, x : x + pool].mean((1, 2)) for y in range(0, 6, pool) for x in range(0, 6, pool)
        ]
        assert torch.allclose(pooled(rows, pool), torch.stack(slow, 1), atol=1e-6)
    assert pooled(rows, 1) is rows
    vision = encoder("clip", tmp_path, pool=2)
    assert vision.features(pictures(2)[0]).shape == (2, vision.tokens, 16) == (2, 4, 16)


def _settings(name: str, **values: Any) -> Any:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def _without_a_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights.pop(sorted(weights)[3])
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("options", "change", "told"),
    [
        ({"pool": 3}, None, r"`pool: 3` does not fit .*/model, which has 4 x 4 patches: it must divide 4"),
        ({"pool": 0}, None, "`pool: 0` does not fit"),
        ({"layer": 9}, None, "`layer: 9` of .* does not exist: it has 3 hidden states, 0 to 2"),
        ({"layer": -4}, None, "`layer: -4`"),
        ({}, _settings("preprocessor_config.json", crop_size={"height": 24, "width": 24}), "takes images of 32 pixels"),
        ({}, _without_a_weight, "its files lack 1 weights of a CLIPVisionModel"),
    ],
)
def test_what_does_not_fit_an_encoder_is_told(options: dict[str, int], change: Any, told: str, tmp_path: Path) -> None:
    folder = save_encoder("clip", tmp_path / "model")
    if change is not None:
        change(folder)
    with pytest.raises(UserError, match=told):
        load_vision_encoder(folder, **options)


def test_an_encoder_without_a_grid_of_patches_is_refused(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    transformers.ResNetModel(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    with pytest.raises(UserError, match=r"cannot be used as vision encoder: its config\.json gives no `image_size`"):
        load_vision_encoder(tmp_path)
