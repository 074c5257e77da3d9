"""`status --lineage` and `status --versions`: the origin of an artifact, and the versions of a study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from latentlens_dag.errors import UserError

if TYPE_CHECKING:
    from latentlens_dag.dag.building.project import Project
    from latentlens_dag.storage.lineage import Ancestor
    from latentlens_dag.storage.study_versions import StudyVersion

_VERSION_KEYS = ("number", "build", "made", "changed", "kept")  # of JSON, in the order of `StudyVersion`


class Report(NamedTuple):
    """The output of a command."""

    facts: Any
    """As JSON."""
    text: str


def lineage_report(project: Project, studies: Sequence[str], name: str) -> Report:
    """The ancestors of the artifacts that a name selects."""
    from latentlens_dag.storage.lineage import lineage, lineage_text

    requested = sorted(project.select(studies, [name]).requested, key=lambda target: (target[0], target[1] or ""))
    records = [project.store.read(key.to_user_string(), partition) for key, partition in requested]
    built = [list(lineage(project.store, record)) for record in records if record is not None]
    if not built:
        raise UserError(f"Nothing of {name!r} is built here, so it came from nowhere yet: run `latentlens-dag build`.")
    place_of = project.source_places().get
    facts = [[_ancestor_facts(ancestor) for ancestor in ancestors] for ancestors in built]
    return Report(facts, "\n\n".join(lineage_text(iter(ancestors), place_of) for ancestors in built))


def versions_report(project: Project, studies: Sequence[str]) -> Report:
    """The versions of the named studies, and of those in named folders; by default of all."""
    from latentlens_dag.storage.study_versions import study_versions

    requested = {key.path[1] for key, _ in project.select(studies).requested if key.path[0] == "study"}
    versions_of = {study: study_versions(project.store, study) for study in sorted(requested)}
    facts = {
        study: [dict(zip(_VERSION_KEYS, version, strict=True)) for version in versions]
        for study, versions in versions_of.items()
    }
    return Report(facts, "\n".join(_version_lines(versions_of)) or "No study is declared.")


def _ancestor_facts(ancestor: Ancestor) -> dict[str, Any]:
    facts: dict[str, Any] = {"artifact": ancestor.label, "depth": ancestor.depth, "version": ancestor.version}
    if ancestor.record is not None:
        stored = ancestor.record.model_dump(mode="json", by_alias=True)
        names = ("data_version", "made", "run", "build", "settings", "packages", "rows")
        facts |= {name: stored[name] for name in names}
    return facts


def _version_lines(versions_of: dict[str, list[StudyVersion]]) -> Iterator[str]:
    for study, versions in versions_of.items():
        if not versions:
            yield f"{study}: nothing is built yet"
        for version in versions:
            parts = ", ".join(sorted({"/".join(label.split("/")[2:3]) for label in version.changed}))
            removed = "" if version.complete else "  (not all its files are kept: it cannot be compared)"
            changes = f"{len(version.changed)} tables changed: {parts}{removed}"
            yield f"{study}@{version.number}  {version.created_at}  {changes}"


lineage_option = click.option(
    "--lineage", metavar="ASSET", help="Say instead what this was made from: a name as `build --select` takes it."
)
versions_option = click.option(
    "--versions", is_flag=True, help="Say instead which versions of its answers a study has (`diff` compares them)."
)
