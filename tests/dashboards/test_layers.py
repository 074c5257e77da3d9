"""The page Layers, run without a browser."""

from __future__ import annotations

import json
import shutil
import tarfile
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import UnknownElement

from latentlens_dag.schema import LENSES
from latentlens_dag.storage.warehouse import Warehouse
from tests.dashboards.test_pages import APP, _opened, app
from tests.helpers.small_dataset import LAYERS, as_first_version
from tests.release.test_migrations import OF_0_1

__all__ = ["app"]  # a fixture
VIEWS = ("interpretability", "differences", "contextual layers", "norms and drift", "similarity")


def _light(color: str) -> float:
    """The relative luminance of a color (WCAG 2.2)."""
    shares = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("paper", ["#ffffff", "#14171b"])
def test_curves_stand_out_from_the_paper_of_light_and_dark(paper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP.parent))
    from widgets.charts import COLORS, DRIFT_COLORS, SOURCE_COLORS

    for color in {**COLORS, **DRIFT_COLORS, **SOURCE_COLORS}.values():
        low, high = sorted((_light(color), _light(paper)))
        assert (high + 0.05) / (low + 0.05) >= 3, color


def _texts(app: AppTest) -> str:
    return " ".join(one.value for kind in (app.markdown, app.caption, app.info) for one in kind)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_its_charts_and_says_that_a_click_gives_examples(app: AppTest, view: str) -> None:
    shown = _opened(app, "layers", study="one", show=view)
    assert len(shown.get("vega_lite_chart")) == {"norms and drift": 2, "similarity": len(LAYERS)}.get(view, 1)
    assert "Click a point, a cell or a bar" in _texts(shown)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"at_layer": "8"}, "LatentLens at visual layer 8"),
        ({"at_layer": "0", "at_lens": "logitlens"}, "LogitLens at visual layer 0"),
        ({"at_layer": "8", "at_context": "2"}, "answers from contextual layer 2"),
        ({"at_layer": "8", "at_low": "0.8", "at_high": "0.95"}, "nearest answer from 0.8 to 0.95"),
    ],
)
def test_a_point_that_the_address_names_has_examples(app: AppTest, point: dict[str, str], said: str) -> None:
    shown = _opened(app, "layers", study="one", **point)
    assert said in _texts(shown) and "patches drawn by chance" in _texts(shown)


def test_another_chart_has_no_examples_of_the_point_that_was_clicked_before(app: AppTest) -> None:
    shown = _opened(app, "layers", study="one", at_layer="8")
    next(one for one in shown.button_group if one.label == "Show").set_value("similarity").run()
    assert "Click a point" in _texts(shown) and "at_layer" not in shown.query_params


@pytest.mark.parametrize(
    "point", [{"at_layer": "5"}, {"at_layer": "8", "at_lens": "x"}, {"at_layer": "-1"}, {"at_layer": "8 OR 1=1"}]
)
def test_a_point_that_is_not_there_has_none_and_breaks_nothing(app: AppTest, point: dict[str, str]) -> None:
    assert "Click a point" in _texts(_opened(app, "layers", study="one", **point))
    far = _opened(app, "layers", study="one", at_layer="8", at_lens="latentlens", at_low="nan", at_high="x")
    assert not far.error


@pytest.mark.parametrize(
    ("kind", "said"), [("lenses", "the lens that is named first has more"), ("layers", "than the study's first one")]
)
def test_differences_are_of_lenses_or_of_layers(app: AppTest, kind: str, said: str) -> None:
    shown = _opened(app, "layers", study="one", show="differences", comparison=kind, measure="concrete")
    assert said in _texts(shown) and "Benjamini and Hochberg" in _texts(shown)
    [chart] = shown.get("vega_lite_chart")
    rows = [row for row in _values(chart) if row["visual_layer"] == LAYERS[-1]]
    pairs = {(row["lens"], row["other_lens"]) for row in rows}
    expected = combinations(LENSES, 2) if kind == "lenses" else [(lens, lens) for lens in LENSES]
    assert pairs == set(expected)
    assert {row["measure"] for row in rows} == {"concrete"} and {row["patch_group"] for row in rows} == {"all"}


def _values(chart: UnknownElement) -> list[dict[str, Any]]:
    """The rows that a chart draws."""
    rows: list[dict[str, Any]] = pa.ipc.open_stream(chart.proto.data.data).read_all().to_pylist()
    return rows


