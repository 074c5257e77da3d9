"""A home that changes under an open page, in a real Chromium: from nothing to a built study, and files that go."""

# ruff: noqa: F401, F811 (fixtures are imported, and named by the tests)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from latentlens_dag.dataset.study_catalog import write_catalog
from latentlens_dag.storage.warehouse import Warehouse
from tests.dashboards.test_browser import chromium, page, pytestmark, served
from tests.dashboards.test_half_built import STAGES
from tests.dashboards.test_sessions import settled
from tests.helpers.small_dataset import ANIMALS, image_id, write_study

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOG = f"?study=one&image={image_id('dog')}&token=0"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Of a home in which nothing was built."""
    root = tmp_path_factory.mktemp("home") / "warehouse"
    root.mkdir()
    return Warehouse(root)


@pytest.fixture(scope="module")
def address(warehouse: Warehouse) -> Iterator[str]:
    with served(str(warehouse.root.parent)) as running:
        yield running


def _until(page: Page, url: str, text: str) -> None:
    """Open a page again and again until it says something: it looks for changed files every other second."""
    for _ in range(20):
        page.goto(url)
        if settled(page).get_by_text(text).count():
            return
        page.wait_for_timeout(300)
    raise AssertionError(page.get_by_test_id("stMain").inner_text())


def _is_calm(page: Page) -> bool:
    """Whether no more than one thing is told, and no trace shown."""
    settled(page)
    traces = page.get_by_test_id("stException").count() + page.get_by_text("Traceback").count()
    return traces == 0 and page.get_by_test_id("stAlert").count() <= 1


def _click_without(page: Page, address: str, table: Path, elsewhere: Path) -> bool:
    """Take a file away under an open page, click, and put it back; whether the page had not seen that it went."""
    _until(page, f"{address}/{DOG}", "A dog is here.")
    table.rename(elsewhere)
    page.locator("rect[data-id='1']").click()
    page.get_by_test_id("stAlert").or_(page.get_by_text("No answers")).first.wait_for()
    assert _is_calm(page)
    elsewhere.rename(table)
    return page.get_by_text("is gone since this was opened").count() == 1


def test_a_study_is_shown_as_far_as_it_is_built_and_a_file_that_goes_is_told_until_it_is_back(
    page: Page, address: str, warehouse: Warehouse, tmp_path: Path
) -> None:
    _until(page, address, "Nothing to see")
    for stage, text in (("tokens", "has no answers yet"), ("one layer", "2 images")):
        STAGES[stage](warehouse)
        _until(page, address, text)
        assert _is_calm(page)

    table = warehouse.neighbors("one", "latentlens", 8, 0)
    assert any(_click_without(page, address, table, tmp_path / "elsewhere") for _ in range(8))
    table.rename(tmp_path / "elsewhere")
    _until(page, address, "has no answers yet")
    (tmp_path / "elsewhere").rename(table)
    _until(page, f"{address}/{DOG}", "A dog is here.")

    write_study(warehouse, "one", (ANIMALS[:2], ANIMALS[2:]))
    write_catalog(warehouse, "one", warehouse.catalog("one"))
    page.locator("rect[data-id='2']").click()  # on the page that stayed open
    page.get_by_text("Token 2", exact=True).wait_for()
    _until(page, address, "4 images")


def test_a_home_that_was_moved_is_one_message_and_is_shown_when_it_is_back(
    page: Page, address: str, warehouse: Warehouse
) -> None:
    kept = warehouse.root.with_name("kept")
    warehouse.root.rename(kept)
    _until(page, address, "is no dataset")
    assert page.get_by_test_id("stAlert").count() == 1 and page.get_by_test_id("stException").count() == 0
    kept.rename(warehouse.root)
    page.wait_for_timeout(2100)
    page.goto(address)
    assert settled(page).get_by_test_id("stAlert").count() == 0
