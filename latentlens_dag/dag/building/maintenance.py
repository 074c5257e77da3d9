"""What `check` and `clean` ask of an open project: which files should be there, and which need not.

What a newcomer gets wrong: a study that is switched off has no assets, and yet its results are not garbage.
"""

from collections.abc import Callable

from latentlens_dag.dag.building.garbage import clean, garbage, undeclared_records
from latentlens_dag.dag.building.integrity import IntegrityReport, check_artifacts
from latentlens_dag.dag.building.project import Project
from latentlens_dag.dag.building.selection import Selection
from latentlens_dag.storage.files import remove
from latentlens_dag.storage.leftovers import Garbage, interrupted_writes
from latentlens_dag.storage.records import ArtifactRecord


def check_project(
    project: Project,
    selection: Selection,
    deep: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> IntegrityReport:
    """Whether the selection's files are there as they were written (`integrity.check_artifacts`)."""
    targets = selection.among([target for unit in project.steps for target in unit.targets()])
    return check_artifacts(project.graph, project.instance, project.manifest, targets, deep, tell)


def project_garbage(project: Project) -> tuple[list[Garbage], list[ArtifactRecord]]:
    """What of the warehouse nothing needs, and the records of what is declared no more."""
    live = _live(project)
    return garbage(project.manifest, live), undeclared_records(project.manifest, live)


def remove_interrupted(project: Project) -> None:
    """Remove what processes that are gone have left half-written; nobody may be building."""
    for one in interrupted_writes(project.manifest.warehouse):
        remove(one.path)


def clean_project(project: Project, found: list[Garbage]) -> None:
    """Remove garbage, and what the manifest says of it."""
    clean(project.manifest, found, _live(project))


def declared_sets(project: Project) -> set[str]:
    """What has assets, or would have if it were switched on: corpus/demo_text, study/demo."""
    return {"/".join(key.path[:2]) for unit in project.steps for key in unit.keys} | project.disabled


def _live(project: Project) -> Callable[[ArtifactRecord], bool]:
    """What says whether an artifact is declared."""
    declared = {(key.to_user_string(), partition) for unit in project.steps for key, partition in unit.targets()}

    def live(record: ArtifactRecord) -> bool:
        if "/".join(record.asset.split("/")[:2]) in project.disabled:
            return True
        return (record.asset, record.partition) in declared

    return live
