"""The commands that build and tell what is built: build, plan, status."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentlens_dag.commands.common import home_option, json_option, print_facts, studies_argument
from latentlens_dag.home import find_home

if TYPE_CHECKING:
    from latentlens_dag.dag.driver import Ran


@click.command()
@studies_argument
@click.option("--select", "asset", help="Only this asset, or those that begin so, and what they are made from.")
@click.option("--force", is_flag=True, help="Build what is selected even where it is up to date.")
@home_option
@json_option
def build(studies: Sequence[str], asset: str | None, force: bool, home: Path | None, as_json: bool) -> None:
    """Build what is missing or out of date, and nothing else."""
    from latentlens_dag.dag.driver import build_lock, open_project

    with open_project(find_home(home)) as project, build_lock(project.home), _progress_on_terminal():
        selection = project.select(studies, asset)
        project.observe(selection)
        planned = len(project.plan(selection))
        counter = _Counter(planned, quiet=as_json)
        ran = project.build(selection, force, counter)
    print_facts([_ran_facts(one) for one in ran], as_json, lambda: _build_end(ran))


@click.command()
@studies_argument
@click.option("--select", "asset", help="Only this asset, or those that begin so, and what they are made from.")
@home_option
@json_option
def plan(studies: Sequence[str], asset: str | None, home: Path | None, as_json: bool) -> None:
    """Say what `build` would do, and why."""
    from latentlens_dag.dag.driver import open_project

    with open_project(find_home(home)) as project:
        selection = project.select(studies, asset)
        project.observe(selection)
        needs = project.plan(selection)
    facts = [{"asset": n.key.to_user_string(), "partition": n.partition, "reason": n.reason} for n in needs]
    lines = [str(need) for need in needs] or ["Everything is up to date."]
    print_facts(facts, as_json, lambda: "\n".join(lines))


@click.command()
@studies_argument
@home_option
@json_option
def status(studies: Sequence[str], home: Path | None, as_json: bool) -> None:
    """Say what is built, what is missing and what is out of date, step by step."""
    from latentlens_dag.dag.driver import open_project

    with open_project(find_home(home)) as project:
        facts = project.status(project.select(studies))
    width = max((len(fact["step"]) for fact in facts), default=0)
    lines = [f"{'step':{width}}  {'built':>9}  {'missing':>7}  {'stale':>5}"]
    for fact in facts:
        built = f"{fact['built']}/{fact['parts']}"
        lines.append(f"{fact['step']:{width}}  {built:>9}  {fact['missing']:>7}  {fact['stale']:>5}")
    print_facts(facts, as_json, lambda: "\n".join(lines))


def _build_end(ran: list[Ran]) -> str:
    built = sum(len(one.needs) for one in ran)
    return f"Built {built} parts in {sum(one.wall_s for one in ran):.1f} s." if built else "Everything is up to date."


def _ran_facts(ran: Ran) -> dict[str, Any]:
    needs = [{"asset": n.key.to_user_string(), "reason": n.reason} for n in ran.needs]
    return {"partition": ran.partition, "built": needs, "steps": ran.steps, "wall_s": ran.wall_s}


class _Counter:
    """Tells on the terminal how far a build is, run by run."""

    def __init__(self, planned: int, quiet: bool) -> None:
        self._planned, self._done, self._quiet = planned, 0, quiet

    def __call__(self, ran: Ran) -> None:
        self._done += len(ran.needs)
        if self._quiet:
            return
        part = f"[{ran.partition}]" if ran.partition else ""
        share = f"{min(self._done, self._planned):>3}/{self._planned}"
        for step, wall_s in ran.steps.items():
            click.echo(f"{share}  {step.replace('__', '/')}{part}  {wall_s:.1f} s", err=True)


class _ProgressHandler(logging.Handler):
    """One line on the terminal, written over."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"\r\x1b[2K  {record.getMessage()}\r")
        sys.stderr.flush()


class _progress_on_terminal:
    """Show the progress of steps while they run, where stderr is a terminal."""

    def __enter__(self) -> None:
        from latentlens_dag.dag.reporting import PROGRESS_LOGGER

        self._logger, self._handler = logging.getLogger(PROGRESS_LOGGER), _ProgressHandler()
        if sys.stderr.isatty():
            self._logger.addHandler(self._handler)
            self._logger.setLevel(logging.INFO)
            self._logger.propagate = False

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
