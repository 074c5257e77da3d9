"""How long steps take and how much they write, by what Dagster recorded of them when they last ran.

What a newcomer gets wrong: a time is that of the last run of the step, on whatever machine and with however
many parts that was, cut into equal shares. It is no promise.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import dagster as dg

from latentlens_dag.dag.building.dagster_history import latest_by_partition
from latentlens_dag.dag.building.staleness import StaleTarget
from latentlens_dag.dag.building.steps import Step

_ROWS, _SIZE = "dagster/row_count", "size_bytes"
_EVENTS = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.ASSET_MATERIALIZATION}


class StepWork(NamedTuple):
    """What a step is to do."""

    step: str
    """study/demo/visual."""
    parts: int
    """Partitions of assets."""
    wall_s: float | None
    """Seconds, by its last run; None where it never ran."""
    rows: int | None
    """Rows that these parts had when they were last built; None where one of them does not say."""
    size_bytes: int | None
    """Their size on disk, in the same way."""


def step_works(instance: dg.DagsterInstance, steps: Sequence[Step], targets: Sequence[StaleTarget]) -> list[StepWork]:
    """What each step is to do for the needs, in the order of the steps."""
    speed = seconds_per_part(instance, steps, targets)
    works = []
    for unit in steps:
        mine = [target for target in targets if target.key in unit.keys]
        if mine:
            last = _last_metadata(instance, mine)
            wall_s = speed[unit.name] * len(mine) if unit.name in speed else None
            works.append(StepWork(unit.name, len(mine), wall_s, _total(last, _ROWS), _total(last, _SIZE)))
    return works


def seconds_per_part(
    instance: dg.DagsterInstance, steps: Sequence[Step], targets: Sequence[StaleTarget]
) -> dict[str, float]:
    """For each step that has needs and ran before: the seconds of its last run by the parts that it wrote then."""
    keys = {target.key for target in targets}
    speeds: dict[str, dict[str, float]] = {}
    found = {}
    for unit in steps:
        run_id = _last_run(instance, unit) if keys.intersection(unit.keys) else None
        if run_id is not None:
            if run_id not in speeds:
                speeds[run_id] = _speeds_of(instance, run_id)
            if unit.op in speeds[run_id]:
                found[unit.name] = speeds[run_id][unit.op]
    return found


def _last_run(instance: dg.DagsterInstance, unit: Step) -> str | None:
    """The run that last wrote something of the step."""
    records = [record.asset_entry.last_materialization_record for record in instance.get_asset_records(unit.keys)]
    last = max((record for record in records if record is not None), key=lambda one: one.storage_id, default=None)
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
    return {step: overhead * took / parts[step] for step, took in seconds.items() if parts[step]}


def _overhead(instance: dg.DagsterInstance, run_id: str, steps_s: float) -> float:
    """The seconds of a run for each second that its steps took."""
    record = instance.get_run_record_by_id(run_id)
    if record is None or record.start_time is None or record.end_time is None or not steps_s:
        return 1.0
    return max(1.0, (record.end_time - record.start_time) / steps_s)


def _last_metadata(instance: dg.DagsterInstance, targets: Sequence[StaleTarget]) -> list[Mapping[str, Any] | None]:
    """What each part said of itself when it was last built; None where it never was."""
    partitions: dict[dg.AssetKey, list[str | None]] = {}
    for target in targets:
        partitions.setdefault(target.key, []).append(target.partition)
    found = {key: _metadata_by_partition(instance, key, some) for key, some in partitions.items()}
    return [found[target.key].get(target.partition) for target in targets]


def _metadata_by_partition(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str | None]
) -> dict[str | None, Mapping[str, Any]]:
    named = {partition for partition in partitions if partition is not None}
    if not named:
        event = instance.get_latest_materialization_event(key)
        return {None: event.asset_materialization.metadata} if event and event.asset_materialization else {}
    found = latest_by_partition(instance, key, named)
    return {part: one.asset_materialization.metadata for part, one in found.items() if one.asset_materialization}


def _total(metadata: Sequence[Mapping[str, Any] | None], name: str) -> int | None:
    """The sum of a figure; None where one part does not have it."""
    values = [one[name].value for one in metadata if one is not None and name in one]
    return sum(values) if len(values) == len(metadata) else None
