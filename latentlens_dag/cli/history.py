"""What `status` tells of the past: where an artifact came from, and which versions a study had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from latentlens_dag.dag.building.project import Project
    from latentlens_dag.storage.lineage import Ancestor
    from latentlens_dag.storage.study_versions import StudyVersion


class Report(NamedTuple):
    """What a command says."""

    facts: Any
    """As JSON."""
    text: str


def lineage_report(project: Project, studies: Sequence[str], name: str) -> Report:
    """What the artifacts of a name were made from."""
    from latentlens_dag.storage.lineage import lineage, lineage_text

    asked = sorted(project.select(studies, [name]).requested, key=lambda target: (target[0], target[1] or ""))
    records = [project.manifest.read(key.to_user_string(), partition) for key, partition in asked]
    built = [list(lineage(project.manifest, record)) for record in records if record is not None]
    if not built:
        raise UserError(f"Nothing of {name!r} is built here, so it came from nowhere yet: run `latentlens-dag build`.")
    where = project.source_places()
    facts = [[_ancestor_facts(one) for one in found] for found in built]
    return Report(facts, "\n\n".join(lineage_text(iter(found), where.get) for found in built))


def versions_report(project: Project, studies: Sequence[str]) -> Report:
    """The versions of studies, of all that are declared where none is named."""
    from latentlens_dag.storage.study_versions import study_versions

    project.select(studies)  # refuses names that are none
    found = {study: study_versions(project.manifest, study) for study in studies or project.studies()}
    facts = {study: [version._asdict() for version in versions] for study, versions in found.items()}
    return Report(facts, "\n".join(_version_lines(found)) or "No study is declared.")


def _ancestor_facts(one: Ancestor) -> dict[str, Any]:
    facts: dict[str, Any] = {"artifact": one.label, "depth": one.depth, "version": one.version}
    if one.record is not None:
        names = ("data_version", "made", "run", "build", "settings", "packages", "rows")
        facts |= {name: getattr(one.record, name) for name in names}
    return facts


def _version_lines(found: dict[str, list[StudyVersion]]) -> Iterator[str]:
    for study, versions in found.items():
        if not versions:
            yield f"{study}: nothing is built yet"
        for one in versions:
            parts = sorted({"/".join(label.split("/")[2:3]) for label in one.changed})
            removed = "" if one.complete else "  (not all its files are kept: it cannot be compared)"
            yield f"{study}@{one.number}  {one.created_at}  {len(one.changed)} tables changed: {', '.join(parts)}{removed}"


lineage_option = click.option(
    "--lineage", metavar="ASSET", help="Say instead what this was made from: a name as `build --select` takes it."
)
versions_option = click.option(
    "--versions", is_flag=True, help="Say instead which versions of its answers a study has (`diff` compares them)."
)
