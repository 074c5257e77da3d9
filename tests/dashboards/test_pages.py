"""The pages, run without a browser."""

from __future__ import annotations

from html import escape
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.dashboards.conftest import HOSTILE, MARKED
from tests.small_dataset import image_id

APP = Path(__file__).parents[2] / "dashboards" / "app.py"


@pytest.fixture
def app(home: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("LATENTLENS_BROWSE", str(home))
    monkeypatch.syspath_prepend(str(APP.parent))
    return AppTest.from_file(str(APP), default_timeout=30)


def _opened(app: AppTest, page: str = "explore", **params: str) -> AppTest:
    for name, value in params.items():
        app.query_params[name] = value
    app.switch_page(f"app_pages/{page}.py").run()
    assert not app.exception
    return app


def _html(app: AppTest) -> str:
    return "".join(element.proto.body for element in app.main if element.type == "html") + "".join(
        node.proto.body for node in app.get("html")
    )


@pytest.mark.parametrize("page", ["explore", "words", "layers", "compare", "ask", "sql", "about"])
def test_every_page_opens(app: AppTest, page: str) -> None:
    assert not _opened(app, page).error


def test_markup_in_a_sentence_is_shown_as_text_with_its_word_marked(app: AppTest) -> None:
    shown = _html(_opened(app, study="one", image=image_id("dog"), token="0"))
    assert f"<mark>{escape(MARKED)}</mark>" in shown and "<img" not in shown
    assert "\x07" not in shown and "\u2407" in shown and HOSTILE not in shown


def test_a_word_of_ten_thousand_letters_is_cut_and_a_mark_that_turns_the_text_has_no_power(app: AppTest) -> None:
    shown = _html(_opened(app, study="one", image=image_id("dog"), token="1"))
    assert "grassygrassy" in shown and len(shown) < 20_000
    assert "\u202e" not in shown and "شجرة" in shown


def test_the_address_says_what_is_seen_and_a_choice_changes_it(app: AppTest) -> None:
    _opened(app, study="one", image=image_id("cat"), token="0", lens="logitlens", layer="0")
    assert "LogitLens, layer 0" in _html(app)
    next(button for button in app.button_group if button.label == "Lens").set_value("latentlens").run()
    assert "LatentLens, layer 0" in _html(app)
    assert app.query_params.get("lens") in (None, [])  # the first is the default, and needs no word


def test_an_address_that_names_nothing_there_is_told_and_breaks_nothing(app: AppTest) -> None:
    shown = _opened(app, study="none", image="f" * 16, token="99999999999", lens="x", layer="-1", overlay="y", view="z")
    assert any("no visual tokens" in one.value for one in shown.warning)


def test_sql_runs_and_what_it_may_not_do_is_one_message(app: AppTest) -> None:
    _opened(app, "sql", sql="SELECT count(*) AS tokens FROM visual_tokens WHERE study = 'one'")
    assert app.dataframe[0].value["tokens"].tolist() == [20]
    app.text_area[0].set_value("COPY images TO '/tmp/x.csv'")
    app.button[0].click().run()
    assert "read-only" in app.error[0].value and not app.exception
