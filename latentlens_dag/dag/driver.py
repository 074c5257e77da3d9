"""The build: materialize what is missing or stale and nothing else, in order, through Dagster's instance.

The driver asks Dagster what is stale (`staleness.py`), runs it, and asks again, step by step: a step that
wrote the same content as before leaves what follows it fresh, so that nothing more is run. Every run is a
Dagster run, and the UI shows the same history. What a newcomer gets wrong: Dagster itself never skips
work. Materializing from the UI always computes; only this driver leaves out what is fresh.
"""

import fcntl
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import dagster as dg
from sqlalchemy import Engine, event

from latentlens_dag.dag.staleness import NOT_BUILT, Need, find_needs, label, observe_sources
from latentlens_dag.dag.versions import FORCED
from latentlens_dag.errors import UserError
from latentlens_dag.home import Home

_FORCED_REASON = "forced"
Target = tuple[dg.AssetKey, str | None]


class Unit(NamedTuple):
    """One step (an asset or a multi-asset): its keys are computed together, partition by partition."""

    name: str
    keys: list[dg.AssetKey]
    partitions: list[str] | None

    def targets(self) -> list[Target]:
        """Every partition of every key, partition by partition."""
        whole: list[str | None] = [None]
        return [(key, partition) for partition in self.partitions or whole for key in self.keys]


class Segment(NamedTuple):
    """Steps with the same partitions that follow one another, so that one Dagster run does them for a partition."""

    units: list[Unit]
    partitions: list[str] | None

    def targets(self, partition: str | None, selection: set[dg.AssetKey]) -> list[Target]:
        """The selected assets of one partition."""
        return [(key, partition) for unit in self.units for key in unit.keys if key in selection]


class Ran(NamedTuple):
    """One Dagster run of a build."""

    partition: str | None
    needs: list[Need]
    steps: dict[str, float]
    """Wall time of each step, in seconds."""
    wall_s: float


class BuildFailed(Exception):
    """A step failed for a reason that is not the user's; its message holds the error, `trace` the rest."""

    def __init__(self, message: str, trace: str = "") -> None:
        """Keep the trace apart, for --debug."""
        super().__init__(message)
        self.trace = trace


