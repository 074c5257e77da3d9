"""The commands build, plan and status.

Note: with --json, stdout holds one JSON document and nothing else; the output of steps goes to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from latentlens_dag.cli.history import Report, lineage_option, lineage_report, versions_option, versions_report
from latentlens_dag.cli.output import (
    home_option,
    json_option,
    print_facts,
    studies_argument,
    table_text,
    terminal_width,
)
from latentlens_dag.cli.plan_text import plan_lines
from latentlens_dag.cli.progress import BuildProgress, LeftOutNotes, forward_step_progress, left_out_line
from latentlens_dag.cli.reading import open_to_read
from latentlens_dag.dag.building.listener import BuildListener
from latentlens_dag.dag.building.opening import open_project
from latentlens_dag.errors import RESUME_HINT, StoppedBySignalError
from latentlens_dag.storage.home import find_home

if TYPE_CHECKING:
    from latentlens_dag.dag.building.left_out import LeftOut
    from latentlens_dag.dag.building.project import Project
    from latentlens_dag.dag.building.runs import BuildRun
    from latentlens_dag.dag.home_lock import LockOwner

TO_BUILD = 3
"""Exit code of `plan --exit-code` where something is to be built; failures have others."""

select_option = click.option(
    "--select",
    "names",
    multiple=True,
    metavar="NAME",
    help="Only this, and what it is made from: an asset's key or the beginning of several (study/demo/judgements), or "
    "parts of keys (judgements/V04, visual, L02), with [02] one partition. May be repeated.",
)
force_option = click.option(
    "--force",
    is_flag=True,
    help="Build what is named even where it is up to date; what that is made from, only as needed.",
)


@click.command()
@studies_argument
@select_option
@force_option
@click.option("--wait", is_flag=True, help="Wait for another build of the same home instead of refusing.")
@home_option
@json_option
def build(
    studies: Sequence[str], names: Sequence[str], force: bool, wait: bool, home: Path | None, as_json: bool
) -> None:
    """Build what is missing or out of date, and nothing else.

    NAME is a study, a release, an index, or a folder of assets/ for all that it declares; without one, all is built.

    Exit codes: 0 done, 1 a step failed, 2 a mistake of yours, 130 interrupted.
    """
    from latentlens_dag.dag.home_lock import build_lock

    with _stdout_for_json(as_json), open_project(find_home(home)) as project:
        selection = project.select(studies, names)
        with build_lock(project.home, wait, lambda text: click.echo(text, err=True)):
            project.remove_interrupted()
            project.observe(selection)
            with _listener(project, as_json) as listener:
                runs = project.build(selection, force, listener)
    facts = {"parts": sum(len(run.targets) for run in runs), "runs": [_run_facts(run) for run in runs]}
    print_facts(facts, as_json, lambda: _summary(runs))


@click.command()
@studies_argument
@select_option
@force_option
@click.option("--verbose", "-v", is_flag=True, help="A line per part, not per step.")
@click.option("--exit-code", is_flag=True, help=f"Exit with {TO_BUILD} where something is to be built, else with 0.")
@home_option
@json_option
def plan(
    studies: Sequence[str],
    names: Sequence[str],
    force: bool,
    verbose: bool,
    exit_code: bool,
    home: Path | None,
    as_json: bool,
) -> None:
    """Say what `build` would do, why, and how much work it is.

    NAME is as of `build`.
    """
    from latentlens_dag.dag.home_lock import lock_owner

    with _stdout_for_json(as_json), open_to_read(find_home(home)) as project:
        owner = lock_owner(project.home)
        selection = project.select(studies, names)
        project.observe(selection)
        targets = project.plan(selection, force)
        work, reused, left_out = project.work(targets), project.reused(targets), project.left_out(selection)
        step_of = {key: step.name for step in project.steps for key in step.keys}
    facts = {
        "parts": [{"asset": t.key.to_user_string(), "partition": t.partition, "reason": t.reason} for t in targets],
        "steps": [{**step._asdict(), "reused": reused.get(step.step, 0)} for step in work],
        "left_out": [one._asdict() for one in left_out],
        "building": owner and owner._asdict(),
    }
    lines = partial(plan_lines, targets, work, step_of, reused, verbose)
    print_facts(facts, as_json, lambda: "\n".join([*_owner_lines(owner), *lines(), *_left_out_lines(left_out)]))
    if exit_code and targets:
        sys.exit(TO_BUILD)


@click.command()
@studies_argument
@select_option
@lineage_option
@versions_option
@home_option
@json_option
def status(
    studies: Sequence[str], names: Sequence[str], lineage: str | None, versions: bool, home: Path | None, as_json: bool
) -> None:
    """Say what is built, what is missing and what is out of date, step by step."""
    from latentlens_dag.dag.home_lock import lock_owner

    with _stdout_for_json(as_json), open_to_read(find_home(home)) as project:
        if lineage is not None:
            report = lineage_report(project, studies, lineage)
        elif versions:
            report = versions_report(project, studies)
        else:
            selection = project.select(studies, names)
            report = _status_report(lock_owner(project.home), project.status(selection), project.left_out(selection))
    print_facts(report.facts, as_json, lambda: report.text)


def _status_report(owner: LockOwner | None, steps: list[dict[str, Any]], left_out: list[LeftOut]) -> Report:
    facts = {"steps": steps, "left_out": [one._asdict() for one in left_out], "building": owner and owner._asdict()}
    return Report(facts, "\n".join([*_owner_lines(owner), _status_table(steps), *_left_out_lines(left_out)]))


def _left_out_lines(left_out: list[LeftOut]) -> list[str]:
    return ["", *(left_out_line(*one) for one in left_out)] if left_out else []


@contextmanager
def _listener(project: Project, quiet: bool) -> Iterator[BuildListener]:
    """The progress of the build on stderr; an interruption's message says how far it was."""
    if quiet:
        yield LeftOutNotes()
        return
    step_of = {key: step.name for step in project.steps for key in step.keys}
    with _own_stderr() as stream:
        progress = BuildProgress(stream, step_of, project.speeds)
        try:
            with forward_step_progress(progress):
                yield progress
        except StoppedBySignalError as error:
            where = f"Interrupted in {progress.step}, after {progress.done} of {progress.total} parts."
            message = f"{where} {RESUME_HINT}" if progress.step else str(error)
            raise StoppedBySignalError(message, error.number) from error


