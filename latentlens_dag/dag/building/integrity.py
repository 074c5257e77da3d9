"""`latentlens-dag check`: whether what was built is still there as it was written.

What a newcomer gets wrong: sizes are compared at every build too; only `deep` reads the files again and finds a
flipped bit. What it finds is marked in the manifest, and the next build makes it again, taking nothing from it.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from latentlens_dag.dag.building.staleness import StaleTarget, find_stale
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileProblem, problem_summary


class IntegrityReport(NamedTuple):
    """What a check found."""

    artifacts: int
    """That are built and were checked."""
    files: int
    size_bytes: int
    damaged: list[StaleTarget]
    """What will be built again, and why; not what is merely out of date."""
    not_built: int


def check_artifacts(
    graph: AssetGraph,
    instance: dg.DagsterInstance,
    manifest: ArtifactStore,
    targets: list[tuple[dg.AssetKey, str | None]],
    deep: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> IntegrityReport:
    """Compare the targets' files with what was recorded when they were written.

    Args:
        graph: of all assets.
        instance: with the history.
        manifest: of the warehouse.
        targets: assets, and their partitions.
        deep: read every file and compare its hash; damage is marked, so that the next build repairs it.
        tell: told after every artifact the bytes read and those there are; with `deep` only.
    """
    needs = {(need.key, need.partition): need for need in find_stale(graph, instance, manifest, targets)}
    built = [target for target in targets if not ((need := needs.get(target)) and need.missing)]
    records = [record for key, partition in built if (record := manifest.read(key.to_user_string(), partition))]
    if deep:
        _mark_damage(manifest, records, tell)
        needs = {(need.key, need.partition): need for need in find_stale(graph, instance, manifest, targets)}
    damaged = [need for need in needs.values() if need.damaged]
    files = {fact.path: fact.size_bytes for record in records for fact in record.files}
    return IntegrityReport(len(built), len(files), sum(files.values()), damaged, len(targets) - len(built))


def _mark_damage(manifest: ArtifactStore, records: Iterable[ArtifactRecord], tell: Callable[[int, int], None]) -> None:
    """Read all files of all records, each once, and mark the records whose files are not what they were."""
    records = list(records)
    sizes = {fact.path: fact.size_bytes for record in records for fact in record.files}
    found: dict[str, FileProblem | None] = {}
    total, done = sum(sizes.values()), 0
    for record in records:
        new = {fact.path for fact in record.files} - set(found)
        found |= dict.fromkeys(new)
        found |= {problem.path: problem for problem in manifest.problems(record, deep=True, only=new)}
        damage = problem_summary([problem for fact in record.files if (problem := found[fact.path]) is not None])
        if damage is not None:
            manifest.mark_damaged(record, damage)
        done += sum(sizes[path] for path in new)
        tell(done, total)
