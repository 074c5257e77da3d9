"""The versions that decide whether an artifact is stale: code versions, and those of observed sources.

A step's code version is its algorithm's number and exactly the fields of the YAML that it reads. Note: Dagster's run
config does not count for staleness, so no parameter may come from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from latentlens_dag.models.model_ref import ModelRef
from latentlens_dag.storage.file_hashes import FileHasher, content_hash, file_hashes, file_states
from latentlens_dag.storage.hashing import hash_bytes, hash_values

SOURCE_PATH = "source_path"  # metadata of an observed source: the file or folder that is hashed
SOURCE_MODEL = "source_model"  # there, where the folder is a model's: the model
SOURCE_VERSION = "source_version"  # or, of one that cannot change: its version
SETTINGS = "settings"  # metadata of a step: the algorithm's number and the fields of the YAML that it reads


def version_of(algorithm: int, **fields: object) -> str:
    """The code version of a step: raise `algorithm` when the same input would give other bytes."""
    if not fields:
        return str(algorithm)
    return f"{algorithm}-{hash_bytes(json.dumps(fields, sort_keys=True, default=str).encode())}"


class VersionFields(TypedDict):
    """The arguments of an asset that say what decides its bytes besides its inputs."""

    code_version: str
    """As `version_of` gives it."""
    metadata: dict[str, Any]
    """The same in readable form, under SETTINGS."""


def version_fields(algorithm: int, **fields: object) -> VersionFields:
    """The version of a step, as arguments of its asset."""
    settings = json.loads(json.dumps({"algorithm": algorithm, **fields}, sort_keys=True, default=str))
    return {"code_version": version_of(algorithm, **fields), "metadata": {SETTINGS: settings}}


def settings_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in an asset's metadata (`version_fields`)."""
    return dict(fact_of(metadata, SETTINGS) or {})


def source_version(metadata: Mapping[str, Any], memory: Path, hasher: FileHasher = content_hash) -> str | None:
    """The present version of an observed source, by its asset's metadata; None for other assets."""
    if (model := fact_of(metadata, SOURCE_MODEL)) is not None:
        return content_version(ModelRef.from_json(model), memory, hasher=hasher)
    if (path := fact_of(metadata, SOURCE_PATH)) is not None:
        return content_version(Path(path), memory, hidden=True, hasher=hasher)
    version: str | None = fact_of(metadata, SOURCE_VERSION)
    return version


def source_file_states(metadata: Mapping[str, Any]) -> dict[Path, list[int]]:
    """The files of an observed source as `file_states` gives them; none for other assets, or a source of the Hub."""
    path = fact_of(metadata, SOURCE_PATH)
    return {} if path is None else file_states(Path(path), hidden=SOURCE_MODEL not in metadata)


def fact_of(metadata: Mapping[str, Any], name: str) -> Any:
    """A value of an asset's metadata, whether or not Dagster has wrapped it; None where there is none."""
    fact = metadata.get(name)
    return getattr(fact, "value", fact)


def content_version(
    source: Path | ModelRef, memory: Path, hidden: bool = False, hasher: FileHasher = content_hash
) -> str:
    """The content hash of a file or folder; files whose size and time are as before are not read again.

    Args:
        source: a file, a folder, or a model; one that does not exist has the version "missing". A commit of the Hub is
            its own version. Consent to a model's own code counts too, for the code may give other states.
        memory: JSON file that caches sizes, times and hashes between calls.
        hidden: as of `file_states`.
        hasher: as of `file_hashes`.
    """
    if isinstance(source, Path):
        return hashes_version(file_hashes(source, memory, hidden, hasher), source)
    if source.path is None:
        return source.version
    return hashes_version(file_hashes(source.path, memory, hidden, hasher), source.path, source.version_marks)


def hashes_version(hashes: Mapping[str, str], path: Path, marks: Iterable[str] = ()) -> str:
    """The `content_version` of a file or folder whose files have these hashes (`file_hashes`)."""
    base = path if path.is_dir() else path.parent
    start = os.path.join(base, "")  # noqa: PTH118 - with the slash
    names = [f"{file.removeprefix(start).replace(os.sep, '/')} {digest}" for file, digest in hashes.items()]
    return hash_values([*names, *marks]) if names else "missing"
