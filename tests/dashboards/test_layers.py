"""The page Layers, run without a browser."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import UnknownElement

from latentlens_dag.schema import DECLARED_LENSES, LENSES
from latentlens_dag.storage.warehouse import Warehouse
from latentlens_dag.study.differences import lens_differences
from tests.dashboards.test_pages import APP, _opened, app
from tests.helpers.small_dataset import LAYERS, TOP_K, as_first_version
from tests.release.test_migrations import OF_0_1

__all__ = ["app"]  # a fixture
VIEWS = ("interpretability", "differences", "contextual layers", "norms and drift", "directions", "similarity")
VIEWS += ("distinct words", "size of the index")


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
    charts = {"norms and drift": 2, "directions": 4, "similarity": len(LAYERS), "size of the index": len(LAYERS)}.get(
        view, 1
    )
    assert len(shown.get("vega_lite_chart")) == charts
    assert "Click a point, a cell or a bar" in _texts(shown)


def test_distinct_words_are_curves_of_all_lenses_with_their_intervals(app: AppTest) -> None:
    shown = _opened(app, "layers", study="one", show="distinct words")
    [chart] = shown.get("vega_lite_chart")
    rows = {(row["lens"], row["visual_layer"]): row for row in _values(chart)}
    assert rows.keys() == {(lens.title, layer) for lens in DECLARED_LENSES.values() for layer in LAYERS}
    assert all(f'"{column}"' in chart.proto.spec for column in ("distinct_words", "low", "high"))
    row = rows["LogitLens", 8]  # grass and tree on every patch
    assert row["distinct_words"] == row["high"] == 2 and 1 < row["low"] < 2
    assert "95 % intervals over images" in _texts(shown) and "(shared)" not in _texts(shown)


@pytest.fixture
def shared(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The page of a home whose study has shared candidates too: the answers of the lenses, and those again."""
    both = tmp_path / "home"
    shutil.copytree(home, both)
    names = {lens.declared: lens.name for lens in LENSES.values() if lens.declared}
    with duckdb.connect(both / "warehouse" / "study" / "one" / "catalog.duckdb") as catalog:
        for table in ("neighbors", "judgements", "interpretability", "diversity"):
            for lens, name in names.items():
                rows = f"SELECT * REPLACE ('{name}' AS lens) FROM {table} WHERE lens = '{lens}'"
                catalog.execute(f"INSERT INTO {table} {rows}")
        found = pl.DataFrame(catalog.sql("FROM judgements").to_arrow_table())
        parts = found.partition_by("visual_layer", as_dict=True)
        table = lens_differences("one", {layer: [part.lazy()] for (layer,), part in parts.items()}, TOP_K)
        catalog.register("found", table)
        catalog.execute("CREATE OR REPLACE TABLE lens_differences AS FROM found")
    monkeypatch.setenv("LATENTLENS_BROWSE", str(both))
    monkeypatch.syspath_prepend(str(APP.parent))
    return AppTest.from_file(str(APP), default_timeout=30)


