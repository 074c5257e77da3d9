"""Earlier results of a study: which there are, and where their files lie.

A version of a study is what a build left of its answers and judgements; a build that changed none of them makes none.
What a newcomer gets wrong: earlier results are kept until `latentlens-dag clean` only; their numbers stay theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.schema import LENSES
from latentlens_dag.storage.records import ArtifactRecord, ArtifactStore, FileFacts, FirstBuild

VERSIONED_PARTS = (*LENSES, "judgements")
"""The parts of a study whose earlier results are kept."""


class StudyVersion(NamedTuple):
    """One version of a study."""

    number: int
    """From 1, the oldest."""
    build: str
    made: str
    """When its last changed artifact was written, in UTC."""
    changed: list[str]
    """The artifacts that it changed, as study/demo/latentlens/V04[00]."""
    kept: bool
    """Whether its files are all there, so that it can be compared."""


class _State(NamedTuple):
    since: FirstBuild
    files: list[FileFacts]


def study_versions(manifest: ArtifactStore, study: str) -> list[StudyVersion]:
    """The versions of a study, oldest first; none where nothing was built."""
    changed: dict[str, list[tuple[str, str]]] = {}
    records = list(_records(manifest, study))
    for record in records:
        for state in _states(record):
            changed.setdefault(state.since.build, []).append((state.since.made, record.label))
    builds = sorted(changed, key=lambda build: max(changed[build]))
    return [
        StudyVersion(
            number,
            build,
            max(changed[build])[0],
            sorted({label for _, label in changed[build]}),
            all(file.is_file() for record in records for file in _files(manifest, record, set(builds[:number]))),
        )
        for number, build in enumerate(builds, start=1)
    ]


def version_files(
    manifest: ArtifactStore, study: str, number: int | None = None
) -> Mapping[tuple[str, int], list[Path]]:
    """The files of a version of a study, by default of what is there now.

    Returns:
        Per part (lens or judgements) and visual layer, the Parquet files of its batches.

    Raises:
        UserError: where nothing was built, there is no such version, or a file of it is gone.
    """
    versions = study_versions(manifest, study)
    if not versions:
        raise UserError(f"Nothing is built of study {study!r} here: run `latentlens-dag build {study}` first.")
    chosen = versions[-1].number if number is None else number
    if not 1 <= chosen <= len(versions):
        raise UserError(f"Study {study} has no version {chosen}: it has 1 to {len(versions)} (`status --versions`).")
    past = {version.build for version in versions[:chosen]}
    found: dict[tuple[str, int], list[Path]] = {}
    for record in _records(manifest, study):
        _, _, part, layer = record.asset.split("/")
        for file in _files(manifest, record, past):
            if number is not None and not file.is_file():
                raise _gone(f"{study}@{chosen}", record)
            found.setdefault((part, int(layer[1:])), []).append(file)
    return found


def _files(manifest: ArtifactStore, record: ArtifactRecord, builds: Collection[str]) -> list[Path]:
    """What an artifact's files were after some builds; none where it was not there yet.

    What is there now lies in its own place, whether or not a link keeps it as well.
    """
    now, *before = _states(record)
    if now.since.build in builds:
        return [manifest.warehouse / fact.path for fact in now.files]
    state = next((state for state in before if state.since.build in builds), None)
    if state is None:
        return []
    gone = [FileFacts(record.label, 0, "removed")]  # what `clean` removed is told as a file that is not there
    return [manifest.kept(fact) for fact in state.files or gone]


def _gone(version: str, record: ArtifactRecord) -> UserError:
    return UserError(
        f"A file of {version} is gone ({record.label}): `clean` removed it, or the home's file system knows no links, "
        "so that earlier results are not kept there."
    )


def _records(manifest: ArtifactStore, study: str) -> Iterator[ArtifactRecord]:
    for record in manifest.records(f"study/{study}"):
        if record.asset.split("/")[2] in VERSIONED_PARTS:
            yield record


def _states(record: ArtifactRecord) -> list[_State]:
    """What an artifact was, the newest first."""
    return [_State(record.since, record.files), *(_State(one.since, one.files) for one in record.earlier)]
