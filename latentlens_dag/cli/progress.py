"""The progress of a build on stderr: a live line on a terminal, plain lines elsewhere.

Note: the plan is an upper bound. Parts that turn out to be up to date count as done without having been built. How long
the rest takes is estimated in `dag/building/time_left.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import click

from latentlens_dag.dag.building.listener import BuildListener, step_label
from latentlens_dag.dag.building.time_left import StepProgress, TimeEstimator
from latentlens_dag.text.display import printable

if TYPE_CHECKING:
    from latentlens_dag.dag.building.staleness import StaleTarget
    from latentlens_dag.dag.building.steps import AssetPartition, Key

_BAR = 20  # characters
_NOTE_EVERY_S = 60.0  # a step's own progress, where there is no live line


def left_out_line(part: str, text: str) -> str:
    """What a part was built without, as one line; it may quote data, which drives no terminal."""
    return printable(f"{part}: {text}".replace("\n", " "))


class LeftOutNotes(BuildListener):
    """Prints what parts were built without, and nothing else."""

    def left_out(self, part: str, text: str) -> None:
        """Print it on stderr."""
        click.echo(left_out_line(part, text), err=True)


class BuildProgress(BuildListener):
    """Prints how many parts of a build are done, and how long the step that runs and the rest take."""

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
        self._estimator = TimeEstimator(clock)
        self._last_note = clock()
        self.step = ""

    @property
    def done(self) -> int:
        """How many parts are built or turned out to be up to date."""
        return self._estimator.done

    @property
    def total(self) -> int:
        """How many parts were planned."""
        return self._estimator.total

    def planned(self, targets: Sequence[StaleTarget]) -> None:
        """Start to count down the planned parts."""
        parts = {(target.key, target.partition): self._step_of[target.key] for target in targets}
        self._estimator.planned(parts, self._find_speeds(targets))

    def started(self, step: str, partition: str | None) -> None:
        """Show the step."""
        self.step = step_label(step, partition)
        self._estimator.started(step, partition)
        self._draw()

    def progressed(self, progress: StepProgress) -> None:
        """Show how far the step itself is."""
        self._estimator.progressed(progress)
        if self._live:
            self._draw()
        elif self._clock() - self._last_note >= _NOTE_EVERY_S:
            self._last_note = self._clock()
            self._print()

    def built(self, key: Key, partition: str | None) -> None:
        """Count a part that was built."""
        self._estimator.built(key, partition)
        self._draw()

    def left_out(self, part: str, text: str) -> None:
        """Print what a part was built without, above the live line; it stays there."""
        self.clear()
        self._stream.write(f"{left_out_line(part, text)}\n")
        self._stream.flush()
        self._draw()

    def finished(self, step: str, partition: str | None, wall_s: float) -> None:
        """Learn how long the step takes."""
        self._estimator.finished()
        if not self._live:
            self._print(f"{wall_s:.1f} s")

    def up_to_date(self, targets: Sequence[AssetPartition]) -> None:
        """Count parts that needed no build."""
        self._estimator.up_to_date(targets)
        self._draw()

    def clear(self) -> None:
        """Remove the live line."""
        if self._live:
            self._bar.stop()

    def _print(self, *facts: str) -> None:
        width = len(str(self.total))
        line = "  ".join([f"{self.done:>{width}}/{self.total}", self.step, *facts, *self._times()])
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def _draw(self) -> None:
        if self._live and self.total:
            text = "  ".join([self.step, *self._times()])
            self._bar.update(self._task, total=self.total, completed=self.done, description=text)
            self._bar.start()
            self._bar.refresh()

    def _times(self) -> Iterator[str]:
        """The time of all that is left; in parentheses, how far the step is that runs, and its time if another."""
        estimator = self._estimator
        step, total = str(estimator.step_left()), str(estimator.total_left())
        if total:
            yield total
        if estimator.progress is not None:
            facts = [estimator.progress.counts(), step if step != total else ""]
            yield f"({', '.join(filter(None, facts))})"


@contextmanager
def forward_step_progress(progress: BuildProgress) -> Iterator[None]:
    """Show the steps' own progress in `progress`, and remove the live line at the end."""
    from latentlens_dag.dag.assets.reporting import PROGRESS_LOGGER

    logger, handler = logging.getLogger(PROGRESS_LOGGER), _Handler(progress.progressed)
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


class _Handler(logging.Handler):
    def __init__(self, show: Callable[[StepProgress], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, StepProgress):
            self._show(record.msg)
