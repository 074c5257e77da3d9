"""The files of a pulled release that were verified, so that it opens again without reading 10 GB or a request.

The marks lie in the cache of the Hub's client, among the things of libraries (`HF_HOME/assets`). Note: a mark alone
proves nothing. It holds for a file of the same size and modification time, at the same commit.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from latentlens_dag.release.manifest import MANIFEST, ReleaseManifest, read_manifest
from latentlens_dag.storage.files import read_json_object, write_json

_REVISIONS = "revisions.json"


class _Marks(BaseModel):
    """The stored form."""

    model_config = ConfigDict(strict=True)

    files: dict[str, tuple[int, int] | None] = {}
    """Size in bytes and modification time in nanoseconds of each verified file, by path."""
    complete: bool = False


@dataclass(frozen=True)
class VerifiedRelease:
    """What this machine has of a release at one commit."""

    folder: Path
    """The client's snapshot."""
    manifest: ReleaseManifest
    verified: frozenset[str]
    """The paths of files that were verified and have not changed since."""
    marked: frozenset[str]
    """The paths of all files that were verified, also of those that have changed since or are gone."""
    complete: bool
    """Whether the last pull finished."""


def verified_release(repo: str, commit: str) -> VerifiedRelease | None:
    """What this machine has of a release; None where its manifest was not verified, or has changed since."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, MANIFEST, revision=commit, repo_type="dataset")
    marks = _read_marks(_folder(repo) / f"{commit}.json")
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    verified = frozenset(path for path, state in marks.files.items() if state == _state(folder / path))
    if MANIFEST not in verified:
        return None
    manifest = read_manifest(folder / MANIFEST)
    return VerifiedRelease(folder, manifest, verified, frozenset(marks.files), marks.complete)


def record_verified(repo: str, commit: str, folder: Path, verified: Collection[str], complete: bool) -> None:
    """Record that these files of a snapshot are as the manifest says."""
    marks = _Marks(files={path: _state(folder / path) for path in verified}, complete=complete)
    write_json(marks.model_dump(mode="json"), _folder(repo) / f"{commit}.json")


def remembered_commit(repo: str, revision: str) -> str | None:
    """The commit of a branch or tag at the last request."""
    commit = read_json_object(_folder(repo) / _REVISIONS).get(revision)
    return commit if isinstance(commit, str) else None


def remember_commit(repo: str, revision: str, commit: str) -> None:
    """Remember the commit of a branch or tag; of a commit there is nothing to remember."""
    if revision == commit:
        return
    file = _folder(repo) / _REVISIONS
    write_json({**read_json_object(file), revision: commit}, file)


def _folder(repo: str) -> Path:
    from huggingface_hub import cached_assets_path

    return cached_assets_path("latentlens-dag", namespace="releases", subfolder=repo)


def _read_marks(path: Path) -> _Marks:
    try:
        return _Marks.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return _Marks()


def _state(path: Path) -> tuple[int, int] | None:
    """Size in bytes and modification time in nanoseconds of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
