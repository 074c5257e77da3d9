"""Whoever cannot use a mouse, see weak colors or look at pictures: measured in a real Chromium, in light and dark."""

# ruff: noqa: F401, F811 (fixtures are imported, and named by the tests)

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboards.test_browser import address, chromium, page, pytestmark
from tests.helpers.small_dataset import image_id

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
DOG = f"image={image_id('dog')}&token=0"
SEEN = {
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
RING = """() => {
    let one = document.activeElement;
    while (one.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
    const style = getComputedStyle(one);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
}"""


@pytest.mark.parametrize("name", SEEN)
def test_every_text_stands_out_from_what_lies_behind_it_and_all_has_a_name(page: Page, address: str, name: str) -> None:
    path, text = SEEN[name]
    page.goto(f"{address}/{path}")
    page.get_by_text(text).first.wait_for()
    for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 27)")):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.wait_for_function(f"getComputedStyle(document.querySelector('.stApp')).backgroundColor === '{paper}'")
        page.wait_for_timeout(300)  # until what comes last is drawn, too
        assert len(page.evaluate(CONTRAST)) > 8
        assert _weak(page) == []
    assert page.evaluate(NAMELESS) == []


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


def test_a_study_is_read_without_a_mouse(page: Page, address: str) -> None:
    page.goto(f"{address}/?study=one")
    tiles = page.locator(".tiles button")
    tiles.first.wait_for()
    while not page.evaluate("document.activeElement?.shadowRoot?.activeElement?.matches('.tiles button')"):
        page.keyboard.press("Tab")
    assert page.evaluate(RING)
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    second = tiles.nth(1).locator("b").inner_text()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=second).wait_for()
    board = page.get_by_role("application")
    while not board.evaluate("(one) => one.getRootNode().activeElement === one"):
        page.keyboard.press("Tab")
    page.keyboard.press("Control+End")
    assert page.evaluate(RING)
    page.wait_for_url(re.compile("token=3"))
    strip = page.locator(".strip")
    while not strip.evaluate("(one) => one.contains(one.getRootNode().activeElement)"):
        page.keyboard.press("Tab")
    assert page.evaluate(RING)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("layer=0"))
    page.get_by_text("LogitLens, layer 0").wait_for()
    assert page.locator(".strip button[tabindex='0']").count() == 1


def test_a_chosen_patch_is_said_to_who_listens(page: Page, address: str) -> None:
    page.goto(f"{address}/?study=one&{DOG}")
    said = page.locator("[aria-live=polite]")
    said.get_by_text("row 1, column 1: ").wait_for()
    page.locator("rect[data-id='3']").click()
    said.get_by_text("row 2, column 2: ").wait_for()
    assert said.get_by_text("row 1, column 1: ").count() == 0


def test_nothing_moves_where_a_person_asks_for_that(chromium: Any, address: str) -> None:
    page = chromium.new_page(reduced_motion="reduce")
    page.goto(f"{address}/?study=one&{DOG}")
    page.get_by_text("Ground truth").wait_for()
    moving = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((one) => ["animationDuration", "transitionDuration"].some(
            (name) => getComputedStyle(one)[name].split(",").some((time) => parseFloat(time) > 0.001))).length"""
    )
    page.close()
    assert moving == 0


@pytest.mark.parametrize("page", [390], indirect=True)
def test_on_a_phone_a_click_is_answered_in_sight_and_the_picture_stays_beside_what_is_read(
    page: Page, address: str
) -> None:
    page.goto(f"{address}/?study=one&{DOG}")
    page.locator("rect[data-id='1']").click()
    page.get_by_text("Token 1", exact=False).first.wait_for()

    def ends(selector: str) -> list[float]:
        box = page.locator(selector).first.bounding_box()
        assert box
        return [box["y"], box["y"] + box["height"]]

    for selector in (".said", ".board svg", ".ll-facts"):
        top, bottom = ends(selector)
        assert top > 50 and bottom < 844
    assert ends(".ll-neighbors li")[0] < 800
    page.set_viewport_size({"width": 390, "height": 620})
    page.mouse.move(195, 600)
    page.mouse.wheel(0, 270)
    page.wait_for_function("document.querySelector('.stMain').scrollTop > 260")
    top, bottom = ends(".board svg")
    assert top > 50 and bottom < 500