def test_the_size_of_the_index_has_a_chart_of_shares_over_its_vectors(app: AppTest) -> None:
    shown = _opened(app, "layers", study="one", show="size of the index", measure="concrete", k="2", group="object")
    [chart] = shown.get("vega_lite_chart")
    spec = json.loads(chart.proto.spec)
    across = spec["spec"]["layer"][-1]["encoding"]["x"]
    assert (across["field"], across["type"], across["scale"]["type"]) == ("occurrences", "quantitative", "log")
    points = [(row["visual_layer"], row["occurrences"], row["share"], row["chance"]) for row in _values(chart)]
    assert points == [(layer, size, 1.0, 0.0) for layer in LAYERS for size in (3, 6)]
    (figures,) = [one.value for one in shown.dataframe if "fraction" in one.value.columns]
    assert list(figures["sentences"]) == [3, 6] * len(LAYERS)
    assert "Click a point" not in _texts(shown)


def test_a_study_of_its_whole_index_only_says_how_to_have_more(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "home"
    shutil.copytree(home, older)
    with duckdb.connect(older / "warehouse" / "study" / "one" / "catalog.duckdb") as catalog:
        catalog.execute("DROP TABLE corpus_ablation")  # as an older version wrote it
    monkeypatch.setenv("LATENTLENS_BROWSE", str(older))
    monkeypatch.syspath_prepend(str(APP.parent))
    shown = _opened(AppTest.from_file(str(APP), default_timeout=30), "layers", study="one", show="size of the index")
    assert "corpus_ablation: [0.01, 0.1, 1.0]" in shown.info[0].value and not shown.get("vega_lite_chart")


def test_differences_that_nobody_computed_are_told(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = tmp_path / "home"
    shutil.copytree(home, older)
    with duckdb.connect(older / "warehouse" / "study" / "one" / "catalog.duckdb") as catalog:
        catalog.execute("DROP TABLE lens_differences")  # as an older version wrote it
    monkeypatch.setenv("LATENTLENS_BROWSE", str(older))
    monkeypatch.syspath_prepend(str(APP.parent))
    shown = _opened(AppTest.from_file(str(APP), default_timeout=30), "layers", study="one", show="differences")
    assert "latentlens-dag build" in shown.info[0].value and not shown.get("vega_lite_chart")


@pytest.mark.parametrize("measure", ["interpretable", "concrete", "abstract", "global"])
@pytest.mark.parametrize("k", ["1", "2"])
def test_every_measure_by_one_answer_and_by_all_has_its_curves_and_figures(app: AppTest, measure: str, k: str) -> None:
    shown = _opened(app, "layers", study="one", measure=measure, k=k, group="object")
    assert f"visual tokens that are {measure}" in _texts(shown)
    (figures,) = [one.value for one in shown.dataframe if "effective_tokens" in one.value.columns]
    row = figures[(figures["lens"] == "LogitLens") & (figures["visual_layer"] == 8)].iloc[0]
    grass_elsewhere = 1.0 if measure in ("interpretable", "global") else 0.0
    assert (row["share"], row["chance"], row["tokens"], row["images"]) == (grass_elsewhere, grass_elsewhere, 4, 4)
    assert {"excess_low", "excess_high", "chance_low", "chance_high"} <= set(figures.columns)


def test_a_home_judged_by_an_older_version_says_what_to_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "home"
    shutil.copytree(home, older)
    warehouse = Warehouse(older / "warehouse")
    as_first_version(warehouse, "one")
    with duckdb.connect(warehouse.catalog("one")) as catalog:
        catalog.execute(
            f"CREATE OR REPLACE TABLE interpretability AS FROM '{warehouse.summary('one', 'interpretability')}'"
        )
    monkeypatch.setenv("LATENTLENS_BROWSE", str(older))
    monkeypatch.syspath_prepend(str(APP.parent))
    shown = _opened(AppTest.from_file(str(APP), default_timeout=30), "layers", study="one")
    assert "`latentlens-dag build` judges it again" in shown.info[0].value and not shown.get("vega_lite_chart")


def test_a_release_of_version_0_1_has_its_curves_and_says_what_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(OF_0_1) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setenv("LATENTLENS_BROWSE", str(tmp_path / "tiny_release"))
    monkeypatch.syspath_prepend(str(APP.parent))
    shown = _opened(AppTest.from_file(str(APP), default_timeout=30), "layers", study="tiny")
    assert len(shown.get("vega_lite_chart")) == 1
    assert "made by latentlens-dag 0.1.0. Its verdicts are on all answers" in _texts(shown)


def test_states_that_nobody_summed_up_are_told(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = tmp_path / "home"
    shutil.copytree(home, older)
    for file in ("state_statistics.parquet", "catalog.duckdb"):
        (older / "warehouse" / "study" / "one" / file).unlink()
    monkeypatch.setenv("LATENTLENS_BROWSE", str(older))
    monkeypatch.syspath_prepend(str(APP.parent))
    shown = _opened(AppTest.from_file(str(APP), default_timeout=30), "layers", study="one", show="norms and drift")
    assert "latentlens-dag build" in shown.info[0].value and not shown.get("vega_lite_chart")
