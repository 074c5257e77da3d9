"""Whoever cannot use a mouse or look at pictures: tried in a real Chromium. Colors and names: `test_views.py`."""

# ruff: noqa: F401, F811 (fixtures are imported, and named by the tests)

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboards.test_browser import address, chromium, page, pytestmark
from tests.helpers.small_dataset import image_id

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOG = f"image={image_id('dog')}&token=0"
RING = """() => {
    let one = document.activeElement;
    while (one.shadowRoot?.activeElement) one = one.shadowRoot.activeElement;
    const style = getComputedStyle(one);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
}"""


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
