"""LLaVA: each step of its own image processor left out, the CLS token, and images that look like channels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from latentlens_dag.errors import UserError
from latentlens_dag.inputs.images import open_image
from latentlens_dag.models.families.llava import _crop_box
from latentlens_dag.models.loading import load_vlm
from latentlens_dag.models.localization import localization
from latentlens_dag.models.self_checks import noise_image
from latentlens_dag.models.vlm import Vlm
from latentlens_dag.testing import tiny_llava, tiny_vlm

SIZES = [(150, 100), (90, 140), (96, 96), (151, 98)]
SQUARE = {"height": 64, "width": 64}
SETTINGS: dict[str, dict[str, Any]] = {
    "padded": {"do_pad": True, "size": {"shortest_edge": 64}},
    "padded, then cropped": {"do_pad": True, "size": {"shortest_edge": 80}},
    "padded, not cropped": {"do_pad": True, "size": SQUARE, "do_center_crop": False},
    "padded, not resized": {"do_pad": True, "do_resize": False},
    "not padded": {"size": {"shortest_edge": 64}},
    "not resized": {"do_resize": False},
    "not cropped": {"size": SQUARE, "do_center_crop": False},
    "squashed, then cropped": {"size": {"height": 70, "width": 90}},
}


def _llava(folder: Path, **settings: Any) -> Vlm:
    """A tiny LLaVA of 4 x 4 visual tokens with LLaVA's own image processor, loaded from its folder."""
    processor = AutoProcessor.from_pretrained(tiny_llava(folder, image_size=64))
    processor.image_processor = LlavaImageProcessorPil(crop_size=SQUARE, **settings)
    processor.save_pretrained(folder)
    vlm = load_vlm(folder, device="cpu")
    assert type(vlm.processor.image_processor) is LlavaImageProcessorPil
    return vlm


@pytest.mark.parametrize("name", SETTINGS)
def test_every_token_sees_exactly_its_box_whatever_the_image_processor_does(name: str, tmp_path: Path) -> None:
    vlm = _llava(tmp_path, **SETTINGS[name])
    for size in SIZES:
        check = localization(vlm, noise_image(*size), per_view=None)
        assert (check.passed, check.figure) == (True, 1.0)
        assert len(vlm.visual_states([noise_image(*size)], [0]).tokens) == 16


def test_the_boxes_of_a_padded_image_cover_the_square_around_it(tmp_path: Path) -> None:
    vlm = _llava(tmp_path, do_pad=True, size={"shortest_edge": 64})
    wide, high = vlm.token_map(160, 80).boxes, vlm.token_map(80, 160).boxes
    assert wide[0].tolist() == [0, -40, 40, 0]
    assert wide[-1].tolist() == [120, 80, 160, 120]
    assert high.reshape(4, 4, 4)[..., [1, 0, 3, 2]].transpose(1, 0, 2).tolist() == wide.reshape(4, 4, 4).tolist()


def test_an_image_smaller_than_the_crop_is_padded_to_it(tmp_path: Path) -> None:
    boxes = _llava(tmp_path, do_resize=False).token_map(40, 30).boxes
    assert boxes[0].tolist() == [-12, -17, 4, -1]
    assert boxes[-1].tolist() == [36, 31, 52, 47]


