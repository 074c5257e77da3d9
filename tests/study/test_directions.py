from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.study.directions import Directions, DirectionSums


def _figures(states: np.ndarray, groups: np.ndarray, cuts: list[int]) -> Directions:
    sums = DirectionSums(states.shape[1])
    for start, end in pairwise([0, *sorted(cuts), len(states)]):
        sums.add(states[start:end], groups[start:end])
    found = sums.figures()
    assert found is not None
    return found


def _slow(states: np.ndarray, groups: np.ndarray) -> tuple[float, np.ndarray]:
    """The definitions: pair by pair, and state by state."""
    cosines = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for i, a in enumerate(states)
        for j, b in enumerate(states)
        if groups[i] != groups[j]
    ]
    shares = np.mean([state**2 / (state**2).sum() for state in states], axis=0)
    return (float(np.mean(cosines)) if cosines else float("nan")), shares


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(2, 14), st.data())
def test_anisotropy_and_shares_are_their_definitions_however_the_states_are_cut(
    sizes: list[int], width: int, data: st.DataObject
) -> None:
    states = np.random.default_rng(sum(sizes) + width).standard_normal((sum(sizes), width)) + 0.5
    groups = np.repeat([f"image{number}" for number in range(len(sizes))], sizes).astype(object)
    cuts = data.draw(st.lists(st.integers(0, len(states)), max_size=4))
    found, (anisotropy, shares) = _figures(states, groups, cuts), _slow(states, groups)
    assert found.anisotropy == pytest.approx(anisotropy, abs=1e-12, nan_ok=True)
    assert (found.states, found.dimensions, found.top_dimension) == (len(states), width, int(np.argmax(shares)))
    assert found.top_share == pytest.approx(shares.max())
    assert found.top_10_share == pytest.approx(np.sort(shares)[-10:].sum())


def test_one_direction_has_anisotropy_1_opposite_ones_less_than_0_and_axes_0() -> None:
    groups = np.arange(4)
    assert _figures(np.outer([1.0, 2, 3, 900], [3.0, 4]), groups, []).anisotropy == pytest.approx(1)
    assert _figures(np.array([[1.0, 0], [-2, 0]]), groups[:2], []).anisotropy == pytest.approx(-1)
    assert _figures(np.eye(4) * 7, groups, []).anisotropy == pytest.approx(0)


def test_states_of_one_image_alone_have_no_anisotropy() -> None:
    assert np.isnan(_figures(np.ones((3, 2)), np.array(["a", "a", "a"]), [1]).anisotropy)


def test_an_outlier_dimension_is_named_and_long_states_count_no_more_than_others() -> None:
    states = np.random.default_rng(0).standard_normal((400, 64))
    states[:, 19] = 8 * np.sqrt(2)  # 128 of about 191
    states[0] = 0
    states[0, 3] = 1e6
    found = _figures(states, np.arange(400), [100])
    assert found.top_dimension == 19
    assert found.top_share == pytest.approx(128 / 191, abs=0.02)
    assert found.anisotropy == pytest.approx(found.top_share, abs=0.02)


def test_no_states_have_no_figures() -> None:
    sums = DirectionSums(3)
    sums.add(np.empty((0, 3)), np.empty(0, object))
    assert sums.figures() is None
