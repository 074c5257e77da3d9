"""The plan of a publication: the differences between a staged release and a repository of the Hub.

This module reads and compares; `publish.py` acts. Note: a repository has files of others, .gitattributes at least. Only
files that the manifest of its present release lists may be replaced or deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from latentlens_dag.errors import UserError
from latentlens_dag.hub.client import HubError, call_hub, git_blob_id
from latentlens_dag.release.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    ReleaseFile,
    ReleaseManifest,
    file_sha256,
    read_manifest,
)

REPO_TYPE = "dataset"
"""Of repositories, as the client calls it."""
MAIN = "main"
_HUB_FILES = frozenset({".gitattributes", "README.md"})  # made by the Hub with a repository
_LISTED_FILES = 3

ProgressLine = Callable[[str], None]
"""Takes a line about the progress."""


@dataclass(frozen=True)
class StagedRelease:
    """A release in a folder, verified against its manifest."""

    folder: Path
    manifest: ReleaseManifest
    files: Mapping[str, ReleaseFile]
    """By path, with the manifest itself."""


class RemoteFile(NamedTuple):
    """A file of a repository."""

    size: int
    """In bytes."""
    sha256: str | None
    """None for a file in git itself."""
    blob_id: str
    """Git's hash of the content, or of the pointer to it."""


@dataclass(frozen=True)
class RepoTree:
    """The files of a repository at a commit."""

    commit: str | None
    """None where there is no repository yet."""
    private: bool
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True)
class PublicationPlan:
    """The changes that a publication makes."""

    repo_id: str
    """user/name."""
    parent: str | None
    """The commit of main that it was compared with; None where the repository is to be created."""
    adds: tuple[ReleaseFile, ...]
    replacements: tuple[ReleaseFile, ...]
    deletions: tuple[str, ...]
    """Paths that an earlier release listed."""
    unchanged: tuple[ReleaseFile, ...]
    upload_bytes: int
    """Size of added and replaced files, without contents that the repository has under another name."""

    @property
    def changed(self) -> tuple[ReleaseFile, ...]:
        """The files to upload."""
        return self.adds + self.replacements

    @property
    def empty(self) -> bool:
        """Whether the repository holds the release already."""
        return not (self.changed or self.deletions)


def read_staged_release(folder: Path, tell: ProgressLine = lambda _: None) -> StagedRelease:
    """Read the release in a folder and compare every file with its manifest.

    Raises:
        UserError: where there is no release, or a file is missing, or has another size or content.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is no release: it has no {MANIFEST}. `latentlens-dag build` stages those declared.")
    content = (folder / MANIFEST).read_bytes()
    manifest = read_manifest(content)
    tell(f"Checking {len(manifest.files):,} files of {folder}")
    if damaged := [damage for file in manifest.files if (damage := _damage(folder, file))]:
        more = f", and {len(damaged) - _LISTED_FILES:,} more" if len(damaged) > _LISTED_FILES else ""
        raise UserError(
            f"The release in {folder} is damaged, and is not published: {', '.join(damaged[:_LISTED_FILES])}{more}. "
            "Was something changed by hand? Delete the folder and build the release again."
        )
    itself = ReleaseFile(MANIFEST, len(content), hashlib.sha256(content).hexdigest())
    return StagedRelease(folder, manifest, {file.path: file for file in (*manifest.files, itself)})


def _damage(folder: Path, file: ReleaseFile) -> str | None:
    path = folder / file.path
    if path.is_symlink() or not path.is_file():
        return f"{file.path} is missing"
    if path.stat().st_size != file.size:
        return f"{file.path} has {path.stat().st_size:,} bytes, not {file.size:,}"
    return None if file_sha256(path) == file.sha256 else f"{file.path} has another content"


def read_tree(repo_id: str, revision: str = MAIN) -> RepoTree:
    """List the files of a repository of the Hub.

    Args:
        repo_id: user/name.
        revision: a branch, tag, pull request (`refs/pr/1`) or commit.

    Raises:
        HubError: where the Hub refuses or fails; not where there is no such repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api, action = HfApi(), f"Reading what {repo_id} holds"
    try:
        info = call_hub(partial(api.dataset_info, repo_id, revision=revision, expand=["sha", "private"]), action)
    except HubError as failure:
        if failure.missing:
            return RepoTree(None, False, {})
        raise
    entries = call_hub(
        lambda: list(api.list_repo_tree(repo_id, recursive=True, revision=info.sha, repo_type=REPO_TYPE)), action
    )
    files = {
        one.path: RemoteFile(one.size, one.lfs.sha256 if one.lfs else None, one.blob_id)
        for one in entries
        if isinstance(one, RepoFile)
    }
    return RepoTree(info.sha, bool(info.private), files)


