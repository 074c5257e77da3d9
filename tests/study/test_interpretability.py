from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.schema import INTERPRETABILITY, JUDGEMENTS, SINKS
from latentlens_dag.study.interpretability import MEASURES, interpretability
from latentlens_dag.study.intervals import excesses, shares
from latentlens_dag.study.regions_judge import VERDICTS

Row = dict[str, Any]


def counts(verdicts: Sequence[str] | None) -> list[int] | None:
    return None if verdicts is None else [list(verdicts).count(verdict) for verdict in VERDICTS]


def judged(
    image: str,
    token: int,
    verdict: str,
    chance: Sequence[str] | None = ("none", "none"),
    group: str = "object",
    first: str = "none",
) -> Row:
    row = {"study": "s", "image_id": image, "token_index": token, "visual_layer": 3, "lens": "logitlens"}
    row |= {"judge": "regions", "verdict": verdict, "words": [], "patch_group": group, "first_verdict": first}
    by_first = None if chance is None else ["none"] * len(chance)
    row |= {"chance_verdict": None if chance is None else chance[0]}
    return row | {"chance_counts": counts(chance), "first_chance_counts": counts(by_first)}


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=JUDGEMENTS)


def by_place(rows: list[Row], sinks: pa.Table | None = None) -> dict[tuple[str, int, str], Row]:
    """By group, k and measure."""
    found = interpretability(table(rows), 5, sinks)
    assert found.schema == INTERPRETABILITY
    return {(row["patch_group"], row["k"], row["measure"]): row for row in found.to_pylist()}


def test_shares_are_counts_over_tokens_per_group_and_for_all() -> None:
    verdicts = ["concrete", "concrete", "abstract", "global", "none"]
    rows = [judged("a" if n < 2 else "b", n, verdict) for n, verdict in enumerate(verdicts)]
    rows += [judged("b", 5 + n, "none", ["concrete" if n == 0 else "global"] * 2, "background") for n in range(3)]
    found = by_place(rows)
    assert list(dict.fromkeys(group for group, _, _ in found)) == ["all", "object", "background"]
    assert [found["object", 5, measure]["share"] for measure in MEASURES] == [0.8, 0.4, 0.2, 0.2]
    assert (found["object", 5, "concrete"]["tokens"], found["object", 5, "concrete"]["images"]) == (5, 2)
    whole, concrete = found["all", 5, "interpretable"], found["all", 5, "concrete"]
    assert (whole["tokens"], whole["share"], concrete["share"]) == (8, 4 / 8, 2 / 8)
    assert (whole["chance"], concrete["chance"]) == (3 / 8, 1 / 8)
    assert whole["excess"] == pytest.approx((4 / 8 - 3 / 8) / (1 - 3 / 8))
    background = found["background", 5, "interpretable"]
    assert (background["chance"], background["excess"]) == (1.0, None)


def test_the_nearest_answer_alone_has_its_own_rows_and_all_answers_theirs() -> None:
    rows = [judged("ab"[n % 2], n, "concrete", first="global" if n < 3 else "none") for n in range(4)]
    found = by_place(rows)
    assert {k for _, k, _ in found} == {1, 5}
    assert [found["all", 1, measure]["share"] for measure in MEASURES] == [0.75, 0, 0, 0.75]
    assert [found["all", 5, measure]["share"] for measure in MEASURES] == [1, 1, 0, 0]
    only_one = interpretability(table(rows), 1).to_pylist()
    assert {row["k"] for row in only_one} == {1}
    assert {row["share"] for row in only_one if row["measure"] == "concrete"} == {1.0}


def test_chance_is_the_mean_over_draws_of_the_tokens_that_have_a_chance_patch() -> None:
    draws = [None, ["concrete", "global", "none", "none"], ["none"] * 4]
    rows = [judged("a", n, "none", chance) for n, chance in enumerate(draws)]
    rows += [judged("a", 3, "concrete", None, "background")]
    found = by_place(rows)
    assert [found["object", 5, m]["chance"] for m in MEASURES] == [2 / 8, 1 / 8, 0, 1 / 8]
    assert found["object", 1, "concrete"]["chance"] == 0
    columns = ("chance", "chance_low", "chance_high", "excess", "excess_low", "excess_high")
    assert [found["background", 5, "concrete"][name] for name in columns] == [None] * 6


def test_excess_compares_the_tokens_that_have_a_chance_patch() -> None:
    rows = [judged("ab"[n % 2], n, "concrete" if n < 3 else "none", None if n < 2 else ["none"] * 2) for n in range(6)]
    row = by_place(rows)["all", 5, "concrete"]
    assert (row["share"], row["chance"], row["excess"]) == (3 / 6, 0, 1 / 4)


