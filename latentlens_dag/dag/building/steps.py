"""The asset graph as steps, and the steps in groups that run together: the order of a build.

Note: the steps of a group do not run one after another over all partitions, but partition by partition, so that one
Dagster run does all of them for a partition. Steps with partitions that use different models are in different groups.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from latentlens_dag.dag.keys import MANUAL_ONLY, is_checkpoint
from latentlens_dag.dag.versions import SOURCE_MODEL, fact_of, settings_of

Key = dg.AssetKey
"""For those who must not import dagster."""
AssetPartition = tuple[dg.AssetKey, str | None]
"""One partition of one asset; None where it has no partitions."""


class Step(NamedTuple):
    """An asset or a multi-asset, whose keys are computed together, partition by partition."""

    name: str
    """study/demo/visual for the step that makes all of study/demo/visual/V..."""
    op: str
    """Its name in Dagster."""
    keys: list[dg.AssetKey]
    partitions: list[str] | None
    model: str | None = None
    """What tells its model from others, with the dtype; None where it uses none."""

    def targets(self) -> list[AssetPartition]:
        """Every partition of every key, partition by partition."""
        return [(key, partition) for partition in each_partition(self.partitions) for key in self.keys]


class RunGroup(NamedTuple):
    """Steps with the same partitions, which one Dagster run does for a partition."""

    steps: list[Step]
    partitions: list[str] | None

    def targets(self, partition: str | None) -> list[AssetPartition]:
        """The assets of one partition."""
        return [(key, partition) for step in self.steps for key in step.keys]


def each_partition(partitions: list[str] | None) -> list[str | None]:
    """The partitions, or None alone where there are none."""
    return [None] if partitions is None else [*partitions]


def find_steps(graph: AssetGraph) -> list[Step]:
    """The steps of a graph that a build runs, in an order in which they can run."""
    order = {key: number for number, key in enumerate(graph.toposorted_asset_keys)}
    by_step: dict[int, list[dg.AssetKey]] = {}
    for key in graph.materializable_asset_keys:
        if MANUAL_ONLY in graph.get(key).metadata:
            continue
        by_step.setdefault(id(graph.get(key).assets_def), []).append(key)
    steps = sorted((sorted(keys, key=order.__getitem__) for keys in by_step.values()), key=lambda ks: order[ks[-1]])
    return [_step(graph, keys) for keys in steps]


def find_run_groups(graph: AssetGraph, steps: list[Step]) -> list[RunGroup]:
    """Steps in an order in which they can run, as many of the same partitions as possible in a row."""
    waiting, groups = list(steps), list[RunGroup]()
    done: AbstractSet[dg.AssetKey] = graph.observable_asset_keys | graph.external_asset_keys
    while waiting:
        step = next((step for step in waiting if groups and _can_follow(graph, step, groups[-1], done)), None)
        if step is None:
            step = next(step for step in waiting if _parents(graph, step) <= done)
            groups.append(RunGroup([], step.partitions))
        groups[-1].steps.append(step)
        waiting.remove(step)
        done = done | set(step.keys)
    return groups


class Edge(NamedTuple):
    """One parent of an asset."""

    parent: dg.AssetKey
    every: bool
    """Whether a partition is made from every partition of the parent, rather than from the one of its name."""
    partitions: dict[str | None, AssetPartition]
    """Those of the parent, by name."""

    def read_by(self, partition: str | None) -> list[AssetPartition]:
        """The partitions of the parent that a partition is made from."""
        same = None if self.every else self.partitions.get(partition)
        return [*self.partitions.values()] if same is None else [same]


class Lineage:
    """What every partition of a graph is made from. The edges of an asset are found once, whatever its partitions."""

    def __init__(self, graph: AssetGraph) -> None:
        """Find nothing yet."""
        self.graph = graph
        self._edges: dict[dg.AssetKey, list[Edge]] = {}
        self._partitions: dict[dg.AssetKey, dict[str | None, AssetPartition]] = {}

    def edges(self, key: dg.AssetKey) -> list[Edge]:
        """The parents of an asset, in order of their keys."""
        if key not in self._edges:
            self._edges[key] = [
                Edge(parent, reads_all(self.graph, key, parent), self.partitions(parent))
                for parent in sorted(self.graph.get(key).parent_keys)
            ]
        return self._edges[key]

    def partitions(self, key: dg.AssetKey) -> dict[str | None, AssetPartition]:
        """The partitions of an asset by name; None alone where it has none."""
        if key not in self._partitions:
            names = each_partition(_partitions(self.graph, key))
            self._partitions[key] = {name: (key, name) for name in names}
        return self._partitions[key]

    def parents(self, key: dg.AssetKey, partition: str | None) -> list[AssetPartition]:
        """The partitions that a partition is made from, in order of their keys."""
        return [parent for edge in self.edges(key) for parent in edge.read_by(partition)]

    def with_ancestors(self, targets: Iterable[AssetPartition]) -> set[AssetPartition]:
        """The targets and everything that they are made from, sources included."""
        found, whole = set(targets), set[dg.AssetKey]()
        waiting = [*found]
        while waiting:
            key, partition = waiting.pop()
            for edge in self.edges(key):
                if edge.parent in whole:
                    continue  # else every partition of a step would look at every one of its parent's
                parents = edge.read_by(partition)
                if len(parents) == len(edge.partitions):
                    whole.add(edge.parent)
                new = [parent for parent in parents if parent not in found]
                found.update(new)
                waiting += new
        return found


def reads_all(graph: AssetGraph, key: dg.AssetKey, parent: dg.AssetKey) -> bool:
    """Whether a partition of `key` is made from every partition of `parent`, rather than from the one of its name."""
    mapping = graph.get(key).partition_mappings.get(parent)
    return isinstance(mapping, dg.AllPartitionMapping) or graph.get(key).partitions_def is None


def _partitions(graph: AssetGraph, key: dg.AssetKey) -> list[str] | None:
    definition = graph.get(key).partitions_def
    return list(definition.get_partition_keys()) if definition else None


def _step(graph: AssetGraph, keys: list[dg.AssetKey]) -> Step:
    op = graph.get(keys[0]).assets_def.node_def.name
    return Step("/".join(keys[0].path[:3]), op, keys, _partitions(graph, keys[0]), _model_of(graph, keys[0]))


def _model_of(graph: AssetGraph, key: dg.AssetKey) -> str | None:
    """The models among the parents of an asset, with the dtype that it declares."""
    parents = model_keys(graph, key)
    models = [str(fact_of(graph.get(parent).metadata, SOURCE_MODEL) or parent.to_user_string()) for parent in parents]
    return f"{models} {settings_of(graph.get(key).metadata).get('dtype')}" if models else None


def model_keys(graph: AssetGraph, key: dg.AssetKey) -> list[dg.AssetKey]:
    """The parents of an asset that are models, in order: observed sources, and checkpoints that a build makes."""
    parents = sorted(graph.get(key).parent_keys)
    return [parent for parent in parents if is_checkpoint(parent) or SOURCE_MODEL in graph.get(parent).metadata]


def _can_follow(graph: AssetGraph, step: Step, group: RunGroup, done: AbstractSet[dg.AssetKey]) -> bool:
    """Whether the step's partition can run right after the same partition of the group's steps."""
    if step.partitions != group.partitions or not _parents(graph, step) <= done:
        return False
    models = {other.model for other in [*group.steps, step]} - {None}
    if step.partitions is not None and len(models) > 1:
        return False  # each would be loaded again for every partition: only the last one stays in memory
    inside = {key for other in group.steps for key in other.keys}
    edges = [(key, parent) for key in step.keys for parent in graph.get(key).parent_keys if parent in inside]
    return step.partitions is None or not any(reads_all(graph, key, parent) for key, parent in edges)


def _parents(graph: AssetGraph, step: Step) -> set[dg.AssetKey]:
    return {parent for key in step.keys for parent in graph.get(key).parent_keys} - set(step.keys)
