"""What a person downloads in a real Chromium: the figure and its tables."""
# ruff: noqa: F401, F811 (fixtures are imported, and named by the tests)

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import polars as pl
import pytest
from PIL import Image

from latentlens_dag.dataset.dataset import open_dataset
from tests.dashboards.conftest import HOSTILE, LONG, MARKED
from tests.dashboards.test_browser import address, chromium, page, pytestmark
from tests.helpers.small_dataset import image_id

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAME = "one_dog_latentlens_layer8"


def downloaded(page: Page, button: str) -> tuple[str, bytes]:
    """The name and content of what a button gives."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button, exact=True).click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@pytest.mark.parametrize("page", [1280, 390], indirect=True)
def test_the_figure_and_its_tables_are_downloaded_and_are_what_is_seen(page: Page, address: str, home: Path) -> None:
    page.goto(f"{address}/?study=one&image={image_id('dog')}&token=0&overlay=judgement")
    page.get_by_role("button", name="Export", exact=True).click()
    page.wait_for_url(re.compile("export=yes"))
    name, svg = downloaded(page, "SVG")
    texts = ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert name == f"{NAME}.svg"
    assert any(MARKED.replace(" \x07", "") in text for text in texts) and any(
        text.startswith("grassy") for text in texts
    )
    name, png = downloaded(page, "PNG")
    picture = Image.open(io.BytesIO(png))
    picture.load()
    assert name == f"{NAME}.png"
    assert picture.width == 2008 and [round(dots) for dots in picture.info["dpi"]] == [300, 300]
    height = float(re.search(r'height="([\d.]+)mm"', svg.decode())[1])  # type: ignore[index]
    assert abs(picture.height - height / 170 * 2008) < 4
    asked = {"study": "one", "image_id": image_id("dog"), "layer": 8}
    every = open_dataset(home).collect("image_answers", **asked)
    name, table = downloaded(page, "All tokens at this lens and layer: Parquet")
    assert name == f"{NAME}_tokens.parquet" and pl.read_parquet(io.BytesIO(table)).equals(every)
    name, table = downloaded(page, "Neighbors of the chosen token: CSV")
    read = pl.read_csv(io.BytesIO(table))
    assert name == f"{NAME}_token0.csv" and read["token_index"].to_list() == [0, 0]
    assert read["sentence"][0] == HOSTILE and LONG in every["word"].to_list()


def test_the_export_is_a_part_of_the_address_and_the_back_button_closes_it(page: Page, address: str) -> None:
    page.goto(f"{address}/?study=one&image={image_id('dog')}&token=0")
    page.get_by_role("button", name="Export", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Words", exact=True).click()
    page.wait_for_url(re.compile("export=yes.*figure_words=no"))
    page.reload()
    page.get_by_role("button", name="SVG", exact=True).wait_for()
    assert not dialog.get_by_label("Words").is_checked()
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    page.wait_for_url(lambda url: "export" not in url)
    page.go_back()
    dialog.wait_for()
