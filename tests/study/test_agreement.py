from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.study.agreement import Agreement, agreements, cohen_kappa, kappa_interval
from latentlens_dag.study.intervals import SEED, Interval
from latentlens_dag.study.regions_judge import VERDICTS

Verdicts = list[tuple[int, str, str]]
"""Per item: number of the image, and what each of two judges said."""


def rated(verdicts: Verdicts, lens: str = "latentlens") -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for token, (image, *both) in enumerate(verdicts):
        item = {"image_id": f"image{image:03d}", "token_index": token, "visual_layer": 4, "lens": lens}
        rows += [{"rater": rater, **item, "verdict": verdict} for rater, verdict in zip("ab", both, strict=True)]
    return pl.DataFrame(rows)


def slow_kappa(pairs: list[tuple[str, str]]) -> float | None:
    """Cohen's definition, in probabilities."""
    mine, theirs = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / len(pairs)
    expected = sum(mine[one] / len(pairs) * theirs[one] / len(pairs) for one in mine)
    return None if math.isclose(expected, 1) else (observed - expected) / (1 - expected)


def slow_interval(verdicts: Verdicts) -> Interval:
    """Draw images, take all their items, ask for kappa; 1,000 times."""
    images, generator = sorted({image for image, *_ in verdicts}), np.random.default_rng(SEED)
    if len(images) < 2:
        return Interval(None, None)
    kappas = []
    for _ in range(1000):
        drawn = [images[place] for place in generator.integers(len(images), size=len(images))]
        kappas.append(slow_kappa([(a, b) for one in drawn for image, a, b in verdicts if image == one]))
    defined = [kappa for kappa in kappas if kappa is not None]
    if not defined:
        return Interval(None, None)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(float(low), float(high))


def test_kappa_of_an_example_worked_by_hand() -> None:
    # 50 items: both yes 20, both no 15, only one yes 5, only the other yes 10. Agreement 35/50 = 0.7; by chance
    # 25/50 * 30/50 + 25/50 * 20/50 = 0.5; (0.7 - 0.5) / (1 - 0.5) = 0.4.
    assert cohen_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4, abs=1e-15)
    assert cohen_kappa(np.array([[9, 0], [0, 4]])) == 1
    assert cohen_kappa(np.array([[1, 1], [1, 1]])) == 0
    assert cohen_kappa(np.array([[0, 2], [2, 0]])) == -1


def test_kappa_is_not_defined_where_both_always_say_the_same() -> None:
    assert cohen_kappa(np.array([[7, 0], [0, 0]])) is None
    assert cohen_kappa(np.zeros((4, 4), np.int64)) is None
    found = agreements(rated([(0, "none", "none"), (1, "none", "none")]))[0]
    assert (found.agreement, found.kappa, found.interval) == (1, None, (None, None))


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)), min_size=1, max_size=25
    )
)
def test_agreement_is_its_definition_written_slowly(verdicts: Verdicts) -> None:
    found = agreements(rated(verdicts))[0]
    pairs = [(a, b) for _, a, b in verdicts]
    assert (found.common, found.images) == (len(pairs), len({image for image, *_ in verdicts}))
    assert found.agreement == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert found.kappa == pytest.approx(slow_kappa(pairs), abs=1e-12)
    assert found.interval == pytest.approx(slow_interval(verdicts), abs=1e-9)
    assert found.table == tuple(tuple(pairs.count((one, other)) for other in VERDICTS) for one in VERDICTS)


def test_the_interval_is_over_images_not_over_their_patches() -> None:
    # Two images, one of perfect agreement and one of none: draws are of one, the other or both, whatever they hold.
    many = [(0, "concrete", "concrete"), (0, "none", "none"), (1, "concrete", "none"), (1, "none", "concrete")] * 50
    found = agreements(rated(many))[0]
    assert found.kappa == pytest.approx(0) and found.interval == pytest.approx((-1, 1))
    assert kappa_interval(np.ones((1, 2, 2), np.int64)) == (None, None)


def test_two_categories_join_all_that_is_interpretable() -> None:
    found = agreements(rated([(0, "concrete", "global"), (1, "none", "none")]), two_categories=True)[0]
    assert found.categories == ("interpretable", "none") and found.table == ((1, 0), (0, 1)) and found.kappa == 1


def test_every_two_judges_are_compared_on_what_both_judged_over_all_lenses_and_lens_by_lens() -> None:
    both = pl.concat([rated([(0, "none", "none")] * 2), rated([(1, "global", "none")], lens="logitlens")])
    alone = rated([(0, "concrete", "none")]).filter(pl.col("rater") == "a").with_columns(rater=pl.lit("c"))
    found = agreements(pl.concat([both, alone]))
    places = [(one.first, one.second, one.lens, one.common, one.agreement) for one in found]
    assert places == [
        ("a", "b", "all", 3, pytest.approx(2 / 3)),
        ("a", "b", "latentlens", 2, 1),
        ("a", "b", "logitlens", 1, 0),
        ("a", "c", "all", 1, 0),
        ("a", "c", "latentlens", 1, 0),
        ("b", "c", "all", 1, 0),
        ("b", "c", "latentlens", 1, 0),
    ]
    assert agreements(alone) == [] and isinstance(found[0], Agreement)
    shuffled = both.sample(fraction=1, shuffle=True, seed=1)
    assert agreements(shuffled) == agreements(both)
