"""`check` and `clean` on an open project: which files should be there, and which nothing needs.

Note: a study that is switched off has no assets, but its results are not garbage.
"""

from collections.abc import Callable

from latentlens_dag.dag.building.garbage import find_garbage, remove_garbage, undeclared_records
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
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> IntegrityReport:
    """Whether the selection's files are there as they were written (`integrity.check_artifacts`)."""
    targets = selection.among([target for step in project.steps for target in step.targets()])
    return check_artifacts(project.graph, project.instance, project.store, targets, deep, progress)


def project_garbage(project: Project) -> tuple[list[Garbage], list[ArtifactRecord]]:
    """The files of the warehouse that nothing needs, and the records of what is no longer declared."""
    live = _live(project)
    return find_garbage(project.store, live), undeclared_records(project.store, live)


def remove_interrupted(project: Project) -> None:
    """Remove what processes that ended have left half-written; nobody may be building."""
    for one in interrupted_writes(project.store.warehouse):
        remove(one.path)


def clean_project(project: Project, garbage: list[Garbage]) -> None:
    """Remove garbage, and the records of what is no longer declared."""
    remove_garbage(project.store, garbage, _live(project))


def declared_sets(project: Project) -> set[str]:
    """The sets that have assets, or would have if they were switched on: corpus/demo_text, study/demo."""
    return {"/".join(key.path[:2]) for step in project.steps for key in step.keys} | project.disabled


def _live(project: Project) -> Callable[[ArtifactRecord], bool]:
    """Tells whether an artifact is declared."""
    declared = {(key.to_user_string(), partition) for step in project.steps for key, partition in step.targets()}

    def live(record: ArtifactRecord) -> bool:
        if "/".join(record.asset.split("/")[:2]) in project.disabled:
            return True
        return (record.asset, record.partition) in declared

    return live