@given(
    width=st.integers(20, 250),
    height=st.integers(20, 250),
    edge=st.integers(16, 200),
    crop=st.integers(8, 250),
    padded=st.booleans(),
)
def test_the_box_of_the_crop_is_where_the_processor_takes_its_pixels_from(
    width: int, height: int, edge: int, crop: int, padded: bool
) -> None:
    """By a picture of which each pixel says its column and row, and that it is none of the padding."""
    sides = {"height": crop, "width": crop}
    steps = {"do_rescale": False, "do_normalize": False, "do_convert_rgb": False, "image_mean": [0, 0, 0]}
    processor = LlavaImageProcessorPil(
        do_pad=padded, size={"shortest_edge": edge}, crop_size=sides, resample=Image.Resampling.NEAREST, **steps
    )
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    picture = np.stack([columns, rows, np.ones_like(rows)])
    column, row, is_image = processor(picture, input_data_format="channels_first")["pixel_values"][0]
    left, top, across, down = _crop_box(processor, width, height)
    expected_row, expected_column = (
        start + (index + 0.5) * length / crop - 0.5
        for start, length, index in zip((top, left), (down, across), np.mgrid[:crop, :crop], strict=True)
    )
    near = 0.51 + np.array([across, down]) / crop / 2  # nearest pixels, of images of whole pixels
    shown = is_image == 1
    assert (np.abs(column - expected_column)[shown] <= near[0] + 1).all()
    assert (np.abs(row - expected_row)[shown] <= near[1] + 1).all()
    inside = (expected_column > near[0] + 1) & (expected_column < width - 2 - near[0])
    inside &= (expected_row > near[1] + 1) & (expected_row < height - 2 - near[1])
    assert (shown >= inside).all()


def test_another_size_than_those_of_llava_is_refused(tmp_path: Path) -> None:
    vlm = _llava(tmp_path)
    vlm.processor.image_processor.size = {"longest_edge": 64}
    with pytest.raises(UserError, match=r"'longest_edge': 64.* not supported for LLaVA: it needs shortest_edge"):
        vlm.token_map(150, 100)


@pytest.mark.parametrize("family", ["llava", "video_llava"])
def test_a_cls_token_that_is_not_left_out_comes_first_and_has_no_place(family: str, tmp_path: Path) -> None:
    tiny_vlm(family, tmp_path)
    for name in ("config.json", "processor_config.json"):
        settings = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps(settings | {"vision_feature_select_strategy": "full"}))
    vlm = load_vlm(tmp_path, device="cpu")
    for size in SIZES:
        check = localization(vlm, noise_image(*size), per_view=None)
        assert (check.passed, check.figure) == (True, 1.0)
        tokens = vlm.visual_states([noise_image(*size)], [0]).tokens
        assert tokens["view"].to_list() == ["separator"] + ["global"] * (len(tokens) - 1)
        assert tokens.select("tile", "row", "col", "x0", "y0", "x1", "y1").row(0) == (None,) * 7


@pytest.mark.parametrize("height", [1, 3])
def test_video_llava_refuses_an_image_whose_rows_its_processor_takes_for_channels(height: int, tmp_path: Path) -> None:
    vlm = load_vlm(tiny_vlm("video_llava", tmp_path), device="cpu")
    with pytest.raises(UserError, match=f"40 x {height} pixels.*takes the rows .* for channels"):
        vlm.visual_states([noise_image(40, height)], [0])
    for size in [(height, 40), (40, 2), (40, 4)]:
        assert len(vlm.visual_states([noise_image(*size)], [0]).tokens) == 16


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_a_photo_is_read_as_a_viewer_shows_it_alone_and_beside_others(
    llava: Vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int
) -> None:
    sizes, maps = [], Vlm.token_maps
    monkeypatch.setattr(Vlm, "token_maps", lambda self, asked: sizes.extend(asked) or maps(self, asked))
    stored = noise_image(90, 60)
    exif = stored.getexif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    shown = open_image(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as photo:
        assert photo.tobytes() != shown.tobytes()
        for found, expected in (([photo], [shown]), ([[photo, shown]], [[shown, shown]])):
            seen, as_shown = llava.visual_states(found, [1]), llava.visual_states(expected, [1])
            assert torch.equal(seen.states[1], as_shown.states[1])
            assert seen.tokens.equals(as_shown.tokens)
            assert set(sizes) == {shown.size}
        in_passes = llava.states_in_passes([[photo]], [1])
        assert in_passes.tokens.equals(llava.visual_states([shown], [1]).tokens)
        assert torch.equal(llava.inputs([photo])["pixel_values"], llava.inputs([shown])["pixel_values"])
