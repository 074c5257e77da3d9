"""The progress of a build on stderr: a live line on a terminal, plain lines elsewhere.

Note: the plan is an upper bound. Parts that turn out to be up to date count as done without having been built.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from latentlens_dag.dag.building.listener import BuildListener

if TYPE_CHECKING:
    from latentlens_dag.dag.building.staleness import StaleTarget
    from latentlens_dag.dag.building.steps import AssetPartition, Key

_BAR = 20  # characters
_NOTE_EVERY_S = 60.0  # a step's own progress, where there is no live line


class BuildProgress(BuildListener):
    """Prints how many parts of a build are done, how fast, and how long the rest takes."""

    def __init__(
        self,
        stream: TextIO,
        step_of: Mapping[Key, str],
        speeds: Callable[[Sequence[StaleTarget]], Mapping[str, float]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to `stream`; `speeds` gives the seconds per part of each planned step that ran before."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        console = Console(file=stream, force_terminal=stream.isatty())
        self._live = console.is_terminal and not console.is_dumb_terminal
        rest = Column(ratio=1, no_wrap=True)  # cut, so that one line is left
        columns = (
            BarColumn(_BAR),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False, table_column=rest),
        )
        # What steps print passes by the line, as Dagster captures it; drawn on events only, so that no thread draws.
        quiet = {
            "transient": True,
            "expand": True,
            "auto_refresh": False,
            "redirect_stdout": False,
            "redirect_stderr": False,
        }
        self._bar = Progress(*columns, console=console, **quiet)  # type: ignore[arg-type]
        self._task = self._bar.add_task("")
        self._stream, self._step_of, self._find_speeds, self._clock = stream, step_of, speeds, clock
        self._left: dict[AssetPartition, str] = {}
        self._earlier_speeds: Mapping[str, float] = {}
        self._seconds: dict[str, float] = defaultdict(float)  # of this build, by step
        self._parts = Counter[str]()
        self.total, self._running = 0, 0
        self.step, self._note = "", ""
        self._start, self._last_event = clock(), clock()
        self._last_note = clock()

    @property
    def done(self) -> int:
        """How many parts are built or turned out to be up to date."""
        return self.total - len(self._left)

    def planned(self, targets: Sequence[StaleTarget]) -> None:
        """Start to count down the planned parts."""
        self._left = {(target.key, target.partition): self._step_of[target.key] for target in targets}
        self.total = len(self._left)
        self._earlier_speeds = self._find_speeds(targets)
        self._start, self._last_event = self._clock(), self._clock()

    def started(self, step: str) -> None:
        """Show the step."""
        self.step, self._note, self._running = step, "", 0
        self._last_event = self._clock()
        self._draw()

    def built(self, key: Key, partition: str | None) -> None:
        """Count a part that was built."""
        self._left.pop((key, partition), None)
        self._running += 1
        self._last_event = self._clock()
        self._draw()

    def finished(self, step: str, wall_s: float) -> None:
        """Learn how long the step takes."""
        name = step.partition("[")[0]
        self._seconds[name] += wall_s
        self._parts[name] += self._running
        if not self._live:
            self._print(f"{wall_s:.1f} s")

    def up_to_date(self, targets: Sequence[AssetPartition]) -> None:
        """Count parts that needed no build."""
        for target in targets:
            self._left.pop(target, None)
        self._draw()

    def note(self, text: str) -> None:
        """Show how far the step itself is."""
        self._note = text
        if self._live:
            self._draw()
        elif self._clock() - self._last_note >= _NOTE_EVERY_S:
            self._last_note = self._clock()
            self._print(text)

    def clear(self) -> None:
        """Remove the live line."""
        if self._live:
            self._bar.stop()

    def seconds_left(self) -> float | None:
        """The time that the rest takes; None where nothing is known.

        By the speed of each step in this build or, before it ran, in the last one. Steps that never ran count as the
        mean of what this build ran.
        """
        mean = sum(self._seconds.values()) / parts if (parts := sum(self._parts.values())) else None
        left = 0.0
        for name, count in Counter(self._left.values()).items():
            own = self._seconds[name] / self._parts[name] if self._parts[name] else None
            speed = own if own is not None else self._earlier_speeds.get(name, mean)
            if speed is None:
                return None
            left += count * speed
        return max(0.0, left - (self._clock() - self._last_event))

    def _print(self, what: str) -> None:
        width = len(str(self.total))
        line = "  ".join([f"{self.done:>{width}}/{self.total}", self.step, what, *self._time_left()])
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def _draw(self) -> None:
        if self._live and self.total:
            facts = [self.step, *self._rate(), *self._time_left(), *([f"({self._note})"] if self._note else [])]
            self._bar.start()
            text = "  ".join(facts)
            self._bar.update(self._task, total=self.total, completed=self.done, description=text, refresh=True)

    def _rate(self) -> list[str]:
        wall_s = self._clock() - self._start
        if not self.done or not wall_s:
            return []
        rate = self.done / wall_s
        return [f"{rate:.1f} parts/s" if rate >= 1 else f"{1 / rate:.0f} s a part"]

    def _time_left(self) -> list[str]:
        left = self.seconds_left() if self._left else None
        return [] if left is None else [f"about {duration(left)} left"]


@contextmanager
def forward_step_progress(progress: BuildProgress) -> Iterator[None]:
    """Show the steps' own progress in `progress`, and remove the live line at the end."""
    from latentlens_dag.dag.assets.reporting import PROGRESS_LOGGER

    logger, handler = logging.getLogger(PROGRESS_LOGGER), _Handler(progress.note)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        progress.clear()


def duration(seconds: float) -> str:
    """12 s, 3 min, 2 h 10 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class _Handler(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())
