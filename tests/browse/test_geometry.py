from __future__ import annotations

import polars as pl
import pytest

from latentlens_dag.browse.geometry import alignment_cells, directions, has_null
from latentlens_dag.schema import LAYER_ALIGNMENT, STATE_STATISTICS
from tests.helpers.small_dataset import state_statistics

ROWS = [
    # visual layer, contextual layer, neighbors, share, null share, its ends, tokens of the null
    (0, 1, 30, 0.75, 0.5, 0.4, 0.6, 10),
    (0, 2, 10, 0.25, 0.5, 0.4, 0.6, 10),
    (3, 1, 0, 0.0, 1.0, 0.9, 1.0, 30),  # layer 2 has no answer, measured or null, so it has no row
    (3, 4, 60, 1.0, 0.0, 0.0, 0.1, 30),
]


def _alignment(*without: str) -> pl.DataFrame:
    rows = [dict(zip(LAYER_ALIGNMENT.names, ("s", *row), strict=True)) for row in ROWS]
    return pl.DataFrame(rows).drop(without)


def test_all_layers_together_weigh_every_answer_and_every_token_of_the_null_alike() -> None:
    cells = alignment_cells(_alignment())
    together = {row["contextual_layer"]: row for row in cells.filter(visual_layer="all").to_dicts()}
    expected = {1: (0.3, 35 / 40), 2: (0.1, 5 / 40), 4: (0.6, 0.0)}
    for layer, (share, null) in expected.items():
        assert together[layer]["share"] == pytest.approx(share)
        assert together[layer]["null_share"] == pytest.approx(null)
        assert together[layer]["difference"] == pytest.approx(share - null)
    single = cells.filter(visual_layer="0", contextual_layer=1).to_dicts()
    assert [(row["share"], row["null_share"], row["difference"]) for row in single] == [(0.75, 0.5, 0.25)]
    assert len(cells) == len(ROWS) + 3


def test_without_a_null_the_cells_are_those_of_the_answers() -> None:
    of_older = _alignment("null_share", "null_low", "null_high", "null_tokens")
    unknown = _alignment().with_columns(pl.lit(None, pl.Float64).alias("null_share"), null_tokens=None)
    for found in (of_older, unknown):
        assert not has_null(found)
        cells = alignment_cells(found)
        assert cells["null_share"].null_count() == cells["difference"].null_count() == len(cells) == len(ROWS) + 3
        assert cells.filter(visual_layer="all")["share"].sum() == pytest.approx(1)
    assert has_null(_alignment())


def test_shares_of_sinks_and_of_equal_dimensions_are_those_of_their_counts() -> None:
    statistics = pl.DataFrame(state_statistics("one"))
    found = directions(statistics)
    assert found["sink_share"].to_list() == [row / 20 for row in statistics["sinks"]]
    assert set(found["even_share"]) == {1 / 8}
    assert found["source"].unique().sort().to_list() == ["text tokens of the index", "visual tokens"]


def test_older_statistics_have_no_directions() -> None:
    statistics = pl.DataFrame(state_statistics("one"))
    assert directions(statistics.select(STATE_STATISTICS.names[:10])).is_empty()
    assert directions(statistics.with_columns(directions=pl.lit(None, pl.Int64))).is_empty()
