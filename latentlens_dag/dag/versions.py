"""What decides whether an artifact is stale: code versions and the versions of observed sources.

A step's code version is its algorithm's number and exactly the fields of the YAML that it reads.
What a newcomer gets wrong: Dagster's run config does not count for staleness, so no parameter may come
from there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from latentlens_dag.identity import combined, digest, file_digest
from latentlens_dag.remote_code import is_trusted
from latentlens_dag.warehouse import write_text

SOURCE_PATH = "source_path"  # metadata of an observed source: what is hashed
SOURCE_TRUSTED = "source_trusted"  # there, where it is a model whose own code may be run
SOURCE_VERSION = "source_version"  # or, of one that cannot change: its version
SETTINGS = "settings"  # metadata of a step: the algorithm's number and the fields of the YAML that it reads
BUILD_ID = "latentlens/build_id"  # tag of the runs of one build
FORCED = "latentlens/forced"  # tag of a run that is to take nothing from what was built before


def version_of(algorithm: int, **fields: object) -> str:
    """The code version of a step: raise `algorithm` when the same input would give other bytes."""
    return (
        f"{algorithm}-{digest(json.dumps(fields, sort_keys=True, default=str).encode())}" if fields else str(algorithm)
    )


class Versioned(TypedDict):
    """What an asset says of what decides its bytes besides its inputs."""

    code_version: str
    """As `version_of` gives it."""
    metadata: dict[str, Any]
    """The same in words, under SETTINGS."""


def versioned(algorithm: int, **fields: object) -> Versioned:
    """The version of a step, to be handed to its asset."""
    settings = json.loads(json.dumps({"algorithm": algorithm, **fields}, sort_keys=True, default=str))
    return {"code_version": version_of(algorithm, **fields), "metadata": {SETTINGS: settings}}


def settings_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in an asset's metadata, as `versioned` put them there."""
    found = metadata.get(SETTINGS, {})
    return dict(getattr(found, "value", found))


def observed_version(path: Path, memory: Path) -> str:
    """The content hash of a file or folder; files whose size and time are as before are not read again.

    Args:
        path: a file, or a folder whose files all count; where it does not exist, the version is "missing". That a
            model's own code may be run counts too, for it may give other states.
        memory: JSON file that remembers sizes, times and hashes between calls.
    """
    known = _remembered(memory)
    now = {}
    for file, state in file_states(path).items():
        before = known.get(str(file), [None, None, ""])
        now[str(file)] = [*state, before[2] if before[:2] == state else file_digest(file)]
    if now != known:
        write_text(json.dumps(now, indent=1, sort_keys=True), memory)
    base = path if path.is_dir() else path.parent
    names = [f"{Path(file).relative_to(base).as_posix()} {facts[2]}" for file, facts in now.items()]
    return combined([*names, *(["trust_remote_code"] if is_trusted(path) else [])]) if names else "missing"


def file_states(path: Path) -> dict[Path, list[int]]:
    """Size and time (nanoseconds) of a file, or of those of a folder that count, in order; none where it is missing."""
    # A model's card changes no result.
    below = (file for file in path.rglob("*") if file.is_file() and file.name != "README.md")
    files = sorted(below) if path.is_dir() else [path] if path.is_file() else []
    return {file: [(facts := file.stat()).st_size, facts.st_mtime_ns] for file in files}


def _remembered(memory: Path) -> dict[str, list]:
    try:
        found: dict[str, list] = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
