"""What in a warehouse belongs to nothing: left by a kill, replaced by a newer result, or of what is declared no more.

What a newcomer gets wrong: age says nothing here. A file is needed if the record of a live artifact lists it, or if a
version of a layer table that somebody tagged needs it; all else is garbage, however new, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from latentlens_dag.index.layer_tables import last_transaction, tagged_versions, version_files
from latentlens_dag.storage.files import remove
from latentlens_dag.storage.leftovers import _TEMPORARY, Garbage, interrupted_writes
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileFacts


def garbage(manifest: ArtifactStore, live: Callable[[ArtifactRecord], bool]) -> list[Garbage]:
    """Every file of the warehouse that nothing needs, but for the records themselves.

    Args:
        manifest: of the warehouse.
        live: whether an artifact is still declared.
    """
    records = list(manifest.records())
    lasting = [fact for record in records if live(record) for fact in record.files]
    needed = {fact.path for fact in lasting}
    links = {manifest.kept_path(fact) for fact in lasting}  # by which they stay comparable once they are replaced
    known = {fact.path for record in records for fact in [*record.files, *_earlier_files(record)]}
    left = interrupted_writes(manifest.warehouse)
    skipped = {path for one in left for path in [one.path, *one.path.rglob("*")]}
    tables = _needed_by_tables(manifest.warehouse, needed)
    found = list(left)
    for path in sorted(manifest.warehouse.rglob("*")):
        if not path.is_file() or path in skipped or _TEMPORARY.fullmatch(path.name) or _is_ours(path, manifest):
            continue
        name = path.relative_to(manifest.warehouse).as_posix()
        if name not in needed and path not in links and path not in tables:
            undeclared = name in known and not _replaced(name, records, live)
            found.append(Garbage(path, _freed(path), "not declared" if undeclared else "replaced"))
    return found


def undeclared_records(manifest: ArtifactStore, live: Callable[[ArtifactRecord], bool]) -> list[ArtifactRecord]:
    """The records of artifacts that are declared no more."""
    return [record for record in manifest.records() if not live(record)]


def clean(manifest: ArtifactStore, found: Iterable[Garbage], live: Callable[[ArtifactRecord], bool]) -> None:
    """Remove garbage, and the records of what is gone; records of what stays forget what they replaced."""
    for one in found:
        remove(one.path)
    for record in undeclared_records(manifest, live):
        remove(manifest.path(record.asset, record.partition))
    for record in manifest.records():
        manifest.forget_superseded_files(record)
    _remove_empty(manifest.warehouse)


def _is_ours(path: Path, manifest: ArtifactStore) -> bool:
    """Whether a file is bookkeeping: records, and what sources looked like."""
    return path.is_relative_to(manifest.root) or path.is_relative_to(manifest.warehouse / "observed")


def _replaced(name: str, records: list[ArtifactRecord], live: Callable[[ArtifactRecord], bool]) -> bool:
    """Whether a live artifact had this file once."""
    return any(live(record) and any(fact.path == name for fact in _earlier_files(record)) for record in records)


def _earlier_files(record: ArtifactRecord) -> Iterator[FileFacts]:
    return (fact for result in record.superseded for fact in result.files)


def _needed_by_tables(warehouse: Path, needed: set[str]) -> set[Path]:
    """What layer tables need besides the files of their newest version: tags and their versions, Lance's own notes."""
    found: set[Path] = set()
    for name in {name.split(".lance/")[0] for name in needed if ".lance/_versions/" in name}:
        table = warehouse / f"{name}.lance"
        found |= {*(table / "_refs").rglob("*"), *(table / "_versions").glob("*.json"), *last_transaction(table)}
        for version in tagged_versions(table):
            found |= {one for file in version_files(table, version) for one in [file, *file.rglob("*")]}
    return found


def _freed(path: Path) -> int:
    facts = path.stat()
    return facts.st_size if facts.st_nlink == 1 else 0


def _remove_empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), key=lambda one: -len(one.parts)):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
