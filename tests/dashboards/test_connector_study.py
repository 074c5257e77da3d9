"""A study of a connector's checkpoint in the browser: its page, and the search with the model that the home holds."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.dag.test_connector_studies import built, checkpoints, fresh  # noqa: F401  (fixtures)
from tests.dashboards.test_pages import APP, _html, _opened


@pytest.fixture
def app(built: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:  # noqa: F811
    monkeypatch.chdir(built)
    monkeypatch.setenv("LATENTLENS_BROWSE", str(built / ".latentlens"))
    monkeypatch.syspath_prepend(str(APP.parent))
    return AppTest.from_file(str(APP), default_timeout=120)


def test_a_text_is_read_by_the_checkpoint_of_the_home(app: AppTest) -> None:
    opened = _opened(app, "ask", study="trained", text="A brown dog sleeps", piece="0", at="1")
    assert not opened.exception and not opened.error
    assert '<b><bdi dir="auto">A</bdi></b>, token 1 of the text, at layer 1' in _html(opened)


def test_the_page_about_a_study_names_the_connector_and_its_step(app: AppTest) -> None:
    opened = _opened(app, "about", study="untrained")
    assert not opened.exception and not opened.error
    assert "connector clip after 0 steps, files " in _html(opened)