class Project:
    """The definitions of a project on a home, with its Dagster instance open."""

    def __init__(self, defs: dg.Definitions, home: Home, instance: dg.DagsterInstance) -> None:
        """Take the asset graph apart into steps, in an order in which they can run."""
        self.home, self.instance = home, instance
        self.graph = defs.resolve_asset_graph()
        self._job = defs.resolve_implicit_global_asset_job_def()
        self.units = self._units()
        self.segments = self._segments()

    def studies(self) -> list[str]:
        """The names of the studies that are switched on."""
        return sorted({key.path[1] for unit in self.units for key in unit.keys if key.path[0] == "study"})

    def select(self, studies: Sequence[str] = (), asset: str | None = None) -> set[dg.AssetKey]:
        """The assets to build, with all that they are made from.

        Args:
            studies: names; all studies, corpora, indexes and image sets where there are none.
            asset: an asset's key, or the beginning of several, as `study/demo/judgements`.

        Raises:
            UserError: where nothing has that name.
        """
        every = [key for unit in self.units for key in unit.keys]
        known = self.studies()
        for study in studies:
            if study not in known:
                raise UserError(f"There is no study {study!r}. There are: {', '.join(known) or 'none'}.")
        chosen = [key for key in every if not studies or (key.path[0] == "study" and key.path[1] in studies)]
        if asset is not None:
            chosen = [key for key in chosen if _begins(key, asset)]
            if not chosen:
                near = sorted({"/".join(key.path[:3]) for key in every})
                raise UserError(f"No asset is called {asset!r} or begins so. There are: {', '.join(near)}.")
        return set(chosen).union(*(self.graph.get_ancestor_asset_keys(key) for key in chosen))

    def observe(self, selection: set[dg.AssetKey]) -> list[dg.AssetKey]:
        """Look at the selection's sources; give those that changed since they were last looked at."""
        return observe_sources(self.graph, self.instance, self.home.warehouse, sorted(selection))

    def plan(self, selection: set[dg.AssetKey], force: bool = False) -> list[Need]:
        """What a build would run, and why; steps that follow may turn out to be fresh, and then are not run."""
        planned: dict[Target, Need] = {}
        for unit in self.units:
            targets = [target for target in unit.targets() if target[0] in selection]
            now = {(need.key, need.partition): need for need in self._needs(targets, force)}
            for key, partition in targets:
                need = now.get((key, partition)) or self._following(key, partition, planned)
                if need is not None:
                    planned[key, partition] = need
        return list(planned.values())

    def status(self, selection: set[dg.AssetKey]) -> list[dict[str, Any]]:
        """Per step: how many parts there are, and how many are built, missing and stale."""
        facts = []
        for unit in self.units:
            targets = [target for target in unit.targets() if target[0] in selection]
            found = self._needs(targets, force=False)
            missing = sum(need.reason == NOT_BUILT for need in found)
            counts = {"parts": len(targets), "built": len(targets) - missing, "missing": missing}
            facts += [{"step": unit.name, **counts, "stale": len(found) - missing}] if targets else []
        return facts

    def build(
        self, selection: set[dg.AssetKey], force: bool = False, tell: Callable[[Ran], None] = lambda ran: None
    ) -> list[Ran]:
        """Run what is missing or stale; give the steps that were run, after telling each.

        Raises:
            UserError: where a step failed because of the user's input.
            BuildFailed: where a step failed for another reason; what was finished before stays.
        """
        done = []
        for segment in self.segments:
            whole: list[str | None] = [None]
            for partition in segment.partitions or whole:
                for ran in self._build_partition(segment.targets(partition, selection), partition, force):
                    done.append(ran)
                    tell(ran)
        return done

    def _build_partition(self, targets: list[Target], partition: str | None, force: bool) -> Iterator[Ran]:
        """Run what is needed, then what is stale because of that, until nothing is."""
        before: list[Need] = []
        while found := self._needs(targets, force):
            if found == before:
                raise BuildFailed(f"{found[0]}, and it stays so after it was built: this is a defect of this package.")
            yield self._run(partition, found)
            before, force = found, False

    def _needs(self, targets: list[Target], force: bool) -> list[Need]:
        if force:
            return [Need(key, partition, _FORCED_REASON) for key, partition in targets]
        return find_needs(self.graph, self.instance, targets)

    def _following(self, key: dg.AssetKey, partition: str | None, planned: dict[Target, Need]) -> Need | None:
        parents = self.graph.get(key).parent_keys
        for before, its_partition in planned:
            same = partition is None or its_partition is None or its_partition == partition
            if before in parents and same:
                return Need(key, partition, f"follows {label(before, its_partition)}")
        return None

    def _run(self, partition: str | None, found: list[Need]) -> Ran:
        start = time.monotonic()
        job = self._job.get_subset(asset_selection={need.key for need in found})
        with _quiet_dagster():
            result = job.execute_in_process(
                instance=self.instance,
                partition_key=partition,
                raise_on_error=False,
                tags={FORCED: "true"} if found[0].reason == _FORCED_REASON else None,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        if not result.success:
            _raise_failure(result, partition)
        ended = [event for event in result.all_events if event.is_step_success]
        steps = {str(event.step_key): event.step_success_data.duration_ms / 1000 for event in ended}
        return Ran(partition, found, steps, time.monotonic() - start)

    def _units(self) -> list[Unit]:
        order = {key: place for place, key in enumerate(self.graph.toposorted_asset_keys)}
        by_step: dict[int, list[dg.AssetKey]] = {}
        for key in self.graph.materializable_asset_keys:
            by_step.setdefault(id(self.graph.get(key).assets_def), []).append(key)
        steps = sorted((sorted(keys, key=order.__getitem__) for keys in by_step.values()), key=lambda ks: order[ks[-1]])
        return [Unit(_unit_name(keys), keys, self._partitions(keys[0])) for keys in steps]

    def _segments(self) -> list[Segment]:
        """Steps in an order in which they can run, as many of the same partitions as possible in a row."""
        waiting, done, segments = list(self.units), set(self.graph.observable_asset_keys), list[Segment]()
        done |= self.graph.external_asset_keys
        while waiting:
            current = segments[-1] if segments else None
            inside = {key for unit in current.units for key in unit.keys} if current else set()
            unit = next((u for u in waiting if current and self._can_follow(u, current, inside, done)), None)
            if unit is not None and current is not None:
                current.units.append(unit)
            else:
                unit = next(u for u in waiting if self._parents(u) <= done)
                segments.append(Segment([unit], unit.partitions))
            waiting.remove(unit)
            done |= set(unit.keys)
        return segments

    def _can_follow(self, unit: Unit, segment: Segment, inside: set[dg.AssetKey], done: set[dg.AssetKey]) -> bool:
        """Whether the step's partition can run right after the same partition of the segment's steps."""
        if unit.partitions != segment.partitions or not self._parents(unit) <= done:
            return False
        edges = [(key, parent) for key in unit.keys for parent in self.graph.get(key).parent_keys if parent in inside]
        return not any(
            isinstance(self.graph.get(key).partition_mappings.get(parent), dg.AllPartitionMapping)
            for key, parent in edges
        )

    def _parents(self, unit: Unit) -> set[dg.AssetKey]:
        return {parent for key in unit.keys for parent in self.graph.get(key).parent_keys} - set(unit.keys)

    def _partitions(self, key: dg.AssetKey) -> list[str] | None:
        definition = self.graph.get(key).partitions_def
        return list(definition.get_partition_keys()) if definition else None


@contextmanager
def open_project(home: Home) -> Iterator[Project]:
    """The project of the current folder on a home."""
    from latentlens_dag.dag.loading import load_definitions

    home.prepare()
    defs = load_definitions(home=home)
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance, _fewer_syncs(home):
        yield Project(defs, home, instance)


@contextmanager
def _fewer_syncs(home: Home) -> Iterator[None]:
    """Let SQLite wait for the disk less often while this process writes Dagster's history.

    Dagster opens and closes a connection for every event; the last one to close a database in WAL mode
    copies the log back and syncs, which took half of a small build's time. One idle connection to each
    database prevents that. A kill loses nothing; a power failure may lose the last events, never more,
    and the next build runs those steps again.
    """
    history = home.dagster / "history"
    held = [sqlite3.connect(file) for file in (history / "runs.db", history / "runs" / "index.db") if file.is_file()]
    for connection in held:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    event.listen(Engine, "connect", _sync_less)
    try:
        yield
    finally:
        event.remove(Engine, "connect", _sync_less)
        for connection in held:
            connection.close()


def _sync_less(connection: Any, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=NORMAL")


@contextmanager
def build_lock(home: Home) -> Iterator[None]:
    """Hold the home for one build; the lock dies with its owner.

    Raises:
        UserError: where another build holds it.
    """
    with (home.root / "build.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another build of {home.root} is running. Wait for it, or use another home.") from error
        yield


def _unit_name(keys: list[dg.AssetKey]) -> str:
    """study/demo/visual for the step that gives all of study/demo/visual/V..."""
    return "/".join(keys[0].path[:3])


def _begins(key: dg.AssetKey, asset: str) -> bool:
    parts = asset.strip("/").split("/")
    return list(key.path[: len(parts)]) == parts


def _raise_failure(result: Any, partition: str | None) -> None:
    """Turn a failed run into one error: the user's, where it was the user's, else `BuildFailed`."""
    for happened in result.all_events:
        error = happened.step_failure_data.error if happened.is_step_failure else None
        what = f"{happened.step_key}[{partition}]" if partition else happened.step_key
        while error is not None:
            if error.cls_name == UserError.__name__:
                raise UserError(_message(error))
            if error.cls_name == dg.Failure.__name__ or error.cause is None:
                raise BuildFailed(f"{what} failed: {_message(error)}", error.to_string())
            error = error.cause
    raise BuildFailed("A run failed before its first step; Dagster's UI says more.")


def _message(error: Any) -> str:
    """The text of a serialized error, without its class."""
    text: str = error.message.strip()
    for prefix in (f"{UserError.__module__}.{UserError.__name__}: ", "dagster_shared.error.", f"{error.cls_name}: "):
        text = text.removeprefix(prefix)
    return text


@contextmanager
def _quiet_dagster() -> Iterator[None]:
    """Keep Dagster's own lines off the terminal; its log has them all."""
    logger = logging.getLogger("dagster")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
