"""How far a build is, on the terminal: one live line, or plain lines where stderr is no terminal.

What a newcomer gets wrong: what is planned is the most that can be run. Parts that turn out to be up to date
count as done without having been built.
"""

from __future__ import annotations

import logging
import shutil
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


class Progress(BuildListener):
    """Tells of a build's parts: how many are done, how fast, and how long the rest takes."""

    def __init__(
        self,
        stream: TextIO,
        step_of: Mapping[Key, str],
        speeds: Callable[[Sequence[StaleTarget]], Mapping[str, float]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to `stream`.

        Args:
            stream: where to; a terminal gets one live line.
            step_of: the step of every asset.
            speeds: for what is planned, the seconds per part of each step that ran before.
            clock: seconds.
        """
        self._stream, self._step_of, self._find_speeds, self._clock = stream, step_of, speeds, clock
        self._live = stream.isatty()
        self._left: dict[AssetPartition, str] = {}
        self._before: Mapping[str, float] = {}
        self._seconds: dict[str, float] = defaultdict(float)  # of this build, by step
        self._parts = Counter[str]()
        self.total, self._running = 0, 0
        self.step, self._note = "", ""
        self._start, self._last = clock(), clock()
        self._noted = clock()

    @property
    def done(self) -> int:
        """How many parts are built or turned out to be up to date."""
        return self.total - len(self._left)

    def planned(self, needs: Sequence[StaleTarget]) -> None:
        """Take down what is to be done."""
        self._left = {(need.key, need.partition): self._step_of[need.key] for need in needs}
        self.total = len(self._left)
        self._before = self._find_speeds(needs)
        self._start, self._last = self._clock(), self._clock()

    def started(self, step: str) -> None:
        """Show the step."""
        self.step, self._note, self._running = step, "", 0
        self._last = self._clock()
        self._draw()

    def built(self, key: Key, partition: str | None) -> None:
        """One more."""
        self._left.pop((key, partition), None)
        self._running += 1
        self._last = self._clock()
        self._draw()

    def finished(self, step: str, wall_s: float) -> None:
        """Learn how long the step takes."""
        name = step.partition("[")[0]
        self._seconds[name] += wall_s
        self._parts[name] += self._running
        if not self._live:
            self._say(f"{wall_s:.1f} s")

    def up_to_date(self, targets: Sequence[AssetPartition]) -> None:
        """Count what needed no build."""
        for target in targets:
            self._left.pop(target, None)
        self._draw()

    def note(self, text: str) -> None:
        """Show how far the step itself is."""
        self._note = text
        if self._live:
            self._draw()
        elif self._clock() - self._noted >= _NOTE_EVERY_S:
            self._noted = self._clock()
            self._say(text)

    def clear(self) -> None:
        """Take the live line away."""
        if self._live:
            self._write("\r\x1b[2K")

    def seconds_left(self) -> float | None:
        """By this build's own steps or, of steps that it did not run yet, by earlier ones; None where nothing is known.

        Steps that never ran count as the mean of what this build ran.
        """
        mean = sum(self._seconds.values()) / parts if (parts := sum(self._parts.values())) else None
        left = 0.0
        for name, count in Counter(self._left.values()).items():
            own = self._seconds[name] / self._parts[name] if self._parts[name] else None
            speed = own if own is not None else self._before.get(name, mean)
            if speed is None:
                return None
            left += count * speed
        return max(0.0, left - (self._clock() - self._last))

    def _say(self, what: str) -> None:
        width = len(str(self.total))
        self._write("  ".join([f"{self.done:>{width}}/{self.total}", self.step, what, *self._time_left()]) + "\n")

    def _draw(self) -> None:
        if not self._live or not self.total:
            return
        filled = _BAR * self.done // self.total
        bar = "#" * filled + "-" * (_BAR - filled)
        facts = [f"[{bar}] {self.done}/{self.total}", self.step, *self._rate(), *self._time_left()]
        facts += [f"({self._note})"] if self._note else []
        self._write("\r\x1b[2K" + "  ".join(facts)[: shutil.get_terminal_size().columns - 1])

    def _rate(self) -> list[str]:
        took = self._clock() - self._start
        if not self.done or not took:
            return []
        rate = self.done / took
        return [f"{rate:.1f} parts/s" if rate >= 1 else f"{1 / rate:.0f} s a part"]

    def _time_left(self) -> list[str]:
        left = self.seconds_left() if self._left else None
        return [] if left is None else [f"about {duration(left)} left"]

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@contextmanager
def forward_step_progress(progress: Progress) -> Iterator[None]:
    """Let the steps' own progress come to `progress`, and leave the terminal's line free at the end."""
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
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())
