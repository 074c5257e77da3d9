"""The files of a warehouse that nothing needs: left by a kill, replaced by a newer result, or no longer declared.

Note: age plays no role. A file is needed if the record of a declared artifact lists it, or if a tagged version of a
layer table needs it. Everything else is garbage, however new. A study that is switched off has no assets, but counts as
declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from latentlens_dag.dag.building.project import Project
from latentlens_dag.index.layer_tables import last_transaction, tagged_versions, version_files
from latentlens_dag.storage.files import remove
from latentlens_dag.storage.leftovers import _TEMPORARY, Garbage, as_garbage, interrupted_writes
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileFacts


def project_garbage(project: Project) -> tuple[list[Garbage], list[ArtifactRecord]]:
    """The files of the warehouse that nothing needs, records aside, and the records of what is no longer declared."""
    targets = {(key.to_user_string(), partition) for step in project.steps for key, partition in step.targets()}
    store, declared, undeclared = project.store, list[ArtifactRecord](), list[ArtifactRecord]()
    for record in store.records():
        is_declared = (record.asset, record.partition) in targets or _set_of(record) in project.disabled
        (declared if is_declared else undeclared).append(record)
    current = [fact for record in declared for fact in record.files]
    needed = {fact.path for fact in current}
    replaced = {fact.path for record in declared for fact in _earlier_files(record)}
    gone = {fact.path for record in undeclared for fact in [*record.files, *_earlier_files(record)]} - replaced
    interrupted = interrupted_writes(store.warehouse)
    spared = {path for one in interrupted for path in [one, *one.rglob("*")]}
    spared |= {store.kept_path(fact) for fact in current}  # links that keep replaced results comparable
    spared |= _needed_by_tables(store.warehouse, needed) | _open_trainings(project)
    garbage = [(path, "interrupted") for path in interrupted]
    for path in sorted(store.warehouse.rglob("*")):
        name = path.relative_to(store.warehouse).as_posix()
        if name not in needed and path not in spared and path.is_file() and not _is_bookkeeping(path, store):
            garbage.append((path, "not declared" if name in gone else "replaced"))
    return as_garbage(garbage), undeclared


def undeclared_sets(project: Project, undeclared: Iterable[ArtifactRecord]) -> list[str]:
    """The sets, as corpus/demo_text or study/demo, of which nothing is declared any more, switched off or not."""
    declared = {"/".join(key.path[:2]) for step in project.steps for key in step.keys} | project.disabled
    return sorted({_set_of(record) for record in undeclared} - declared)


def clean_project(project: Project, garbage: Iterable[Garbage], undeclared: Iterable[ArtifactRecord]) -> None:
    """Remove garbage, the records of what is no longer declared, and the mention of replaced files in the others."""
    store = project.store
    for one in garbage:
        remove(one.path)
    for record in undeclared:
        remove(store.path(record.asset, record.partition))
    for record in store.records():
        store.forget_superseded_files(record)
    _remove_empty(store.warehouse)


def _set_of(record: ArtifactRecord) -> str:
    return "/".join(record.asset.split("/")[:2])


def _is_bookkeeping(path: Path, store: ArtifactStore) -> bool:
    """Whether a file is a record, a memory of what a source looked like, or being written."""
    records = path.is_relative_to(store.root) or path.is_relative_to(store.warehouse / "observed")
    return records or any(map(_TEMPORARY.fullmatch, path.relative_to(store.warehouse).parts))


def _earlier_files(record: ArtifactRecord) -> Iterator[FileFacts]:
    return (fact for result in record.superseded for fact in result.files)


def _open_trainings(project: Project) -> set[Path]:
    """The files of the trainings of declared connectors that have not ended, from which the next build goes on."""
    connectors = {key.path[1] for step in project.steps for key in step.keys if key.path[0] == "connector"}
    paths = project.home.warehouse
    return {file for name in connectors for file in paths.training_run(name).rglob("*")}


def _needed_by_tables(warehouse: Path, needed: set[str]) -> set[Path]:
    """The files of layer tables besides those of their newest version: tags and their versions, Lance's own files."""
    needed_files: set[Path] = set()
    for name in {name.split(".lance/")[0] for name in needed if ".lance/_versions/" in name}:
        table = warehouse / f"{name}.lance"
        needed_files |= {*(table / "_refs").rglob("*"), *(table / "_versions").glob("*.json"), *last_transaction(table)}
        for version in tagged_versions(table):
            needed_files |= {one for file in version_files(table, version) for one in [file, *file.rglob("*")]}
    return needed_files


def _remove_empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), key=lambda one: -len(one.parts)):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
