"""`latentlens-dag check`: whether what was built is still there as it was written.

Note: sizes are compared at every build too; only `deep` reads the files and finds a flipped bit. Damage is marked in
the records, and the next build makes the artifact again without reusing anything of it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from latentlens_dag.dag.building.project import Project
from latentlens_dag.dag.building.selection import Selection
from latentlens_dag.dag.building.staleness import StaleTarget, find_stale
from latentlens_dag.storage.hashing import hash_file
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileProblem, problem_summary


class IntegrityReport(NamedTuple):
    """The result of a check."""

    artifacts: int
    """Built, and therefore checked."""
    files: int
    size_bytes: int
    damaged: list[StaleTarget]
    """Those that will be built again because of their files; not those that are merely out of date."""
    not_built: int


def check_project(
    project: Project,
    selection: Selection,
    deep: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> IntegrityReport:
    """Compare the selection's files with what was recorded when they were written.

    Args:
        project: whose artifacts are checked.
        selection: what to check.
        deep: read every file and compare its hash; damage is marked, so that the next build repairs it.
        progress: called after every artifact with the bytes read and those in all; with `deep` only.
    """
    lineage, instance, store, targets = project.lineage, project.instance, project.store, project.targets(selection)
    stale = find_stale(lineage, instance, store, targets)
    built = [target for target in targets if target not in stale or not stale[target].missing]
    records = [record for key, partition in built if (record := store.read(key.to_user_string(), partition))]
    if deep:
        _mark_damage(store, records, progress)
        stale = find_stale(lineage, instance, store, targets)
    damaged = [target for target in stale.values() if target.damaged]
    files = {fact.path: fact.size_bytes for record in records for fact in record.files}
    return IntegrityReport(len(built), len(files), sum(files.values()), damaged, len(targets) - len(built))


def _mark_damage(store: ArtifactStore, records: Iterable[ArtifactRecord], progress: Callable[[int, int], None]) -> None:
    """Read every file once, and mark the records whose files are not what they were."""
    records, hash_of = list(records), _hash_of_links()
    sizes = {fact.path: fact.size_bytes for record in records for fact in record.files}
    problems: dict[str, FileProblem | None] = {}
    total, done = sum(sizes.values()), 0
    for record in records:
        unread = {fact.path for fact in record.files} - set(problems)
        problems |= dict.fromkeys(unread)
        problems |= {problem.path: problem for problem in store.problems(record, True, unread, hash_of)}
        damage = problem_summary([problem for fact in record.files if (problem := problems[fact.path]) is not None])
        if damage is not None:
            store.mark_damaged(record, damage)
        done += sum(sizes[path] for path in unread)
        progress(done, total)


def _hash_of_links() -> Callable[[Path], str]:
    """`hash_file`, which reads a file once for all links to it: models of connectors share their frozen weights."""
    hashes = dict[tuple[int, int], str]()

    def hash_of(file: Path) -> str:
        facts = file.stat()
        if facts.st_nlink == 1:
            return hash_file(file)
        inode = facts.st_dev, facts.st_ino
        if inode not in hashes:
            hashes[inode] = hash_file(file)
        return hashes[inode]

    return hash_of
