"""The text of `plan`: which lines, in which words."""

import dagster as dg
import pytest

from latentlens_dag.cli.plan_text import plan_lines
from latentlens_dag.dag.building.estimate import StepWork
from latentlens_dag.dag.building.staleness import NOT_BUILT, StaleTarget

PICTURES = dg.AssetKey(["images", "pics", "pictures"])
VISUAL = [dg.AssetKey(["study", "s", "visual", f"V0{layer}"]) for layer in range(2)]
STEP_OF = {PICTURES: "images/pics/pictures", **dict.fromkeys(VISUAL, "study/s/visual")}
TARGETS = [
    StaleTarget(PICTURES, None, "images/pics/source changed"),
    *(StaleTarget(key, part, "follows images/pics/pictures[01]") for key in VISUAL for part in ("00", "01")),
]
WORK = [StepWork("images/pics/pictures", 1, 1.0, 10, 1000), StepWork("study/s/visual", 4, None, None, None)]


def test_a_plan_has_a_line_per_step_with_the_step_that_it_follows_and_how_much_is_reused() -> None:
    lines = plan_lines(TARGETS, WORK, STEP_OF, {"study/s/visual": 3}, verbose=False)
    assert lines[:3] == [
        "images/pics/pictures, 1 part: images/pics/source changed",
        "study/s/visual, 4 parts: follows images/pics/pictures; 3 of 4 parts reuse states",
        "",
    ]
    assert "States that are reused are not computed again" in lines[-1] and "--verbose" in lines[-1]


def test_a_verbose_plan_has_a_line_per_part() -> None:
    lines = plan_lines(TARGETS, WORK, STEP_OF, {}, verbose=True)
    assert lines[: len(TARGETS) + 1] == [*map(str, TARGETS), ""]
    assert "reused" not in lines[-1] and "--verbose" not in lines[-1]


def test_several_reasons_of_a_step_are_counted_most_frequent_first_and_the_rest_is_a_number() -> None:
    reasons = [NOT_BUILT, NOT_BUILT, "top_k: 5 -> 3", "a changed", "b changed", "c changed"]
    targets = [StaleTarget(VISUAL[0], str(number), reason) for number, reason in enumerate(reasons)]
    (line, *_) = plan_lines(targets, WORK, STEP_OF, {}, verbose=False)
    assert line == "study/s/visual, 6 parts: not built yet (2), top_k: 5 -> 3 (1), a changed (1), 2 other reasons"


@pytest.mark.parametrize("verbose", [True, False])
def test_a_plan_of_nothing_says_so(verbose: bool) -> None:
    assert plan_lines([], [], {}, {}, verbose) == ["Everything is up to date."]
