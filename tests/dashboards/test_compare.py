"""Compare, run without a browser and, where there is Chromium, with linked clicks in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.schema import VISUAL_TOKENS
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from tests.dashboards.conftest import MARKED
from tests.dashboards.test_browser import CHROMIUM, chromium, page, served  # noqa: F401  (fixtures)
from tests.dashboards.test_pages import _html, _opened, app  # noqa: F401
from tests.helpers.small_dataset import AWKWARD, PATCH, image_id

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def halves(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study in another home, through a region map of a left and a right half."""
    root = tmp_path_factory.mktemp("other") / "halves"
    shutil.copytree(home, root)
    house = Warehouse(root / "warehouse")
    for file in house.study("one").glob("visual_tokens/*.parquet"):
        rows = pl.read_parquet(file).filter(pl.col("token_index") < 2)
        write_parquet(rows.with_columns(y1=pl.lit(2.0 * PATCH)).to_arrow(), file, VISUAL_TOKENS)
    write_catalog(house, "one", house.catalog("one"))
    return root


IMAGE = {"study1": "one", "image": image_id("dog"), "layer1": "8", "layer2": "8", "lens2": "logitlens"}


def test_the_images_are_ranked_by_how_far_apart_the_two_sides_are(app: AppTest) -> None:  # noqa: F811
    for lens, share in (("logitlens", 100), ("latentlens", 0)):
        _opened(app, "compare", study1="one", lens2=lens, layer1="0", layer2="8")
        told = " ".join(one.value for one in app.markdown)
        assert f"4 images, mean disagreement **{share} %** over 20 patches" in told


def test_both_sides_say_what_they_find_and_how_far_apart_they_are(app: AppTest) -> None:  # noqa: F811
    shown = _html(_opened(app, "compare", **IMAGE, token1="0"))
    assert "<b>100 % disagreement</b> on this patch. No word in common." in shown
    assert "A: token 0" in shown and "B: token 0" in shown and "LogitLens, layer 8" in shown
    shown = _html(_opened(app, "compare", **{**IMAGE, "lens2": "latentlens", "layer2": "0"}, token1="0"))
    assert "<b>0 % disagreement</b> on this patch. Both say" in shown
    assert any("Both say the same words on every patch" in one.value for one in app.markdown)
    assert escape(MARKED.lower()) in shown and "<img" not in shown and "\u202e" not in shown and "شجرة" in shown


def test_the_patch_of_the_other_side_is_the_linked_one(
    app: AppTest,  # noqa: F811
    home: Path,
    halves: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LATENTLENS_BROWSE_WITH", str(halves))
    _opened(app, "compare")
    begun = {one.label: one.value for one in app.selectbox}
    assert begun["Study B"] == begun["Study A"].replace(f"{home.name}: ", "halves: ") != begun["Study A"]
    labels = {"study1": f"{home.name}: one", "study2": "halves: one"}
    shown = _html(_opened(app, "compare", **{**IMAGE, **labels}, token1="3"))
    assert "A: token 3" in shown and "B: token 1" in shown
    app.query_params.pop("token1")
    shown = _html(_opened(app, "compare", token2="0"))
    assert "A: token 2" in shown and "B: token 0" in shown


def test_an_image_that_only_one_side_has_is_told(app: AppTest) -> None:  # noqa: F811
    _opened(app, "compare", study1="one", study2=AWKWARD, image=image_id("cat"))
    assert any("no such image" in one.value for one in app.warning)
    assert any("1 image," in one.value for one in app.markdown)


def test_a_side_that_is_not_built_yet_is_told(
    app: AppTest,  # noqa: F811
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = Warehouse(Path(shutil.copytree(home, tmp_path / "half")) / "warehouse")
    house.catalog("one").unlink()
    for batch in (0, 1):
        house.neighbors("one", "logitlens", 8, batch).unlink()
    monkeypatch.setenv("LATENTLENS_BROWSE", str(tmp_path / "half"))
    _opened(app, "compare", **{**IMAGE, "image": ""})
    assert any("No patch has answers on both sides" in one.value for one in app.info)
    shown = _html(_opened(app, "compare", **IMAGE, token1="0"))
    assert "Nothing is compared on this patch" in shown and "No answers of this lens at this layer" in shown


@pytest.fixture(scope="module")
def address(home: Path, halves: Path) -> Iterator[str]:
    """A running `latentlens-dag browse HOME --with OTHER`."""
    with served(str(home), "--with", str(halves)) as running:
        yield running


def _chosen(page: Page, side: str) -> tuple[float, ...]:  # noqa: F811
    """The box that a side's grid marks."""
    mark = page.locator(f"[aria-label^='Side {side}'] rect.chosen")
    return tuple(float(mark.get_attribute(name) or -1) for name in ("x", "y", "width", "height"))


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
@pytest.mark.parametrize("page", [1280, 390], indirect=True)
def test_a_click_on_either_side_chooses_the_patch_of_both(page: Page, address: str, home: Path) -> None:  # noqa: F811
    page.goto(f"{address}/compare?study1={home.name}%3A+one&study2=halves%3A+one&lens2=logitlens&layer1=8&layer2=8")
    page.get_by_role("button", name="dog.png").click()
    page.locator("[aria-label^='Side A'] rect[data-id='3']").click()
    page.get_by_text("B: token 1").wait_for()
    assert _chosen(page, "A") == (16, 16, 16, 16) and _chosen(page, "B") == (16, 0, 16, 32)
    page.locator("[aria-label^='Side B'] rect[data-id='0']").click()
    page.get_by_text("A: token 2").wait_for()
    assert _chosen(page, "A") == (0, 16, 16, 16) and _chosen(page, "B") == (0, 0, 16, 32)
    page.keyboard.press("ArrowRight")
    page.get_by_text("A: token 3").wait_for()
    page.wait_for_url(re.compile("token2=1"))
    page.go_back()
    page.get_by_text("A: token 2").wait_for()
    page.reload()
    page.get_by_text("A: token 2").wait_for()
    tops = [page.locator(f"[aria-label^='Side {side}']").bounding_box() for side in "AB"]
    assert tops[0] and tops[1]
    stacked = tops[1]["y"] > tops[0]["y"] + 50
    assert stacked == ((page.viewport_size or {})["width"] == 390)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
