"""The text of `plan`: a line per step with the reasons of its parts, then the work as a table."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from latentlens_dag.cli.output import table_text, terminal_width
from latentlens_dag.dag.building.time_left import duration

if TYPE_CHECKING:
    from latentlens_dag.dag.building.estimate import StepWork
    from latentlens_dag.dag.building.staleness import StaleTarget
    from latentlens_dag.dag.building.steps import Key

_REASONS = 3  # of a step
_PARTITION = re.compile(r"\[\w+\]")
_AT_MOST = "At most: where a step writes the same content again, what follows it is not run."
_REUSED = "States that are reused are not computed again: the model sees only what is new."


def plan_lines(
    targets: Sequence[StaleTarget],
    work: Sequence[StepWork],
    step_of: Mapping[Key, str],
    reused: Mapping[str, int],
    verbose: bool,
) -> list[str]:
    """What is to be built, and why.

    Args:
        targets: the planned parts.
        work: of their steps.
        step_of: the step of each asset.
        reused: how many parts of a step have stored states that are used again.
        verbose: a line per part instead of one per step.
    """
    if not targets:
        return ["Everything is up to date."]
    reasons = map(str, targets) if verbose else _step_lines(targets, step_of, reused)
    notes = [_AT_MOST, *([_REUSED] if reused else []), *([] if verbose else ["--verbose lists every part."])]
    end = f"{_count(len(targets), 'part')} of {_count(len(work), 'step')}, {_whole_time(work)}. {' '.join(notes)}"
    return [*reasons, "", _work_table(work), end]


def _step_lines(targets: Sequence[StaleTarget], step_of: Mapping[Key, str], reused: Mapping[str, int]) -> Iterator[str]:
    reasons_of = defaultdict[str, Counter[str]](Counter)
    for target in targets:
        reasons_of[step_of[target.key]][_short_reason(target.reason, step_of)] += 1
    for step, reasons in reasons_of.items():
        parts = reasons.total()
        texts = [reason if count == parts else f"{reason} ({count})" for reason, count in reasons.most_common(_REASONS)]
        more = [f"{len(reasons) - _REASONS} other reasons"] if len(reasons) > _REASONS else []
        again = f"; {reused[step]} of {_count(parts, 'part')} reuse states" if step in reused else ""
        yield f"{step}, {_count(parts, 'part')}: {', '.join([*texts, *more])}{again}"


def _short_reason(reason: str, step_of: Mapping[Key, str]) -> str:
    """A reason without partitions; of what a part follows, only the step."""
    followed = reason.removeprefix("follows ")
    whole = _PARTITION.sub("", followed)
    if followed == reason:
        return whole
    return f"follows {next((step for key, step in step_of.items() if key.to_user_string() == whole), whole)}"


def _work_table(work: Sequence[StepWork]) -> str:
    rows = [
        (step.step, str(step.parts), _known(step.wall_s, duration), _known(step.rows, "{:,}".format), _size(step))
        for step in work
    ]
    least = {"time": 10, "rows": 12, "size": 9}
    return table_text(("step", "parts", "time", "rows", "size"), rows, terminal_width(), ["step"], least)


def _whole_time(work: Sequence[StepWork]) -> str:
    known = [step.wall_s for step in work if step.wall_s is not None]
    unknown = len(work) - len(known)
    if not known:
        return "which never ran here, so that their time is unknown"
    without = f", without {unknown} that never ran" if unknown else ""
    return f"about {duration(sum(known))} by their last runs{without}"


def _known(figure: Any, text: Callable[[Any], str]) -> str:
    return "unknown" if figure is None else text(figure)


def _size(step: StepWork) -> str:
    scale, unit = (1e6, "MB") if (step.size_bytes or 0) < 1e9 else (1e9, "GB")
    return _known(step.size_bytes, lambda size: f"{size / scale:,.1f} {unit}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
