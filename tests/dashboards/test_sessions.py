"""Two people at once, permalinks, the way back, and the pages Layers, SQL and About, in a real Chromium."""

# ruff: noqa: F401, F811 (fixtures are imported, and named by the tests)

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from latentlens_dag.dataset.dataset import open_dataset
from tests.dashboards.test_browser import address, chromium, page, pytestmark
from tests.dashboards.test_export import downloaded
from tests.helpers.small_dataset import image_id

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOG, OWL = (f"?study=one&image={image_id(animal)}" for animal in ("dog", "owl"))
ROWS = "SELECT word, count(*) AS answers FROM neighbors WHERE study = 'one' GROUP BY word ORDER BY answers DESC, word"
NESTED = "SELECT region_id, words, mask FROM regions ORDER BY image_id, region_id LIMIT 3"


def settled(page: Page) -> Page:
    """The page when nothing of it runs or is stale any more."""
    page.wait_for_function(
        "document.querySelector('[data-test-script-state=notRunning]') && !document.querySelector('[data-stale=true]')"
    )
    page.wait_for_timeout(150)
    return page


SEEN = """() => {
    const roots = [document.querySelector("[data-testid='stMain']")];
    for (const root of roots)
        for (const one of root.querySelectorAll("*")) if (one.shadowRoot) roots.push(one.shadowRoot);
    const all = (selector) => roots.flatMap((root) => [...root.querySelectorAll(selector)]);
    const texts = roots.flatMap((root) => [root, ...root.children]).map((one) => one.innerText || "");
    const fields = all("input, textarea").map((one) => one.value);
    const chosen = all("[aria-checked=true], [aria-pressed=true]").map((one) => one.textContent);
    const boxes = all("rect[visibility=visible]").map((one) => ["x", "y", "width"].map((at) => one.getAttribute(at)));
    return [...texts, ...fields, ...chosen, ...boxes.flat()].filter(Boolean);
}"""
"""All that is to be read on a page, in its components and fields, too, and what is chosen."""


def seen(page: Page) -> list[str]:
    """What is seen of the page, once it stays as it is."""
    before: list[str] = []
    for _ in range(60):
        now: list[str] = settled(page).evaluate(SEEN)
        if now == before:
            break
        before = now
        page.wait_for_timeout(250)
    return before


def test_two_people_at_once_see_each_what_they_have_chosen(chromium: Any, address: str) -> None:
    one, other = (chromium.new_context(viewport={"width": 1280, "height": 844}).new_page() for _ in range(2))
    one.goto(f"{address}/{DOG}&token=0&layer=8")
    other.goto(f"{address}/{OWL}&token=0&layer=0&lens=logitlens")
    for person in (one, other):
        person.locator(".ll-neighbors li").first.wait_for()
    for token in (1, 2, 3, 0, 2):
        one.locator(f"rect[data-id='{token}']").click()
        other.locator(f"rect[data-id='{3 - token}']").click()  # while the other one's click is still being answered
        one.get_by_text(f"Token {token}", exact=True).wait_for()
        other.get_by_text(f"Token {3 - token}", exact=True).wait_for()
        first, second = (person.locator(".ll-facts").inner_text() for person in (one, other))
        assert f"Token {token} " in first and "LatentLens, layer 8" in first
        assert f"Token {3 - token} " in second and "LogitLens, layer 0" in second
    assert f"image={image_id('dog')}" in one.url and "logitlens" not in one.url
    assert f"image={image_id('owl')}" in other.url and "lens=logitlens" in other.url
    for person in (one, other):
        person.context.close()


def _picked_patch(page: Page) -> None:
    page.get_by_role("button", name="dog.png").click()
    page.locator("rect[data-id='1']").click()
    page.wait_for_url(re.compile("token=1"))
    page.get_by_label("LogitLens, layer 0").or_(page.locator("button[title^='LogitLens, layer 0']")).first.click()
    page.wait_for_url(re.compile("lens=logitlens"))


def _typed_word(page: Page) -> None:
    page.get_by_label("Words", exact=True).fill("fox, owl")
    page.get_by_label("Words", exact=True).press("Enter")
    page.wait_for_url(re.compile("word=fox"))


def _chosen_measure(page: Page) -> None:
    page.get_by_role("radio", name="object").or_(page.get_by_role("button", name="object")).first.click()
    page.wait_for_url(re.compile("group=object"))


def _asked_query(page: Page) -> None:
    page.get_by_label("word", exact=True).fill("fox")
    page.get_by_role("button", name="Run").click()
    page.wait_for_url(re.compile("p_word=fox"))
    page.get_by_text("rows").first.wait_for()


