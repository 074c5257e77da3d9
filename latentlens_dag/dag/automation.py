"""The build as a job of the UI, and a sensor that starts it when a source or a setting changed.

Note: there are no AutomationConditions on purpose. With Dagster 1.13, `eager()` builds all descendants of a step again
even where it wrote the same bytes, and ignores changed settings; a condition of `data_version_changed()` and
`code_version_changed()` stops at equal bytes, but misses what became stale before it was switched on, and removed
dependencies. The sensor only detects a change; the job, which is `latentlens-dag build`, finds out what to do.
"""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
from collections.abc import Callable, Iterator

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from latentlens_dag.dag.building.listener import BuildListener, step_label
from latentlens_dag.dag.home_lock import build_lock, lock_owner
from latentlens_dag.dag.resources import HomeResource
from latentlens_dag.dag.versions import source_file_states
from latentlens_dag.storage.hashing import hash_values

_EVERY_S = 30


@dg.op(description="Observe the sources, then build what is missing or out of date, and nothing else.")
def build_what_is_needed(context: dg.OpExecutionContext, home: HomeResource) -> None:
    """`latentlens-dag build` as one run; its steps are in runs of their own, as there."""
    from latentlens_dag.dag.building.opening import open_project

    with open_project(home.home) as project, build_lock(project.home, wait=True, log=context.log.info):
        project.remove_interrupted()
        selection = project.select()
        project.observe(selection)
        if not project.build(selection, listener=_LogListener(context.log.info)):
            context.log.info("Everything is up to date.")


class _LogListener(BuildListener):
    """Writes finished steps to Dagster's log."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log

    def finished(self, step: str, partition: str | None, wall_s: float) -> None:
        self._log(f"Built {step_label(step, partition)} in {wall_s:.1f} s.")


@dg.job(
    description="What `latentlens-dag build` does: observe the sources, then build what is missing or out of date.",
    executor_def=dg.in_process_executor,
)
def build() -> None:
    """One op, which finds out what there is to do."""
    build_what_is_needed()


@dg.sensor(
    job_name=build.name,  # given the job itself, Dagster warns of its own beta parameter
    minimum_interval_seconds=_EVERY_S,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Starts the job `build` when it is switched on, and then whenever a source or a setting changed. Off "
    "until you switch it on. What failed is not tried again before something changes.",
)
def build_when_something_changes(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult:
    """One evaluation; the cursor is the hash of the state when `build` was last started."""
    assert context.repository_def is not None
    now = hash_values(_state(context.repository_def.asset_graph))
    if now == context.cursor:
        return dg.SensorResult(skip_reason="Nothing changed since `build` was last started.")
    if lock_owner(home.home) is not None:
        return dg.SensorResult(skip_reason="Something changed, but a build is running: `build` is started after it.")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=now)


def with_automation(definitions: dg.Definitions) -> dg.Definitions:
    """A project's definitions with the job and the sensor, for the UI."""
    automation = dg.Definitions(jobs=[build], sensors=[build_when_something_changes])
    return dg.Definitions.merge(definitions, automation)


def _state(graph: AssetGraph) -> Iterator[str]:
    """Everything that decides what is stale: settings, dependencies, sizes and times of source files.

    No file is read: a sensor has a minute, and only the build may take longer.
    """
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        partitions = node.partitions_def.get_partition_keys() if node.partitions_def else []
        yield f"{key.to_user_string()} {node.code_version} {sorted(map(str, node.parent_keys))} {len(partitions)}"
        yield from (f"{file} {state}" for file, state in source_file_states(node.metadata).items())
