"""What publishing a release would change on the Hub: the staged folder, what a repository holds, and the difference.

Only reading and comparing belong here; `publish.py` acts. What a newcomer gets wrong: a repository holds files that
are not ours, .gitattributes at least. Only what the manifest of the release there lists may be replaced or deleted.
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
_MADE_WITH_IT = frozenset({".gitattributes", "README.md"})  # by the Hub, when a repository is created
_TOLD = 3

ProgressLine = Callable[[str], None]
"""Takes a line that says how far it is."""


@dataclass(frozen=True)
class StagedRelease:
    """A release in a folder, whose files are as its manifest says."""

    folder: Path
    manifest: ReleaseManifest
    files: Mapping[str, ReleaseFile]
    """By path, with the manifest itself."""


class RemoteFile(NamedTuple):
    """A file of a repository."""

    size: int
    """In bytes."""
    sha256: str | None
    """None for a file that git itself holds."""
    blob_id: str
    """What git calls the content, or the pointer to it."""


@dataclass(frozen=True)
class RepoTree:
    """What a repository holds at a commit."""

    commit: str | None
    """None where there is no repository yet."""
    private: bool
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True)
class PublicationPlan:
    """What a publication changes."""

    repo_id: str
    """user/name."""
    parent: str | None
    """The commit of main that it was made for; None where the repository is to be created."""
    adds: tuple[ReleaseFile, ...]
    replacements: tuple[ReleaseFile, ...]
    deletions: tuple[str, ...]
    """Paths, which an earlier release listed."""
    unchanged: tuple[ReleaseFile, ...]
    upload_bytes: int
    """Of the files that are added or replaced, but for contents that the repository has under another name."""

    @property
    def changed(self) -> tuple[ReleaseFile, ...]:
        """The files that are to be sent."""
        return self.adds + self.replacements

    @property
    def empty(self) -> bool:
        """Whether the repository holds the release already."""
        return not (self.changed or self.deletions)


def read_staged_release(folder: Path, tell: ProgressLine = lambda _: None) -> StagedRelease:
    """The release in a folder; every file is read and compared with the manifest.

    Raises:
        UserError: where there is no release, or a file is missing, or has another size or content.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is no release: it has no {MANIFEST}. `latentlens-dag build` stages those declared.")
    content = (folder / MANIFEST).read_bytes()
    manifest = read_manifest(content)
    tell(f"Checking {len(manifest.files):,} files of {folder}")
    if damaged := [told for file in manifest.files if (told := _damage(folder, file))]:
        more = f", and {len(damaged) - _TOLD:,} more" if len(damaged) > _TOLD else ""
        raise UserError(
            f"The release in {folder} is damaged, and is not published: {', '.join(damaged[:_TOLD])}{more}. Was "
            "something changed by hand? Delete the folder and build the release again."
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
    """What a repository of the Hub holds.

    Args:
        repo_id: user/name.
        revision: a branch, tag, pull request (`refs/pr/1`) or commit.

    Raises:
        HubError: where the Hub refuses or fails; not where there is no such repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api, doing = HfApi(), f"Reading what {repo_id} holds"
    try:
        info = call_hub(partial(api.dataset_info, repo_id, revision=revision, expand=["sha", "private"]), doing)
    except HubError as failure:
        if failure.missing:
            return RepoTree(None, False, {})
        raise
    entries = call_hub(
        lambda: list(api.list_repo_tree(repo_id, recursive=True, revision=info.sha, repo_type=REPO_TYPE)), doing
    )
    files = {
        one.path: RemoteFile(one.size, one.lfs.sha256 if one.lfs else None, one.blob_id)
        for one in entries
        if isinstance(one, RepoFile)
    }
    return RepoTree(info.sha, bool(info.private), files)


def replaceable_files(staged: StagedRelease, repo_id: str, tree: RepoTree) -> Set[str]:
    """The files that belong to the release that a repository holds, so that a new one may replace or delete them.

    Raises:
        UserError: where it holds another release, or something that is no release.
        HubError: where its manifest cannot be read.
    """
    if MANIFEST not in tree.files:
        if other := sorted(tree.files.keys() - _MADE_WITH_IT):
            shown = ", ".join(map(ascii, other[:_TOLD]))
            raise UserError(
                f"{repo_id} of the Hub holds something that is no release ({shown}), and is left as it is. Publish to "
                "a new repository, or remove what is there first."
            )
        return _MADE_WITH_IT & tree.files.keys()
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
    content = call_hub(partial(_fetched, repo_id, tree), f"Reading the {MANIFEST} of {repo_id}")
    try:
        return read_manifest(content)
    except UserError as error:
        raise UserError(f"{refusal}, or one that this version does not read. {error}") from error


def _fetched(repo_id: str, tree: RepoTree) -> bytes:
    """The manifest of a repository, as its tree says."""
    from huggingface_hub import hf_hub_download

    there = tree.files[MANIFEST]
    with TemporaryDirectory() as folder:
        path = hf_hub_download(repo_id, MANIFEST, repo_type=REPO_TYPE, revision=tree.commit, local_dir=folder)
        content = Path(path).read_bytes()
    if not _is_content(content, there):
        raise ValueError("Other bytes than the repository holds.")
    return content


def plan_changes(staged: StagedRelease, repo_id: str, tree: RepoTree, ours: Set[str]) -> PublicationPlan:
    """What is to change so that a repository holds the release and nothing else of ours.

    Args:
        staged: the release.
        repo_id: user/name.
        tree: what main holds.
        ours: the files that may be replaced or deleted (`replaceable_files`).

    Raises:
        UserError: where a file that is not ours has a name of the release's.
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
    deletions = tuple(sorted((ours & tree.files.keys()) - staged.files.keys() - _MADE_WITH_IT))
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
