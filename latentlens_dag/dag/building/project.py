"""The build: materialize what is missing or stale and nothing else, in order, through Dagster's instance.

The build asks Dagster what is stale (`staleness.py`), runs it, and asks again, step by step: a step that wrote the same
content as before leaves its descendants fresh, so that nothing more is run. Every run is a Dagster run, and the UI
shows the same history. Note: Dagster itself never skips work; materializing from the UI always computes.
"""

import signal
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import dagster as dg

from latentlens_dag.dag.building.collector import no_collector, rare_collections
from latentlens_dag.dag.building.estimate import StepWork, seconds_per_part, step_works
from latentlens_dag.dag.building.left_out import LeftOut, known_left_out
from latentlens_dag.dag.building.listener import BuildListener
from latentlens_dag.dag.building.reuse import parts_with_stored_states
from latentlens_dag.dag.building.runs import BuildError, BuildRun, Runner, cancel_orphans
from latentlens_dag.dag.building.selection import Selection, select
from latentlens_dag.dag.building.signals import catch_signals
from latentlens_dag.dag.building.staleness import FORCED_REASON, StaleTarget, find_stale, observe_sources
from latentlens_dag.dag.building.steps import (
    AssetPartition,
    Lineage,
    RunGroup,
    each_partition,
    find_run_groups,
    find_steps,
)
from latentlens_dag.dag.keys import DISABLED, label
from latentlens_dag.dag.resources import release_memory
from latentlens_dag.dag.versions import SOURCE_PATH, SOURCE_VERSION
from latentlens_dag.errors import RESUME_HINT, StoppedBySignalError
from latentlens_dag.storage.files import remove
from latentlens_dag.storage.home import Home
from latentlens_dag.storage.leftovers import interrupted_writes
from latentlens_dag.storage.records import ArtifactStore
from latentlens_dag.storage.split_input import remove_untaken_rows

_NOTHING: frozenset[AssetPartition] = frozenset()


