"""Categories on the page Words, run without a browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.dashboards.test_pages import APP, _html, _opened, app

__all__ = ["app"]  # a fixture


def _labels(app: AppTest) -> list[str]:
    return [one.label for one in app.selectbox]


def test_a_category_is_looked_for_by_all_its_words_and_the_address_holds_it(app: AppTest) -> None:
    shown = _opened(app, "words", study="one")
    assert "Category" in _labels(shown)
    box = next(one for one in shown.selectbox if one.label == "Category")
    box.set_value("shared:animal").run()
    assert shown.query_params["category"] in ("shared:animal", ["shared:animal"])
    assert "Looking for animal, cat, dog, fox, owl." in _html(shown)
    # The dog's own answers are hostile here; the cat, the owl and the fox are found, each at every layer.
    assert any("3 patches in 3 images at any layer by LatentLens" in one.value for one in shown.markdown)


def test_words_that_are_typed_are_looked_for_beside_the_categorys(app: AppTest) -> None:
    shown = _opened(app, "words", study="one", category="name:cat", word="fox")
    assert any("2 patches in 2 images" in one.value for one in shown.markdown)


def test_a_category_that_is_not_there_is_none(app: AppTest) -> None:
    shown = _opened(app, "words", study="one", category="shared:<b>", word="fox")
    assert any("1 patch in 1 image" in one.value for one in shown.markdown) and "Looking for" not in _html(shown)


def test_without_annotated_regions_there_is_no_choice_of_categories(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home, tmp_path / "home")
    (tmp_path / "home/warehouse/study/one/catalog.duckdb").unlink()
    for file in (tmp_path / "home").rglob("regions_*.parquet"):
        file.unlink()
    monkeypatch.setenv("LATENTLENS_BROWSE", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(APP.parent))
    shown = _opened(AppTest.from_file(str(APP), default_timeout=30), "words", study="one", word="fox")
    assert "Category" not in _labels(shown) and any("1 patch in 1 image" in one.value for one in shown.markdown)
