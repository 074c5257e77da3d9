"""The build: materialize what is missing or stale and nothing else, in order, through Dagster's instance.

The driver asks Dagster what is stale (`staleness.py`), runs it, and asks again, step by step: a step that
wrote the same content as before leaves what follows it fresh, so that nothing more is run. Every run is a
Dagster run, and the UI shows the same history. What a newcomer gets wrong: Dagster itself never skips
work. Materializing from the UI always computes; only this driver leaves out what is fresh.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from latentlens_dag.dag.building.dagster_history import quick_history
from latentlens_dag.dag.building.estimate import StepWork, seconds_per_part, step_works
from latentlens_dag.dag.building.listener import BuildListener
from latentlens_dag.dag.building.runs import BuildError, BuildRun, Runner, cancel_orphans
from latentlens_dag.dag.building.selection import Selection, find_studies, select
from latentlens_dag.dag.building.signals import Signals, catch_signals
from latentlens_dag.dag.building.staleness import NOT_BUILT, StaleTarget, find_stale, observe_sources
from latentlens_dag.dag.building.steps import AssetPartition, each_partition, find_run_groups, find_steps, reads_all
from latentlens_dag.dag.keys import DISABLED, label
from latentlens_dag.dag.versions import SOURCE_PATH, SOURCE_VERSION
from latentlens_dag.errors import RESUME_HINT, StoppedBySignalError
from latentlens_dag.storage.home import Home, home_write_errors
from latentlens_dag.storage.records import ArtifactStore

_FORCED_REASON = "forced"
_NOTHING: frozenset[AssetPartition] = frozenset()


class Project:
    """The definitions of a project on a home, with its Dagster instance open."""

    def __init__(self, defs: dg.Definitions, home: Home, instance: dg.DagsterInstance) -> None:
        """Take the asset graph apart into steps, in an order in which they can run."""
        self.home, self.instance = home, instance
        self.graph = defs.resolve_asset_graph()
        self.manifest = ArtifactStore(home.warehouse.root)
        self.disabled = {name.removeprefix(DISABLED) for name in defs.metadata or {} if name.startswith(DISABLED)}
        self.steps = find_steps(self.graph)
        self.run_groups = find_run_groups(self.graph, self.steps)
        names = {unit.op: unit.name for unit in self.steps}
        self._runner = Runner(defs.resolve_implicit_global_asset_job_def(), instance, home, names)

    def studies(self) -> list[str]:
        """The names of the studies that are switched on."""
        return find_studies(self.steps)

    def select(self, studies: Sequence[str] = (), names: Sequence[str] = ()) -> Selection:
        """What to build, with all that it is made from, as `selection.select`."""
        return select(self.graph, self.steps, studies, names)

    def source_places(self) -> dict[str, str]:
        """Where each source lies, by its asset's name."""
        return {key.to_user_string(): place for key in self.graph.get_all_asset_keys() if (place := self._place(key))}

    def _place(self, key: dg.AssetKey) -> str | None:
        node = self.graph.get(key)
        path = node.metadata.get(SOURCE_PATH)
        if path is not None:
            return str(getattr(path, "value", path))
        return node.description if SOURCE_VERSION in node.metadata else None

    def observe(self, selection: Selection) -> list[dg.AssetKey]:
        """Look at the selection's sources; give those that changed since they were last looked at."""
        return observe_sources(self.graph, self.instance, self.home.warehouse, selection.keys())

    def plan(self, selection: Selection, force: bool = False) -> list[StaleTarget]:
        """What a build would run, and why; steps that follow may turn out to be fresh, and then are not run.

        Args:
            selection: what to look at.
            force: whether what was asked for is run even where it is fresh; what it is made from never is.
        """
        targets = selection.among([target for unit in self.steps for target in unit.targets()])
        now = {(need.key, need.partition): need for need in self._needs(targets, _forced(selection, force))}
        planned: dict[AssetPartition, StaleTarget] = {}
        for target in targets:
            need = now.get(target) or self._following(target, planned)
            if need is not None:
                planned[target] = need
        return list(planned.values())

    def status(self, selection: Selection) -> list[dict[str, Any]]:
        """Per step: how many parts there are, and how many are built, missing and stale."""
        targets = {unit.name: selection.among(unit.targets()) for unit in self.steps}
        found = self._needs([target for some in targets.values() for target in some], _NOTHING)
        reasons = {(need.key, need.partition): need.reason for need in found}
        facts = []
        for step, some in targets.items():
            missing = sum(reasons.get(target) == NOT_BUILT for target in some)
            stale = sum(target in reasons for target in some) - missing
            counts = {"parts": len(some), "built": len(some) - missing, "missing": missing, "stale": stale}
            facts += [{"step": step, **counts}] if some else []
        return facts

    def work(self, needs: Sequence[StaleTarget]) -> list[StepWork]:
        """What the steps are to do for what is planned, by what is known of earlier runs."""
        return step_works(self.instance, self.steps, needs)

    def speeds(self, needs: Sequence[StaleTarget]) -> dict[str, float]:
        """Seconds per part of each step that is planned and ran before."""
        return seconds_per_part(self.instance, self.steps, needs)

    def build(self, selection: Selection, force: bool = False, watcher: BuildListener | None = None) -> list[BuildRun]:
        """Run what is missing or stale; give what was run.

        Args:
            selection: what to build.
            force: whether what was asked for is run even where it is fresh; what it is made from never is.
            watcher: is told how it goes on.

        Raises:
            UserError: where a step failed because of the user's input.
            BuildFailed: where a step failed for another reason; what was finished before stays.
            Interrupted: where SIGINT or SIGTERM came; what was finished before stays.
        """
        done: list[BuildRun] = []
        with catch_signals() as signals:
            try:
                for ran in self._build(selection, force, watcher or BuildListener()):
                    done.append(ran)
                    if signals.last() is not None:
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                raise _interrupted(signals) from None
        return done

    def cancel_orphans(self) -> list[str]:
        """End what builds that were killed left open in Dagster's history, as `runs.cancel_orphans`."""
        return cancel_orphans(self.instance)

    def _build(self, selection: Selection, force: bool, watcher: BuildListener) -> Iterator[BuildRun]:
        """Only what is planned can come to be stale, so nothing else is asked for again."""
        needs, forced = self.plan(selection, force), _forced(selection, force)
        planned = {(need.key, need.partition) for need in needs}
        watcher.planned(needs)
        for segment in self.run_groups:
            for partition in each_partition(segment.partitions):
                targets = [target for target in segment.targets(partition) if target in planned]
                if targets:
                    yield from self._build_partition(targets, forced, watcher)
                    watcher.up_to_date(targets)

    def _build_partition(
        self, targets: list[AssetPartition], forced: frozenset[AssetPartition], watcher: BuildListener
    ) -> Iterator[BuildRun]:
        """Run what is needed, then what is stale because of that, until nothing is."""
        before: list[StaleTarget] = []
        while found := self._needs(targets, forced):
            if found == before:
                raise BuildError(f"{found[0]}, and it stays so after it was built: this is a defect of this package.")
            yield self._runner.run(found, watcher, bool(forced.intersection(targets)))
            before, forced = found, _NOTHING

    def _needs(self, targets: list[AssetPartition], forced: frozenset[AssetPartition]) -> list[StaleTarget]:
        """Which of the targets are missing, stale or forced, in their order."""
        needs = find_stale(self.graph, self.instance, self.manifest, targets)
        found = {(need.key, need.partition): need for need in needs}
        found |= {target: StaleTarget(*target, _FORCED_REASON) for target in forced.intersection(targets)}
        return [found[target] for target in targets if target in found]

    def _following(self, target: AssetPartition, planned: dict[AssetPartition, StaleTarget]) -> StaleTarget | None:
        """Why something fresh may come to be stale: the first planned thing that it is made from."""
        key, partition = target
        for parent in sorted(self.graph.get(key).parent_keys):
            definition = self.graph.get(parent).partitions_def
            every = each_partition(list(definition.get_partition_keys()) if definition else None)
            same = partition in every and not reads_all(self.graph, key, parent)
            for one in [partition] if same else every:
                if (parent, one) in planned:
                    return StaleTarget(key, partition, f"follows {label(parent, one)}")
        return None


def _forced(selection: Selection, force: bool) -> frozenset[AssetPartition]:
    return selection.requested if force else _NOTHING


def _interrupted(signals: Signals) -> StoppedBySignalError:
    return StoppedBySignalError(f"Interrupted. {RESUME_HINT}", signals.last() or signal.SIGINT)


@contextmanager
def open_project(home: Home) -> Iterator[Project]:
    """The project of the current folder on a home.

    Raises:
        UserError: where there is no project, a defs.yaml is wrong, or the home cannot be written.
    """
    from latentlens_dag.dag.loading import load_definitions

    home.prepare()
    defs = load_definitions(home=home)
    with home_write_errors(home), dg.DagsterInstance.from_config(str(home.dagster)) as instance, quick_history(home):
        yield Project(defs, home, instance)
