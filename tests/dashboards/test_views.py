"""Every view of the browser in a real Chromium: on a phone, which is 390 pixels wide, and then on a desk.

Note: a view is loaded once for both, since a load takes a second of a processor.
"""
# ruff: noqa: F401, F811 (fixtures are imported, and named by the tests)

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from latentlens_dag.storage.warehouse import Warehouse
from tests.dashboards.test_browser import address, chromium, pytestmark, watched
from tests.dashboards.wide_home import WIDE, add_wide_study
from tests.helpers.small_dataset import image_id

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
FITS = (Path(__file__).parent / "fits.js").read_text(encoding="utf-8")
DOG = f"image={image_id('dog')}&token=0"
PAIR = "at_lens=latentlens&at_other=embeddinglens_shared&at_layer=8"
VIEWS = {
    "gallery": ("?study=one", "dog.png"),
    "words_of_gallery": ("?study=one&word=fox&verdict=concrete", "fox.png"),
    "judgement": (f"?study=one&{DOG}&overlay=judgement", "Ground truth"),
    "layer": (f"?study=one&{DOG}&overlay=layer", "Ground truth"),
    "export": (f"?study=one&{DOG}&export=yes", "dots an inch"),
    "words": ("words?study=one&word=fox", "fox.png"),
    "category": ("words?study=one&category=shared:animal", "Looking for"),
    "layers": ("layers?study=one", "Share of visual tokens"),
    "examples": ("layers?study=one&at_layer=8", "drawn at random"),
    "index_size": ("layers?study=one&show=size+of+the+index", "by the size of its index"),
    "norms": ("layers?study=one&show=norms+and+drift", "Norm of the states"),
    "alignment": ("layers?study=one&show=contextual+layers", "answers come from"),
    "difference": ("layers?study=one&show=contextual+layers&answers=difference", "minus the null"),
    "directions": ("layers?study=one&show=directions", "Anisotropy"),
    "similarity": ("layers?study=one&show=similarity", "of the nearest answer"),
    "before_judging": ("judge?study=one", "Enter your initials"),
    "judging": ("judge?study=one&person=ab", "Item 1 of 20"),
    "judged": ("judge?study=one&person=ab&item=99", "items judged"),
    "no_agreement": ("judge?study=one&show=agreement", "judgements of this study"),
    "sql": ("sql?query=patches", "Its SQL"),
    "sql_chart": ("sql?sql=SELECT lens, rank FROM neighbors&show=chart", "Mean rank"),
    "own_sql": ("sql?sql=SELECT 1 AS one", "1 rows"),
    "about": ("about", "How to cite it"),
    "nothing": ("?study=nothing&image=x", "no visual tokens"),
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
NAMELESS = """() => {
    const roots = [document, ...[...document.querySelectorAll("*")].map((one) => one.shadowRoot).filter(Boolean)];
    const all = (selector) => roots.flatMap((root) => [...root.querySelectorAll(selector)]);
    const isNamed = (one) => one.ariaLabel || one.alt || one.title || one.textContent.trim() || one.labels?.length
        || one.getAttribute("aria-labelledby");
    const things = "main img, main button, main [role=img], main [role=application], main input, main textarea";
    const inside = roots.slice(1).flatMap((root) => [...root.querySelectorAll("img, button, [role]")]);
    const seen = [...all(things), ...inside].filter((one) => one.getClientRects().length);
    return seen.filter((one) => !isNamed(one)).map((one) => one.outerHTML);
}"""


@pytest.fixture(scope="module")
def home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wide = tmp_path_factory.mktemp("wide") / "home"
    shutil.copytree(home, wide)
    add_wide_study(Warehouse(wide / "warehouse"))
    return wide


@pytest.fixture(scope="module")
def phone(chromium: Any) -> Iterator[Any]:
    """One context for all views: each of its own would fetch and compile the browser's scripts again."""
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(60_000)
    yield context
    context.close()


@pytest.fixture(scope="module", params=VIEWS)
def view(phone: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Each view, as it was loaded on a phone."""
    path, text = VIEWS[request.param]
    with watched(phone, address) as page:
        page.goto(f"{address}/{path.replace('=one', f'={WIDE}')}")
        page.get_by_text(text).first.wait_for()
        yield page


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


def test_no_page_scrolls_sideways_on_a_phone_and_no_text_is_cut_off_or_covered(view: Page) -> None:
    view.wait_for_timeout(500)
    view.wait_for_function(IS_DRAWN)
    assert _unfit(view) == []


def test_every_text_stands_out_from_what_lies_behind_it_in_light_and_dark_and_all_has_a_name(view: Page) -> None:
    view.set_viewport_size({"width": 1280, "height": 844})
    for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 27)")):
        view.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        view.wait_for_function(f"getComputedStyle(document.querySelector('.stApp')).backgroundColor === '{paper}'")
        view.wait_for_timeout(300)  # until what comes last is drawn, too
        assert len(view.evaluate(CONTRAST)) > 8
        assert _weak(view) == []
    assert view.evaluate(NAMELESS) == []


def _weak(page: Page) -> list[dict[str, Any]]:
    """The texts whose contrast is too low; Streamlit fades what it is about to draw again, so it has 5 s to settle."""
    for _ in range(20):
        weak = [one for one in page.evaluate(CONTRAST) if one["contrast"] < one["needed"]]
        if not weak:
            break
        page.wait_for_timeout(250)
    return weak


def test_the_measure_of_contrast_knows_what_is_too_weak(chromium: Any) -> None:
    page = chromium.new_page()
    page.set_content(
        "<p style='color:#777'>weak</p><p style='color:#767676'>enough</p><div style='background:#000c'>"
        "<p style='color:#fff;opacity:.5'>half</p></div><input value='v' style='color:#999;background:#fff'>"
    )
    found = {one["text"]: round(one["contrast"], 2) for one in page.evaluate(CONTRAST)}
    page.close()
    assert found == {"weak": 4.48, "enough": 4.54, "half": 4.43, "v": 2.85}


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