class Project:
    """The definitions of a project on a home, with its Dagster instance open."""

    def __init__(self, defs: dg.Definitions, home: Home, instance: dg.DagsterInstance) -> None:
        """Find the steps of the asset graph and an order in which they can run."""
        self.home, self.instance = home, instance
        self._defs = defs
        self.graph = defs.resolve_asset_graph()
        self.lineage = Lineage(self.graph)
        self.store = ArtifactStore(home.warehouse.root)
        self.disabled = {name.removeprefix(DISABLED) for name in defs.metadata or {} if name.startswith(DISABLED)}
        self.steps = find_steps(self.graph)

    @cached_property
    def run_groups(self) -> list[RunGroup]:
        """The steps in groups, in the order of a build."""
        return find_run_groups(self.graph, self.steps)

    @cached_property
    def _runner(self) -> Runner:
        """Made when something runs: the job of 400 assets takes Dagster a second."""
        names = {step.op: step.name for step in self.steps}
        return Runner(self._defs.resolve_implicit_global_asset_job_def(), self.instance, self.home, names)

    def select(self, studies: Sequence[str] = (), names: Sequence[str] = ()) -> Selection:
        """The targets of a build, with all that they are made from, as `selection.select`."""
        return select(self.lineage, self.steps, studies, names)

    def targets(self, selection: Selection) -> list[AssetPartition]:
        """The selected partitions that a build makes, in an order in which they can run."""
        return selection.among([target for step in self.steps for target in step.targets()])

    def source_places(self) -> dict[str, str]:
        """The path or address of each source, by its asset's name."""
        places = {key.to_user_string(): self._source_place(key) for key in self.graph.get_all_asset_keys()}
        return {name: place for name, place in places.items() if place}

    def _source_place(self, key: dg.AssetKey) -> str | None:
        node = self.graph.get(key)
        path = node.metadata.get(SOURCE_PATH)
        if path is not None:
            return str(getattr(path, "value", path))
        return node.description if SOURCE_VERSION in node.metadata else None

    def observe(self, selection: Selection) -> list[dg.AssetKey]:
        """Observe the selection's sources; give those that changed since they were last observed."""
        return observe_sources(self.graph, self.instance, self.home.warehouse, selection.keys())

    def plan(self, selection: Selection, force: bool = False) -> list[StaleTarget]:
        """What a build would run at most, and why; steps that follow others may turn out to be fresh.

        Args:
            selection: what to plan for.
            force: whether requested targets are run even where they are fresh; their ancestors never are.
        """
        targets = self.targets(selection)
        stale = self._find_stale(targets, _forced(selection, force))
        planned: dict[AssetPartition, StaleTarget] = {}
        for target in targets:
            stale_target = stale.get(target) or self._following(target, planned)
            if stale_target is not None:
                planned[target] = stale_target
        return list(planned.values())

    def status(self, selection: Selection) -> list[dict[str, Any]]:
        """Per step: how many parts it has, and how many of them are built, missing and stale."""
        targets = {step.name: selection.among(step.targets()) for step in self.steps}
        stale = self._find_stale(self.targets(selection), _NOTHING)
        return [_counts(step, selected, stale) for step, selected in targets.items() if selected]

    def left_out(self, selection: Selection) -> list[LeftOut]:
        """What the selection's parts left out of their inputs when they were last built."""
        return [*known_left_out(self.instance, self.targets(selection))]

    def work(self, targets: Sequence[StaleTarget]) -> list[StepWork]:
        """The work of each step that is planned, as far as earlier runs tell."""
        return step_works(self.graph, self.instance, self.steps, targets)

    def reused(self, targets: Sequence[StaleTarget]) -> dict[str, int]:
        """The number of planned parts of each step whose stored states are used again."""
        return parts_with_stored_states(self.graph, self.instance, self.store, self.steps, targets)

    def speeds(self, targets: Sequence[StaleTarget]) -> dict[str, float]:
        """Seconds per part of each step that is planned and ran before."""
        return seconds_per_part(self.instance, self.steps, targets)

    def build(self, selection: Selection, force: bool = False, listener: BuildListener | None = None) -> list[BuildRun]:
        """Run what is missing or stale; give what was run.

        Args:
            selection: what to build.
            force: whether requested targets are run even where they are fresh; their ancestors never are.
            listener: receives the events of the build.

        Raises:
            UserError: where a step failed because of the user's input.
            BuildError: where a step failed for another reason; finished steps stay.
            StoppedBySignalError: at SIGINT or SIGTERM; finished steps stay.
        """
        runs: list[BuildRun] = []
        with catch_signals() as signals, rare_collections():
            try:
                for run in self._build(selection, force, listener or BuildListener()):
                    runs.append(run)
                    if signals.last() is not None:
                        raise KeyboardInterrupt
            except BaseException as error:  # between two steps, Dagster turns a signal into errors of its own
                number = signals.last() or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)
                if number is None:
                    raise
                raise StoppedBySignalError(f"Interrupted. {RESUME_HINT}", number) from None
            finally:
                release_memory()
                remove_untaken_rows(self.store.warehouse)
        return runs

    def remove_interrupted(self) -> None:
        """Cancel the open runs of killed builds, and remove what they left half-written; nobody may be building."""
        cancel_orphans(self.instance)
        for path in interrupted_writes(self.store.warehouse):
            remove(path)

    def _build(self, selection: Selection, force: bool, listener: BuildListener) -> Iterator[BuildRun]:
        """Build group by group; only planned targets can become stale, so the others are not looked at again."""
        stale, forced = self.plan(selection, force), _forced(selection, force)
        planned = {(target.key, target.partition) for target in stale}
        listener.planned(stale)
        for group in self.run_groups:
            for partition in each_partition(group.partitions):
                targets = [target for target in group.targets(partition) if target in planned]
                if targets:
                    yield from self._build_partition(targets, forced, listener)
                    listener.up_to_date(targets)

    def _build_partition(
        self, targets: list[AssetPartition], forced: frozenset[AssetPartition], listener: BuildListener
    ) -> Iterator[BuildRun]:
        """Run what is stale, then what became stale because of that, until nothing is."""
        before: dict[AssetPartition, StaleTarget] = {}
        while stale := self._find_stale(targets, forced):
            if stale == before:
                first = next(iter(stale.values()))
                raise BuildError(f"{first}, and it stays so after it was built: this is a defect of this package.")
            yield self._runner.run([*stale.values()], listener, bool(forced.intersection(targets)))
            before, forced = stale, _NOTHING

    def _find_stale(
        self, targets: list[AssetPartition], forced: frozenset[AssetPartition]
    ) -> dict[AssetPartition, StaleTarget]:
        """The targets that are missing, stale or forced, in their order."""
        with no_collector():
            stale = find_stale(self.lineage, self.instance, self.store, targets)
        stale |= {target: StaleTarget(*target, FORCED_REASON) for target in forced.intersection(targets)}
        return {target: stale[target] for target in targets if target in stale}

    def _following(self, target: AssetPartition, planned: dict[AssetPartition, StaleTarget]) -> StaleTarget | None:
        """A fresh target as one that may become stale, since a parent of it is planned."""
        parent = next((parent for parent in self.lineage.parents(*target) if parent in planned), None)
        return None if parent is None else StaleTarget(*target, f"follows {label(*parent)}")


def _counts(step: str, targets: list[AssetPartition], stale: dict[AssetPartition, StaleTarget]) -> dict[str, Any]:
    parts, reasons = len(targets), [stale[target] for target in targets if target in stale]
    missing = sum(reason.missing for reason in reasons)
    counts = {"parts": parts, "built": parts - missing, "missing": missing, "stale": len(reasons) - missing}
    return {"step": step, **counts}


def _forced(selection: Selection, force: bool) -> frozenset[AssetPartition]:
    return selection.requested if force else _NOTHING
