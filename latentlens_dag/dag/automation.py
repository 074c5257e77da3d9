"""The build as a job of the UI, and a sensor that starts it when there is something to build.

What a newcomer gets wrong: there are no AutomationConditions on purpose. Seen with Dagster 1.13: `eager()` builds all
that follows a step again even where it wrote the same bytes, and does not notice changed settings; a condition made
of `data_version_changed()` and `code_version_changed()` stops at equal bytes, but notices neither what became stale
before it was switched on nor a dependency that was taken away. The sensor asks `staleness.find_needs`, as `plan` does,
and the job is `build`: both agree with the command line about what there is to do, and nothing else is run.
"""

# `from __future__ import annotations` is left out: Dagster resolves these annotations itself.
from pathlib import Path

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from latentlens_dag.dag.resources import WarehouseResource
from latentlens_dag.dag.staleness import Need, changed_sources, find_needs
from latentlens_dag.errors import UserError
from latentlens_dag.home import Home
from latentlens_dag.identity import combined

_EVERY_S = 30


@dg.op(description="Observe the sources, then build what is missing or out of date, and nothing else.")
def build_what_is_needed(context: dg.OpExecutionContext, warehouse: WarehouseResource) -> None:
    """What `latentlens-dag build` does, in one run; each of its steps is a run of its own, as there."""
    from latentlens_dag.dag.driver import Ran, build_lock, open_project

    def tell(ran: Ran) -> None:
        context.log.info(f"Built in {ran.wall_s:.1f} s: " + "; ".join(map(str, ran.needs)))

    with open_project(_home(warehouse)) as project, build_lock(project.home):
        selection = project.select()
        project.observe(selection)
        if not project.build(selection, tell=tell):
            context.log.info("Everything is up to date.")


@dg.job(
    description="What `latentlens-dag build` does: observe the sources, then build what is missing or out of date.",
    executor_def=dg.in_process_executor,
)
def build() -> None:
    """One op, which finds out itself what there is to do."""
    build_what_is_needed()


@dg.sensor(
    job_name=build.name,  # given the job itself, Dagster warns of its own beta parameter
    minimum_interval_seconds=_EVERY_S,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Looks whether a source changed or anything is missing or out of date, and then starts the job "
    "`build`. Off until you switch it on. What failed is not tried again before something changes.",
)
def build_when_needed(context: dg.SensorEvaluationContext, warehouse: WarehouseResource) -> dg.SensorResult:
    """One look; the cursor holds what was found when `build` was last started."""
    assert context.repository_def is not None
    graph, paths = context.repository_def.asset_graph, warehouse.paths
    needs = find_needs(graph, context.instance, _targets(graph))
    changed = changed_sources(graph, context.instance, paths, sorted(graph.observable_asset_keys))
    found = _fingerprint(needs, changed)
    if not found:
        return dg.SensorResult(skip_reason="Everything is up to date.", cursor="")
    if found == context.cursor:
        return dg.SensorResult(skip_reason=f"`build` was started for this already, and did not end it: {_told(needs)}")
    if _is_building(_home(warehouse)):
        return dg.SensorResult(skip_reason="A build is running.")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=found)


def _is_building(home: Home) -> bool:
    """Whether someone holds the home for a build, here or on the command line."""
    from latentlens_dag.dag.driver import build_lock

    try:
        with build_lock(home):
            return False
    except UserError:
        return True


def _targets(graph: AssetGraph) -> list[tuple[dg.AssetKey, str | None]]:
    """Every partition of every asset, in an order in which they can be built."""
    whole: list[str | None] = [None]
    found = []
    for key in graph.toposorted_asset_keys:
        if key in graph.materializable_asset_keys:
            partitions = graph.get(key).partitions_def
            found += [(key, one) for one in (partitions.get_partition_keys() if partitions else whole)]
    return found


def _fingerprint(needs: list[Need], changed: dict[dg.AssetKey, str]) -> str:
    """What there is to do, in a word; empty where there is nothing."""
    facts = [*map(str, needs), *(f"{key.to_user_string()} {state}" for key, state in changed.items())]
    return combined(facts) if facts else ""


def _told(needs: list[Need]) -> str:
    return "; ".join(map(str, needs[:3])) + (f" and {len(needs) - 3} more" if len(needs) > 3 else "")


def _home(warehouse: WarehouseResource) -> Home:
    return Home(Path(warehouse.root).parent)
