"""The command publish, which puts a staged release on the Hugging Face Hub.

Note: publishing builds nothing. `build` stages the release, and it is published as it was staged.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentlens_dag.cli.output import bytes_text, home_option, json_option, print_facts
from latentlens_dag.errors import UserError
from latentlens_dag.storage.home import Home, find_home
from latentlens_dag.storage.paths import refuse_too_long

if TYPE_CHECKING:
    from latentlens_dag.publish.plan import PublicationPlan
    from latentlens_dag.publish.publish import Publication

_SHOWN = 20  # paths of a kind


@click.command()
@click.argument("release")
@click.option("--repo-id", metavar="USER/NAME", help="The repository; by default the one that the release declares.")
@click.option("--dry-run", is_flag=True, help="Only say what would be added, replaced and deleted.")
@click.option("--tag", metavar="v1.0.0", help="Name the commit that holds the release, for ever.")
@click.option("--create-pr", is_flag=True, help="Propose it as a pull request, and leave main as it is.")
@click.option("--private", is_flag=True, help="Create the repository as a private one.")
@home_option
@json_option
def publish(
    release: str,
    repo_id: str | None,
    dry_run: bool,
    tag: str | None,
    create_pr: bool,
    private: bool,
    home: Path | None,
    as_json: bool,
) -> None:
    """Put a staged release on the Hugging Face Hub, by one commit.

    RELEASE is the name of one that was built, or a folder with a manifest.json. What the Hub has already does not
    travel; run it again after any failure. Exit codes: 0 done, 1 the Hub failed, 2 a mistake of yours.
    """
    from latentlens_dag.publish import publish as publishing

    folder, named = _staged(find_home(home), release)
    repo = repo_id or _declared(release, named)
    tell = (lambda _: None) if as_json else (lambda text: click.echo(text, err=True))
    if dry_run:
        plan = publishing.plan_publication(folder, repo, tag=tag, private=private, tell=tell)
        print_facts(_plan_facts(plan), as_json, lambda: _plan_text(plan))
        return
    done = publishing.publish(folder, repo, tag=tag, create_pr=create_pr, private=private, tell=tell)
    facts = {"commit": done.commit, "committed": done.committed, "pull_request": done.pull_request, "tag": done.tag}
    print_facts({**_plan_facts(done.plan), **facts}, as_json, lambda: _end(done))


def _staged(home: Home, release: str) -> tuple[Path, bool]:
    """The folder of a release, and whether it is the name of one of the home."""
    refuse_too_long(release, "release")
    if release and "/" not in release and (folder := home.warehouse.release(release)).is_dir():
        return folder, True
    if release and (folder := Path(release)).is_dir():
        return folder, False
    known = sorted(path.name for path in home.warehouse.release("").glob("[!.]*") if path.is_dir())
    raise UserError(
        f"There is no staged release {release!r} in {home.root}, nor such a folder. There are: "
        f"{', '.join(known) or 'none'}. `latentlens-dag build` stages those that a defs.yaml declares."
    )


def _declared(release: str, named: bool) -> str:
    """The repository that a release's component declares."""
    if not named:
        raise UserError(f"{release} is a folder: say which repository it goes to with --repo-id USER/NAME.")
    from latentlens_dag.dag.loading import find_release

    return find_release(release).repo_id


def _plan_facts(plan: PublicationPlan) -> dict[str, Any]:
    return {
        "repo_id": plan.repo_id,
        "parent": plan.parent,
        "adds": {file.path: file.size for file in plan.adds},
        "replacements": {file.path: file.size for file in plan.replacements},
        "deletions": list(plan.deletions),
        "unchanged": len(plan.unchanged),
        "upload_bytes": plan.upload_bytes,
    }


def _plan_text(plan: PublicationPlan) -> str:
    new = "" if plan.parent else " (to be created)"
    if plan.empty:
        return f"{plan.repo_id} holds this release already, at {plan.parent}: nothing to do."
    lines = [
        *_listed("add", [f"{file.path}  {bytes_text(file.size)}" for file in plan.adds]),
        *_listed("replace", [f"{file.path}  {bytes_text(file.size)}" for file in plan.replacements]),
        *_listed("delete", list(plan.deletions)),
    ]
    counts = f"{len(plan.adds):,} to add, {len(plan.replacements):,} to replace, {len(plan.deletions):,} to delete"
    end = f"{plan.repo_id}{new}: {counts}, {len(plan.unchanged):,} unchanged"
    return "\n".join([*lines, f"{end}; {bytes_text(plan.upload_bytes)} to send. Nothing was sent."])


def _listed(what: str, items: list[str]) -> list[str]:
    more = [f"  and {len(items) - _SHOWN:,} more"] if len(items) > _SHOWN else []
    return [*(f"  {what:8}{item}" for item in items[:_SHOWN]), *more]


def _end(done: Publication) -> str:
    where = f"{done.plan.repo_id}@{done.tag or done.pull_request or done.commit}"
    made = "" if done.committed else ", made before"
    if done.pull_request:
        return f"{where}: a pull request holds the release (commit {done.commit}{made}); main is as it was."
    if not done.committed:
        return f"{where}: main holds this release already, at {done.commit}; no commit was made."
    return f"{where}: main holds the release (commit {done.commit}), which was read again and compared."
