"""One Dagster run of a build: in this process, with events as it goes, and closed in Dagster's history however it ends.

Note: the record of a run stays open in Dagster's history if its process is killed. The next build closes it
(`cancel_orphans`).
"""

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.utils import make_new_run_id

from latentlens_dag.dag.building.left_out import left_out_of
from latentlens_dag.dag.building.listener import BuildListener, step_label
from latentlens_dag.dag.building.staleness import StaleTarget
from latentlens_dag.dag.run_tags import BUILD, BUILD_ID, FORCED, is_of_a_build
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home, home_write_error

_DAMAGE_HINT = (
    "If a file of the home is damaged, `latentlens-dag check --deep` finds it, and the next build makes it again."
)
_OPEN_STATUSES = [*IN_PROGRESS_RUN_STATUSES, dg.DagsterRunStatus.NOT_STARTED]


class BuildRun(NamedTuple):
    """One Dagster run of a build."""

    partition: str | None
    targets: list[StaleTarget]
    steps: dict[str, float]
    """Wall time of each step, in seconds."""
    wall_s: float


class BuildError(Exception):
    """A step failed, and not because of the user's input; the message holds the error, `trace` the traceback."""

    def __init__(self, message: str, trace: str = "") -> None:
        """Keep the traceback for --debug."""
        super().__init__(message)
        self.trace = trace


@dataclass(frozen=True)
class Runner:
    """Runs the steps of a build."""

    job: dg.JobDefinition
    """The job of all assets."""
    instance: dg.DagsterInstance
    home: Home
    names: Mapping[str, str]
    """The name of each step, by the name of its op."""
    build_id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    """The tag that the runs of this build share."""

    def run(self, targets: list[StaleTarget], listener: BuildListener, forced: bool) -> BuildRun:
        """Build targets of one partition, in one Dagster run.

        Args:
            targets: what to build.
            listener: receives the events of the steps.
            forced: whether the steps must not reuse earlier results.

        Raises:
            UserError: where a step failed because of the user's input, or because the disk is full.
            BuildError: where a step failed for another reason.
            KeyboardInterrupt: where the run was interrupted; Dagster's history then has it as canceled.
        """
        start, run_id, partition = time.monotonic(), make_new_run_id(), targets[0].partition
        events = _RunEvents(self, run_id, partition, listener)
        self.instance.add_event_listener(run_id, events)
        with _quiet_dagster(), _closed_run(self.instance, run_id):
            keys = sorted({need.key for need in targets})
            result = self.job.get_subset(asset_selection={*keys}).execute_in_process(
                asset_selection=keys,  # of a subset of the same assets: the UI names them as the run's target
                instance=self.instance,
                run_id=run_id,
                partition_key=partition,
                raise_on_error=False,
                tags=self._tags(forced or any(need.damaged for need in targets)),
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        if not result.success:
            _raise_failure(result, events.name, self.home)
        return BuildRun(partition, targets, events.steps, time.monotonic() - start)

    def _tags(self, forced: bool) -> dict[str, str]:
        owner = f"{os.getpid()}@{socket.gethostname()}"
        return {BUILD: owner, BUILD_ID: self.build_id, **({FORCED: "true"} if forced else {})}


def cancel_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Cancel the open runs of killed builds in Dagster's history; give their ids. Call it with the lock held."""
    unfinished = instance.get_runs(dg.RunsFilter(statuses=_OPEN_STATUSES))
    orphans = [run for run in unfinished if is_of_a_build(run)]
    for run in orphans:
        instance.report_run_canceled(run, f"The build's process ({run.tags[BUILD]}) ended before this run did.")
    return [run.run_id for run in orphans]


class _RunEvents:
    """Passes the events that Dagster records of a run on to a listener."""

    def __init__(self, runner: Runner, run_id: str, partition: str | None, listener: BuildListener) -> None:
        self.steps: dict[str, float] = {}
        self._runner, self._run_id, self._partition, self._listener = runner, run_id, partition, listener

    def name(self, op: str | None) -> str:
        """study/demo/visual[00] for the op demo_visual."""
        return step_label(self._step(op), self._partition)

    def _step(self, op: str | None) -> str:
        return self._runner.names.get(str(op), str(op))

    def __call__(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            return
        if event.is_step_start:
            self._listener.started(self._step(event.step_key), self._partition)
        elif event.is_step_materialization and event.asset_key is not None:
            self._listener.built(event.asset_key, event.partition)
            if (text := left_out_of(entry)) is not None:
                self._listener.left_out(step_label(event.asset_key.to_user_string(), event.partition), text)
        elif event.is_step_success:
            wall_s = event.step_success_data.duration_ms / 1000
            self.steps[self._step(event.step_key)] = wall_s
            self._listener.finished(self._step(event.step_key), self._partition, wall_s)
        elif event.is_step_failure and _is_interrupt(event.step_failure_data.error):
            # Dagster then records the run as canceled instead of failed.
            run = self._runner.instance.get_run_by_id(self._run_id)
            assert run is not None
            self._runner.instance.report_run_canceling(run)


def _is_interrupt(error: Any) -> bool:
    names = {KeyboardInterrupt.__name__, DagsterExecutionInterruptedError.__name__}
    return error is not None and error.cls_name in names


@contextmanager
def _closed_run(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Close the run in Dagster's history, whatever is raised."""
    try:
        yield
    finally:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status in _OPEN_STATUSES:
            instance.report_run_canceled(run, "The build was stopped before this run ended.")


def _raise_failure(result: Any, name: Callable[[str | None], str], home: Home) -> None:
    """Turn a failed run into one error: an interrupt, the user's own error, or `BuildError`."""
    for event in result.all_events:
        error = event.step_failure_data.error if event.is_step_failure else None
        if _is_interrupt(error):
            raise KeyboardInterrupt
        while error is not None:
            if error.cls_name == UserError.__name__:
                raise UserError(_message(error))
            if error.cls_name == dg.Failure.__name__ or error.cause is None:
                what = f"{name(event.step_key)} failed"
                hint = f" {_DAMAGE_HINT}" if error.cls_name.startswith("Arrow") else ""
                raise home_write_error(home, error.message) or BuildError(
                    f"{what}: {_message(error)}{hint}", error.to_string()
                )
            error = error.cause
    raise BuildError("A run failed before its first step; Dagster's UI says more.")


def _message(error: Any) -> str:
    """The text of a serialized error, without its class."""
    text: str = error.message.strip()
    for prefix in (f"{UserError.__module__}.{UserError.__name__}: ", "dagster_shared.error.", f"{error.cls_name}: "):
        text = text.removeprefix(prefix)
    return text


@contextmanager
def _quiet_dagster() -> Iterator[None]:
    """Keep Dagster's own messages off the terminal; its log has them all."""
    logger = logging.getLogger("dagster")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
