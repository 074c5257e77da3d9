"""What the pages ask, and how text and boxes are made ready to draw."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from click.testing import CliRunner

from latentlens_dag.browse.browser_data import open_browser_data, parse_words
from latentlens_dag.browse.layout import shown_regions, token_views
from latentlens_dag.cli.browse import browse, pages_folder
from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.errors import UserError
from latentlens_dag.schema import REGIONS
from latentlens_dag.study.patch_truth import patch_truth
from latentlens_dag.text.display import clip, excerpt, printable
from tests.helpers.small_dataset import AWKWARD, SIDE, image_id, region, write_warehouse


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    house = write_warehouse(root / "warehouse")
    write_catalog(house, "one", house.catalog("one"))
    return root


def test_a_study_with_a_catalog_is_read_from_it_and_answers_as_the_files_do(home: Path) -> None:
    library = open_browser_data(home)
    assert set(library.catalogs) == {"one"} and set(library.studies()) == {"one", AWKWARD}
    asked: dict[str, Any] = {"image_id": image_id("dog"), "layer": 8, "study": "one"}
    found = library.collect("one", "patches", image_id=image_id("dog"), layer=8)
    assert found.equals(library.full_dataset.collect("patches", **asked))
    assert found["word"].to_list() == ["dog", *["grass"] * 4]
    assert found["verdict"][0] == "concrete" and found["x0"].to_list()[-1] is None


def test_a_catalog_that_cannot_be_read_leaves_its_study_to_the_files(home: Path, tmp_path: Path) -> None:
    house = write_warehouse(tmp_path / "warehouse")
    house.catalog("one").write_bytes(b"cut short")
    assert not open_browser_data(tmp_path).catalogs
    assert open_browser_data(tmp_path).studies() == open_browser_data(home).studies()


def test_images_are_found_by_word_verdict_and_similarity_most_patches_first(home: Path) -> None:
    library = open_browser_data(home)
    ask = lambda **asked: library.collect("one", "find_images", layer=8, **asked).select("image_id", "patches").rows()  # noqa: E731
    assert ask(words="Dog , cat") == [(image_id("cat"), 1), (image_id("dog"), 1)]
    assert [patches for _, patches in ask(verdict="concrete")] == [4, 4, 4, 4]
    assert ask(similarity=0.95) == []


def test_the_boxes_of_a_word_are_those_of_its_patches(home: Path) -> None:
    found = open_browser_data(home).collect("one", "where_words", words="dog", layer=8).to_dicts()
    assert [(row["image_id"], row["token_indices"], row["boxes"]) for row in found] == [
        (image_id("dog"), [0], [[0.0, 0.0, 16.0, 16.0]])
    ]


def test_a_sentence_is_cut_at_its_characters_and_a_wrong_span_marks_nothing() -> None:
    assert excerpt("Ein 🐕 bellt.", 4, 5) == ("Ein ", "🐕", " bellt.")
    assert excerpt("short", 3, 99) == ("short", "", "")
    long = excerpt("a" * 1000 + "word" + "b" * 1000, 1000, 1004)
    assert long.word == "word" and len(long.before) == len(long.after) == 161


def test_what_would_steer_the_screen_is_shown_as_a_sign() -> None:
    assert printable("a\x07b\n\u202ec\x7f") == "a␇b␊\ufffdc\ufffd"
    assert printable("שלום 👩‍👩‍👧 é") == "שלום 👩‍👩‍👧 é"
    assert clip("x" * 10_000, 40) == "x" * 39 + "…" and clip(None, 5) == ""


def test_words_are_read_as_people_type_them() -> None:
    assert parse_words(" Dog,, cat ,dog") == "dog,cat"
    assert parse_words(" , ") is None


def _token(index: int, view: str, tile: int, box: tuple[float, ...] | None) -> dict[str, Any]:
    sides = dict(zip(("x0", "y0", "x1", "y1"), box or [None] * 4, strict=True))
    return {"token_index": index, "view": view, "tile": tile, **sides}


def test_tiles_side_by_side_are_one_view_and_tiles_on_each_other_are_several() -> None:
    whole, gap = _token(0, "global", 0, (0, 0, 20, 10)), _token(9, "newline", 0, None)
    beside = [_token(1, "tile", 0, (0, 0, 10, 10)), _token(2, "tile", 1, (10, 0, 20, 10))]
    assert token_views([whole, *beside, gap]) == [("global", (0,)), ("tile", (1, 2))]
    over = [_token(1, "tile", 0, (0, 0, 14, 10)), _token(2, "tile", 1, (6, 0, 20, 10))]
    assert token_views([whole, *over]) == [("global", (0,)), ("tile 0", (1,)), ("tile 1", (2,))]
    assert token_views([gap]) == []


def test_padding_is_in_the_view_whose_grid_it_fills_up() -> None:
    above, shown = _token(0, "padding", 0, (0, -10, 10, 0)), _token(1, "global", 0, (0, 0, 10, 10))
    beside, tile = _token(2, "padding", 1, (-10, 0, 0, 10)), _token(3, "tile", 1, (0, 0, 10, 10))
    assert token_views([above, shown, beside, tile]) == [("global", (0, 1)), ("tile", (2, 3))]
    older = [{**token, "view": view} for token, view in ((above, "global"), (shown, "global"))]
    assert token_views(older) == [("global", (0, 1))]


def _pixels(mask: list[bool]) -> list[int]:
    """The run lengths of a mask, first the pixels outside."""
    runs, last = [0], False
    for pixel in mask:
        runs, last = ([*runs, 1], pixel) if pixel != last else ([*runs[:-1], runs[-1] + 1], last)
    return runs


def _names(regions: list[dict[str, Any]], *boxes: tuple[float, float, float, float]) -> list[list[str]]:
    rows = pl.DataFrame(pa.Table.from_pylist(regions, schema=REGIONS))
    found = shown_regions(rows, np.array(boxes, np.float32), SIDE, SIDE)
    return [[region["name"] for region in patch] for patch in found]


def test_a_patch_shows_the_region_whose_mask_covers_half_of_it_counted_in_parts_of_pixels() -> None:
    draw = random.Random(3)
    for _ in range(60):
        inside = [draw.random() < 0.5 for _ in range(SIDE * SIDE)]
        x0, y0 = draw.uniform(0, 24), draw.uniform(0, 24)
        box = (x0, y0, x0 + draw.uniform(1, 6), y0 + draw.uniform(1, 6))
        area = sum(
            max(0, min(box[2], col + 1) - max(box[0], col)) * max(0, min(box[3], row + 1) - max(box[1], row))
            for row in range(SIDE)
            for col in range(SIDE)
            if inside[row * SIDE + col]
        )
        share = area / ((box[2] - box[0]) * (box[3] - box[1]))
        everywhere = region("i", "g", "background", ["grass"], [])
        masked = region("i", "r", "object", ["w"], [], mask=_pixels(inside))
        assert _names([everywhere, masked], box) == [["w", "grass"] if share >= 0.5 else ["grass"]]


def test_where_no_region_covers_half_of_a_patch_it_shows_the_largest_and_objects_come_first() -> None:
    ground = region("i", "0", "background", ["grass"], [])
    small, large = (
        region("i", name, "object", [name], [], x0=0, y0=0, x1=side, y1=side) for name, side in (("a", 3), ("b", 9))
    )
    boxes = [(0, 0, 4, 4), (0, 0, 16, 16), (20, 20, 24, 24)]
    assert _names([ground, small, large], *boxes) == [["b", "a", "grass"], ["grass"], ["grass"]]
    assert _names([small, large], *boxes) == [["b", "a"], ["b"], []]


def test_the_ground_truth_of_a_page_is_that_of_the_judge(home: Path) -> None:
    data = open_browser_data(home)
    rows = (data.full_dataset.collect(f"FROM {name}").to_arrow() for name in ("regions", "visual_tokens", "images"))
    truth = pa.concat_tables(patch_truth(*rows)).select(["image_id", "token_index", "concrete_words"]).to_pylist()
    assert truth
    for row in truth:
        shown = data.ground_truth("one", row["image_id"])[row["token_index"]]
        assert {word for region in shown for word in region["words"]} == set(row["concrete_words"])


def test_regions_that_do_not_fit_the_image_are_told() -> None:
    with pytest.raises(UserError, match=r"cannot be measured: the runs add up to 5 pixels"):
        _names([region("i", "r", "object", ["w"], [], mask=[2, 3])], (0, 0, 4, 4))
    with pytest.raises(UserError, match=r"too many to measure"):
        shown_regions(pl.DataFrame(), np.zeros((1, 4), np.float32), 1 << 30, 1 << 30)


def test_what_cannot_be_opened_is_told_before_a_server_starts(tmp_path: Path) -> None:
    for arguments in ([str(tmp_path / "nowhere"), "--no-open"], ["--home", str(tmp_path / "no"), "--no-open"]):
        assert isinstance(CliRunner().invoke(browse, arguments).exception, UserError)
    assert (pages_folder() / "app.py").is_file()


@pytest.mark.parametrize(("other", "told"), [(".", "opened already"), ("nowhere", "no folder or file")])
def test_the_source_to_compare_with_is_another_one_that_can_be_opened(home: Path, other: str, told: str) -> None:
    error = CliRunner().invoke(browse, [str(home), "--with", str(home / other), "--no-open"]).exception
    assert isinstance(error, UserError) and told in str(error)


@pytest.mark.parametrize("flags", [[], ["--trust-remote-code"]])
def test_consent_to_run_a_models_code_is_given_to_browse_and_not_inherited(
    home: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    from latentlens_dag.cli import browse as browsing

    handed: list[dict[str, str]] = []
    monkeypatch.setenv("LATENTLENS_BROWSE_TRUST", "1")
    monkeypatch.setattr(browsing.subprocess, "Popen", lambda command, env, stdout: handed.append(env))
    monkeypatch.setattr(browsing, "_wait", lambda *_: None)
    run = CliRunner().invoke(browse, [str(home), "--no-open", *flags])
    assert run.exit_code == 0, run.output
    assert [one["LATENTLENS_BROWSE_TRUST"] for one in handed] == ["1" if flags else ""]
