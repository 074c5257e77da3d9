"""The commands check and clean."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentlens_dag.cli.output import (
    bytes_progress,
    bytes_text,
    home_option,
    json_option,
    print_facts,
    studies_argument,
)
from latentlens_dag.cli.reading import open_to_read
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import find_home

if TYPE_CHECKING:
    from latentlens_dag.dag.building.integrity import IntegrityReport
    from latentlens_dag.storage.leftovers import Garbage


@click.command()
@studies_argument
@click.option("--deep", is_flag=True, help="Read every file again and compare its hash; else only sizes are compared.")
@home_option
@json_option
def check(studies: Sequence[str], deep: bool, home: Path | None, as_json: bool) -> None:
    """Say whether everything that was built is still there as it was written.

    Exit code 1 where it is not; `build` makes again what is damaged.
    """
    from latentlens_dag.dag.building.integrity import check_project
    from latentlens_dag.dag.home_lock import build_lock

    with (
        open_to_read(find_home(home)) as project,
        build_lock(project.home),
        bytes_progress(as_json) as progress,
    ):
        report = check_project(project, project.select(studies), deep, progress)
    _print_report(report, deep, as_json)
    if report.damaged:
        sys.exit(1)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask before results that are declared no more are removed.")
@home_option
@json_option
def clean(dry_run: bool, yes: bool, home: Path | None, as_json: bool) -> None:
    """Remove what nothing needs: what a kill has left, what was replaced, results that no YAML declares any more.

    Old versions of results go, and so cannot be compared any more. What a study that is switched off has stays.
    """
    from latentlens_dag.dag.building.garbage import clean_project, project_garbage, undeclared_sets
    from latentlens_dag.dag.home_lock import build_lock

    with open_to_read(find_home(home)) as project, build_lock(project.home):
        garbage, undeclared = project_garbage(project)
        sets = undeclared_sets(project, undeclared)
        if sets and not (dry_run or yes):
            _confirm(sets)
        if not dry_run:
            clean_project(project, garbage, undeclared)
    facts = {
        "files": len(garbage),
        "size_bytes": sum(one.size_bytes for one in garbage),
        "removed": not dry_run,
        "sets_declared_no_more": sets,
        "garbage": [{"path": str(one.path), "size_bytes": one.size_bytes, "why": one.why} for one in garbage],
    }
    print_facts(facts, as_json, lambda: _garbage_text(garbage, sets, dry_run))


def _confirm(sets: list[str]) -> None:
    message = f"No defs.yaml declares {', '.join(sets)} any more"
    if not sys.stdin.isatty():
        raise UserError(f"{message}: say --yes to remove what was built of it, or --dry-run to look.")
    click.confirm(f"{message}. Remove what was built of it?", abort=True, err=True)


def _garbage_text(garbage: list[Garbage], sets: list[str], dry_run: bool) -> str:
    sizes: Counter[str] = Counter()
    for one in garbage:
        sizes[one.why] += one.size_bytes
    counts = Counter(one.why for one in garbage)
    lines = [f"{why:14} {counts[why]:>7,} files  {bytes_text(sizes[why]):>8}" for why in sorted(counts)]
    lines += [f"declared no more: {', '.join(sets)}"] if sets else []
    total = bytes_text(sum(sizes.values()))
    return "\n".join(
        [*lines, f"{total} {'would be freed.' if dry_run else 'freed.'}" if garbage else "Nothing to remove."]
    )


def _print_report(report: IntegrityReport, deep: bool, as_json: bool) -> None:
    damaged = [{"asset": n.key.to_user_string(), "partition": n.partition, "problem": n.reason} for n in report.damaged]
    facts: dict[str, Any] = {**report._asdict(), "deep": deep, "damaged": damaged}
    how = "read and compared" if deep else "whose sizes were compared (--deep reads them)"
    built = f"{report.artifacts:,} artifacts, {report.files:,} files, {bytes_text(report.size_bytes)}, {how}"
    missing = f"; {report.not_built:,} are not built" if report.not_built else ""
    end = f"{len(report.damaged)} are damaged: `latentlens-dag build` makes them again." if damaged else "All is well."
    print_facts(facts, as_json, lambda: "\n".join([*map(str, report.damaged), f"{built}{missing}. {end}"]))