@contextmanager
def _own_stderr() -> Iterator[TextIO]:
    """A copy of stderr. While a step runs, Dagster captures stderr, and may lose the end of it."""
    try:
        copy = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):  # no file: a notebook, or a test
        yield sys.stderr
        return
    with os.fdopen(copy, "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors) as stream:
        yield stream


def _stdout_for_json(as_json: bool) -> Any:
    """With --json, send the output of steps to stderr."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def _summary(runs: list[BuildRun]) -> str:
    built = sum(len(run.targets) for run in runs)
    return f"Built {built} parts in {sum(run.wall_s for run in runs):.1f} s." if built else "Everything is up to date."


def _run_facts(run: BuildRun) -> dict[str, Any]:
    built = [{"asset": target.key.to_user_string(), "reason": target.reason} for target in run.targets]
    return {"partition": run.partition, "built": built, "steps": run.steps, "wall_s": run.wall_s}


def _status_table(steps: list[dict[str, Any]]) -> str:
    rows = [
        (step["step"], f"{step['built']}/{step['parts']}", str(step["missing"]), str(step["stale"])) for step in steps
    ]
    return table_text(("step", "built", "missing", "stale"), rows, terminal_width(), ["step"], {"built": 9})


def _owner_lines(owner: LockOwner | None) -> list[str]:
    return [] if owner is None else [f"A build of this home is running ({owner}); what follows is as of now.", ""]
