"""Every page on a home of which nothing, or a part, is built: what there is, or one message, and never a trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from latentlens_dag.schema import NEIGHBORS, VISUAL_TOKENS
from latentlens_dag.storage.parquet import write_parquet
from latentlens_dag.storage.warehouse import Warehouse
from tests.helpers.small_dataset import ANIMALS, image_id, neighbors, visual_tokens, write_shared

APP = Path(__file__).parents[2] / "dashboards" / "app.py"
PAGES = sorted(path.stem for path in (APP.parent / "app_pages").glob("*.py"))


def _tokens(warehouse: Warehouse) -> None:
    """Pictures, sentences, and where the visual tokens of a first batch lie."""
    write_shared(warehouse, "pictures", "corpus", (ANIMALS[:2], ANIMALS[2:]))
    write_parquet(visual_tokens("one", ANIMALS[:2]), warehouse.visual_tokens("one", 0), VISUAL_TOKENS)


def _one_layer(warehouse: Warehouse) -> None:
    """One lens at one layer, too; no judgements, no summaries, no catalog."""
    _tokens(warehouse)
    table = neighbors("one", ANIMALS[:2], "latentlens", 8)
    write_parquet(table, warehouse.neighbors("one", "latentlens", 8, 0), NEIGHBORS)


def _answers_alone(warehouse: Warehouse) -> None:
    """Answers of tokens whose pictures, places and sentences are gone."""
    table = neighbors("one", ANIMALS[:2], "latentlens", 8)
    write_parquet(table, warehouse.neighbors("one", "latentlens", 8, 0), NEIGHBORS)


STAGES: dict[str, Callable[[Warehouse], None]] = {
    "nothing": lambda warehouse: warehouse.root.mkdir(parents=True, exist_ok=True),
    "tokens": _tokens,
    "one layer": _one_layer,
    "answers alone": _answers_alone,
}
QUERIES: dict[str, dict[str, str]] = {
    "": {},
    "an image": {"image": image_id("dog"), "token": "0", "overlay": "judgement", "word": "dog"},
}


@pytest.fixture(scope="module", params=STAGES)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    STAGES[request.param](Warehouse(root / "warehouse"))
    return root


def _says_so(home: Path, page: str) -> bool:
    """Whether a page has nothing to show, and must say why."""
    return page not in ("about", "sql") and home.name.startswith(("nothing", "tokens"))


@pytest.mark.parametrize("asked", QUERIES)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_a_home_that_is_not_built_yet_says_so_once(
    home: Path, page: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTLENS_BROWSE", str(home))
    monkeypatch.syspath_prepend(str(APP.parent))
    app = AppTest.from_file(str(APP), default_timeout=30)
    for name, value in QUERIES[asked].items():
        app.query_params[name] = value
    app.switch_page(f"app_pages/{page}.py").run()
    assert not app.exception
    messages = len(app.error) + len(app.warning) + len(app.info)
    assert messages == 1 if _says_so(home, page) else messages <= 1
