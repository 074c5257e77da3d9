"""The command pull, which downloads a published release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentlens_dag.cli.output import LocalPath, bytes_progress, bytes_text, json_option, print_facts, write_errors
from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from latentlens_dag.release.pull import LocalRelease


@click.command()
@click.argument("release", metavar="USER/NAME[@REVISION]")
@click.option("--revision", help="A commit, branch or tag; `main` by default.")
@click.option("--tables", metavar="NAMES", help="Only these tables, as neighbors,sentences; by default everything.")
@click.option(
    "--output",
    type=LocalPath(file_okay=False),
    help="A folder that gets a copy; a release there is replaced.",
)
@json_option
def pull(release: str, revision: str | None, tables: str | None, output: Path | None, as_json: bool) -> None:
    """Download a release from the Hugging Face Hub into its cache, and check every byte of it.

    What is there already is not fetched again. `query --data` and `open_dataset` open it by the same name.
    """
    from latentlens_dag.release.pull import copy_release, pull_release

    repo, revision = _repo_and_revision(release, revision)
    wanted = None if tables is None else [name.strip() for name in tables.split(",")]
    with bytes_progress(as_json) as progress:
        pulled = pull_release(repo, revision, wanted, progress)
    if output is not None:
        with write_errors("--output", output):
            copy_release(pulled, output)
    print_facts(_facts(pulled, output), as_json, lambda: _text(pulled, output))


def _repo_and_revision(release: str, revision: str | None) -> tuple[str, str | None]:
    from latentlens_dag.hub.names import parse_release_name

    parsed = parse_release_name(release)
    if parsed is None:
        raise UserError(f"{release!r} is no release of the Hub: write it as user/name or user/name@v1.0.0.")
    if revision and parsed[1] and revision != parsed[1]:
        raise UserError(f"{release} and `--revision {revision}` name two revisions: leave one out.")
    return parsed[0], revision or parsed[1]


def _facts(pulled: LocalRelease, output: Path | None) -> dict[str, Any]:
    return {
        "release": pulled.repo,
        "commit": pulled.commit,
        "kind": pulled.manifest.kind,
        "folder": str(output or pulled.folder),
        "files": len(pulled.files),
        "size_bytes": sum(file.size for file in pulled.files),
        "fetched_files": len(pulled.fetched),
        "fetched_bytes": sum(file.size for file in pulled.fetched),
        "tables": {name: pulled.manifest.tables[name].rows for name in _tables(pulled)},
    }


def _tables(pulled: LocalRelease) -> list[str]:
    return sorted({file.table for file in pulled.files if file.table})


def _text(pulled: LocalRelease, output: Path | None) -> str:
    size, fetched = (sum(file.size for file in files) for files in (pulled.files, pulled.fetched))
    news = f"{len(pulled.fetched):,} of them fetched ({bytes_text(fetched)})" if pulled.fetched else "all here before"
    rows = [f"  {name:16} {pulled.manifest.tables[name].rows:>13,} rows" for name in _tables(pulled)]
    first = f"{pulled.repo} at {pulled.commit}: {len(pulled.files):,} files ({bytes_text(size)}), {news}; all verified."
    return "\n".join([first, *rows, str(output or pulled.folder)])
