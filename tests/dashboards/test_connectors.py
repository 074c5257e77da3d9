"""The page Connectors: what it draws of losses and of studies, and what it says where there is nothing."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from latentlens_dag.browse.connectors import loss_curves, shares_by_step
from latentlens_dag.dataset.dataset import open_dataset
from latentlens_dag.schema import CONNECTORS, INTERPRETABILITY, LOSSES, STUDY_CONNECTORS
from latentlens_dag.storage.warehouse import Warehouse
from tests.dashboards.test_pages import APP, _opened
from tests.helpers.released import write_warehouse

STEPS = {"mlp_0": 1000, "<b>linear</b>": 40}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two connectors, of which one has studies after two steps."""
    home = tmp_path_factory.mktemp("connectors")
    warehouse = write_warehouse(home / "warehouse", 2)
    for number, (name, steps) in enumerate(STEPS.items()):
        _write_connector(warehouse, f"c{number}", name, steps)
    [study] = [folder.name for folder in (warehouse.root / "study").iterdir()]
    shares = pl.read_parquet(warehouse.summary(study, "interpretability"))
    for step in (0, 1000):
        folder = warehouse.study(f"mlp_{step}")
        folder.mkdir()
        of_step = shares.with_columns(study=pl.lit(f"mlp_{step}"), share=pl.lit(step / 2000))
        _write(of_step.cast({"share": pl.Float64}), INTERPRETABILITY, folder / "interpretability.parquet")
        row = pl.DataFrame({"study": [f"mlp_{step}"], "connector": ["mlp_0"], "step": [step]})
        _write(row, STUDY_CONNECTORS, folder / "study_connectors.parquet")
    return home


def _write_connector(warehouse: Warehouse, folder: str, name: str, steps: int) -> None:
    row = {"connector": name, "kind": "mlp", "seed": 0, "steps": steps, "images": 9, "language_model": "lm"}
    row |= {"vision_encoder": "clip", "layer": -1, "pool": 1, "settings": "{}"}
    _write(pl.DataFrame([row]), CONNECTORS, warehouse.connector_facts(folder))
    numbers = range(1, steps + 1)
    losses = {"connector": [name] * steps, "step": numbers, "loss": [6 / step for step in numbers]}
    losses |= dict.fromkeys(("learning_rate", "images", "caption_tokens"), [1] * steps)
    _write(pl.DataFrame(losses), LOSSES, warehouse.losses(folder))


def _write(frame: pl.DataFrame, schema: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(frame.select(schema.names).to_arrow().cast(schema), path)


@pytest.fixture
def app(home: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("LATENTLENS_BROWSE", str(home))
    monkeypatch.syspath_prepend(str(APP.parent))
    return AppTest.from_file(str(APP), default_timeout=120)


def _text(app: AppTest) -> str:
    return "".join(str(element.value) for element in [*app.markdown, *app.caption, *app.info])


def test_a_curve_has_the_means_of_equal_parts_of_the_steps(home: Path) -> None:
    with open_dataset(home) as dataset:
        found = loss_curves(dataset, ["mlp_0"], points=300)
        every = dataset.collect("SELECT step, loss FROM losses WHERE connector = 'mlp_0' ORDER BY step")
    parts = [every[start : start + 4] for start in range(0, 1000, 4)]
    assert found["step"].to_list() == [part["step"].max() for part in parts]
    assert found["loss"].to_list() == pytest.approx([part["loss"].mean() for part in parts])
    assert found["high"].to_list() == pytest.approx([part["loss"].max() for part in parts])
    assert found["steps"].to_list() == [4] * 250


def test_the_page_draws_the_losses_of_all_connectors_and_the_shares_of_the_steps(app: AppTest) -> None:
    opened = _opened(app, "connectors", layer="4", lens="logitlens")
    assert not opened.error
    said = _text(opened)
    assert "A point is the mean of up to 4 steps" in said
    assert "interpretable by LogitLens at layer 4, over the training" in said
    assert opened.dataframe[1].value["connector"].to_list() == sorted(STEPS)


def test_what_is_drawn_of_the_steps_are_the_shares_of_the_studies_of_the_connectors(home: Path) -> None:
    with open_dataset(home) as dataset:
        shares = shares_by_step(dataset, list(STEPS), "logitlens", 4, "all", "interpretable")
        none = shares_by_step(dataset, ["<b>linear</b>"], "logitlens", 4, "all", "interpretable")
        drawn = loss_curves(dataset, list(STEPS))
    found = [(row["connector"], row["step"], row["share"]) for row in shares.to_dicts()]
    assert found == [("mlp_0", 0, 0.0), ("mlp_0", 1000, 0.5)]
    assert none.is_empty()
    assert set(drawn["connector"]) == set(STEPS)


def test_one_connector_can_be_chosen_and_one_that_no_study_reads_says_so(app: AppTest) -> None:
    opened = _opened(app, "connectors", connectors="<b>linear</b>")
    assert not opened.error
    assert "No judged study reads a model of these connectors" in _text(opened)
    assert opened.dataframe[0].value["connector"].to_list() == ["<b>linear</b>"]


def test_a_source_without_connectors_says_how_to_get_one(
    tmp_path: Path, app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_warehouse(tmp_path / "warehouse", 2)
    monkeypatch.setenv("LATENTLENS_BROWSE", str(tmp_path))
    opened = _opened(app, "connectors")
    assert not opened.error
    assert "There are no connectors here" in _text(opened)
