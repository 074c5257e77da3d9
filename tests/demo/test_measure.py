"""The figures of fresh scenes: which sentences are read, and that a mean is the mean."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from latentlens_dag.demo.card import fresh_table, seeds_table
from latentlens_dag.demo.measure import FRESH, UNTRAINED, sentences_about, study_figures
from latentlens_dag.demo.world import load_world
from latentlens_dag.storage.warehouse import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    found = Warehouse(tmp_path)
    found.study("s").mkdir(parents=True)
    layers = {"lens": ["latentlens"] * 3, "patch_group": ["all"] * 3, "visual_layer": [2, 0, 1]}
    shares = {"share": [0.9, 0.1, 0.7], "chance": [0.5, 0.0, 0.4]}
    concrete = pl.DataFrame(layers | shares).with_columns(measure=pl.lit("concrete"), k=5)
    parts = [concrete, concrete.with_columns(pl.col("share") / 2, k=1)]
    parts += [part.with_columns(pl.col("share") + 0.05, measure=pl.lit("interpretable")) for part in parts]
    pl.concat(parts).write_parquet(found.summary("s", "interpretability"))
    pl.DataFrame({**layers, "distinct_words": [1.5, 5.0, 2.5]}).write_parquet(found.summary("s", "diversity"))
    return found


def test_means_leave_out_layer_0(warehouse: Warehouse) -> None:
    figures = study_figures(warehouse, "s")["latentlens"]
    assert figures["all"]["concrete"] == [0.1, 0.7, 0.9]
    assert figures["all"]["mean"] == pytest.approx(0.8)
    assert figures["all"]["mean_chance"] == pytest.approx(0.45)
    assert figures["all"]["mean_excess"] == pytest.approx((0.3 / 0.6 + 0.4 / 0.5) / 2)
    assert figures["distinct_words"] == 2.0
    whole = figures["all"]["interpretable"]
    assert (whole["shares"], whole["mean"]) == (pytest.approx([0.15, 0.75, 0.95]), pytest.approx(0.85))


def test_real_sentences_are_kept_once_where_they_hold_a_word_of_the_world_and_are_short() -> None:
    lines = ["A dog barked.", " A dog barked.", "Nothing of that world is said.", "The dogged man left.", "dog " * 30]
    assert sentences_about(load_world(), lines) == ["A dog barked."]


def test_the_card_shows_the_control_with_one_lens_and_the_model_with_all() -> None:
    of_group: dict[str, Any] = {"mean": 0.5, "mean_chance": 0.25, "mean_excess": 1 / 3}
    whole = {"mean": 0.75, "mean_chance": 0.5, "mean_excess": 0.5}
    lens = dict.fromkeys(("all", "object", "background"), of_group)
    lens["object"] = of_group | {"interpretable": whole}
    table = fresh_table({study: {"latentlens": lens, "logitlens": lens} for study in (FRESH, UNTRAINED)})
    assert table.count("| latentlens |") == 6
    assert table.count("| logitlens |") == 3
    assert "| the model | latentlens | object | 75.0 | 50.0 | 50.0 | 50.0 | 25.0 | 33.3 |" in table
    assert "| the model | latentlens | all | - | - | - | 50.0 | 25.0 | 33.3 |" in table


def test_the_mean_over_seeds_is_of_all_seeds() -> None:
    def run(seed: int, share: float) -> dict[str, dict[str, object]]:
        lens = {"distinct_words": 1 + share}
        lens |= {group: {"mean": share, "mean_excess": share} for group in ("all", "object", "background")}  # type: ignore[dict-item]
        captions = {"seed": seed, "object_recall": share, "object_precision": share}
        return {"connector": captions, "measure": {study: {"latentlens": lens} for study in (FRESH, UNTRAINED)}}

    lines = seeds_table([run(4, 0.5), run(0, 0.75), run(1, 1.0)]).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 4 (shipped)", "| 0", "| 1", "| **mean of 3**"]
    assert lines[-1] == "| **mean of 3** | 75.0 | 75.0 | 75.0 | 75.0 | 75.0 | 0.75 | 1.75 | 75.0 |"