def _drawn_chart(page: Page) -> None:
    page.get_by_label("SQL", exact=True).fill(ROWS)
    page.get_by_role("button", name="Run").click()
    page.wait_for_url(re.compile("sql=SELECT"))
    page.get_by_role("radio", name="Chart").or_(page.get_by_role("button", name="Chart")).first.click()
    page.wait_for_url(re.compile("show=chart"))


PERMALINKS: dict[str, tuple[str, Callable[[Page], None], str]] = {
    "explore": ("?study=one", _picked_patch, "Token 1"),
    "words": ("words?study=one", _typed_word, "fox.png"),
    "layers": ("layers?study=one", _chosen_measure, "Share of visual tokens"),
    "named query": ("sql?query=where_word", _asked_query, "rows"),
    "own query": ("sql", _drawn_chart, "rows"),
}


@pytest.mark.parametrize("name", PERMALINKS)
def test_a_permalink_shows_to_another_person_what_the_first_one_saw(
    page: Page, chromium: Any, address: str, name: str
) -> None:
    path, act, text = PERMALINKS[name]
    page.goto(f"{address}/{path}")
    act(page)
    page.get_by_text(text).first.wait_for()
    shown = seen(page)
    other = chromium.new_context(viewport={"width": 1280, "height": 844}).new_page()
    other.goto(page.url)
    other.get_by_text(text).first.wait_for()
    assert seen(other) == shown and len(shown) > 1
    other.context.close()


def test_back_goes_through_the_pages_to_the_patch_where_one_came_from(page: Page, address: str) -> None:
    page.goto(f"{address}/{DOG}&token=2")
    page.get_by_text("Token 2", exact=True).wait_for()
    here = seen(page)
    there = {"Layers": "Share of visual tokens", "SQL": "ORDER BY patches DESC", "About": "How to cite it"}
    for link, text in there.items():
        page.get_by_role("link", name=link).click()
        page.get_by_test_id("stMain").get_by_text(text).first.wait_for()
    for text in (there["SQL"], there["Layers"], "Token 2 "):
        page.go_back()
        page.get_by_test_id("stMain").get_by_text(text).first.wait_for()
        settled(page)  # two steps at once are one too many for Streamlit while the first still runs
    assert seen(page) == here


def test_layers_draws_its_curves_and_about_says_what_is_here(page: Page, address: str) -> None:
    charts = page.locator("[data-testid='stVegaLiteChart'] :is(canvas, svg)")
    for show, text in (
        ("interpretability", "95 % intervals"),
        ("differences", "Lenses compared"),
        ("contextual layers", "answers come from"),
    ):
        page.goto(f"{address}/layers?study=one&show={show}")
        page.get_by_text(text).first.wait_for()
        charts.first.wait_for()
        assert (charts.first.bounding_box() or {})["height"] > 100
    page.goto(f"{address}/about")
    page.get_by_text("How to cite it").wait_for()
    for text in ("2602.00462", "open_dataset("):
        page.get_by_test_id("stCode").get_by_text(text).first.wait_for()


def test_sql_gives_what_it_finds_as_csv_and_parquet(page: Page, address: str, home: Path) -> None:
    with open_dataset(home) as dataset:
        wanted, nested = dataset.collect(ROWS), dataset.collect(NESTED)
    page.goto(f"{address}/sql?sql={ROWS}")
    page.get_by_text(f"{wanted.height} rows").wait_for()
    assert pl.read_parquet(io.BytesIO(downloaded(page, "Parquet")[1])).equals(wanted)
    assert pl.read_csv(io.BytesIO(downloaded(page, "CSV")[1])).equals(wanted)
    page.goto(f"{address}/sql?sql={NESTED}")
    page.get_by_text("3 rows").wait_for()
    assert pl.read_parquet(io.BytesIO(downloaded(page, "Parquet")[1])).equals(nested)
    assert pl.read_csv(io.BytesIO(downloaded(page, "CSV")[1]))["words"].to_list() == [
        str(words) for words in nested["words"].to_list()
    ]


def test_what_sql_may_not_is_one_message_and_back_shows_the_query_before(page: Page, address: str) -> None:
    page.goto(f"{address}/sql?sql=SELECT 41 %2B 1 AS answer")
    page.get_by_text("1 rows").wait_for()
    for wrong, told in (("COPY images TO '/tmp/x.csv'", "read-only"), ("FROM read_csv('/etc/passwd')", "Permission")):
        page.get_by_label("SQL", exact=True).fill(wrong)
        page.get_by_role("button", name="Run").click()
        page.get_by_test_id("stAlert").get_by_text(told).wait_for()
        assert settled(page).get_by_test_id("stAlert").count() == 1
        assert page.get_by_test_id("stException").count() == 0
    page.go_back()
    page.go_back()
    page.get_by_text("1 rows").wait_for()
    assert page.get_by_label("SQL", exact=True).input_value() == "SELECT 41 + 1 AS answer"