def test_lenses_with_shared_candidates_stand_beside_the_others_in_colors_of_their_own(
    shared: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from widgets.charts import COLORS, PALETTE

    assert list(COLORS) == [lens.title for lens in LENSES.values()]
    assert [COLORS[lens.title] for lens in DECLARED_LENSES.values()] == list(PALETTE[:3])
    assert len(set(COLORS.values())) == len(LENSES)
    shown = _opened(shared, "layers", study="one")
    assert {row["lens"] for row in _values(shown.get("vega_lite_chart")[0])} == set(COLORS)
    assert "(shared): the lens answers only with tokens that the index has" in _texts(shown)
    picked = _opened(shared, "layers", study="one", at_layer="8", at_lens="embeddinglens_shared")
    assert "EmbeddingLens (shared) at visual layer 8" in _texts(picked)


@pytest.mark.parametrize("one", ["latentlens", "embeddinglens_shared"])
def test_of_more_pairs_than_there_are_colors_those_with_one_lens_are_shown(shared: AppTest, one: str) -> None:
    shown = _opened(shared, "layers", study="one", show="differences", **{"with": one})
    [chart] = shown.get("vega_lite_chart")
    pairs = {frozenset((row["lens"], row["other_lens"])) for row in _values(chart)}
    assert pairs == {frozenset((one, other)) for other in LENSES if other != one}
    assert "over all layers and pairs of lenses" in _texts(shown)


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
    assert said in _texts(shown) and "patches drawn at random" in _texts(shown)


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
    expected = combinations(DECLARED_LENSES, 2) if kind == "lenses" else [(lens, lens) for lens in DECLARED_LENSES]
    assert pairs == set(expected)
    assert {row["measure"] for row in rows} == {"concrete"} and {row["patch_group"] for row in rows} == {"all"}


def _values(chart: UnknownElement) -> list[dict[str, Any]]:
    """The rows that a chart draws."""
    rows: list[dict[str, Any]] = pa.ipc.open_stream(chart.proto.data.data).read_all().to_pylist()
    return rows


def test_the_size_of_the_index_has_a_chart_of_shares_over_its_vectors_for_each_layer(app: AppTest) -> None:
    shown = _opened(app, "layers", study="one", show="size of the index", measure="concrete", k="2", group="object")
    charts = shown.get("vega_lite_chart")
    points = []
    for chart, layer in zip(charts, LAYERS, strict=True):
        spec = json.loads(chart.proto.spec)
        across, up = (spec["layer"][-1]["encoding"][name] for name in "xy")
        assert (across["field"], across["type"], across["scale"]) == (
            "occurrences",
            "quantitative",
            {"type": "log", "domain": [3, 6]},
        )
        assert (spec["title"]["text"], up["scale"]["domain"]) == (f"Visual layer {layer}", [0, 1])
        points += [(row["visual_layer"], row["occurrences"], row["share"], row["chance"]) for row in _values(chart)]
    assert points == [(layer, size, 1.0, 0.0) for layer in LAYERS for size in (3, 6)]
    (figures,) = [one.value for one in shown.dataframe if "fraction" in one.value.columns]
    assert list(figures["sentences"]) == [3, 6] * len(LAYERS)


def test_points_of_the_whole_index_can_be_clicked_and_those_of_its_parts_look_otherwise(app: AppTest) -> None:
    shown = _opened(app, "layers", study="one", show="size of the index")
    spec = json.loads(shown.get("vega_lite_chart")[0].proto.spec)
    parts, whole = spec["layer"][-2:]
    assert [one["transform"][0]["filter"] for one in (parts, whole)] == ['!datum["whole"]', 'datum["whole"]']
    assert "cursor" not in parts["mark"] and "params" not in parts
    assert whole["mark"]["cursor"] == "pointer" and whole["params"][0]["select"]["fields"][-1] == "visual_layer"
    assert [row["whole"] for row in _values(shown.get("vega_lite_chart")[0])] == [False, True]
    assert "Click a point" in _texts(shown) and "answers from its parts are counted" in _texts(shown)
    picked = _opened(app, "layers", at_layer="8", at_lens="latentlens")
    assert "LatentLens at visual layer 8" in _texts(picked)


def test_only_the_tokens_own_answers_can_be_clicked_not_those_of_the_null(app: AppTest) -> None:
    for kind, clickable in (("share", True), ("null_share", False), ("difference", False)):
        shown = _opened(app, "layers", study="one", show="contextual layers", answers=kind, at_layer="8")
        (chart,) = shown.get("vega_lite_chart")
        assert ("params" in json.loads(chart.proto.spec)["layer"][-1]) is clickable
        assert ('"cursor"' in chart.proto.spec) is clickable
        assert ("at visual layer 8" in _texts(shown)) is clickable and "Click a point" not in _texts(shown)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (
            {"at_lens": "latentlens", "at_other": "embeddinglens", "measure": "concrete"},
            {
                "**LatentLens only**: 12 patches concrete by LatentLens and not by EmbeddingLens",  # without sinks
                "**EmbeddingLens only**: 0 patches concrete by EmbeddingLens and not by LatentLens",
            },
        ),
        ({"at_lens": "latentlens", "comparison": "layers"}, {"**layer 8 only**: 0 patches", "**layer 0 only**: 0"}),
        ({"at_lens": "latentlens"}, {"Click a point"}),
        ({"at_lens": "latentlens", "at_other": "latentlens"}, {"Click a point"}),
    ],
)
def test_a_difference_that_is_clicked_has_the_patches_of_each_side_alone(
    app: AppTest, point: dict[str, str], said: set[str]
) -> None:
    texts = _texts(_opened(app, "layers", study="one", show="differences", at_layer="8", **point))
    assert [one for one in said if one not in texts] == []


