"""The asset graph taken apart into steps, and the steps into segments: in which order a build runs what.

What a newcomer gets wrong: steps of one segment are not run one after another over all partitions, but
partition by partition, so that one Dagster run does all of them for a partition.
"""

from collections.abc import Set as AbstractSet
from typing import NamedTuple

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from latentlens_dag.dag.keys import MANUAL_ONLY

Key = dg.AssetKey
"""For those who must not import dagster."""
AssetPartition = tuple[dg.AssetKey, str | None]
"""One partition of one asset; None where it has no partitions."""


class Step(NamedTuple):
    """One step (an asset or a multi-asset): its keys are computed together, partition by partition."""

    name: str
    """study/demo/visual for the step that gives all of study/demo/visual/V..."""
    op: str
    """What Dagster calls it."""
    keys: list[dg.AssetKey]
    partitions: list[str] | None

    def targets(self) -> list[AssetPartition]:
        """Every partition of every key, partition by partition."""
        return [(key, partition) for partition in each_partition(self.partitions) for key in self.keys]


class RunGroup(NamedTuple):
    """Steps with the same partitions that follow one another, so that one Dagster run does them for a partition."""

    steps: list[Step]
    partitions: list[str] | None

    def targets(self, partition: str | None) -> list[AssetPartition]:
        """The assets of one partition."""
        return [(key, partition) for unit in self.steps for key in unit.keys]


def each_partition(partitions: list[str] | None) -> list[str | None]:
    """The partitions, or None alone where there are none."""
    return [None] if partitions is None else [*partitions]


def find_steps(graph: AssetGraph) -> list[Step]:
    """The steps of a graph that a build makes, in an order in which they can run."""
    order = {key: place for place, key in enumerate(graph.toposorted_asset_keys)}
    by_step: dict[int, list[dg.AssetKey]] = {}
    for key in graph.materializable_asset_keys:
        if MANUAL_ONLY in graph.get(key).metadata:
            continue
        by_step.setdefault(id(graph.get(key).assets_def), []).append(key)
    steps = sorted((sorted(keys, key=order.__getitem__) for keys in by_step.values()), key=lambda ks: order[ks[-1]])
    return [_unit(graph, keys) for keys in steps]


def find_run_groups(graph: AssetGraph, steps: list[Step]) -> list[RunGroup]:
    """Steps in an order in which they can run, as many of the same partitions as possible in a row."""
    waiting, run_groups = list(steps), list[RunGroup]()
    done: AbstractSet[dg.AssetKey] = graph.observable_asset_keys | graph.external_asset_keys
    while waiting:
        current = run_groups[-1] if run_groups else None
        unit = next((u for u in waiting if current and _can_follow(graph, u, current, done)), None)
        if unit is not None and current is not None:
            current.steps.append(unit)
        else:
            unit = next(u for u in waiting if _parents(graph, u) <= done)
            run_groups.append(RunGroup([unit], unit.partitions))
        waiting.remove(unit)
        done = done | set(unit.keys)
    return run_groups


def reads_all(graph: AssetGraph, key: dg.AssetKey, parent: dg.AssetKey) -> bool:
    """Whether a partition of `key` is made from every partition of `parent`, rather than from the one of its name."""
    mapping = graph.get(key).partition_mappings.get(parent)
    return isinstance(mapping, dg.AllPartitionMapping) or graph.get(key).partitions_def is None


def _unit(graph: AssetGraph, keys: list[dg.AssetKey]) -> Step:
    definition = graph.get(keys[0]).partitions_def
    partitions = list(definition.get_partition_keys()) if definition else None
    return Step("/".join(keys[0].path[:3]), graph.get(keys[0]).assets_def.node_def.name, keys, partitions)


def _can_follow(graph: AssetGraph, unit: Step, segment: RunGroup, done: AbstractSet[dg.AssetKey]) -> bool:
    """Whether the step's partition can run right after the same partition of the segment's steps."""
    if unit.partitions != segment.partitions or not _parents(graph, unit) <= done:
        return False
    inside = {key for other in segment.steps for key in other.keys}
    edges = [(key, parent) for key in unit.keys for parent in graph.get(key).parent_keys if parent in inside]
    return unit.partitions is None or not any(reads_all(graph, key, parent) for key, parent in edges)


def _parents(graph: AssetGraph, unit: Step) -> set[dg.AssetKey]:
    return {parent for key in unit.keys for parent in graph.get(key).parent_keys} - set(unit.keys)
