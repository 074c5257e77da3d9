"""What of a pulled release was looked at, so that it opens again without reading 10 GB and without asking the Hub.

The marks lie in the cache of the Hub's client, among the things of libraries (`HF_HOME/assets`). What a newcomer gets
wrong: a mark is worth nothing by itself. It holds for a file of the same size and time of change, at the same commit.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from latentlens_dag.release.manifest import MANIFEST, ReleaseManifest, read_manifest
from latentlens_dag.storage.files import read_json_object, write_json

_REFS = "revisions.json"


@dataclass(frozen=True)
class VerifiedRelease:
    """What is here of a release at one commit."""

    folder: Path
    """The client's snapshot."""
    manifest: ReleaseManifest
    verified: frozenset[str]
    """The paths that were looked at and are as they were then."""
    marked: frozenset[str]
    """The paths that were looked at, with those that have changed since, or are gone."""
    complete: bool
    """Whether the last pull came to its end."""


def verified_release(repo: str, commit: str) -> VerifiedRelease | None:
    """What is here of a release; None where not even its manifest was verified, or has changed since."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, MANIFEST, revision=commit, repo_type="dataset")
    marks = read_json_object(_place(repo) / f"{commit}.json")
    files = marks.get("files", {})
    if not isinstance(found, str) or not isinstance(files, dict):
        return None
    folder = Path(found).parent
    verified = frozenset(path for path, state in files.items() if state == _state(folder / path))
    if MANIFEST not in verified:
        return None
    manifest = read_manifest(folder / MANIFEST)
    return VerifiedRelease(folder, manifest, verified, frozenset(files), marks.get("complete") is True)


def record_verified(repo: str, commit: str, folder: Path, verified: Collection[str], complete: bool) -> None:
    """Keep that these files of a snapshot were looked at, and were right."""
    states = {path: _state(folder / path) for path in verified}
    write_json({"files": states, "complete": complete}, _place(repo) / f"{commit}.json")


def remembered_commit(repo: str, revision: str) -> str | None:
    """The commit that a branch or tag was when the Hub was last asked."""
    commit = read_json_object(_place(repo) / _REFS).get(revision)
    return commit if isinstance(commit, str) else None


def remember_commit(repo: str, revision: str, commit: str) -> None:
    """Keep which commit a branch or tag is; a commit is itself."""
    if revision == commit:
        return
    known = read_json_object(_place(repo) / _REFS)
    write_json({**known, revision: commit}, _place(repo) / _REFS)


def _place(repo: str) -> Path:
    from huggingface_hub import cached_assets_path

    return cached_assets_path("latentlens-dag", namespace="releases", subfolder=repo)


def _state(path: Path) -> list[int] | None:
    """Size and time of the last change of a file, in bytes and nanoseconds."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
