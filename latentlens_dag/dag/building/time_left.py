"""How long a build still takes: one estimate for the step that runs and for all that is left.

What is left is counted in parts: partitions of assets. A step that reports how far it is, in units of its own or by
the parts that it has written, is estimated by its pace. All else is estimated by the seconds per part of the same step
in this build or, before it ran here, in its last run; partitions of the running step that wait, by its present time per
part where that is more.

Note: a step's pace is that between its first and its last report. What comes before, in its first partition such as
imports and the load of a model, would make all that follows look slow: it counts for what runs, but not for the
partitions that wait. Whether some of it comes again is known from the last run of the step or, at the latest, from its
second partition. No Dagster here, so that the command line can import it at once.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from latentlens_dag.dag.building.steps import AssetPartition, Key

_SHORTEST_S = 1.0  # least time said for unfinished work
_VAGUE_S = 9.5  # below it, seconds are not counted down; above, they are rounded to 10 or more
_OVERDUE_S = 10.0  # so long past its estimate, a step takes longer than expected


class TimeLeft(NamedTuple):
    """How long something still takes, as far as is known."""

    seconds: float
    """Of what is known; 0 where nothing is known, or nothing is left."""
    complete: bool = True
    """Whether that is all of it."""
    overdue: bool = False
    """Whether the step that runs takes longer than expected, so that its rest is unknown."""

    def __str__(self) -> str:
        """`about 3 min left`; empty where nothing is left, or known of what is left."""
        if self.seconds >= _VAGUE_S:
            return f"{'about' if self.complete else 'over'} {duration(self.seconds)} left"
        if self.complete:
            return "under 10 s left" if self.seconds else ""
        return "longer than expected" if self.overdue else ""


class StepProgress(NamedTuple):
    """How far a step is, in units of its own."""

    done: int
    total: int
    unit: str
    """A plural noun."""
    per_second: float | None
    """None before the second report."""
    seconds_left: float | None
    """By that pace; None where there is none."""
    note: str = ""
    """What else the step says of itself: loss 2.31."""

    def __str__(self) -> str:
        """`1,000 of 5,000 rows, 30/s, about 2 min left`."""
        left = None if self.seconds_left is None else TimeLeft(self.seconds_left)
        return ", ".join(filter(None, [self.counts(), str(left or "")]))

    def counts(self) -> str:
        """`1,000 of 5,000 rows, 30/s`."""
        counts = f"{self.done:,} of {self.total:,} {self.unit}"
        return ", ".join(filter(None, [counts, _rate(self.per_second) if self.per_second else "", self.note]))


class Pace:
    """The pace of work between its first and its last report."""

    def __init__(self) -> None:
        """Nothing is reported yet."""
        self._first: tuple[float, int] | None = None
        self._last = (0.0, 0)
        self._total = 0

    def report(self, now: float, done: int, total: int) -> None:
        """So much is done, and so much there is in all. Less than before begins anew, as a second pass does."""
        if self._first is None or done < self._last[1]:
            self._first = (now, done)
        self._last, self._total = (now, done), max(done, total)

    @property
    def per_second(self) -> float | None:
        """None where no work was done between two reports."""
        if self._first is None:
            return None
        wall_s, done = self._last[0] - self._first[0], self._last[1] - self._first[1]
        return done / wall_s if done and wall_s > 0 else None

    @property
    def began(self) -> float | None:
        """When the first unit began, by this pace; None without a pace."""
        rate = self.per_second
        return None if rate is None or self._first is None else self._first[0] - self._first[1] / rate

    def seconds_left(self, now: float) -> float | None:
        """Below 0 once it takes longer than this pace says; None without a pace."""
        rate = self.per_second
        return None if rate is None else (self._total - self._last[1]) / rate - (now - self._last[0])


@dataclass
class _RunningStep:
    name: str
    partition: str | None
    start: float
    expected_s: float | None
    """By its parts; None where it never ran."""
    parts: int
    """To be built."""
    is_first: bool
    """Whether no other partition of the step ran before it in this build."""
    built: int = 0
    pace: Pace = field(default_factory=Pace)
    """Of the parts that it writes."""
    units: Pace = field(default_factory=Pace)
    """Of the units that it reports, in their first pass."""
    progress: StepProgress | None = None
    reported: float = 0.0
    """When that was."""

    def count_part(self, now: float) -> None:
        self.built += 1
        self.pace.report(now, self.built, self.parts)

    def report(self, now: float, progress: StepProgress) -> None:
        if self.progress is None or progress.done >= self.progress.done:
            self.units.report(now, progress.done, progress.total)
        self.progress, self.reported = progress, now

    def repeated_seconds(self, end: float) -> float:
        """What it takes until then, without what comes once: before the first unit or part of its first partition."""
        pace = self.pace if self.progress is None else self.units
        began = pace.began if self.is_first else None
        return end - (self.start if began is None else max(began, self.start))

    def seconds_left(self, now: float) -> float | None:
        """Below 0 where it takes longer than expected; None where nothing is known."""
        if self.progress is None:
            return self._seconds_left_by_parts(now)
        if self.progress.done >= self.progress.total:
            return self._seconds_left_after_units(now)
        if self.progress.seconds_left is None:
            return self._seconds_left_by_parts(now)
        return self.progress.seconds_left - (now - self.reported)

    def seconds_per_part(self, now: float) -> float | None:
        """Of a partition like it: by what it took so far and still takes; None where nothing is known."""
        left = self.seconds_left(now)
        return None if left is None or not self.parts else self.repeated_seconds(now + max(left, 0.0)) / self.parts

    def _seconds_left_after_units(self, now: float) -> float | None:
        """What follows the last unit, such as writing, is not counted in units, and late only from then on."""
        at_report = self._seconds_left_by_parts(self.reported)
        return None if at_report is None else max(at_report, 0.0) - (now - self.reported)

    def _seconds_left_by_parts(self, now: float) -> float | None:
        by_pace = self.pace.seconds_left(now)
        if by_pace is None and self.expected_s is not None:
            return self.expected_s - (now - self.start)
        return by_pace


class _StepSpeed(NamedTuple):
    """Seconds per part of the partitions of a step that this build made."""

    least: float
    """Without what may come once only."""
    most: float


class TimeEstimator:
    """Counts the parts of a build, and estimates the time of those that are left.

    `total_left` is never less than `step_left`, and neither is 0 while there is something to do.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._left: dict[AssetPartition, str] = {}  # the step of each part
        self._left_of = Counter[str]()  # how many parts of each step are left
        self._left_in = Counter[tuple[str, str | None]]()  # and of each partition of a step
        self._earlier_speeds: Mapping[str, float] = {}
        self._first_speeds: dict[str, _StepSpeed] = {}  # of this build, by step: of its first partition
        self._seconds: dict[str, float] = defaultdict(float)  # of those after the first
        self._parts = Counter[str]()
        self._step: _RunningStep | None = None
        self._idle_since = clock()
        self.total = 0

    @property
    def done(self) -> int:
        """How many parts are built or turned out to be up to date."""
        return self.total - len(self._left)

    @property
    def progress(self) -> StepProgress | None:
        """What the step that runs last reported."""
        return self._step.progress if self._step else None

    def planned(self, parts: Mapping[AssetPartition, str], speeds: Mapping[str, float]) -> None:
        """Start to count down.

        Args:
            parts: the step of each part.
            speeds: seconds per part of each step that ran before.
        """
        self._left, self.total, self._earlier_speeds = dict(parts), len(parts), speeds
        self._left_of = Counter(parts.values())
        self._left_in = Counter((step, partition) for (_, partition), step in parts.items())
        self._idle_since = self._clock()

    def started(self, step: str, partition: str | None) -> None:
        """A step begins. What the build did since the last one ended counts as its time."""
        parts, speed = self._left_in[step, partition], self._speed(step)
        expected_s = None if speed is None or not parts else parts * speed
        self._step = _RunningStep(step, partition, self._idle_since, expected_s, parts, step not in self._first_speeds)

    def progressed(self, progress: StepProgress) -> None:
        """The running step reports its progress."""
        if self._step is not None:
            self._step.report(self._clock(), progress)

    def built(self, key: Key, partition: str | None) -> None:
        """The step that runs has written a part."""
        self._remove((key, partition))
        if self._step is not None:
            self._step.count_part(self._clock())

    def finished(self) -> None:
        """The step that runs has ended."""
        self._idle_since = self._clock()
        if self._step is not None and self._step.built:
            self._remember(self._step, self._idle_since)
        self._step = None

    def _remember(self, step: _RunningStep, end: float) -> None:
        if step.is_first:
            times = step.repeated_seconds(end), end - step.start
            self._first_speeds[step.name] = _StepSpeed(*(wall_s / step.built for wall_s in times))
        else:
            self._seconds[step.name] += end - step.start
            self._parts[step.name] += step.built

    def up_to_date(self, parts: Iterable[AssetPartition]) -> None:
        """Nothing is left to do for these."""
        for part in parts:
            self._remove(part)
        self._idle_since = self._clock()

    def step_left(self) -> TimeLeft:
        """The time that the step which runs still takes."""
        if self._step is None:
            return TimeLeft(0.0)
        seconds = self._step.seconds_left(self._clock())
        if seconds is None:
            return TimeLeft(0.0, complete=False)
        if seconds < -_OVERDUE_S:
            return TimeLeft(0.0, complete=False, overdue=True)
        return TimeLeft(max(seconds, _SHORTEST_S))

    def total_left(self) -> TimeLeft:
        """The time that the step which runs and all parts after it still take."""
        step, waiting = self.step_left(), self._waiting()
        speeds = {name: self._speed_from_now(name) for name in waiting}
        times = [None if (speed := speeds[name]) is None else count * speed for name, count in waiting.items()]
        seconds = step.seconds + sum(wall_s for wall_s in times if wall_s is not None)
        complete = step.complete and None not in times
        return TimeLeft(max(seconds, _SHORTEST_S) if waiting and complete else seconds, complete, step.overdue)

    def _waiting(self) -> Counter[str]:
        """How many parts of each step are left, without those of the step that runs."""
        if self._step is None:
            return +self._left_of
        running = Counter({self._step.name: self._left_in[self._step.name, self._step.partition]})
        return self._left_of - running

    def _remove(self, part: AssetPartition) -> None:
        step = self._left.pop(part, None)
        if step is not None:
            self._left_of[step] -= 1
            self._left_in[step, part[1]] -= 1

    def _speed(self, step: str) -> float | None:
        """Seconds per part: by the partitions after the first; by its last run as far as the first one allows that."""
        if self._parts[step]:
            return self._seconds[step] / self._parts[step]
        first, earlier = self._first_speeds.get(step), self._earlier_speeds.get(step)
        if first is None:
            return earlier
        return first.least if earlier is None else min(max(earlier, first.least), first.most)

    def _speed_from_now(self, step: str) -> float | None:
        """Seconds per part of what waits: of the step that runs, it takes no less than what runs."""
        if self._step is None or self._step.name != step:
            return self._speed(step)
        speeds = (self._speed(step), self._step.seconds_per_part(self._clock()))
        return max((speed for speed in speeds if speed is not None), default=None)


def duration(seconds: float) -> str:
    """12 s, 3 min, 2 h, 2 h 10 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def _rate(per_second: float) -> str:
    if per_second < 1:
        return f"{1 / per_second:,.0f} s each"
    return f"{per_second:,.0f}/s" if per_second >= 9.5 else f"{per_second:.1f}/s"
