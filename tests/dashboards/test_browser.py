"""The browser in a real Chromium: what a person clicks, types and goes back to. Skipped where there is no Chromium."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.small_dataset import image_id

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium")
pytest.importorskip("playwright", reason="playwright is not installed: pip install '.[dev]'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
MAIN = "from latentlens_dag.cli.main import main; main()"


@contextmanager
def served(*arguments: str, cwd: Path | None = None) -> Iterator[str]:
    """A running `latentlens-dag browse`, started in a folder; ended as Ctrl-C ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", MAIN, "browse", *arguments, "--port", str(port), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd) as server:
        assert server.stdout is not None
        assert f":{port}" in server.stdout.readline()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """The home, served."""
    with served(str(home)) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def watched(context: Any, address: str) -> Iterator[Page]:
    """A page that fails the test on a dialog, or a request that leaves the machine."""
    page, wrong = context.new_page(), []
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda one: None if one.url.startswith((address, "data:", "blob:")) else wrong.append(one.url))
    yield page
    assert not wrong
    page.close()


@pytest.fixture
def page(chromium: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    width = getattr(request, "param", 1280)
    context = chromium.new_context(viewport={"width": width, "height": 844})
    context.set_default_timeout(60_000)
    with watched(context, address) as page:
        yield page
    context.close()


@pytest.mark.parametrize("page", [1280, 390], indirect=True)
def test_a_patch_is_clicked_the_arrows_move_on_the_address_follows_and_back_goes_back(page: Page, address: str) -> None:
    page.goto(f"{address}/?study=one")
    page.get_by_role("button", name="dog.png").click()
    page.locator("rect[data-id='0']").click()
    page.wait_for_url(re.compile("token=0"))
    page.get_by_text("Token 0", exact=False).first.wait_for()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile("token=1"))
    page.get_by_text("Token 1", exact=False).first.wait_for()
    page.go_back()
    page.get_by_text("Token 0", exact=False).first.wait_for()
    page.reload()
    page.get_by_text("Token 0", exact=False).first.wait_for()
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("mark", has_text="onerror").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_word_is_typed_and_its_pictures_open_with_the_spotlight(page: Page, address: str) -> None:
    page.goto(f"{address}/words?study=one")
    field = page.get_by_label("Words", exact=True)
    field.fill("fox")
    field.press("Enter")
    page.get_by_role("button", name="fox.png").click()
    page.wait_for_url(re.compile(f"image={image_id('fox')}"))
    page.locator("rect.hit").first.wait_for()
    assert page.locator("rect.hit").count() == 1


def test_the_way_back_from_a_picture_of_a_category_shows_the_category_as_it_was(page: Page, address: str) -> None:
    page.goto(f"{address}/words?study=one&category=shared:animal")
    page.get_by_role("button", name="fox.png").click()
    page.locator("rect.hit").first.wait_for()
    page.go_back()
    page.get_by_text("Looking for animal").wait_for()
    assert page.get_by_label("Words", exact=True).input_value() == ""


def test_patches_are_judged_by_keys_and_a_digit_in_a_field_judges_nothing(page: Page, address: str, home: Path) -> None:
    page.goto(f"{address}/judge?study=one")
    field = page.get_by_label("Your initials")
    field.fill("k1")
    field.press("Enter")
    page.locator(".st-key-none-1").wait_for()
    page.wait_for_function("document.activeElement === document.body")  # nobody has to leave the field
    page.keyboard.press("1")
    page.locator(".st-key-none-2").wait_for()
    field.press("1")
    field.press("Backspace")
    page.locator(".ll-window").first.click()
    for number, key in enumerate("42", start=3):
        page.keyboard.press(key)
        page.locator(f".st-key-none-{number}").wait_for()
    page.keyboard.press("Backspace")
    page.locator(".st-key-undo-3").wait_for()
    page.go_back()
    page.locator(".st-key-none-4").wait_for()
    lines = (home / "judging" / "one" / "k1.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["concrete", "none", "abstract"]


def test_a_click_on_a_cell_shows_examples_that_open_in_explore_and_back_comes_back(page: Page, address: str) -> None:
    page.goto(f"{address}/layers?study=one&show=contextual+layers")
    page.locator(".mark-rect path").last.wait_for(state="attached")
    cells = page.locator("path[fill='transparent'][aria-label*='Contextual layer: 4; Visual layer: 8']")
    cells.click(force=True)
    page.wait_for_url(re.compile("at_layer=8&at_context=4"))
    page.get_by_text("answers from contextual layer 4").wait_for()
    page.reload()  # the address alone tells which cell it is
    page.locator("path[stroke='#1b1f24'][aria-label*='Contextual layer: 4; Visual layer: 8']").wait_for(
        state="attached"
    )
    assert page.locator("path[stroke='#1b1f24']").count() == 1
    page.locator(".tiles button").first.click()
    page.wait_for_url(re.compile("image=[0-9a-f]{16}&token="))
    page.locator(".board").wait_for()
    page.go_back()
    page.get_by_text("answers from contextual layer 4").wait_for()
