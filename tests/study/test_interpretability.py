from __future__ import annotations

import math
import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.schema import INTERPRETABILITY, JUDGEMENTS
from latentlens_dag.study.interpretability import excess, interpretability
from latentlens_dag.study.intervals import shares
from latentlens_dag.study.regions_judge import VERDICTS


def judged(image: str, token: int, verdict: str, chance: str | None = "none", group: str = "object") -> dict[str, Any]:
    row = {"study": "s", "image_id": image, "token_index": token, "visual_layer": 3, "lens": "logitlens"}
    return row | {"judge": "regions", "verdict": verdict, "words": [], "patch_group": group, "chance_verdict": chance}


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=JUDGEMENTS)


def by_group(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = interpretability(table(rows))
    assert found.schema == INTERPRETABILITY
    return {row["patch_group"]: row for row in found.to_pylist()}


def test_shares_are_counts_over_tokens_per_group_and_for_all() -> None:
    verdicts = ["concrete", "concrete", "abstract", "global", "none"]
    rows = [judged("a" if n < 2 else "b", n, verdict, "none") for n, verdict in enumerate(verdicts)]
    rows += [judged("b", 5 + n, "none", "concrete" if n == 0 else "global", "background") for n in range(3)]
    found = by_group(rows)
    assert list(found) == ["all", "object", "background"]
    shares = [found["object"][name] for name in ("tokens", "concrete", "abstract", "global", "interpretable")]
    assert shares == [5, 0.4, 0.2, 0.2, 0.8]
    assert (found["all"]["tokens"], found["all"]["interpretable"], found["all"]["concrete"]) == (8, 4 / 8, 2 / 8)
    assert (found["all"]["chance"], found["all"]["concrete_chance"]) == (3 / 8, 1 / 8)
    assert found["all"]["excess"] == pytest.approx((4 / 8 - 3 / 8) / (1 - 3 / 8))
    assert (found["background"]["chance"], found["background"]["excess"]) == (1.0, None)


def test_chance_is_over_the_tokens_that_have_a_chance_patch_and_null_without_any() -> None:
    rows = [judged("a", 0, "none", None), judged("a", 1, "none", "concrete"), judged("a", 2, "none", "none")]
    rows += [judged("a", 3, "concrete", None, "background")]
    found = by_group(rows)
    assert found["object"]["chance"] == found["object"]["concrete_chance"] == 0.5
    assert [found["background"][name] for name in ("chance", "concrete_chance", "excess")] == [None] * 3


@pytest.mark.parametrize(("share", "chance", "expected"), [(1, 0.5, 1), (0.5, 0.5, 0), (0, 0.5, -1), (1, 1, None)])
def test_excess_is_the_share_beyond_chance_of_what_chance_leaves(
    share: float, chance: float, expected: float | None
) -> None:
    assert excess(share, chance) == expected


def test_the_intervals_are_those_of_shares_over_images() -> None:
    verdicts = ["concrete", "none", "abstract", "concrete", "global", "none", "none"]
    rows = [judged(f"image {n // 3}", n, verdict) for n, verdict in enumerate(verdicts)]
    row = by_group(rows)["all"]
    whole, concrete = shares([2, 2, 0], [3, 3, 1]), shares([1, 1, 0], [3, 3, 1])
    assert (row["low"], row["high"]) == (whole.low, whole.high)
    assert (row["concrete_low"], row["concrete_high"]) == (concrete.low, concrete.high)


def test_patches_of_one_image_do_not_make_the_interval_narrow() -> None:
    rows = [judged(f"image {n}", t, "concrete" if n % 2 else "none") for n in range(10) for t in range(50)]
    row = by_group(rows)["object"]
    binomial = 2 * 1.96 * math.sqrt(0.25 / 500)
    assert row["high"] - row["low"] > 4 * binomial


def test_one_image_has_no_interval() -> None:
    row = by_group([judged("a", n, "concrete") for n in range(9)])["all"]
    assert [row[name] for name in ("low", "high", "concrete_low", "concrete_high")] == [None] * 4


def test_concrete_and_interpretable_have_intervals_of_their_own() -> None:
    rows = [judged(f"i{n}", t, VERDICTS[(n + t) % 4 if n else 1]) for n in range(6) for t in range(7)]
    row = by_group(rows)["all"]
    assert row["concrete_low"] < row["concrete"] < row["concrete_high"] < row["high"]
    assert row["low"] < row["interpretable"] < row["high"]


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
    rows = [judged(image, n, verdict, "none", group) for n, (image, verdict, group) in enumerate(drawn)]
    expected = interpretability(table(rows))
    shuffler.shuffle(rows)
    assert interpretability([table(rows[part::parts]) for part in range(parts)]).equals(expected)


def test_rows_come_by_lens_layer_and_group_and_do_not_depend_on_each_other() -> None:
    rows = [judged(image, n, "concrete") for n, image in enumerate("abcab")]
    more = [
        {**row, "lens": lens, "visual_layer": layer} for row in rows for lens in ("latentlens", "x") for layer in (8, 0)
    ]
    found = interpretability(table(more + rows)).to_pylist()
    places = [(row["lens"], row["visual_layer"]) for row in found if row["patch_group"] == "all"]
    assert places == [("latentlens", 0), ("latentlens", 8), ("logitlens", 3), ("x", 0), ("x", 8)]
    alone = interpretability(table(rows)).to_pylist()
    assert [row for row in found if row["lens"] == "logitlens"] == alone


def test_no_judgements_give_an_empty_table() -> None:
    assert interpretability([]).equals(INTERPRETABILITY.empty_table())
    assert interpretability(JUDGEMENTS.empty_table()).equals(INTERPRETABILITY.empty_table())
