"""A phone, on which a page is 390 pixels wide: nothing scrolls sideways, is cut off, or covers something else."""
# ruff: noqa: F401, F811 (fixtures are imported, and named by the tests)

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from latentlens_dag.storage.warehouse import Warehouse
from tests.dashboards.test_accessibility import SEEN
from tests.dashboards.test_browser import address, chromium, page, pytestmark
from tests.dashboards.wide_home import WIDE, add_wide_study
from tests.helpers.small_dataset import image_id

if TYPE_CHECKING:
    from playwright.sync_api import Page

FITS = (Path(__file__).parent / "fits.js").read_text(encoding="utf-8")
PAIR = "at_lens=latentlens&at_other=embeddinglens_shared&at_layer=8"
VIEWS = SEEN | {
    "picture": (f"?study=one&image={image_id('dog')}", "same patch"),
    "words_on_picture": (f"?study=one&image={image_id('dog')}&overlay=words", "same patch"),
    "many_words": ("words?study=one&word=dog, cat, owl, fox, tree", "Layer by layer"),
    "differences": (f"layers?study=one&show=differences&{PAIR}", "Lenses compared"),
    "of_layers": ("layers?study=one&show=differences&comparison=layers", "Layers compared"),
    "null": ("layers?study=one&show=contextual+layers&answers=null_share", "dimensions shuffled"),
    "distinct_words": ("layers?study=one&show=distinct+words", "Different words"),
    "compared": ("compare?study1=one&study2=one", "mean disagreement"),
    "compared_picture": (f"compare?study1=one&study2=one&image={image_id('dog')}", "on this patch"),
    "ask": ("ask?study=one", "Text"),
    "own_sql_table": ("sql?sql=FROM neighbors LIMIT 9", "9 rows"),
    "no_sql": ("sql", "Query"),
}


@pytest.fixture(scope="module")
def home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wide = tmp_path_factory.mktemp("wide") / "home"
    shutil.copytree(home, wide)
    add_wide_study(Warehouse(wide / "warehouse"))
    return wide


IS_DRAWN = """() => !document.querySelector("[data-testid=stStatusWidget], [data-testid=stSkeleton], .stSpinner")
    && [...document.querySelectorAll("[data-testid=stVegaLiteChart]")].every((one) => one.querySelector("svg text"))"""


def _unfit(page: Page) -> list[Any]:
    """What does not fit; what is drawn last has 5 s to be in its place."""
    for _ in range(20):
        page.wait_for_timeout(250)
        found: list[Any] = page.evaluate(FITS)
        if not found:
            break
    return found


@pytest.mark.parametrize("page", [390], indirect=True)
@pytest.mark.parametrize("name", VIEWS)
def test_no_page_scrolls_sideways_on_a_phone_and_no_text_is_cut_off_or_covered(
    page: Page, address: str, name: str
) -> None:
    path, text = VIEWS[name]
    page.goto(f"{address}/{path.replace('=one', f'={WIDE}')}")
    page.get_by_text(text).first.wait_for()
    page.wait_for_timeout(500)
    page.wait_for_function(IS_DRAWN)
    assert _unfit(page) == []


def test_the_measure_knows_what_does_not_fit(chromium: Any) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 300})
    page.set_content(
        "<main class='stMain' style='overflow:auto'><p style='width:400px'>wide</p>"
        "<div data-testid='stButtonGroup' style='width:90px;overflow:auto'><button style='width:99px'>b</button></div>"
        "<div class='vega-embed'><svg width='80' height='20'><text x='60' y='15'>legend</text></svg></div>"
        "<table><tr><th style='max-width:20px;white-space:nowrap'>long name</th></tr></table></main>"
    )
    found = {one["what"] for one in page.evaluate(FITS)}
    page.close()
    assert found == {"page", "scrolled", "cut", "covered"}
