"""What the terminal says of a build that goes on."""

import io
import re
from typing import NamedTuple

import pytest

from latentlens_dag.cli.progress import BuildProgress, forward_step_progress
from latentlens_dag.dag.assets.reporting import ProgressLog
from latentlens_dag.dag.building.time_left import StepProgress


class StaleTarget(NamedTuple):
    key: str
    partition: str | None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


STEPS = {"pictures": "images/pics/pictures", "visual": "study/s/visual", "table": "index/words/table"}
NEEDS = [*(StaleTarget("pictures", f"0{n}") for n in range(2)), *(StaleTarget("visual", f"0{n}") for n in range(2))]


def _progress(stream: io.StringIO, **before: float) -> tuple[BuildProgress, Clock]:
    clock = Clock()
    progress = BuildProgress(stream, STEPS, lambda needs: {STEPS[key]: speed for key, speed in before.items()}, clock)
    progress.planned(NEEDS)
    return progress, clock


def _run(progress: BuildProgress, clock: Clock, key: str, partition: str, wall_s: float) -> None:
    progress.started(STEPS[key], partition)
    clock.now += wall_s
    progress.built(key, partition)
    progress.finished(STEPS[key], partition, wall_s)


def test_plain_lines_say_how_many_parts_are_done_and_the_time_left_by_earlier_runs() -> None:
    stream = io.StringIO()
    progress, clock = _progress(stream, pictures=100.0, visual=7.0)
    _run(progress, clock, "pictures", "00", 2.0)
    _run(progress, clock, "pictures", "01", 4.0)
    _run(progress, clock, "visual", "00", 5.0)
    progress.up_to_date([("visual", "00"), ("visual", "01")])  # the last one turned out to be up to date
    assert progress.done == progress.total == 4
    assert stream.getvalue() == (
        "1/4  images/pics/pictures[00]  2.0 s  about 16 s left\n"
        "2/4  images/pics/pictures[01]  4.0 s  about 14 s left\n"
        "3/4  study/s/visual[00]  5.0 s  under 10 s left\n"
    )


def test_the_time_of_steps_that_never_ran_is_not_guessed() -> None:
    stream = io.StringIO()
    progress, clock = _progress(stream)
    for key, partition in (("pictures", "00"), ("pictures", "01"), ("visual", "00")):
        _run(progress, clock, key, partition, 20.0)
    assert stream.getvalue() == (
        "1/4  images/pics/pictures[00]  20.0 s  over 20 s left\n"
        "2/4  images/pics/pictures[01]  20.0 s\n"
        "3/4  study/s/visual[00]  20.0 s  about 20 s left\n"
    )


def test_a_terminal_has_one_live_line_that_fits_its_width_and_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress, clock = _progress(stream, visual=7.0)
    _run(progress, clock, "pictures", "00", 2.0)
    progress.started("study/s/visual", "00")
    progress.progressed(StepProgress(5, 20, "[bold]rows[/bold]", 0.2, 75.0))
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue().split("\r")[-1])
    assert last == "━━━━━╺━━━━━━━━━━━━━━ 1/4 study/s/visual[00]  about 3 min left  (5 of 20 [bold]rows[/bold]…"
    assert len(last) == 90 and "\n" not in stream.getvalue()
    progress.clear()
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\x1b[1A\x1b[2K")  # its line, taken back


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    progress, clock = _progress(stream)
    _run(progress, clock, "pictures", "00", 2.0)
    progress.clear()
    assert stream.getvalue() == "1/4  images/pics/pictures[00]  2.0 s\n"


def test_a_steps_own_progress_is_a_plain_line_once_a_minute_with_the_time_that_its_log_says() -> None:
    stream, logged = io.StringIO(), list[str]()
    progress, clock = _progress(stream, pictures=1.0, visual=100.0)
    with forward_step_progress(progress):
        progress.started("study/s/visual", "00")
        log = ProgressLog(logged.append, "rows", clock=clock)
        for second in range(1, 151):
            clock.now = second
            log(second, 150)
    assert stream.getvalue().splitlines() == [
        "0/4  study/s/visual[00]  about 4 min left  (60 of 150 rows, 1.0/s, about 90 s left)",
        "0/4  study/s/visual[00]  about 3 min left  (120 of 150 rows, 1.0/s, about 30 s left)",
    ]
    assert [line for line in logged if line.startswith(("60 ", "120 "))] == [
        "60 of 150 rows, 1.0/s, about 90 s left",
        "120 of 150 rows, 1.0/s, about 30 s left",
    ]


def test_a_time_that_is_that_of_the_step_alone_is_said_once() -> None:
    stream = io.StringIO()
    progress, clock = _progress(stream, visual=100.0)
    progress.up_to_date([("pictures", "00"), ("pictures", "01"), ("visual", "00")])
    progress.started("study/s/visual", "01")
    clock.now = 60.0
    progress.progressed(StepProgress(60, 100, "rows", 1.0, 40.0))
    assert stream.getvalue() == "3/4  study/s/visual[01]  about 40 s left  (60 of 100 rows, 1.0/s)\n"


def test_work_logs_its_progress_every_five_seconds_and_once_more_at_its_end() -> None:
    logged, clock = list[str](), Clock()
    log = ProgressLog(logged.append, "rows", clock=clock)
    for second in range(1, 14):
        clock.now = second
        log(10 * second, 130)
    assert logged == [
        "50 of 130 rows, 10/s, under 10 s left",
        "100 of 130 rows, 10/s, under 10 s left",
        "130 of 130 rows, 10/s",
    ]


def test_short_work_logs_nothing() -> None:
    logged, clock = list[str](), Clock()
    log = ProgressLog(logged.append, "rows", clock=clock)
    for clock.now in range(1, 5):
        log(int(clock.now), 4)
    assert logged == []