def replaceable_files(staged: StagedRelease, repo_id: str, tree: RepoTree) -> Set[str]:
    """The files of a repository's present release, which a new one may replace or delete.

    Raises:
        UserError: where it holds another release, or something that is no release.
        HubError: where its manifest cannot be read.
    """
    if MANIFEST not in tree.files:
        if other := sorted(tree.files.keys() - _HUB_FILES):
            shown = ", ".join(map(ascii, other[:_LISTED_FILES]))
            raise UserError(
                f"{repo_id} of the Hub holds something that is no release ({shown}), and is left as it is. Publish to "
                "a new repository, or remove what is there first."
            )
        return _HUB_FILES & tree.files.keys()
    before = _remote_manifest(staged, repo_id, tree)
    if (before.kind, before.name) != (staged.manifest.kind, staged.manifest.name):
        raise UserError(
            f"{repo_id} of the Hub holds another release ({before.name}, {before.kind}) than the one to be published "
            f"({staged.manifest.name}, {staged.manifest.kind}). Name another repository, or remove what is there first."
        )
    return {file.path for file in before.files} | {MANIFEST, "README.md"}


def _remote_manifest(staged: StagedRelease, repo_id: str, tree: RepoTree) -> ReleaseManifest:
    there = tree.files[MANIFEST]
    if _same(staged, staged.files[MANIFEST], there):
        return staged.manifest
    refusal = f"{repo_id} of the Hub holds a {MANIFEST} that is of no release, and is left as it is"
    if there.size > MAX_MANIFEST_BYTES:
        raise UserError(f"{refusal}: it has {there.size:,} bytes. Publish to another repository.")
    content = call_hub(partial(_download_manifest, repo_id, tree), f"Reading the {MANIFEST} of {repo_id}")
    try:
        return read_manifest(content)
    except UserError as error:
        raise UserError(f"{refusal}, or one that this version does not read. {error}") from error


def _download_manifest(repo_id: str, tree: RepoTree) -> bytes:
    """Download the manifest of a repository and check it against its tree."""
    from huggingface_hub import hf_hub_download

    there = tree.files[MANIFEST]
    with TemporaryDirectory() as folder:
        path = hf_hub_download(repo_id, MANIFEST, repo_type=REPO_TYPE, revision=tree.commit, local_dir=folder)
        content = Path(path).read_bytes()
    if not _is_content(content, there):
        raise ValueError("Other bytes than the repository holds.")
    return content


def plan_changes(staged: StagedRelease, repo_id: str, tree: RepoTree, ours: Set[str]) -> PublicationPlan:
    """The changes after which a repository holds the release and no file of an earlier one.

    Args:
        staged: the release.
        repo_id: user/name.
        tree: the files of main.
        ours: the files that may be replaced or deleted (`replaceable_files`).

    Raises:
        UserError: where a file of somebody else has the path of a file of the release.
    """
    adds = tuple(file for path, file in staged.files.items() if path not in tree.files)
    present = [file for path, file in staged.files.items() if path in tree.files]
    same = {file.path: _same(staged, file, tree.files[file.path]) for file in present}
    unchanged = tuple(file for file in present if same[file.path])
    replaced = tuple(file for file in present if not same[file.path])
    if others := [file.path for file in replaced if file.path not in ours]:
        raise UserError(
            f"{repo_id} of the Hub holds {others[0]}, which its release does not list, so that somebody else put it "
            "there. It is left as it is: rename or remove it there first."
        )
    deletions = tuple(sorted((ours & tree.files.keys()) - staged.files.keys() - _HUB_FILES))
    held = {file.sha256 for file in tree.files.values()}
    size = sum(file.size for file in (*adds, *replaced) if file.sha256 not in held)
    return PublicationPlan(repo_id, tree.commit, adds, replaced, deletions, unchanged, size)


def _same(staged: StagedRelease, file: ReleaseFile, there: RemoteFile) -> bool:
    if there.size != file.size or there.sha256 is not None:
        return (there.size, there.sha256) == (file.size, file.sha256)
    return _is_content((staged.folder / file.path).read_bytes(), there)


def _is_content(content: bytes, there: RemoteFile) -> bool:
    if there.sha256 is not None:
        return hashlib.sha256(content).hexdigest() == there.sha256
    return git_blob_id(content) == there.blob_id
