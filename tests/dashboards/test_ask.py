"""Ask, run without a browser, over a tiny study that was built: what it says is what the command line says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from streamlit.testing.v1 import AppTest

from latentlens_dag.cli.main import cli
from latentlens_dag.storage.warehouse import Warehouse
from tests.dag.conftest import built_project, fresh_project  # noqa: F401  (fixtures)
from tests.dashboards.test_browser import CHROMIUM, chromium, page, served  # noqa: F401
from tests.dashboards.test_pages import APP, _html, _opened
from tests.helpers.released import stage, write_warehouse
from tests.helpers.remote_vlm import remote_vlm

if TYPE_CHECKING:
    from playwright.sync_api import Page

TEXT = "A brown dog sleeps"


@pytest.fixture
def app(built_project: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:  # noqa: F811
    monkeypatch.chdir(built_project)
    monkeypatch.setenv("LATENTLENS_BROWSE", str(built_project / ".latentlens"))
    monkeypatch.syspath_prepend(str(APP.parent))
    return AppTest.from_file(str(APP), default_timeout=120)


def _searched(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    cli.main(["search", "--study", "tiny", *arguments, "--json"], standalone_mode=False)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def _said(app: AppTest) -> str:
    return " ".join(one.value for kind in (app.error, app.info, app.markdown) for one in kind)


def test_nothing_is_loaded_before_a_text_is_typed(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentlens_dag.study.source.study_source", lambda *_: pytest.fail("asked"))
    assert "Type a phrase" in _said(_opened(app, "ask"))


def test_a_token_is_like_what_the_command_line_finds(app: AppTest, capsys: pytest.CaptureFixture[str]) -> None:
    found = _searched(capsys, "--text", TEXT, "--layer", "1", "--contextual-layers", "2", "-k", "5")
    place = [row["token"] for row in found if row["rank"] == 1].index(" dog")
    mine = found[5 * place : 5 * place + 5]
    shown = _html(_opened(app, "ask", text=TEXT, piece=str(place), at="1", **{"from": "2"}))
    assert f'<b><bdi dir="auto">dog</bdi></b>, token {place + 1} of the text, at layer 1' in shown
    places = [shown.index(f">{row['cosine']:.2f}<") for row in mine]
    assert len(places) == 5 and places == sorted(places)
    chips = next(one for one in app.button_group if one.label == "Token")
    chips.set_value(0).run()
    assert "token 1 of the text" in _html(app) and app.query_params["piece"] == "0"


def test_the_patches_nearest_to_a_phrase_are_shown_by_image(app: AppTest) -> None:
    told = _said(_opened(app, "ask", text=TEXT, show="patches", count="25", states="any"))
    assert "The 25 nearest of 108 states of patches, in" in told and not app.error


def test_a_token_is_no_markdown_and_a_wrong_address_breaks_nothing(app: AppTest) -> None:
    _opened(app, "ask", text="![x](http://x/y.png) :red[z] $a$", piece="999", at="-1", show="x")
    chips = next(one for one in app.button_group if one.label == "Token")
    assert not app.error and "!" not in chips.options and "\\!" in chips.options


@pytest.mark.parametrize(
    ("missing", "told"),
    [("index/words", "latentlens-dag build tiny"), ("study/tiny/visual", "no stored states here")],
)
def test_what_is_not_here_is_told_with_the_way_out(
    app: AppTest,
    built_project: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    told: str,
) -> None:
    home = Path(shutil.copytree(built_project / ".latentlens", tmp_path / "home"))
    shutil.rmtree(home / "warehouse" / missing)
    monkeypatch.setenv("LATENTLENS_BROWSE", str(home))
    assert told.replace("-", "\\-") in _said(_opened(app, "ask", text=TEXT, show="patches"))


@pytest.fixture
def home(built_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A copy of the home, as somebody else may have sent it: outside of its project."""
    home = Path(shutil.copytree(built_project / ".latentlens", tmp_path / "home"))
    monkeypatch.setenv("LATENTLENS_BROWSE", str(home))
    return home


def _say(home: Path, **model: object) -> None:
    """Let the home say that study `tiny` was built with a model."""
    path = Warehouse(home / "warehouse").shape("study", "tiny")
    path.write_text(json.dumps({**json.loads(path.read_text()), "model": model}))


def test_a_models_code_is_run_only_where_who_browses_says_so_and_never_answers_an_untrusted_request(
    app: AppTest, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "code_was_run"
    folder = remote_vlm(tmp_path / "model", marker)
    _say(home, path=str(folder), trust_remote_code=True)
    assert "browse \\-\\-trust\\-remote\\-code" in _said(_opened(app, "ask", text=TEXT))
    _say(home, path=str(folder))
    monkeypatch.setenv("LATENTLENS_BROWSE_TRUST", "1")
    assert "cannot be read without code" in _said(_opened(app, "ask", text=TEXT))
    assert not marker.exists()
    _say(home, path=str(folder), trust_remote_code=True)
    assert "of the text, at layer" in _html(_opened(app, "ask", text=TEXT)) and marker.exists()
    _say(home, path=str(folder))  # the same folder, of which a trusted model is in the server's cache
    told = _opened(app, "ask", text=TEXT)
    assert "cannot be read without code" in _said(told) and "of the text, at layer" not in _html(told)
    _say(home, path=str(folder), trust_remote_code=True)
    monkeypatch.setenv("LATENTLENS_BROWSE_TRUST", "")
    assert "browse \\-\\-trust\\-remote\\-code" in _said(_opened(app, "ask", text=TEXT))


def test_a_home_of_version_0_1_can_be_asked(app: AppTest, home: Path) -> None:
    path = Warehouse(home / "warehouse").shape("study", "tiny")
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k not in ("model", "index")}))
    assert "of the text, at layer" in _html(_opened(app, "ask", text=TEXT))


def test_a_release_cannot_be_asked_and_says_what_can(
    app: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = write_warehouse(tmp_path / "warehouse")
    stage(house)
    monkeypatch.setenv("LATENTLENS_BROWSE", str(Warehouse(house.root).release("small")))
    assert "is no home" in _said(_opened(app, "ask", text=TEXT))


@pytest.fixture(scope="module")
def address(built_project: Path) -> Iterator[str]:  # noqa: F811
    """The browser, started in the project."""
    with served(cwd=built_project) as running:
        yield running


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
@pytest.mark.parametrize("page", [390], indirect=True)
def test_a_phrase_is_typed_and_its_nearest_patch_opens_in_explore(page: Page, address: str) -> None:  # noqa: F811
    page.goto(f"{address}/ask")
    field = page.get_by_label("Text", exact=True)
    field.fill(TEXT)
    field.press("Enter")
    page.locator(".ll-neighbors mark").first.wait_for(timeout=120_000)
    page.get_by_role("radio", name="Patches like it").click()
    tile = page.locator(".tiles button").first
    tile.wait_for()
    page.wait_for_url(re.compile("show=patches"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tile.click()
    page.get_by_text("LatentLens, layer 2").first.wait_for()
    assert re.search(r"image=[0-9a-f]{16}&token=\d&layer=2&lens=latentlens", page.url)
    page.go_back()
    page.locator(".tiles button").first.wait_for()
