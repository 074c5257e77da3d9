"""Tokens that lie in every way that families have, and texts, as a person meets them in a real Chromium."""
# ruff: noqa: F401, F811 (fixtures are imported, and named by the tests)

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from latentlens_dag.browse.layout import token_views
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.storage.hashing import text_id
from latentlens_dag.text.display import printable
from tests.dashboards.shaped_home import SIZES, TEXT, image_id, write_shaped_home
from tests.dashboards.test_browser import address, chromium, page, pytestmark
from tests.dashboards.test_export import downloaded

if TYPE_CHECKING:
    from playwright.sync_api import Page

SHOWN = """() => {
    const box = (rect) => ["x", "y", "width", "height"].map((side) => Number(rect.getAttribute(side)));
    const roots = [document, ...[...document.querySelectorAll("*")].map((one) => one.shadowRoot).filter(Boolean)];
    const node = roots.find((one) => one.querySelector(".grid"));
    const svg = node.querySelector(".grid svg");
    const patches = [...svg.querySelectorAll("rect[data-id]")].map((rect) => [rect.dataset.id, box(rect)]);
    return {
        frame: svg.getAttribute("viewBox").split(" ").map(Number),
        patches: Object.fromEntries(patches),
        apart: [...node.querySelectorAll("button[data-id]")].map((one) => Number(one.dataset.id)),
        picture: svg.querySelector("image").getAttribute("width"),
    };
}"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shaped_home(tmp_path_factory.mktemp("shaped"))


@pytest.mark.parametrize(
    ("study", "name"),
    [
        ("crops", "wide.png"),
        ("nowhere", "square.png"),
        ("padded", "wide.png"),
        ("qwen", "tall.png"),
        ("tiles", "thin.png"),
        ("tiles", "tall.png"),
        ("tiles_last", "wide.png"),
    ],
)
def test_every_token_of_every_view_is_drawn_in_its_box_and_the_others_stand_apart(
    page: Page,
    address: str,
    home: Path,
    study: str,
    name: str,
) -> None:
    rows = open_dataset(home).collect(
        "FROM visual_tokens WHERE study = $study AND image_id = $image", study=study, image=image_id(name)
    )
    views = token_views(rows.to_dicts())
    for view in [one.name for one in views] or [""]:
        page.goto(f"{address}/?study={study}&image={image_id(name)}&view={view}")
        page.locator(".grid svg").wait_for()
        seen = page.evaluate(SHOWN)
        tokens = next((one.tokens for one in views if one.name == view), ())
        boxes = {row["token_index"]: [row[side] for side in ("x0", "y0", "x1", "y1")] for row in rows.to_dicts()}
        assert set(map(int, seen["patches"])) == set(tokens)
        assert seen["apart"] == [token for token, box in boxes.items() if box[0] is None]
        left, top, width, height = seen["frame"]
        for token, (x, y, wide, high) in seen["patches"].items():
            assert [x, y, x + wide, y + high] == pytest.approx(boxes[int(token)], abs=0.02)
            assert left <= x and top <= y and x + wide <= left + width + 0.02 and y + high <= top + height + 0.02
        assert int(seen["picture"]) == SIZES[name][0]


def test_a_token_of_padding_is_in_the_grid_and_called_so(page: Page, address: str, home: Path) -> None:
    page.goto(f"{address}/?study=padded&image={image_id('wide.png')}&token=0")
    page.locator(".grid svg").wait_for()
    assert len(page.evaluate(SHOWN)["patches"]) == 144
    page.get_by_text("row 1, column 1, padding").first.wait_for()
    page.goto(f"{address}/?study=padded&image={image_id('wide.png')}&token=78")
    page.get_by_text("row 7, column 7").first.wait_for()
    assert page.get_by_text("padding").count() == 0


def test_arrow_keys_home_and_end_move_and_stop_at_the_edges(page: Page, address: str) -> None:
    page.goto(f"{address}/?study=qwen&image={image_id('wide.png')}&token=0")
    board = page.get_by_role("application")
    board.focus()
    columns = 23
    for key, token in (
        ("ArrowLeft", 0),
        ("ArrowUp", 0),
        ("ArrowDown", columns),
        ("End", 2 * columns - 1),
        ("ArrowRight", 2 * columns - 1),
        ("Home", columns),
        ("Control+End", 9 * columns - 1),
        ("ArrowDown", 9 * columns - 1),
        ("Control+Home", 0),
    ):
        page.keyboard.press(key)
        page.wait_for_url(re.compile(f"token={token}(&|$)"))
        page.get_by_text(f"Token {token} ", exact=False).first.wait_for()
    assert page.evaluate("scrollY") == 0


def test_tokens_without_a_place_are_reached_by_keys_and_clicks(page: Page, address: str) -> None:
    page.goto(f"{address}/?study=nowhere&image={image_id('wide.png')}")
    page.get_by_role("img", name=re.compile("wide.png")).wait_for()
    page.get_by_role("button", name=re.compile("^unmapped 0\\b")).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("token=1(&|$)"))
    page.get_by_role("button", name=re.compile("^unmapped 39\\b")).click()
    page.wait_for_url(re.compile("token=39"))
    page.goto(f"{address}/?study=tiles&image={image_id('wide.png')}")
    page.get_by_text("6 tokens without a place").click()
    page.get_by_role("button", name=re.compile("^newline")).first.click()
    page.wait_for_url(re.compile(r"study=tiles.*[?&]token=\d+"))


def test_a_text_is_read_token_by_token_and_exported(page: Page, address: str) -> None:
    text = text_id(TEXT[1])
    page.goto(f"{address}/?study=texts")
    page.get_by_role("button", name="A brown dog sleeps").wait_for()
    page.goto(f"{address}/?study=texts&image={text}&token=5")
    page.get_by_text("“<b>the</b>”", exact=False).wait_for()
    page.locator(".grid button[data-id='5']").wait_for()
    tokens = page.locator(".grid button span").all_text_contents()
    assert tokens == [printable(f" {piece}") for piece in TEXT[1].split(" ")]
    page.get_by_role("button", name="Export", exact=True).click()
    _, svg = downloaded(page, "SVG")
    drawn = ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert drawn.count("<b>the</b>") + drawn.count(" <b>the</b>") == 6 and "money" in {one.strip() for one in drawn}
