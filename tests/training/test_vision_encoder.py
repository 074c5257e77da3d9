"""What a vision encoder gives for the patches of images, and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentlens_dag.errors import UserError
from latentlens_dag.models.vision_grid import pooled
from latentlens_dag.training.vision_encoder import load_vision_encoder, vision_tower
from tests.training.parts import encoder, pictures, save_encoder

ROWS_BEFORE = {
    "clip": 1,
    "clip with its text model": 1,
    "siglip": 0,
    "vit": 1,
    "dinov2": 1,
    "dinov2 with registers": 5,
    "siglip whose patches leave pixels over": 0,
    "dinov2 of a larger image": 1,
}
"""The last two are like published ones: SigLIP has patches of 14 of 384 pixels, DINOv2's processor makes 224 of 518."""


@pytest.mark.parametrize("name", ROWS_BEFORE)
@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_features_are_the_rows_of_the_patches_of_the_layer(name: str, layer: int, tmp_path: Path) -> None:
    vision, (images, _) = encoder(name, tmp_path, layer), pictures(3)
    with torch.inference_mode():
        states = vision.model(pixel_values=vision.pixels(images), output_hidden_states=True).hidden_states
    assert torch.equal(vision.features(images), states[layer][:, ROWS_BEFORE[name] :].bfloat16())
    assert (vision.grid, vision.tokens, vision.hidden) == ((4, 4), 16, 16)


@pytest.mark.parametrize(
    ("name", "layer", "side"),
    [("swin", -1, 4), ("swin", 0, 8), ("resnet", -1, 4), ("resnet", 1, 8), ("convnext", -1, 4), ("convnext", 0, 8)],
)
@pytest.mark.parametrize("pool", [1, 2, 4])
def test_features_of_an_encoder_that_merges_patches_are_the_places_of_its_map_row_by_row(
    name: str, layer: int, side: int, pool: int, tmp_path: Path
) -> None:
    vision, (images, _) = encoder(name, tmp_path, layer, pool), pictures(3)
    with torch.inference_mode():
        states = vision.model(pixel_values=vision.pixels(images), output_hidden_states=True).hidden_states[layer]
    places = states.reshape(3, side, side, -1) if name == "swin" else states.permute(0, 2, 3, 1)
    cells = side // pool
    slow = [
        places[:, row * pool : row * pool + pool, column * pool : column * pool + pool].mean((1, 2))
        for row in range(cells)
        for column in range(cells)
    ]
    assert vision.grid == (cells, cells)
    assert torch.allclose(vision.features(images).float(), torch.stack(slow, 1), atol=0.02, rtol=2**-7)


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
        (
            {},
            _settings("preprocessor_config.json", crop_size={"height": 24, "width": 24}),
            "takes images of 32 x 32 pixels, but its image processor makes them 24 x 24",
        ),
        ({}, _without_a_weight, "its files lack 1 weights of a CLIPVisionModel"),
    ],
)
def test_what_does_not_fit_an_encoder_is_told(options: dict[str, int], change: Any, told: str, tmp_path: Path) -> None:
    folder = save_encoder("clip", tmp_path / "model")
    if change is not None:
        change(folder)
    with pytest.raises(UserError, match=told):
        load_vision_encoder(folder, **options)


@pytest.mark.parametrize(("pool", "grid", "token"), [(1, 4, 8), (2, 2, 16), (4, 1, 32)])
def test_an_image_need_not_be_whole_patches_as_384_pixels_are_not_of_14(
    pool: int, grid: int, token: int, tmp_path: Path
) -> None:
    folder = save_encoder("siglip", tmp_path / "model")
    _settings("config.json", image_size=34)(folder)
    _settings("preprocessor_config.json", size={"height": 34, "width": 34})(folder)
    vision = load_vision_encoder(folder, pool=pool)
    assert (vision.grid, vision.patch_size, vision_tower(vision).patch_size) == ((grid, grid), 8, token)
    assert vision.features(pictures(2)[0]).shape == (2, grid * grid, 16)


@pytest.mark.parametrize("name", ["clip", "siglip", "vit"])
def test_an_encoder_that_takes_one_size_alone_is_refused_with_a_processor_of_another(name: str, tmp_path: Path) -> None:
    folder, side = save_encoder(name, tmp_path / "model"), {"height": 24, "width": 24}
    _settings("preprocessor_config.json", **({"crop_size": side} if name == "clip" else {"size": side}))(folder)
    with pytest.raises(UserError, match="takes images of 32 x 32 pixels, but its image processor makes them 24 x 24"):
        load_vision_encoder(folder)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ({"height": 24, "width": 32}, "its image processor makes them 32 x 24"),
        (30, "no row per patch of a square grid"),
    ],
)
def test_an_encoder_without_a_square_grid_is_refused(size: Any, told: str, tmp_path: Path) -> None:
    folder = save_encoder("resnet", tmp_path / "model")
    _settings("preprocessor_config.json", size=size)(folder)
    with pytest.raises(UserError, match=told):
        load_vision_encoder(folder)
