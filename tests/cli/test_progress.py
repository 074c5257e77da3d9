"""What the terminal says of a build that goes on."""

import io
import re
from typing import NamedTuple

import pytest

from latentlens_dag.cli.progress import BuildProgress, duration


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
    progress.started(f"{STEPS[key]}[{partition}]")
    clock.now += wall_s
    progress.built(key, partition)
    progress.finished(f"{STEPS[key]}[{partition}]", wall_s)


def test_plain_lines_say_how_many_parts_are_done_and_the_time_left_by_earlier_runs() -> None:
    stream = io.StringIO()
    progress, clock = _progress(stream, pictures=100.0, visual=7.0)
    assert progress.seconds_left() == 214
    _run(progress, clock, "pictures", "00", 2.0)
    _run(progress, clock, "pictures", "01", 4.0)
    _run(progress, clock, "visual", "00", 5.0)
    progress.up_to_date([("visual", "00"), ("visual", "01")])  # the last one turned out to be up to date
    assert progress.done == progress.total == 4
    assert stream.getvalue() == (
        "1/4  images/pics/pictures[00]  2.0 s  about 16 s left\n"
        "2/4  images/pics/pictures[01]  4.0 s  about 14 s left\n"
        "3/4  study/s/visual[00]  5.0 s  about 5 s left\n"
    )


def test_time_left_is_unknown_until_a_step_ran_and_then_by_the_mean_of_this_build() -> None:
    progress, clock = _progress(io.StringIO())
    assert progress.seconds_left() is None
    _run(progress, clock, "pictures", "00", 2.0)
    assert progress.seconds_left() == 6
    progress.started("images/pics/pictures[01]")
    clock.now += 1.5
    assert progress.seconds_left() == 4.5


def test_a_terminal_has_one_live_line_that_fits_its_width_and_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress, clock = _progress(stream, visual=7.0)
    _run(progress, clock, "pictures", "00", 2.0)
    progress.started("study/s/visual[00]")
    progress.note("[bold]5[/bold] of 20 rows, 3/s, 5 s left")
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue().split("\r")[-1])
    assert last == "━━━━━╺━━━━━━━━━━━━━━ 1/4 study/s/visual[00]  2 s a part  about 16 s left  ([bold]5[/bold]…"
    assert len(last) == 90 and "\n" not in stream.getvalue()
    progress.clear()
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\x1b[1A\x1b[2K")  # its line, taken back


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    progress, clock = _progress(stream)
    _run(progress, clock, "pictures", "00", 2.0)
    progress.clear()
    assert stream.getvalue() == "1/4  images/pics/pictures[00]  2.0 s  about 6 s left\n"


def test_a_steps_own_progress_is_a_plain_line_once_a_minute() -> None:
    stream = io.StringIO()
    progress, clock = _progress(stream)
    progress.started("study/s/visual[00]")
    for second in range(150):
        clock.now = second
        progress.note(f"{second} of 150 rows")
    assert stream.getvalue().splitlines() == [
        "0/4  study/s/visual[00]  60 of 150 rows",
        "0/4  study/s/visual[00]  120 of 150 rows",
    ]


def test_a_duration_is_said_in_the_unit_that_fits() -> None:
    assert [duration(s) for s in (0.2, 12.4, 99, 100, 3600, 7800)] == [
        "0 s",
        "12 s",
        "99 s",
        "2 min",
        "60 min",
        "2 h 10 min",
    ]