@pytest.fixture
def without_table(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AppTest]:
    """Gives the browser of a home whose study `one` lacks a table, as an older version wrote it."""

    def app_without(table: str) -> AppTest:
        older = tmp_path / "home"
        shutil.copytree(home, older)
        with duckdb.connect(older / "warehouse" / "study" / "one" / "catalog.duckdb") as catalog:
            catalog.execute(f"DROP TABLE {table}")
        monkeypatch.setenv("LATENTLENS_BROWSE", str(older))
        monkeypatch.syspath_prepend(str(APP.parent))
        return AppTest.from_file(str(APP), default_timeout=30)

    return app_without


def test_a_study_of_its_whole_index_only_says_how_to_have_more(without_table: Callable[[str], AppTest]) -> None:
    shown = _opened(without_table("corpus_ablation"), "layers", study="one", show="size of the index")
    assert "corpus_ablation: [0.01, 0.1, 1.0]" in shown.info[0].value and not shown.get("vega_lite_chart")


def test_differences_that_nobody_computed_are_told(without_table: Callable[[str], AppTest]) -> None:
    shown = _opened(without_table("lens_differences"), "layers", study="one", show="differences")
    assert "latentlens-dag build" in shown.info[0].value and not shown.get("vega_lite_chart")


@pytest.mark.parametrize(("kind", "column"), [("share", 0), ("null_share", 1), ("difference", 2)])
def test_the_heat_map_is_of_the_tokens_of_the_null_or_of_their_difference(app: AppTest, kind: str, column: int) -> None:
    shown = _opened(app, "layers", study="one", show="contextual layers", answers=kind)
    (chart,) = shown.get("vega_lite_chart")
    field = json.loads(chart.proto.spec)["layer"][0]["encoding"]["color"]["field"]
    assert field == kind and "with its dimensions in a random order" in _texts(shown)
    cells = {(row["visual_layer"], row["contextual_layer"]): row for row in _values(chart)}
    half = {2: (0.5, 1.0, -0.5), 4: (0.5, 0.0, 0.5)}  # the two answers of a token; those of the null
    for (_, contextual), row in cells.items():
        assert row[kind] == pytest.approx(half[contextual][column])
    assert set(cells) == {(layer, contextual) for layer in (*map(str, LAYERS), "all") for contextual in (2, 4)}


def test_text_tokens_stand_beside_visual_tokens_with_the_hubs_word_in_the_figures(app: AppTest) -> None:
    shown = _opened(app, "layers", study="one", show="directions")
    for chart in shown.get("vega_lite_chart"):
        assert {row["source"] for row in _values(chart)} == {"visual tokens", "text tokens of the index"}
    (figures,) = [one.value for one in shown.dataframe if "hub_word" in one.value.columns]
    assert set(figures["hub_word"]) == {"grass"} and set(figures["norm_max"]) >= {900.0, 1980.0}


def test_a_catalog_of_an_older_version_has_its_heat_map_and_norms_and_says_what_is_missing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "home"
    shutil.copytree(home, older)
    warehouse = Warehouse(older / "warehouse")
    as_first_version(warehouse, "one")
    with duckdb.connect(warehouse.catalog("one")) as catalog:
        for table in ("layer_alignment", "state_statistics"):
            catalog.execute(f"CREATE OR REPLACE TABLE {table} AS FROM '{warehouse.summary('one', table)}'")
    monkeypatch.setenv("LATENTLENS_BROWSE", str(older))
    monkeypatch.syspath_prepend(str(APP.parent))
    opened = AppTest.from_file(str(APP), default_timeout=30)
    shown = _opened(opened, "layers", study="one", show="contextual layers")
    assert len(shown.get("vega_lite_chart")) == 1 and "The null" not in _texts(shown)
    norms, _drift = _opened(opened, "layers", study="one", show="norms and drift").get("vega_lite_chart")
    assert "norm_high" in norms.proto.spec and "norm_max" not in norms.proto.spec
    shown = _opened(opened, "layers", study="one", show="directions")
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
