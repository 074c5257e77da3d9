"""What must hold of neighbors: the quick check says the same as the one that finds all faults."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlens_dag.dag.assets import checks
from latentlens_dag.dag.assets.checks import neighbor_problems
from latentlens_dag.schema import NEIGHBORS
from tests.helpers.small_dataset import answer

_FAULTS = ("rank", "token_index", "image_id", "cosine")


def _rows(images: int, tokens: int, top_k: int) -> list[dict[str, Any]]:
    places = [(f"i{image}", token) for image in range(images) for token in range(tokens)]
    return [
        {**answer("s", image, token, 0, "latentlens", rank, "dog"), "cosine": 1 / rank, "logit": None}
        for image, token in places
        for rank in range(1, top_k + 1)
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2),
    st.integers(1, 2),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(_FAULTS), st.sampled_from([0, 1, 2, None])), max_size=2),
    st.booleans(),
)
def test_the_quick_check_passes_only_what_has_no_problems(
    images: int, tokens: int, top_k: int, faults: list[tuple[int, str, int | None]], is_logit: bool
) -> None:
    rows = _rows(images, tokens, top_k)
    for number, name, value in faults if rows else []:
        valid = f"i{value}" if name == "image_id" else value
        rows[number % len(rows)][name] = valid if name == "cosine" or value is not None else rows[0][name]
    if is_logit:
        rows = [{**row, "logit": row["cosine"], "cosine": None} for row in rows]
    table = pa.Table.from_pylist(rows, schema=NEIGHBORS)
    found = neighbor_problems(table, images * tokens, top_k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_are_sound", lambda *_: False)
        assert found == neighbor_problems(table, images * tokens, top_k)


def test_neighbors_token_after_token_pass_the_quick_check() -> None:
    table = pa.Table.from_pylist(_rows(2, 3, 5), schema=NEIGHBORS)
    assert checks._are_sound(table, 6, 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2.0])
def test_a_score_that_is_not_finite_or_not_in_order_is_a_problem_of_its_token(bad: float) -> None:
    rows = _rows(1, 2, 3)
    rows[4]["cosine"] = bad
    (problem,) = neighbor_problems(pa.Table.from_pylist(rows, schema=NEIGHBORS), 2, 3)
    assert problem.startswith("token 1 of i0")
