"""Pictures of any mode, and settings of processors that do not fit: read right, or refused with the reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentlens_dag.errors import UserError
from latentlens_dag.inputs.images import open_image
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_vlm

FAMILIES = ("deepseek_vl", "janus", "llava", "qwen2_vl", "gemma3")


@pytest.fixture(scope="module")
def vlms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Vlm]:
    folder = tmp_path_factory.mktemp("models")
    return {name: load_vlm(tiny_vlm(name, folder / name)) for name in FAMILIES}


def picture(mode: str) -> Image.Image:
    colors = np.random.default_rng(0).integers(256, size=(60, 90, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(np.linspace(0, 65535, 5400).reshape(60, 90).astype(np.uint16))
    image = Image.fromarray(colors, "RGBA")
    return image.convert("RGB").convert(mode) if mode not in ("RGBA", "LA") else image.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_of_any_mode_is_read_as_its_file_is(
    vlms: dict[str, Vlm], family: str, mode: str, tmp_path: Path
) -> None:
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture(mode).save(file)
    with Image.open(file) as opened:
        states = [vlms[family].visual_states([image], [0]).states[0] for image in (opened, open_image(file))]
    assert (states[0] == states[1]).all()


def test_a_picture_without_a_known_white_is_refused(vlms: dict[str, Vlm]) -> None:
    with pytest.raises(UserError, match="32 bits per pixel"):
        vlms["llava"].visual_states([Image.new("F", (60, 60))], [0])


def changed(vlm: Vlm, folder: Path, part: Any, **settings: Any) -> Vlm:
    for name, value in settings.items():
        setattr(part, name, value)
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return load_vlm(folder)


def test_settings_that_no_image_fits_are_blamed_not_the_image(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("idefics3", tmp_path / "m"))
    vlm.processor.image_processor.max_image_size = {"longest_edge": 0}
    with pytest.raises(UserError, match="nor any other: settings of its processor"):
        vlm.visual_states([Image.new("RGB", (150, 100))], [0])


def test_an_image_that_is_too_narrow_is_blamed_without_the_words_of_an_inner_error(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("pixtral", tmp_path / "m"))
    with pytest.raises(UserError, match="too narrow or too small") as refused:
        vlm.visual_states([Image.new("RGB", (1, 2000))], [0])
    assert "division by zero" not in str(refused.value)


def test_a_wrong_id_of_the_image_token_is_named_as_the_cause(tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("qwen2_vl", tmp_path / "m"))
    vlm.model.config.image_token_id = 4
    wrong = changed(vlm, tmp_path / "n", vlm.processor)
    with pytest.raises(UserError, match="the processor writes no token that the model takes for an image"):
        wrong.visual_states([Image.new("RGB", (150, 100))], [0])


@pytest.mark.parametrize(
    "message",
    [
        "Image features and image tokens do not match, tokens: 9, features: 4",
        "Multimodal features and tokens do not match, tokens: 9, features: 4",
        "Placeholder tokens (9) and features (4) do not match for token id 3",
    ],
)
def test_every_wording_of_a_mismatch_is_a_users_mistake(
    vlms: dict[str, Vlm], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(*_: object, **__: object) -> None:
        raise ValueError(message)

    monkeypatch.setattr(vlms["llava"].model, "forward", forward)
    with pytest.raises(UserError, match="and its processor do not match"):
        vlms["llava"].visual_states([Image.new("RGB", (90, 60))], [0])


def test_a_map_that_knows_another_number_of_tokens_is_a_users_mistake(
    vlms: dict[str, Vlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = vlms["gemma3"]
    whole = vlm.token_maps([(90, 60)])
    assert whole is not None
    shorter = [type(whole[0])(*(part[1:] for part in whole[0]))]
    monkeypatch.setattr(Vlm, "token_maps", lambda self, sizes: shorter)
    with pytest.raises(UserError, match="a setting that the map does not know"):
        vlm.visual_states([Image.new("RGB", (90, 60))], [0])
