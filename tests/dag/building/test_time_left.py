"""The time that a build still takes: right where steps behave as before, and never in contradiction to itself."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentlens_dag.dag.building.time_left import Pace, StepProgress, TimeEstimator, TimeLeft, duration
from tests.dag.small_graph import opened, small_project

PARTS = {(f"{step}{layer}", f"0{batch}"): step for step in "abc" for layer in range(2) for batch in range(2)}
"""Steps a, b and c of two layers and two batches each."""
RUNS = list(dict.fromkeys((step, batch) for (_, batch), step in PARTS.items()))
seconds = st.floats(0, 1e5)
speeds = st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e4))
events = st.one_of(
    st.tuples(st.just("wait"), seconds),
    st.tuples(st.just("started"), st.sampled_from([*RUNS, ("unplanned", None)])),
    st.tuples(st.just("progressed"), st.tuples(st.integers(1, 50), st.integers(1, 50))),
    st.tuples(st.just("built"), st.sampled_from([*PARTS, ("unplanned", None)])),
    st.tuples(st.just("finished"), st.none()),
    st.tuples(st.just("up_to_date"), st.lists(st.sampled_from([*PARTS]))),
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _planned(before: Mapping[str, float]) -> tuple[TimeEstimator, Clock]:
    estimator = TimeEstimator(clock := Clock())
    estimator.planned(PARTS, before)
    return estimator, clock


class Build:
    """A build of which anything may be reported, in any order."""

    def __init__(self, before: Mapping[str, float]) -> None:
        self.estimator, self.clock = _planned(before)
        self.left, self.running, self._pace = set(PARTS), False, Pace()

    def happens(self, event: str, facts: object) -> None:
        getattr(self, event)(facts)

    def wait(self, wall_s: float) -> None:
        self.clock.now += wall_s

    def started(self, run: tuple[str, str]) -> None:
        self.estimator.started(*run)
        self.running, self._pace = True, Pace()

    def progressed(self, counts: tuple[int, int]) -> None:
        done, total = sorted(counts)
        self._pace.report(self.clock.now, done, total)
        left = self._pace.seconds_left(self.clock.now)
        self.estimator.progressed(StepProgress(done, total, "rows", self._pace.per_second, left))

    def built(self, part: tuple[str, str]) -> None:
        self.estimator.built(*part)
        self.left.discard(part)

    def finished(self, _: None) -> None:
        self.estimator.finished()
        self.running = False

    def up_to_date(self, parts: list[tuple[str, str]]) -> None:
        self.estimator.up_to_date(parts)
        self.left -= set(parts)


def _least_seconds(text: str) -> float:
    """What a text promises at least: 60 for "about 2 min left", as minutes are rounded."""
    units = {"s": 1, "min": 60, "h": 3600}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", text))


@given(speeds, st.lists(events, max_size=40))
def test_whatever_happens_the_total_is_at_least_the_step_and_neither_is_zero_while_something_is_left(
    before: dict[str, float], happened: list[tuple[str, object]]
) -> None:
    build, done = Build(before), 0
    for event in happened:
        build.happens(*event)
        step, total = build.estimator.step_left(), build.estimator.total_left()
        assert done <= build.estimator.done == len(PARTS) - len(build.left) <= build.estimator.total == len(PARTS)
        done = build.estimator.done
        assert step.seconds <= total.seconds and step.complete >= total.complete and step.overdue == total.overdue
        assert "under" not in f"{step} {total}" or step.complete  # then nothing is known of the step
        if "under" not in str(total) and str(total):
            assert _least_seconds(str(step)) <= _least_seconds(str(total)) or step.overdue
        assert not re.search(r"\b0 (s|min)", f"{step} {total}")
        for left, is_left in ((step, build.running), (total, build.running or bool(build.left))):
            assert not left.complete or (left.seconds > 0) == is_left == bool(str(left))


@given(st.dictionaries(st.sampled_from("abc"), st.floats(0.1, 1e4)), st.sets(st.sampled_from([*PARTS])))
def test_before_a_step_runs_the_total_is_the_sum_over_the_parts_that_are_left(
    before: dict[str, float], fresh: set[tuple[str, str]]
) -> None:
    estimator, _ = _planned(before)
    estimator.up_to_date(fresh)
    times = [before.get(step) for part, step in PARTS.items() if part not in fresh]
    total = estimator.total_left()
    assert total.seconds == pytest.approx(max(sum(filter(None, times)), 1.0 if times and None not in times else 0.0))
    assert total.complete == (None not in times)


@given(st.tuples(*[st.floats(2, 1e4)] * 3), st.floats(0, 1))
def test_where_steps_take_as_long_as_before_the_time_left_is_what_is_left(
    before: tuple[float, float, float], share: float
) -> None:
    speed = dict(zip("abc", before, strict=True))
    estimator, clock = _planned(speed)
    end = sum(speed[step] for step in PARTS.values())
    for step, batch in RUNS:
        start = clock.now
        estimator.started(step, batch)
        clock.now = start + 2 * speed[step] * share
        assert estimator.total_left().seconds == pytest.approx(end - clock.now, abs=1.001)
        assert estimator.step_left().seconds == pytest.approx(max(1, 2 * speed[step] * (1 - share)))
        clock.now = start + 2 * speed[step]
        for layer in range(2):
            estimator.built(f"{step}{layer}", batch)
        estimator.finished()
        assert estimator.total_left().seconds == pytest.approx(end - clock.now, abs=1e-3 * end)


@pytest.mark.parametrize("before", [{}, {"a": 1.0, "b": 1.0, "c": 1.0}])
def test_a_step_that_reports_units_is_estimated_by_its_own_pace_after_its_first_report(
    before: dict[str, float],
) -> None:
    build = Build(before)
    build.started(("a", "00"))
    for now, done in ((100.0, 10), (110.0, 20)):  # loading took 90 s, and ten rows take 10 s
        build.clock.now = now
        build.progressed((done, 80))
    assert build.estimator.step_left() == TimeLeft(60.0)
    build.clock.now = 130.0
    assert build.estimator.step_left() == TimeLeft(40.0)
    other_batch, other_steps = 80.0, 4 * 1.0 + 4 * 1.0  # nothing is loaded again; those that never ran are left out
    total = 40.0 + other_batch + (other_steps if before else 0.0)
    assert build.estimator.total_left() == TimeLeft(total, complete=bool(before))


@given(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(1, 1e3), st.integers(1, 79))
def test_what_waits_of_the_running_step_takes_no_less_per_part_than_what_runs(
    before: float, loading: float, wall_s: float, done: int
) -> None:
    """As where a step of two batches took 1 s in its last run, and now takes 3 minutes."""
    build = Build({"a": before, "b": 1.0, "c": 1.0})
    build.estimator.up_to_date([part for part in PARTS if PARTS[part] != "a"])
    build.started(("a", "00"))
    for now, rows in ((0.0, 0), (loading, 0), (loading + wall_s * done / 80, done)):
        build.clock.now = now
        build.progressed((rows, 80))
    left, total = build.estimator.step_left().seconds, build.estimator.total_left().seconds
    batch = build.clock.now + left
    assert total == pytest.approx(left + max(2 * before, batch), abs=1.001)


@pytest.mark.parametrize("wall_s", [0.0, 9.9, 10.1])
@pytest.mark.parametrize("by_parts", [False, True])
def test_a_step_that_was_slow_in_its_units_is_late_only_some_time_after_the_last_one(
    wall_s: float, by_parts: bool
) -> None:
    estimator, clock = TimeEstimator(clock := Clock()), clock
    estimator.planned({(f"layer {n}", None): "a" for n in range(3)}, {"a": 1.0})
    estimator.started("a", None)
    for layer in range(2 if by_parts else 0):
        clock.now = 0.5 * (layer + 1)
        estimator.built(f"layer {layer}", None)
    pace = Pace()
    for now, done in ((1.0, 0), (101.0, 100)):
        clock.now = now
        pace.report(now, done, 100)
        estimator.progressed(StepProgress(done, 100, "images", pace.per_second, pace.seconds_left(now)))
    clock.now += wall_s
    assert str(estimator.step_left()) == ("under 10 s left" if wall_s < 10 else "longer than expected")


def _first_batch_with_a_load(before: Mapping[str, float], by_units: bool) -> tuple[TimeEstimator, Clock]:
    """Of step a, whose first batch took 90 s to load, then 10 s for each of its two layers."""
    estimator, clock = _planned(before)
    estimator.up_to_date([part for part in PARTS if PARTS[part] != "a"])
    estimator.started("a", "00")
    pace = Pace()
    for now, done in ((90.0, 0), (95.0, 1), (110.0, 4)) if by_units else ():
        clock.now = now
        pace.report(now, done, 4)
        estimator.progressed(StepProgress(done, 4, "rows", pace.per_second, pace.seconds_left(now)))
    for layer in range(2):
        clock.now = 110.0 if by_units else 100.0 + 10 * layer
        estimator.built(f"a{layer}", "00")
    estimator.finished()
    return estimator, clock


@pytest.mark.parametrize("by_units", [True, False])
@pytest.mark.parametrize(("before", "expected"), [(None, 20.0), (1.0, 20.0), (30.0, 60.0), (200.0, 110.0)])
def test_what_comes_before_the_first_unit_or_part_of_a_step_counts_again_only_if_its_last_run_says_so(
    by_units: bool, before: float | None, expected: float
) -> None:
    estimator, clock = _first_batch_with_a_load({} if before is None else {"a": before}, by_units)
    assert estimator.total_left() == TimeLeft(pytest.approx(expected))
    estimator.started("a", "01")
    assert estimator.step_left() == estimator.total_left() == TimeLeft(pytest.approx(expected))
    clock.now += expected + 11
    assert str(estimator.total_left()) == "longer than expected"


def test_a_step_that_became_slower_is_not_expected_to_take_longer_again_than_it_did() -> None:
    build = Build({})
    build.estimator.up_to_date([part for part in PARTS if PARTS[part] != "a"])
    build.started(("a", "00"))
    for build.clock.now, done in ((10.0, 4), (20.0, 5)):  # by their pace, they began before the step
        build.progressed((done, 5))
    for layer in range(2):
        build.built((f"a{layer}", "00"))
    build.finished(None)
    assert build.estimator.total_left() == TimeLeft(20.0)


def test_from_its_second_partition_on_a_step_is_estimated_by_those_after_the_first() -> None:
    parts = {(f"a{layer}", f"0{batch}"): "a" for layer in range(2) for batch in range(4)}
    estimator, clock = TimeEstimator(clock := Clock()), clock
    estimator.planned(parts, {})
    for batch, wall_s in enumerate((110.0, 30.0, 50.0)):
        estimator.started("a", f"0{batch}")
        for layer in range(2):
            clock.now += wall_s / 2
            estimator.built(f"a{layer}", f"0{batch}")
        estimator.finished()
    assert estimator.total_left() == TimeLeft(40.0)


def test_a_step_that_reports_nothing_is_estimated_by_the_parts_that_it_writes() -> None:
    estimator, clock = TimeEstimator(clock := Clock()), clock
    estimator.planned({(f"layer {n}", None): "judgements" for n in range(10)}, {"judgements": 1.0})
    estimator.started("judgements", None)
    for layer in range(3):
        clock.now = 60.0 + 20 * layer  # what all layers need took 40 s
        estimator.built(f"layer {layer}", None)
    assert estimator.step_left() == estimator.total_left() == TimeLeft(140.0)


def test_after_its_last_unit_a_step_is_estimated_by_its_last_run_again() -> None:
    build = Build({"a": 100.0, "b": 1.0, "c": 1.0})
    build.started(("a", "00"))
    for now, done in ((10.0, 1), (150.0, 80)):
        build.clock.now = now
        build.progressed((done, 80))
    assert build.estimator.step_left() == TimeLeft(50.0)
    build.clock.now = 170.0
    assert build.estimator.step_left() == TimeLeft(30.0)


def test_a_step_that_takes_longer_than_expected_says_so_and_the_total_is_at_least_the_rest() -> None:
    estimator, clock = _planned({"a": 1.0, "b": 1.0, "c": 30.0})
    estimator.started("a", "00")
    said = []
    for clock.now in (0.0, 5.0, 12.0, 12.1):
        said.append((str(estimator.step_left()), str(estimator.total_left())))
    assert said == [
        ("under 10 s left", "about 2 min left"),
        ("under 10 s left", "about 2 min left"),
        ("under 10 s left", "about 2 min left"),
        ("longer than expected", "over 2 min left"),
    ]
    estimator.up_to_date([part for part in PARTS if PARTS[part] == "c"])
    assert str(estimator.total_left()) == "over 16 s left"  # of a, the other batch will take 12 s as well, and b 4 s
    estimator.up_to_date([part for part in PARTS if part[1] == "01" or PARTS[part] != "a"])
    assert str(estimator.total_left()) == "longer than expected"


def test_what_never_ran_leaves_the_total_open_until_it_runs_once() -> None:
    estimator, clock = _planned({"a": 10.0})
    assert str(estimator.total_left()) == "over 40 s left"
    estimator.up_to_date([part for part in PARTS if PARTS[part] != "b"])
    assert str(estimator.total_left()) == ""
    estimator.started("b", "00")
    clock.now = 30.0
    assert estimator.step_left() == estimator.total_left() == TimeLeft(0.0, complete=False)
    for layer in range(2):
        estimator.built(f"b{layer}", "00")
    estimator.finished()
    assert str(estimator.total_left()) == "about 30 s left"


def test_what_a_build_does_between_two_steps_counts_as_time_of_the_second_one() -> None:
    estimator, clock = _planned({"a": 10.0, "b": 1.0, "c": 1.0})
    clock.now = 5.0
    estimator.started("a", "00")
    assert estimator.step_left() == TimeLeft(15.0)
    clock.now = 12.0
    for layer in range(2):
        estimator.built(f"a{layer}", "00")
    estimator.finished()
    estimator.up_to_date([part for part in PARTS if PARTS[part] != "a"])
    assert estimator.total_left() == TimeLeft(12.0)


def test_a_step_that_wrote_nothing_says_nothing_about_its_speed() -> None:
    estimator, clock = _planned({"a": 10.0, "b": 1.0, "c": 1.0})
    for batch, built in (("00", 0), ("01", 2)):
        estimator.started("a", batch)
        clock.now += 30.0
        for layer in range(built):
            estimator.built(f"a{layer}", batch)
        estimator.finished()
    estimator.up_to_date([part for part in PARTS if PARTS[part] != "a"])
    assert estimator.total_left() == TimeLeft(30.0)


def test_a_build_begins_with_the_time_that_its_plan_says(tmp_path: Path) -> None:
    with opened(small_project(tmp_path / "home")) as project:
        project.build(project.select())
        targets = project.plan(project.select(), force=True)
        step_of = {key: step.name for step in project.steps for key in step.keys}
        estimator = TimeEstimator()
        estimator.planned({(one.key, one.partition): step_of[one.key] for one in targets}, project.speeds(targets))
        times = [step.wall_s for step in project.work(targets)]
    assert len(times) == 5 and estimator.total_left() == TimeLeft(pytest.approx(max(1.0, sum(times))))


def test_a_second_pass_over_the_units_begins_a_new_pace() -> None:
    pace = Pace()
    for now, done in ((0.0, 0), (1.0, 100), (5.0, 10), (7.0, 20)):
        pace.report(now, done, 100)
    assert pace.per_second == 5.0 and pace.seconds_left(8.0) == 15.0


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (StepProgress(1000, 5000, "rows", 30.0, 133.3), "1,000 of 5,000 rows, 30/s, about 2 min left"),
        (StepProgress(1, 20, "images", 0.25, 76.0), "1 of 20 images, 4 s each, about 76 s left"),
        (StepProgress(19, 20, "images", 1.25, 0.8), "19 of 20 images, 1.2/s, under 10 s left"),
        (StepProgress(20, 20, "images", 1.25, 0.0), "20 of 20 images, 1.2/s"),
        (StepProgress(5, 20, "images", None, None), "5 of 20 images"),
    ],
)
def test_the_progress_of_a_step_is_said_with_its_pace_and_its_own_time(progress: StepProgress, text: str) -> None:
    assert str(progress) == text


def test_a_duration_is_said_in_the_unit_that_fits() -> None:
    times = {0.2: "0 s", 12.4: "12 s", 99: "99 s", 100: "2 min", 3600: "60 min", 7200: "2 h", 7800: "2 h 10 min"}
    assert {seconds: duration(seconds) for seconds in times} == times


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=2))
def test_a_longer_time_is_never_said_to_be_shorter(both: list[float]) -> None:
    shorter, longer = sorted(both)
    assert _least_seconds(duration(shorter)) <= _least_seconds(duration(longer))
