"""Estimates of how long steps take and how much they write, from their last runs in Dagster's history.

Note: the time is that of the step's last run, on whatever machine, in equal shares over the parts that it had.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from latentlens_dag.dag.building.latest_events import Event, LatestEvents
from latentlens_dag.dag.building.staleness import StaleTarget
from latentlens_dag.dag.building.steps import Step

_ROWS, _SIZE = "dagster/row_count", "size_bytes"
_EVENTS = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.ASSET_MATERIALIZATION}


class StepWork(NamedTuple):
    """The work of a step."""

    step: str
    """study/demo/visual."""
    parts: int
    """Partitions of assets."""
    wall_s: float | None
    """By its last run; None where it never ran."""
    rows: int | None
    """Rows that these parts had when they were last built; None where that is not recorded of all."""
    size_bytes: int | None
    """Their size on disk, likewise."""


def step_works(
    graph: AssetGraph, instance: dg.DagsterInstance, steps: Sequence[Step], targets: Sequence[StaleTarget]
) -> list[StepWork]:
    """The work that the targets are, step by step."""
    speed = seconds_per_part(instance, steps, targets)
    names = {target.partition for target in targets if target.partition is not None}
    events = LatestEvents(graph, instance, {target.key for target in targets}, names, figures=True)
    targets_of = defaultdict[dg.AssetKey, list[StaleTarget]](list)
    for target in targets:
        targets_of[target.key].append(target)
    works = []
    for step in steps:
        of_step = [target for key in step.keys for target in targets_of[key]]
        if of_step:
            last = [events.get(target.key, target.partition) for target in of_step]
            wall_s = speed[step.name] * len(of_step) if step.name in speed else None
            works.append(StepWork(step.name, len(of_step), wall_s, _total(last, _ROWS), _total(last, _SIZE)))
    return works


def seconds_per_part(
    instance: dg.DagsterInstance, steps: Sequence[Step], targets: Sequence[StaleTarget]
) -> dict[str, float]:
    """For each step that has targets and ran before: the seconds of its last run per part that it wrote then."""
    keys = {target.key for target in targets}
    speeds_of = cache(partial(_speeds_of, instance))
    seconds = {}
    for step in steps:
        run_id = _last_run(instance, step) if keys.intersection(step.keys) else None
        if run_id is not None and step.op in speeds_of(run_id):
            seconds[step.name] = speeds_of(run_id)[step.op]
    return seconds


def _last_run(instance: dg.DagsterInstance, step: Step) -> str | None:
    """The run that last wrote a part of the step."""
    records = [record.asset_entry.last_materialization_record for record in instance.get_asset_records(step.keys)]
    last = max((record for record in records if record is not None), key=lambda record: record.storage_id, default=None)
    return last.run_id if last else None


def _speeds_of(instance: dg.DagsterInstance, run_id: str) -> dict[str, float]:
    """Seconds per part of every step of a run, with the run's own overhead."""
    seconds, parts = dict[str, float](), Counter[str]()
    for entry in instance.all_logs(run_id, of_type=_EVENTS):
        event = entry.dagster_event
        if event is not None and event.is_step_success:
            seconds[str(event.step_key)] = event.step_success_data.duration_ms / 1000
        elif event is not None:
            parts[str(event.step_key)] += 1
    overhead = _overhead(instance, run_id, sum(seconds.values()))
    return {step: overhead * wall_s / parts[step] for step, wall_s in seconds.items() if parts[step]}


def _overhead(instance: dg.DagsterInstance, run_id: str, steps_s: float) -> float:
    """The seconds of a run per second of its steps."""
    record = instance.get_run_record_by_id(run_id)
    if record is None or record.start_time is None or record.end_time is None or not steps_s:
        return 1.0
    return max(1.0, (record.end_time - record.start_time) / steps_s)


def _total(events: Sequence[Event | None], name: str) -> int | None:
    """The sum of a figure; None where a part does not have it."""
    values = [event.figures[name] for event in events if event is not None and name in event.figures]
    return sum(values) if len(values) == len(events) else None
