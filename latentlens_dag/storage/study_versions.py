"""The versions of a study's results, and the files of each.

Every build that changes answers or judgements of the study makes a version. `latentlens-dag clean` removes the files of
earlier ones; their numbers are not given again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.schema import LENSES
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileFacts, SupersededResult
from latentlens_dag.storage.shapes import KINDS, read_shape
from latentlens_dag.storage.warehouse import Warehouse

VERSIONED_PARTS = (*LENSES, "judgements")
"""The parts of a study whose superseded results are kept."""


class StudyVersion(NamedTuple):
    """One version of a study."""

    number: int
    """From 1, the oldest."""
    build: str
    created_at: str
    """When its last changed artifact was written, in UTC."""
    changed: list[str]
    """The artifacts that it changed, as study/demo/latentlens/V04[00]."""
    complete: bool
    """Whether all its files are there, so that it can be compared."""


def study_versions(store: ArtifactStore, study: str) -> list[StudyVersion]:
    """The versions of a study, oldest first; none where nothing was built."""
    changed: dict[str, list[tuple[str, str]]] = {}
    records = list(_records(store, study))
    for record in records:
        for result in _results(record):
            changed.setdefault(result.first_built.build, []).append((result.first_built.created_at, record.label))
    builds = sorted(changed, key=lambda build: max(changed[build]))
    return [
        StudyVersion(
            number,
            build,
            max(changed[build])[0],
            sorted({label for _, label in changed[build]}),
            all(file.is_file() for record in records for file in _files(store, record, set(builds[:number]))),
        )
        for number, build in enumerate(builds, start=1)
    ]


def version_files(store: ArtifactStore, study: str, number: int | None = None) -> Mapping[tuple[str, int], list[Path]]:
    """The files of a version of a study, by default of what is there now.

    What is there now is what the study has: files of a layer, lens or batch that its YAML no longer has lie there until
    `clean`, and do not count.

    Returns:
        Per part (lens or judgements) and visual layer, the Parquet files of its batches.

    Raises:
        UserError: where nothing was built, there is no such version, or a file of it is gone.
    """
    versions = study_versions(store, study)
    if not versions:
        raise UserError(f"Nothing is built of study {study!r} here: run `latentlens-dag build {study}` first.")
    chosen = versions[-1].number if number is None else number
    if not 1 <= chosen <= len(versions):
        raise UserError(f"Study {study} has no version {chosen}: it has 1 to {len(versions)} (`status --versions`).")
    past = {version.build for version in versions[:chosen]}
    has = _has(store, study) if number is None else None
    found: dict[tuple[str, int], list[Path]] = {}
    for record in _records(store, study):
        _, _, part, layer = record.asset.split("/")
        for file in _files(store, record, past):
            if has is not None and not has(file):
                continue
            if number is not None and not file.is_file():
                raise UserError(
                    f"A file of {study}@{chosen} is gone ({record.label}): `clean` removed it, or the home's file "
                    "system knows no links, so that earlier results are not kept there."
                )
            found.setdefault((part, int(layer[1:])), []).append(file)
    return found


def _has(store: ArtifactStore, study: str) -> Callable[[Path], bool] | None:
    """Whether a study has a file now, by its `shape.json`; None where there is none, as in homes of old versions."""
    warehouse = Warehouse(store.warehouse)
    shape = read_shape(KINDS["study"], warehouse.shape("study", study))
    return None if shape is None else lambda file: shape.lists(file.relative_to(warehouse.study(study)))


def _files(store: ArtifactStore, record: ArtifactRecord, builds: Collection[str]) -> list[Path]:
    """An artifact's files after some builds; none if it did not exist yet.

    The newest result lies in its own place, whether or not a link keeps it as well.
    """
    current, *superseded = _results(record)
    if current.first_built.build in builds:
        return [store.warehouse / fact.path for fact in current.files]
    result = next((result for result in superseded if result.first_built.build in builds), None)
    if result is None:
        return []
    removed = [FileFacts(record.label, 0, "removed")]  # a file that is not there, for those that `clean` removed
    return [store.kept_path(fact) for fact in result.files or removed]


def _records(store: ArtifactStore, study: str) -> Iterator[ArtifactRecord]:
    for record in store.records(f"study/{study}"):
        if record.asset.split("/")[2] in VERSIONED_PARTS:
            yield record


def _results(record: ArtifactRecord) -> list[ArtifactRecord | SupersededResult]:
    """All results that an artifact had, newest first."""
    return [record, *record.superseded]