def test_the_intervals_are_those_of_shares_and_excesses_over_images() -> None:
    verdicts = ["concrete", "none", "abstract", "concrete", "global", "none", "none"]
    drawn = [["none", "global"], ["none", "none"], ["concrete", "none"]]
    rows = [judged(f"image {n // 3}", n, verdict, drawn[n % 3]) for n, verdict in enumerate(verdicts)]
    found = by_place(rows)
    patches, hits = [3, 3, 1], {"interpretable": [2, 2, 0], "concrete": [1, 1, 0], "global": [0, 1, 0]}
    chance = {"interpretable": [1, 1, 0.5], "concrete": [0.5, 0.5, 0], "global": [0.5, 0.5, 0.5]}
    for measure, own in hits.items():
        row = found["all", 5, measure]
        whole, by_chance = shares(own, patches), shares(chance[measure], patches)
        beyond = excesses(own, chance[measure], patches)
        assert row["excess"] == beyond.value
        names = ("low", "high", "chance_low", "chance_high", "excess_low", "excess_high", "effective_tokens")
        slow = (whole.low, whole.high, by_chance.low, by_chance.high, beyond.low, beyond.high, whole.effective)
        assert [row[name] for name in names] == np.array(slow, np.float32).tolist()


def test_patches_of_one_image_do_not_make_the_interval_narrow() -> None:
    rows = [judged(f"image {n}", t, "concrete" if n % 2 else "none") for n in range(10) for t in range(50)]
    row = by_place(rows)["object", 5, "concrete"]
    binomial = 2 * 1.96 * math.sqrt(0.25 / 500)
    assert row["high"] - row["low"] > 4 * binomial
    assert row["effective_tokens"] < 12 < row["tokens"] == 500


def test_one_image_has_no_interval() -> None:
    for row in by_place([judged("a", n, "concrete") for n in range(9)]).values():
        ends = [row[f"{name}{end}"] for name in ("", "chance_", "excess_") for end in ("low", "high")]
        assert [*ends, row["effective_tokens"]] == [None] * 7


def test_padding_and_sinks_are_groups_of_their_own_and_a_sink_in_the_padding_is_padding() -> None:
    rows = [judged("ab"[n % 2], n, "concrete", group="padding" if n < 3 else "background") for n in range(8)]
    marked = [(("s", "ab"[n % 2], n, 3, 9.0, 1.0)) for n in (0, 4)]
    sinks = pa.Table.from_pylist([dict(zip(SINKS.names, one, strict=True)) for one in marked], schema=SINKS)
    found = by_place(rows, sinks)
    tokens = {group: row["tokens"] for (group, _, _), row in found.items()}
    assert tokens == {"all": 4, "background": 4, "padding": 3, "sink": 1}


def test_only_padding_gives_no_row_of_all_patches() -> None:
    assert {group for group, _, _ in by_place([judged("a", 0, "none", group="padding")])} == {"padding"}


judgement_rows = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(VERDICTS), st.sampled_from(["object", "background"])),
    min_size=1,
    max_size=30,
)


@settings(max_examples=12, deadline=None)
@given(judgement_rows, st.integers(1, 4), st.randoms(use_true_random=False))
def test_order_of_rows_and_cut_into_tables_change_no_byte(
    drawn: list[tuple[str, str, str]], parts: int, shuffler: random.Random
) -> None:
    rows = [
        judged(image, n, verdict, (verdict, "none", "global"), group) for n, (image, verdict, group) in enumerate(drawn)
    ]
    expected = interpretability(table(rows), 5)
    shuffler.shuffle(rows)
    assert interpretability([table(rows[part::parts]) for part in range(parts)], 5).equals(expected)


def test_rows_come_by_lens_layer_group_k_and_measure_and_do_not_depend_on_each_other() -> None:
    rows = [judged(image, n, "concrete") for n, image in enumerate("abcab")]
    more = [
        {**row, "lens": lens, "visual_layer": layer} for row in rows for lens in ("latentlens", "x") for layer in (8, 0)
    ]
    found = interpretability(table(more + rows), 5).to_pylist()
    places = dict.fromkeys((row["lens"], row["visual_layer"]) for row in found)
    assert list(places) == [("latentlens", 0), ("latentlens", 8), ("logitlens", 3), ("x", 0), ("x", 8)]
    inner = [(row["patch_group"], row["k"], row["measure"]) for row in found[:16]]
    assert inner == [(group, k, measure) for group in ("all", "object") for k in (1, 5) for measure in MEASURES]
    alone = interpretability(table(rows), 5).to_pylist()
    assert [row for row in found if row["lens"] == "logitlens"] == alone


def test_no_judgements_give_an_empty_table() -> None:
    assert interpretability([], 5).equals(INTERPRETABILITY.empty_table())
    assert interpretability(JUDGEMENTS.empty_table(), 5).equals(INTERPRETABILITY.empty_table())
