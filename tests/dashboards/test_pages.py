"""The pages, run without a browser."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from latentlens_dag.release.reader import read_release
from tests.dashboards.conftest import HOSTILE, LONG, MARKED
from tests.helpers.released import ABOUT, stage, write_warehouse
from tests.helpers.small_dataset import image_id

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


@pytest.mark.parametrize(
    "page", ["explore", "words", "layers", "compare", "ask", "judge", "connectors", "sql", "about"]
)
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


def test_an_image_with_a_spotlight_opens_on_a_patch_that_has_the_word(app: AppTest) -> None:
    place = {"study": "one", "image": image_id("fox"), "lens": "latentlens", "layer": "8"}
    assert "<b>Token 0</b>" in _html(_opened(app, **place))
    assert "<b>Token 1</b>" in _html(_opened(app, overlay="spotlight", word=LONG))  # the first one on grass
    assert "<b>Token 2</b>" in _html(_opened(app, token="2"))


@pytest.mark.parametrize(("said", "shown"), [("2", "2"), ("9", "1"), ("x", "1"), ("", "1")])
def test_the_address_holds_the_page_of_a_gallery(monkeypatch: pytest.MonkeyPatch, said: str, shown: str) -> None:
    monkeypatch.syspath_prepend(str(APP.parent))
    app = AppTest.from_string("import streamlit as st\nfrom widgets import permalink\nst.text(permalink.page(3))")
    app.query_params["page"] = said
    assert app.run().text[0].value == shown and not app.exception
    app.selectbox[0].set_value(3).run()
    assert app.text[0].value == "3" and app.query_params["page"] in ("3", ["3"])


def test_a_chart_of_sql_begins_with_what_tells_rows_apart_and_has_means(app: AppTest) -> None:
    sql = "SELECT study, lens, rank FROM neighbors WHERE study = 'one'"
    _opened(app, "sql", sql=sql, show="chart")
    assert {one.label: one.value for one in app.selectbox}.items() >= {
        "Horizontal axis": "lens",
        "Vertical axis": "rank",
    }.items()
    assert any(one.value == "Mean rank of all rows with the same lens." for one in app.caption)


def test_an_address_that_names_nothing_there_is_told_and_breaks_nothing(app: AppTest) -> None:
    shown = _opened(app, study="none", image="f" * 16, token="99999999999", lens="x", layer="-1", overlay="y", view="z")
    assert any("no visual tokens" in one.value for one in shown.warning)


def test_sql_runs_and_what_it_may_not_do_is_one_message(app: AppTest) -> None:
    _opened(app, "sql", sql="SELECT count(*) AS tokens FROM visual_tokens WHERE study = 'one'")
    assert app.dataframe[0].value["tokens"].tolist() == [20]
    app.text_area[0].set_value("COPY images TO '/tmp/x.csv'")
    app.button[0].click().run()
    assert "read-only" in app.error[0].value.replace("\\", "") and not app.exception


def test_about_says_licence_origin_and_how_to_load_a_release(
    app: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = write_warehouse(tmp_path / "warehouse", images=1, batches=1)
    stage(house, about=replace(ABOUT, image_license="<b>mine</b>"))
    monkeypatch.setenv("LATENTLENS_BROWSE", str(house.release("small")))
    shown = _html(_opened(app, "about"))
    assert "&lt;b&gt;mine&lt;/b&gt;" in shown and "<b>mine" not in shown and "apache-2.0" in shown
    assert "What is this?" in shown and "64 sentences" in shown
    assert any("open_dataset" in code.value and str(house.release("small")) in code.value for code in app.code)


def test_about_a_release_of_the_hub_says_its_repository_and_the_lines_of_its_card(
    app: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = write_warehouse(tmp_path / "warehouse", images=1, batches=1)
    stage(house)
    folder = house.release("small").rename(tmp_path / ("c" * 40))
    monkeypatch.setattr("latentlens_dag.release.pull.pull_tables", lambda repo, revision: read_release(folder, repo))
    monkeypatch.setenv("LATENTLENS_BROWSE", "user/small@v1.0.0")
    shown = _opened(app, "about")
    assert f"user/small at commit {'c' * 40}" in _html(shown)
    code = [one.value for one in shown.code]
    assert code[0] == "latentlens-dag pull user/small@v1.0.0"
    assert any("open_dataset('user/small@v1.0.0')" in one for one in code)
    assert any('load_dataset("user/small", split="train")' in one for one in code)
    assert [tab.label for tab in shown.tabs][:3] == ["LatentLens DAG", "datasets", "datasets, streaming"]


def test_the_first_page_needs_no_pandas(home: Path) -> None:
    """Its import takes half a second and 40 MB; Streamlit looks for its types in whatever is in a dict."""
    code = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(APP)!r}, default_timeout=30)\n"
        f"for image in ('', {image_id('dog')!r}):\n    app.query_params['image'] = image\n    app.run()\n"
        "    told = any('same patch' in one.value for one in app.markdown)\n"
        "    print(bool(app.exception), 'pandas' in sys.modules, told)"
    )
    paths = f"{APP.parent}{os.pathsep}{APP.parents[1]}"
    environment = {**os.environ, "LATENTLENS_BROWSE": str(home), "PYTHONPATH": paths}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.splitlines() == ["False False False", "False False True"]
